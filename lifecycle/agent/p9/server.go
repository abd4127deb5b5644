package p9

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A Config says what a server serves. The zero value of a limit means the
// default.
type Config struct {
	// Exports by the name that a client attaches with: the mount option aname,
	// which is "" where the guest names none.
	Exports map[string]*Export
	// MaxMsize is the longest message in bytes, 512 KiB by default.
	MaxMsize int
	// MaxRequests is how many requests of one connection are at work at once,
	// 16 by default; what comes then waits in the connection.
	MaxRequests int
	// MaxConns is how many connections are served at once, 128 by default: each
	// mount is one.
	MaxConns int
	// MaxBuffers is how many messages longer than 16 KiB are in memory at once,
	// over all connections, 64 by default. With MaxMsize it bounds the memory
	// of messages, but for 32 KiB of each request at work.
	MaxBuffers int
	// MaxFids is how many fids all connections have, by default as many as the
	// process has descriptors for (a quarter of RLIMIT_NOFILE, at most 262144).
	// Beyond it the guest gets ENFILE.
	MaxFids int
	// Log gets what a guest did wrong; nil discards.
	Log *slog.Logger
}

// A Server speaks 9P2000.L with the guests' kernels.
type Server struct {
	cfg     Config
	fids    atomic.Int64  // still to be had
	conns   atomic.Int64  // still to be had
	large   chan struct{} // has one in it for each large buffer in use
	buffers sync.Pool     // *[]byte of MaxMsize
}

// NewServer returns a server; there is nothing to close but the exports.
func NewServer(cfg Config) (*Server, error) {
	set := func(v *int, def, lo, hi int, what string) error {
		if *v == 0 {
			*v = def
		}
		if *v < lo || *v > hi {
			return fmt.Errorf("9p: %s %d: not in %d to %d", what, *v, lo, hi)
		}
		return nil
	}
	err := errors.Join(
		set(&cfg.MaxMsize, 512<<10, minMsize, 16<<20, "message size"),
		set(&cfg.MaxRequests, 16, 1, 1024, "requests"),
		set(&cfg.MaxConns, 128, 1, 1024, "connections"),
		set(&cfg.MaxBuffers, 64, 1, 1024, "buffers"),
		set(&cfg.MaxFids, defaultFids(), 1, 1<<20, "fids"))
	if err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, large: make(chan struct{}, cfg.MaxBuffers)}
	s.fids.Store(int64(cfg.MaxFids))
	s.conns.Store(int64(cfg.MaxConns))
	return s, nil
}

// Serve serves the connections that l accepts until ctx ends or l is closed,
// and waits for them. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			if err == nil {
				conn.Close()
			}
			return nil
		case err != nil:
			return err
		}
		wg.Go(func() { // ends with the connection, or with ctx
			if err := s.ServeConn(ctx, conn); err != nil {
				s.cfg.Log.Warn("9p connection ended", "err", err)
			}
		})
	}
}

// errProtocol is what ends a connection: from here on the two sides cannot
// agree any more on what a byte means.
var errProtocol = errors.New("not 9P2000.L")

// ServeConn serves one client until it hangs up, breaks the protocol, or ctx
// ends, and closes the connection. When it returns nothing of the client's is
// open or at work any more.
func (s *Server) ServeConn(ctx context.Context, conn io.ReadWriteCloser) error {
	defer conn.Close()
	if s.conns.Add(-1) < 0 {
		s.conns.Add(1)
		return fmt.Errorf("9p: more than %d connections", s.cfg.MaxConns)
	}
	defer s.conns.Add(1)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	c := newSession(s, conn, ctx.Done())
	err := c.serve()
	conn.Close() // whoever is stuck in a reply comes loose
	c.wait()
	c.close()
	if err == io.EOF || ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("9p: %w", err)
}

// smallBuffer is what every message but the bulk ones fits into.
const smallBuffer = 16 << 10

// buffer returns room for n bytes, n at most MaxMsize; giveBack takes it. For a
// large one it waits until there is one to be had, or stop ends.
func (s *Server) buffer(n int, stop <-chan struct{}) (*[]byte, error) {
	if n <= smallBuffer {
		if b, ok := smallBuffers.Get().(*[]byte); ok {
			return b, nil
		}
		b := make([]byte, smallBuffer)
		return &b, nil
	}
	select {
	case s.large <- struct{}{}:
	case <-stop:
		return nil, unix.EINTR
	}
	if b, ok := s.buffers.Get().(*[]byte); ok {
		return b, nil
	}
	b := make([]byte, s.cfg.MaxMsize) // more than a small one, or n were not
	return &b, nil
}

func (s *Server) giveBack(b *[]byte) {
	if len(*b) == smallBuffer {
		smallBuffers.Put(b)
		return
	}
	s.buffers.Put(b)
	<-s.large
}

// smallBuffers are the same for every server.
var smallBuffers sync.Pool
