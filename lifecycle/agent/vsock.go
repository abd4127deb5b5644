package agent

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DialVsock connects a guest to a port of its host, by vsock(7).
//
// It waits in the kernel, for the host's answer is on its way before a poller is
// set up: 7 system calls, of which one takes a guest of User-Mode Linux as long as
// a hundred take the host, where a dial of package net's kind makes 18. The host
// serves a machine's connections before it starts the machine; no answer within
// two seconds is ETIMEDOUT.
func DialVsock(port uint32) (net.Conn, error) {
	to := unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: port}
	for {
		fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == unix.EAFNOSUPPORT {
			return nil, fmt.Errorf("the kernel has no vsock, built in (CONFIG_VIRTIO_VSOCKETS) or in a module that seki found: %w", err)
		}
		if err != nil {
			return nil, os.NewSyscallError("socket", err)
		}
		err = unix.Connect(fd, &to)
		if err == nil {
			err = unix.SetNonblock(fd, true) // for the poller, from now on
		}
		if err == nil {
			return vsockConn{os.NewFile(uintptr(fd), "vsock"), vsockAddr(port)}, nil
		}
		unix.Close(fd)
		if err != unix.EINTR { // a signal gives the whole attempt up (vsock_connect in net/vmw_vsock/af_vsock.c)
			return nil, fmt.Errorf("connect to port %d of the host: %w", port, err)
		}
	}
}

// A vsockConn is a connection to the host. It has none of the methods of
// os.File by which io.Copy first tries what no socket can.
type vsockConn struct {
	f  *os.File
	to vsockAddr
}

var _ syscall.Conn = vsockConn{} // a mount of 9P takes the socket itself

func (c vsockConn) Read(b []byte) (int, error)         { return c.f.Read(b) }
func (c vsockConn) Write(b []byte) (int, error)        { return c.f.Write(b) }
func (c vsockConn) Close() error                       { return c.f.Close() }
func (c vsockConn) SetDeadline(t time.Time) error      { return c.f.SetDeadline(t) }
func (c vsockConn) SetReadDeadline(t time.Time) error  { return c.f.SetReadDeadline(t) }
func (c vsockConn) SetWriteDeadline(t time.Time) error { return c.f.SetWriteDeadline(t) }
func (c vsockConn) LocalAddr() net.Addr                { return vsockAddr(0) }
func (c vsockConn) RemoteAddr() net.Addr               { return c.to }

func (c vsockConn) SyscallConn() (syscall.RawConn, error) { return c.f.SyscallConn() }

// CloseWrite tells the host that nothing more comes.
func (c vsockConn) CloseWrite() error {
	raw, err := c.f.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := raw.Control(func(fd uintptr) { serr = unix.Shutdown(int(fd), unix.SHUT_WR) }); err != nil {
		return err
	}
	return os.NewSyscallError("shutdown", serr)
}

// A vsockAddr is a port of the host, or 0 for the guest's end.
type vsockAddr uint32

func (vsockAddr) Network() string  { return "vsock" }
func (a vsockAddr) String() string { return fmt.Sprint("port ", uint32(a)) }
