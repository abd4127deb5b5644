package tap

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// tunPath is the clone device: each open of it may become one TAP device.
const tunPath = "/dev/net/tun"

// Errors to compare with by errors.Is.
var (
	// ErrNoTUN says that the host has no TUN device.
	ErrNoTUN = errors.New("no TUN device")
	// ErrPermission says that CAP_NET_ADMIN is missing over the namespace.
	ErrPermission = errors.New("CAP_NET_ADMIN is missing")
)

// A Device is the supervisor's end of a TAP device. One goroutine may read
// while others write.
type Device struct {
	name   string
	file   *os.File
	raw    syscall.RawConn
	closed atomic.Bool

	// The reader's own. try is made once: a closure a call would allocate.
	rbuf []byte
	rn   int
	rerr error
	try  func(fd uintptr) bool

	// mu guards what a write hands to put.
	mu   sync.Mutex
	wbuf []byte
	wn   int
	werr error
	put  func(fd uintptr) bool
}

// create makes a TAP device in the network namespace of the calling thread.
func create(name string) (*Device, error) {
	// Not os.OpenFile: the descriptor must not meet the runtime's poller
	// before TUNSETIFF, until which the kernel answers poll with an error.
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", tunPath, explain(err))
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil || name == "" {
		unix.Close(fd)
		return nil, fmt.Errorf("interface name %q: want 1 to %d bytes", name, unix.IFNAMSIZ-1)
	}
	// IFF_TUN_EXCL: never attach to a device that is already there, which its
	// maker might hold on to.
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_TUN_EXCL)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("create %s: %w", name, explain(err))
	}
	d := &Device{name: name, file: os.NewFile(uintptr(fd), "tap "+name)}
	if d.raw, err = d.file.SyscallConn(); err != nil {
		d.file.Close()
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	d.try, d.put = d.read, d.write
	return d, nil
}

// explain adds what to do about an error of the TUN driver.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%w (%v): load the kernel module tun", ErrNoTUN, err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w (%v): run as root", ErrPermission, err)
	}
	return err
}

// Name is the interface's name at its creation.
func (d *Device) Name() string { return d.name }

// Close ends a Read and destroys the device: it is gone when Close returns.
//
// Destroying a device waits for the kernel's readers (RCU): 7 to 52 ms here,
// median 32 ms, whatever the order in which the device, its link and its
// namespace go. With Config.EndsWithNetNS, Close only lets go of the device
// (0.3 ms), and the kernel destroys it in the background, together with its
// namespace; so it does when the supervisor is killed. If the namespace lives
// on after all, a dead card stays in it.
func (d *Device) Close() error {
	d.closed.Store(true)
	return d.file.Close()
}

// persist makes the device outlive its descriptor. It is done at once, not at
// Close: each of the two waits for the lock of the kernel's network
// configuration, which namespaces that end hold for milliseconds, and a
// container's exit shall not wait twice.
func (d *Device) persist() error {
	var err error
	if cerr := d.raw.Control(func(fd uintptr) { err = unix.IoctlSetInt(int(fd), unix.TUNSETPERSIST, 1) }); cerr != nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("make %s persistent: %w", d.name, err)
	}
	return nil
}

// no allocation, no log below this line

// Read waits for a frame that the namespace's kernel sends and returns its
// length. A frame longer than b is cut. After Close the error is os.ErrClosed,
// when the device was deleted it is EBADFD.
func (d *Device) Read(b []byte) (int, error) {
	d.rbuf = b
	if err := d.raw.Read(d.try); err != nil {
		return 0, d.over()
	}
	return d.rn, d.rerr
}

// read is called by the poller's rules: false waits until there may be a frame.
// Trying again 4, 16 or 64 times before that was measured on two cores: a round
// trip between two containers took 29, 43 and 81 us instead of 21, because the
// spinning core is the one the receiver needs, and a TCP stream gained at most
// the noise of 10 %.
func (d *Device) read(fd uintptr) bool {
	for {
		d.rn, d.rerr = unix.Read(int(fd), d.rbuf)
		switch d.rerr {
		case nil:
			return true
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			d.rn = 0
			return true
		}
	}
}

// Write hands a frame to the namespace's kernel. It does not wait: where there
// is no room the error is EAGAIN. When the device is down it is EIO.
func (d *Device) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wbuf = b
	if err := d.raw.Write(d.put); err != nil {
		return 0, d.over()
	}
	return max(d.wn, 0), d.werr
}

func (d *Device) write(fd uintptr) bool {
	for {
		d.wn, d.werr = unix.Write(int(fd), d.wbuf)
		if d.werr != unix.EINTR {
			return true
		}
	}
}

// over is the error of a descriptor that the poller has given up: we closed
// it, or its device was deleted, which poll reports as an error.
func (d *Device) over() error {
	if d.closed.Load() {
		return os.ErrClosed
	}
	return unix.EBADFD
}
