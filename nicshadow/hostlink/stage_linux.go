package hostlink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// stageName is how this binary is called when it is to make a link.
	stageName = "seki-hostlink"
	// answerFD is the stage's end of a socket pair: it takes the descriptors, or
	// the text of an error.
	answerFD = 3
	maxText  = 4096

	bits      = 30 // of the network's prefix
	hostEnd   = "host"
	guestEnd  = "guest"
	stageDone = "done"
)

// init turns this process into a stage if it was started as one: only a process
// of one thread may make a user namespace for itself, so a new one is made in it.
func init() {
	if len(os.Args) != 2 || os.Args[0] != stageName {
		return
	}
	text, rights, code := stageDone, []byte(nil), 0
	fds, err := stage(os.Args[1])
	if err != nil {
		text, code = err.Error(), 125
	} else {
		rights = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(answerFD, []byte(text), rights, nil, 0); err != nil {
		code = 125 // who does not hear of it does not get the descriptors either
	}
	os.Exit(code)
}

// runStage starts the stage in new user and network namespaces, and returns its
// listener and its packet socket.
func runStage(ctx context.Context, cfg Config) ([2]*os.File, error) {
	var none [2]*os.File
	orders, err := json.Marshal(cfg)
	if err != nil {
		return none, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return none, os.NewSyscallError("socketpair", err)
	}
	own, theirs := os.NewFile(uintptr(pair[0]), "link"), os.NewFile(uintptr(pair[1]), "link's stage")
	defer own.Close()
	uid, gid := os.Geteuid(), os.Getegid()
	runtime.LockOSThread() // the thread's end would be the stage's: Pdeathsig
	defer runtime.UnlockOSThread()
	p, err := os.StartProcess("/proc/self/exe", []string{stageName, string(orders)}, &os.ProcAttr{
		Files: []*os.File{nil, nil, os.Stderr, theirs},
		Sys: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}},
			Pdeathsig:   unix.SIGKILL,
		},
	})
	theirs.Close()
	if err != nil {
		return none, fmt.Errorf("new user and network namespaces: %w", err)
	}
	files, err := receive(ctx, own)
	if err != nil {
		p.Kill()
	}
	if st, werr := p.Wait(); errors.Is(err, io.EOF) && werr == nil {
		err = fmt.Errorf("the stage ended: %v", st)
	}
	return files, err
}

// receive takes the stage's answer.
func receive(ctx context.Context, own *os.File) (files [2]*os.File, err error) {
	c, err := net.FileConn(own)
	if err != nil {
		return files, err
	}
	defer c.Close()
	if d, ok := ctx.Deadline(); ok {
		c.SetReadDeadline(d)
	}
	defer context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })()
	text, oob := make([]byte, maxText), make([]byte, unix.CmsgSpace(len(files)*4))
	n, oobn, flags, _, err := c.(*net.UnixConn).ReadMsgUnix(text, oob)
	switch {
	case err != nil:
		return files, err
	case n == 0:
		return files, io.EOF
	case string(text[:n]) != stageDone || flags&unix.MSG_CTRUNC != 0:
		return files, errors.New(string(text[:n]))
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return files, fmt.Errorf("the stage's descriptors: %d messages, %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != len(files) {
		return files, fmt.Errorf("the stage's descriptors: %d of them, %w", len(fds), err)
	}
	for i, fd := range fds {
		unix.CloseOnExec(fd) // ReadMsgUnix asks for it; said once more, for it must be
		files[i] = os.NewFile(uintptr(fd), "link "+strconv.Itoa(i))
	}
	return files, nil
}

// stage runs in the new namespaces.
func stage(orders string) (fds []int, err error) {
	var cfg Config
	if err := json.Unmarshal([]byte(orders), &cfg); err != nil {
		return nil, err
	}
	if err := cable(cfg); err != nil {
		return nil, err
	}
	packet, err := packetSocket(guestEnd)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	listener, err := listen(cfg.Host.Addr, cfg.Port)
	if err != nil {
		return nil, fmt.Errorf("listen on %v: %w", netip.AddrPortFrom(cfg.Host.Addr, cfg.Port), err)
	}
	return []int{listener, packet}, nil
}

// cable makes the two ends.
func cable(cfg Config) error {
	// Before the ends are there: nobody asked for IPv6.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	host := netlink.NewLinkAttrs()
	host.Name, host.HardwareAddr, host.MTU = hostEnd, cfg.Host.MAC[:], cfg.MTU
	host.GSOMaxSegs = 1 // a frame is a segment: see finish
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: host, PeerName: guestEnd, PeerHardwareAddr: cfg.Guest.MAC[:], PeerMTU: uint32(cfg.MTU)}); err != nil {
		return fmt.Errorf("cable: %w", err)
	}
	for _, name := range []string{hostEnd, guestEnd} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("cable's end %s: %w", name, err)
		}
		if name == hostEnd {
			prefix := netip.PrefixFrom(cfg.Host.Addr, bits)
			addr, err := netlink.ParseAddr(prefix.String())
			if err != nil {
				return err
			}
			if err := netlink.AddrAdd(link, addr); err != nil {
				return fmt.Errorf("address %v: %w", prefix, err)
			}
		} else if err := netlink.LinkSetARPOff(link); err != nil {
			return fmt.Errorf("cable's end %s: ARP off: %w", name, err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("cable's end %s: set it up: %w", name, err)
		}
	}
	return nil
}

// packetSocket reads and writes the frames at one end of the cable.
func packetSocket(name string) (int, error) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	for _, option := range []int{unix.PACKET_VNET_HDR, unix.PACKET_IGNORE_OUTGOING} {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, option, 1); err != nil {
			return 0, fmt.Errorf("option %d: %w", option, err)
		}
	}
	all := uint16(unix.ETH_P_ALL)<<8 | unix.ETH_P_ALL>>8 // network byte order
	return fd, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index})
}

// listen waits for connections in this namespace.
func listen(addr netip.Addr, port uint16) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(port), Addr: addr.As4()}); err != nil {
		return 0, err
	}
	return fd, unix.Listen(fd, backlog)
}

// backlog is how many connections may wait: a container opens three at once.
const backlog = 128
