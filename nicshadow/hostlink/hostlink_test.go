package hostlink_test

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/hostlink"
	"sekimori/nicshadow/tap"
	"sekimori/nicshadow/tap/taptest"
)

var config = hostlink.Config{
	Host:  hostlink.Side{MAC: frame.MAC{2, 0, 0, 0, 0, 1}, Addr: netip.MustParseAddr("169.254.201.1")},
	Guest: hostlink.Side{MAC: frame.MAC{2, 0, 0, 0, 0, 2}, Addr: netip.MustParseAddr("169.254.201.2")},
	Port:  1024, MTU: 9000,
}

// open makes a link whose guest is a network namespace with a TAP device.
func open(t *testing.T) (*hostlink.Link, *os.File) {
	t.Helper()
	taptest.TUN(t)
	ns := taptest.NetNS(t)
	card, err := tap.Open(ns, tap.Config{
		Name: "eth0", MAC: config.Guest.MAC, MTU: config.MTU, Addrs: []netip.Prefix{netip.PrefixFrom(config.Guest.Addr, 30)},
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := hostlink.Open(t.Context(), config)
	if err != nil {
		card.Close()
		t.Fatal(err)
	}
	received := make(chan error, 1)
	go func() { received <- l.Receive(func(b []byte) { card.Write(b) }) }()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		b := make([]byte, 1<<16)
		for {
			n, err := card.Read(b)
			if err != nil {
				return
			}
			l.Transmit(b[:n])
		}
	}()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := <-received; err != nil {
			t.Errorf("receive: %v", err)
		}
		card.Close()
		<-sent
	})
	return l, ns
}

// dial connects from inside the guest.
func dial(t *testing.T, ns *os.File, timeout time.Duration, addr string) (c net.Conn, err error) {
	t.Helper()
	// The socket is of the namespace; connecting may go on in another thread.
	ierr := tap.In(ns, func() error {
		c, err = net.DialTimeout("tcp4", addr, timeout)
		return nil
	})
	if ierr != nil {
		t.Fatal(ierr)
	}
	return c, err
}

// TestTCP sends a megabyte each way: checksums that the kernel left to the card
// and segments as long as the card takes are among it.
func TestTCP(t *testing.T) {
	l, ns := open(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		for {
			c, err := l.Listener().Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	for range 3 {
		c, err := dial(t, ns, 10*time.Second, "169.254.201.1:1024")
		if err != nil {
			t.Fatal(err)
		}
		go func() { c.Write(data); c.(*net.TCPConn).CloseWrite() }()
		c.SetReadDeadline(time.Now().Add(30 * time.Second))
		back, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(back, data) {
			t.Errorf("of %d bytes %d came back, %v", len(data), len(back), err)
		}
		c.Close()
	}
}

// TestNobodyElse: the listener is not in the host's network, and no other link
// reaches it.
func TestNobodyElse(t *testing.T) {
	l, ns := open(t)
	other, _ := open(t) // of the same address: each is alone in its namespace
	accepted := make(chan net.Conn, 1)
	go func() {
		if c, err := other.Listener().Accept(); err == nil {
			accepted <- c
		}
	}()
	// Not tried with a connection, which would leave this machine.
	sockets, err := os.ReadFile("/proc/thread-self/net/tcp")
	if err != nil || bytes.Contains(sockets, []byte("01C9FEA9:0400")) {
		t.Errorf("the listener is in the host's own network, %v:\n%s", err, sockets)
	}
	c, err := dial(t, ns, 10*time.Second, "169.254.201.1:1024")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	own, err := l.Listener().Accept()
	if err != nil {
		t.Fatal(err)
	}
	own.Close()
	select {
	case <-accepted:
		t.Error("another link's listener was reached")
	default:
	}
	if c, err := dial(t, ns, 300*time.Millisecond, "169.254.201.1:1025"); err == nil {
		c.Close()
		t.Error("another port answers")
	}
	if l.Refused() == 0 {
		t.Error("what went to another port was not refused")
	}
}

// TestRefuses has the guest say what its card may not.
func TestRefuses(t *testing.T) {
	l, err := hostlink.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	arp := []byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x02\x08\x06" +
		"\x00\x01\x08\x00\x06\x04\x00\x01\x02\x00\x00\x00\x00\x02\xa9\xfe\xc9\x02\x00\x00\x00\x00\x00\x00\xa9\xfe\xc9\x01")
	frames := map[string][]byte{"empty": nil, "one byte": {0}, "longer than any": make([]byte, 70000)}
	edit := func(name string, at int, b ...byte) {
		c := bytes.Clone(arp)
		copy(c[at:], b)
		frames[name] = c
	}
	edit("another card's source", 11, 3)
	edit("another card's ARP", 27, 3)
	edit("another sender's address", 31, 3)
	edit("asking for another", 41, 3)
	edit("another EtherType", 12, 0x88, 0xcc)
	edit("IPv6", 12, 0x86, 0xdd)
	frames["tagged"] = append(append(bytes.Clone(arp[:12]), 0x81, 0, 0, 1), arp[12:]...)
	var want uint64
	for name, b := range frames {
		l.Transmit(b)
		want++
		if got := l.Refused(); got != want {
			t.Errorf("%s: passed", name)
			want = got
		}
	}
	l.Transmit(arp)
	if l.Refused() != want {
		t.Error("its own ARP was refused")
	}
}

func TestBadConfig(t *testing.T) {
	for name, addr := range map[string]string{"IPv6": "fe80::1", "another network": "169.254.201.9"} {
		c := config
		c.Guest.Addr = netip.MustParseAddr(addr)
		if l, err := hostlink.Open(t.Context(), c); err == nil {
			l.Close()
			t.Errorf("%s: no error", name)
		}
	}
}
