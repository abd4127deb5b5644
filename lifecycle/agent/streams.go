package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"sekimori/lifecycle/linux"
)

// streams join the standard streams of a process in the machine to files of
// the host. What the host's files hold goes one way, what the process writes
// the other; each on a goroutine that ends with the stream.
type streams struct {
	host    *Host
	stdio   stdio
	pending [3]*pending
	files   [3]*os.File // ours, copies of the caller's; nil for none
	gone    <-chan struct{}

	quit   *os.File // closing it ends the reading of input
	in     sync.WaitGroup
	out    sync.WaitGroup
	conns  []net.Conn
	finish sync.Once

	mu     sync.Mutex // mu guards closing of files against size
	closed bool
}

// newStreams makes copies of the caller's files, and names for their streams.
func (c *Client) newStreams(files [3]*os.File, terminal bool) (*streams, error) {
	s := &streams{host: c.host, gone: c.Gone()}
	s.stdio.Terminal = terminal
	if terminal {
		if files[0] == nil {
			return nil, errors.New("a terminal is wanted, but standard input is none")
		}
		files[1], files[2] = nil, nil
	}
	for i, f := range files {
		if f == nil || !terminal && isNull(f) {
			continue // the guest has a /dev/null of its own
		}
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			s.abandon()
			return nil, os.NewSyscallError("dup", err)
		}
		s.files[i] = os.NewFile(uintptr(fd), f.Name())
		p := c.host.expect()
		s.pending[i], s.stdio.Streams[i] = &p, p.name
	}
	if !terminal {
		return s, nil
	}
	// The guest's terminal has the line discipline; this one only carries bytes.
	if _, err := term.MakeRaw(int(s.files[0].Fd())); err != nil {
		s.abandon()
		return nil, fmt.Errorf("terminal: %w", err)
	}
	s.stdio.Rows, s.stdio.Cols = s.size()
	return s, nil
}

// isNull reports whether a file is /dev/null.
func isNull(f *os.File) bool {
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}

// size is that of the host's terminal, 0 if unknown.
func (s *streams) size() (rows, cols uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, 0
	}
	w, err := unix.IoctlGetWinsize(int(s.files[0].Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return w.Row, w.Col
}

// abandon lets go of everything when the process was not made.
func (s *streams) abandon() {
	for i, p := range s.pending {
		if p != nil {
			s.host.forget(*p)
		}
		if s.files[i] != nil {
			s.files[i].Close()
		}
	}
}

// connect takes the connections that the agent has opened, and starts to copy.
func (s *streams) connect(ctx context.Context) error {
	r, w, err := os.Pipe()
	if err != nil {
		s.abandon()
		return err
	}
	s.quit = w
	input, output := false, false
	for i, p := range s.pending {
		if p == nil {
			continue
		}
		conn, err := s.host.take(ctx, *p)
		if err != nil {
			r.Close()
			s.end()
			s.abandon()
			return err
		}
		s.conns = append(s.conns, conn)
		if i == 0 {
			input = true
			s.in.Go(func() { // ends when quit is closed, or with the input
				defer r.Close()
				linux.CopyInput(conn, s.files[0], r)
				if c, ok := conn.(interface{ CloseWrite() error }); ok && !s.stdio.Terminal {
					c.CloseWrite()
				}
			})
		}
		if i > 0 || s.stdio.Terminal {
			output = true
			s.out.Go(func() { // ends with the connection
				io.Copy(s.files[i], conn)
				conn.Close()
			})
		}
	}
	if !input {
		r.Close()
	}
	if output {
		go func() { // ends with the streams, at the latest with the machine
			s.out.Wait()
			s.end()
		}()
	}
	return nil
}

// drain waits for the last output, but not for a process left behind that holds
// a stream open. What would still be read of the input has no reader any more.
func (s *streams) drain() {
	if s.quit != nil {
		defer s.quit.Close()
	}
	done := make(chan struct{})
	go func() { // ends with the streams
		s.out.Wait()
		close(done)
	}()
	t := time.NewTimer(linux.OutputGrace)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	case <-s.gone:
	}
}

// end closes everything. It may be called more than once.
func (s *streams) end() {
	s.finish.Do(func() {
		if s.quit != nil {
			s.quit.Close()
		}
		for _, c := range s.conns {
			c.Close()
		}
		go func() { // ends as soon as the copies notice
			s.in.Wait()
			s.out.Wait()
			s.mu.Lock()
			defer s.mu.Unlock()
			s.closed = true
			for _, f := range s.files {
				if f != nil {
					f.Close()
				}
			}
		}()
	})
}
