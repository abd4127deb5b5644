package uplink

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/nicshadow/frame"
)

// A UserConfig says what the way out without root is like: see package usernet,
// whose program it starts.
type UserConfig struct {
	Program string // path of seki-net
	MAC     frame.MAC
	Addrs   []netip.Prefix
	MTU     int          // in bytes; 0 means 1500
	Log     *slog.Logger // takes what the program says
}

// A User is the pod's end: a device for a trusted port of a switch, as [Uplink].
type User struct {
	file    *os.File
	raw     syscall.RawConn
	process *os.Process
	said    chan struct{} // closed when it says nothing more
	ended   chan struct{}
	closed  atomic.Bool
	close   func() error

	// mu guards what a write hands to put.
	mu   sync.Mutex
	wbuf []byte
	wn   int
	werr error
	put  func(fd uintptr) bool
}

// userBuffer is how many bytes of frames may wait on their way out: what 1 Gbit/s
// has under way in a round trip of 30 ms. The kernel gives what it may.
const userBuffer = 4 << 20

// endTimeout is how long the program may take to end when the switch is gone.
const endTimeout = 2 * time.Second

// OpenUser starts the program. On an error nothing is left behind.
func OpenUser(cfg UserConfig) (*User, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("uplink: %w", os.NewSyscallError("socketpair", err))
	}
	for _, fd := range pair {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, userBuffer) // or what there is
	}
	own, theirs := os.NewFile(uintptr(pair[0]), "uplink"), os.NewFile(uintptr(pair[1]), "uplink's switch")
	defer theirs.Close()
	u := &User{file: own, said: make(chan struct{}), ended: make(chan struct{})}
	u.put, u.close = u.write, sync.OnceValue(u.end)
	if u.raw, err = own.SyscallConn(); err == nil {
		err = u.start(cfg, theirs)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("uplink: %w", err), own.Close())
	}
	return u, nil
}

func (u *User) start(cfg UserConfig, theirs *os.File) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer w.Close()
	args := []string{"seki-net", "-mac", cfg.MAC.String()}
	for _, a := range cfg.Addrs {
		args = append(args, "-addr", a.String())
	}
	if cfg.MTU != 0 {
		args = append(args, "-mtu", strconv.Itoa(cfg.MTU))
	}
	// Setsid: Ctrl-C is for the supervisor. It ends with the socket, so also when
	// the supervisor is killed.
	u.process, err = os.StartProcess(cfg.Program, args, &os.ProcAttr{
		Dir: "/", Files: []*os.File{nil, w, w, theirs}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		r.Close()
		return err
	}
	go func() { // ends with the process
		defer close(u.said)
		defer r.Close()
		for lines := bufio.NewScanner(r); lines.Scan(); {
			cfg.Log.Warn("uplink", "said", lines.Text())
		}
		_, _ = io.Copy(io.Discard, r)
	}()
	go func() {
		defer close(u.ended)
		st, err := u.process.Wait()
		if !u.closed.Load() {
			cfg.Log.Error("uplink lost", "program", cfg.Program, "state", st, "err", err)
		}
	}()
	return nil
}

// Close ends the program, and returns when it has.
func (u *User) Close() error { return u.close() }

func (u *User) end() error {
	u.closed.Store(true)
	err := u.file.Close()
	select {
	case <-u.ended:
	case <-time.After(endTimeout):
		u.process.Kill()
		<-u.ended
	}
	<-u.said
	return err
}

// no allocation, no log below this line

// Read waits for a frame from outside.
func (u *User) Read(b []byte) (int, error) {
	n, err := u.file.Read(b)
	if err == nil && n == 0 || errors.Is(err, io.EOF) {
		return 0, unix.EBADFD // as of a device that is gone
	}
	return n, err
}

// Write hands a frame over. It does not wait: where there is no room the error is
// EAGAIN.
func (u *User) Write(b []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.wbuf = b
	if err := u.raw.Write(u.put); err != nil {
		return 0, os.ErrClosed
	}
	return max(u.wn, 0), u.werr
}

func (u *User) write(fd uintptr) bool {
	for {
		u.wn, u.werr = unix.Write(int(fd), u.wbuf)
		if u.werr != unix.EINTR {
			return true
		}
	}
}
