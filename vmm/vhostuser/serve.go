package vhostuser

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"sekimori/vmm/guestmem"
	"sekimori/vmm/virtio"
)

// A Config configures a connection.
type Config struct {
	// Device is what is served. It is of this connection alone.
	Device virtio.Device
	// MaxMemory bounds the RAM that the guest may share, in bytes. Where its file
	// has a hole, the device's own reads and writes make pages.
	MaxMemory uint64
	// Memory, if not nil, is told of the guest's memory whenever it changes,
	// before any queue uses it, and of nil when it is gone: it stays readable
	// through a late access, which gets an error. It is called on the goroutine
	// of Serve, as everything that the guest asks for is.
	Memory func(*guestmem.Memory)
	// Log takes what the guest did to itself; nil discards it.
	Log *slog.Logger
}

// A session is one connection. Its fields are of Serve's
// goroutine, but for call and for what says otherwise.
type session struct {
	cfg  Config
	wire *wire
	call *caller

	// What the peer negotiated; 0 until it did.
	features uint64
	protocol uint64
	owned    bool

	mem     *guestmem.Memory
	regions []memRegion
	tables  int // how many tables of memory were taken
	rings   []vring
	breaks  atomic.Int32 // how often a queue was broken; from any goroutine

	// Of the request being served.
	answered bool   // it has its own answer
	status   uint64 // what to acknowledge it with
}

// Serve serves a device to the peer on conn until the peer hangs up, which is
// no error, breaks the protocol, which is a [*ProtocolError], or ctx is done.
// It closes conn. When it returns the device is stopped and the guest's memory
// given back.
func Serve(ctx context.Context, conn *net.UnixConn, cfg Config) error {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxMemory == 0 {
		return errors.Join(errors.New("vhost-user: no bound for the guest's memory"), conn.Close())
	}
	fd, err := blocking(conn)
	if err != nil {
		return fmt.Errorf("vhost-user: %w", err)
	}
	defer unix.Close(fd)

	// A shutdown is what wakes a thread that waits in the socket, whether it
	// reads or writes.
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR) // ENOTCONN: the peer was faster
		close(done)
	})
	defer func() {
		if !stop() {
			<-done // before fd is closed, and is somebody else's
		}
	}()

	s := &session{cfg: cfg, wire: newWire(fd), call: newCaller()}
	for _, max := range cfg.Device.Queues() {
		s.rings = append(s.rings, vring{max: max})
	}
	err = s.run()
	err = errors.Join(err, s.close())
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// blocking closes conn, and returns its socket as one that blocks.
func blocking(conn *net.UnixConn) (fd int, err error) {
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	controlErr := raw.Control(func(old uintptr) {
		if err = unix.SetNonblock(int(old), false); err == nil { // the copy shares it
			fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
		}
	})
	if err := errors.Join(controlErr, err); err != nil {
		return -1, err
	}
	return fd, nil
}

// run serves messages until there are no more.
func (s *session) run() error {
	defer s.wire.drop()
	for {
		m, err := s.wire.next(s.running())
		if err != nil {
			err = ended("", err)
		} else {
			err = s.serve(m)
		}
		switch err {
		case nil:
			s.wire.drop()
		case io.EOF:
			return nil
		default:
			return err
		}
	}
}

// close stops what runs and gives back what was taken.
func (s *session) close() error {
	for i := range s.rings {
		s.stop(i)
	}
	s.call.close()
	return s.forget()
}
