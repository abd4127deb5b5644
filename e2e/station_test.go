package e2e_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// onThread runs f on an operating system thread of its own, which ends with
// it: f may enter any namespace.
func onThread(f func() error) error {
	errs := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread dies
		errs <- f()
	}()
	return <-errs
}

// A space is a network namespace made by a test. It has no name, so that it
// dies with the test process whatever happens.
type space struct {
	ns netns.NsHandle
	nl *netlink.Handle
}

func newSpace(t *testing.T) *space {
	t.Helper()
	s := &space{}
	err := onThread(func() (err error) {
		s.ns, err = netns.New()
		return err
	})
	if err != nil {
		t.Fatal("new network namespace:", err)
	}
	t.Cleanup(func() { s.ns.Close() })
	if s.nl, err = netlink.NewHandleAt(s.ns); err != nil {
		t.Fatal("netlink in a new namespace:", err)
	}
	t.Cleanup(s.nl.Close)
	lo, err := s.nl.LinkByName("lo")
	if err == nil {
		err = s.nl.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal("lo:", err)
	}
	return s
}

// in runs f inside the namespace.
func (s *space) in(f func() error) error {
	return onThread(func() error {
		if err := netns.Set(s.ns); err != nil {
			return err
		}
		return f()
	})
}

// sysctl writes a value below /proc/sys/net, where the reading thread's
// namespace is the one that counts.
func (s *space) sysctl(t *testing.T, key, value string) {
	t.Helper()
	if err := s.in(func() error { return os.WriteFile("/proc/sys/net/"+key, []byte(value), 0) }); err != nil {
		t.Fatal(err)
	}
}

// command runs a program inside the namespace and returns all it printed.
func (s *space) command(args ...string) (string, error) {
	var out []byte
	err := s.in(func() (err error) {
		out, err = exec.Command(args[0], args[1:]...).CombinedOutput()
		return err
	})
	return string(out), err
}

// A station is a host in a namespace of its own, with one card, eth0, through
// which it can send and hear any frame.
type station struct {
	host
	*space
	index  int // of eth0
	packet int // packet socket bound to eth0
}

// newStation makes the namespace; attach puts a card into it.
func newStation(t *testing.T, h host, attach func(*space)) *station {
	t.Helper()
	s := &station{host: h, space: newSpace(t)}
	// Quiet first: no automatic address, no detection of duplicates, no
	// solicitation of routers, or the kernel's own frames mix with the test's.
	s.sysctl(t, "ipv6/conf/default/accept_dad", "0")
	s.sysctl(t, "ipv6/conf/default/addr_gen_mode", "1")
	s.sysctl(t, "ipv6/conf/default/router_solicitations", "0")
	s.sysctl(t, "ipv6/conf/default/mldv2_unsolicited_report_interval", "1")
	attach(s.space)
	link, err := s.nl.LinkByName("eth0")
	if err != nil {
		t.Fatal(s.name, "eth0:", err)
	}
	s.index = link.Attrs().Index
	if !bytes.Equal(link.Attrs().HardwareAddr, s.mac[:]) {
		t.Fatalf("%s: eth0 has address %v", s.name, link.Attrs().HardwareAddr)
	}
	// The kernel holds a new entry for a second against a second answer; an
	// attacker would wait, the test does not.
	s.sysctl(t, "ipv4/neigh/eth0/locktime", "0")
	return s
}

// configure gives eth0 its addresses and sets it up.
func (s *station) configure(t *testing.T) {
	t.Helper()
	link, err := s.nl.LinkByName("eth0")
	if err == nil {
		err = s.nl.LinkSetUp(link)
	}
	if err != nil {
		t.Fatal(s.name, "eth0 up:", err)
	}
	for _, p := range s.prefixes() {
		a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}, Flags: unix.IFA_F_NODAD}
		if err := s.nl.AddrReplace(link, a); err != nil {
			t.Fatalf("%s: address %v: %v", s.name, p, err)
		}
	}
}

// prefixes are the addresses of eth0.
func (h host) prefixes() []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(h.ip4, 24), netip.PrefixFrom(h.ip6, 64), netip.PrefixFrom(h.local6, 64)}
}

// listen opens the packet socket; eth0 must be up by then.
func (s *station) listen(t *testing.T) {
	t.Helper()
	err := s.in(func() (err error) {
		all := int(uint16(unix.ETH_P_ALL)<<8 | unix.ETH_P_ALL>>8)
		s.packet, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
		if err != nil {
			return err
		}
		if err := unix.Bind(s.packet, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: s.index}); err != nil {
			return err
		}
		return unix.SetsockoptTimeval(s.packet, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000})
	})
	if err != nil {
		t.Fatal(s.name, "packet socket:", err)
	}
	t.Cleanup(func() { unix.Close(s.packet) })
}

// send puts frames on the wire in order. All leave from one processor: behind
// a veth they would else be queued on two, and arrive in any order.
func (s *station) send(frames ...[]byte) error {
	return onThread(func() error {
		var one unix.CPUSet
		one.Set(0)
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			return fmt.Errorf("pin to processor 0: %w", err)
		}
		for _, f := range frames {
			if err := unix.Sendto(s.packet, f, 0, &unix.SockaddrLinklayer{Ifindex: s.index}); err != nil {
				return fmt.Errorf("%s sends %d bytes: %w", s.name, len(f), err)
			}
		}
		return nil
	})
}

// markers counts the markers sent, which makes each unique.
var markers atomic.Uint64

// marker is an honest datagram from s to to, unlike any other. Frames keep
// their order, so what has not arrived before the marker never will.
func (s *station) marker(to *station) []byte {
	src, dst := port(s.ip4, secretPort), port(to.ip4, secretPort)
	return datagram{dstMAC: to.mac, srcMAC: s.mac, src: s.ip4, dst: to.ip4, protocol: 17,
		payload: udp(src, dst, fmt.Appendf(nil, "marker %d.", markers.Add(1)))}.bytes()
}

// until returns what the station hears before the marker, without what it
// sends itself.
func (s *station) until(marker []byte) ([][]byte, error) {
	var heard [][]byte
	b := make([]byte, 65536)
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); {
		n, from, err := unix.Recvfrom(s.packet, b, 0)
		if err == unix.EAGAIN || err == unix.EINTR {
			continue
		}
		if err != nil {
			return heard, err
		}
		if link, ok := from.(*unix.SockaddrLinklayer); ok && link.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if bytes.Equal(b[:n], marker) {
			return heard, nil
		}
		heard = append(heard, bytes.Clone(b[:n]))
	}
	return heard, fmt.Errorf("%s did not hear the marker within 3 s", s.name)
}

// sink takes the markers, so that the station's kernel does not answer them
// with "port unreachable".
func (s *station) sink(t *testing.T) {
	t.Helper()
	var c net.PacketConn
	err := s.in(func() (err error) {
		c, err = net.ListenPacket("udp", fmt.Sprintf(":%d", secretPort))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
}
