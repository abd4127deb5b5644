package usernet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"sekimori/nicshadow/frame"
)

// A wire is the gateway's end of a switch, in memory.
type wire struct {
	in  chan []byte
	out chan []byte
}

func (w *wire) Read(b []byte) (int, error) {
	f, ok := <-w.in
	if !ok {
		return 0, io.EOF
	}
	return copy(b, f), nil
}

func (w *wire) Write(b []byte) (int, error) {
	select {
	case w.out <- bytes.Clone(b):
	default: // nobody reads
	}
	return len(b), nil
}

var (
	own    = frame.MAC{2, 0, 0, 0, 0, 0xfe}
	alice  = frame.MAC{2, 0, 0, 0, 0, 1}
	all    = frame.MAC{255, 255, 255, 255, 255, 255}
	far    = netip.MustParseAddr("203.0.113.7")
	far6   = netip.MustParseAddr("2001:db8::7")
	alice4 = netip.MustParseAddr("10.9.0.2")
	alice6 = netip.MustParseAddr("fd00::2")
)

// A world is the host's network of a test: it writes down who is called, and
// nobody is there.
type world struct {
	mu     sync.Mutex
	called []string
}

func (w *world) call(_ context.Context, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.called = append(w.called, network+" "+addr)
	return nil, errors.New("nobody")
}

func (w *world) calls() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.called)
}

func start(t testing.TB) (*wire, *world) {
	t.Helper()
	w, h := &wire{make(chan []byte, 64), make(chan []byte, 64)}, &world{}
	g := &gateway{dial: h.call, cfg: Config{
		MAC: own, Addrs: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/24"), netip.MustParsePrefix("fd00::1/64")},
		Resolver: netip.MustParseAddrPort("198.51.100.53:53"), Log: slog.New(slog.DiscardHandler),
	}}
	g.ask = func(dst netip.Addr, request []byte) ([]byte, error) {
		h.call(t.Context(), "ping", dst.String())
		return request[6:], nil
	}
	done := make(chan error)
	go func() { done <- g.serve(context.Background(), w) }()
	t.Cleanup(func() {
		close(w.in)
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("serve does not end")
		}
	})
	return w, h
}

func eth(dst frame.MAC, typ uint16, payload ...[]byte) []byte {
	b := slices.Concat(dst[:], alice[:], []byte{byte(typ >> 8), byte(typ)})
	return append(b, slices.Concat(payload...)...)
}

func arpRequest(target netip.Addr) []byte {
	sender, to := alice4.As4(), target.As4()
	return eth(all, 0x0806, []byte{0, 1, 8, 0, 6, 4, 0, 1}, alice[:], sender[:], make([]byte, 6), to[:])
}

// packet is an IP packet of alice's.
func packet(dst netip.Addr, protocol tcpip.TransportProtocolNumber, payload []byte) []byte {
	to := tcpip.AddrFromSlice(dst.AsSlice())
	if dst.Is6() {
		h := header.IPv6(make([]byte, header.IPv6MinimumSize))
		h.Encode(&header.IPv6Fields{PayloadLength: uint16(len(payload)), TransportProtocol: protocol, HopLimit: 64, SrcAddr: tcpip.AddrFromSlice(alice6.AsSlice()), DstAddr: to})
		return eth(own, 0x86dd, h, payload)
	}
	h := header.IPv4(make([]byte, header.IPv4MinimumSize))
	h.Encode(&header.IPv4Fields{TotalLength: uint16(len(h) + len(payload)), TTL: 64, Protocol: uint8(protocol), SrcAddr: tcpip.AddrFromSlice(alice4.AsSlice()), DstAddr: to})
	h.SetChecksum(^h.CalculateChecksum())
	return eth(own, 0x0800, h, payload)
}

func pseudo(dst netip.Addr, protocol tcpip.TransportProtocolNumber, n int) uint16 {
	src := alice4
	if dst.Is6() {
		src = alice6
	}
	return header.PseudoHeaderChecksum(protocol, tcpip.AddrFromSlice(src.AsSlice()), tcpip.AddrFromSlice(dst.AsSlice()), uint16(n))
}

func syn(dst netip.Addr, port uint16) []byte {
	h := header.TCP(make([]byte, header.TCPMinimumSize))
	h.Encode(&header.TCPFields{SrcPort: 40000, DstPort: port, SeqNum: 1, DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagSyn, WindowSize: 1000})
	h.SetChecksum(^h.CalculateChecksum(pseudo(dst, header.TCPProtocolNumber, len(h))))
	return packet(dst, header.TCPProtocolNumber, h)
}

func datagram(dst netip.Addr, port uint16) []byte {
	h := header.UDP(make([]byte, header.UDPMinimumSize))
	h.Encode(&header.UDPFields{SrcPort: 40000, DstPort: port, Length: header.UDPMinimumSize})
	h.SetChecksum(^h.CalculateChecksum(pseudo(dst, header.UDPProtocolNumber, len(h))))
	return packet(dst, header.UDPProtocolNumber, h)
}

func echoRequest(dst netip.Addr) []byte {
	m := header.ICMPv4(append([]byte{8, 0, 0, 0, 0x12, 0x34, 0, 1}, "are you there"...))
	if dst.Is6() {
		m[0] = byte(header.ICMPv6EchoRequest)
		header.ICMPv6(m).SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{
			Header: header.ICMPv6(m), Src: tcpip.AddrFromSlice(alice6.AsSlice()), Dst: tcpip.AddrFromSlice(dst.AsSlice())}))
		return packet(dst, header.ICMPv6ProtocolNumber, m)
	}
	m.SetChecksum(header.ICMPv4Checksum(m[:8], checksum.Checksum(m[8:], 0)))
	return packet(dst, header.ICMPv4ProtocolNumber, m)
}

// next is a frame of the gateway's for which ok says yes; nil if none comes.
func next(w *wire, patience time.Duration, ok func(k *frame.Key) bool) []byte {
	over := time.After(patience)
	for {
		select {
		case b := <-w.out:
			var k frame.Key
			if frame.Parse(b, &k) == frame.OK && ok(&k) {
				return b
			}
		case <-over:
			return nil
		}
	}
}

// TestARP: it answers for its own address, and for nobody else's: to its stack
// every address is its own.
func TestARP(t *testing.T) {
	w, _ := start(t)
	answer := func(k *frame.Key) bool { return k.Class() == frame.ClassARP && k.Uint(frame.ARPOp) == 2 }
	for _, other := range []string{"10.9.0.3", "10.9.0.2", "203.0.113.7", "0.0.0.0"} {
		w.in <- arpRequest(netip.MustParseAddr(other))
	}
	w.in <- arpRequest(netip.MustParseAddr("10.9.0.1"))
	b := next(w, 10*time.Second, answer)
	if b == nil {
		t.Fatal("no answer for its own address")
	}
	var k frame.Key
	frame.Parse(b, &k)
	if k.Uint(frame.ARPSenderIP) != 10<<24|9<<16|1 || k.Uint(frame.ARPSenderMAC) != own.Uint64() {
		t.Errorf("the first answer is of another address: %x", b)
	}
	if b := next(w, 100*time.Millisecond, answer); b != nil {
		t.Errorf("a second answer: %x", b)
	}
}

// TestRefused: what a container is not to reach nobody is called for.
func TestRefused(t *testing.T) {
	w, h := start(t)
	introduce(w)
	for _, a := range []string{"127.0.0.1", "127.9.9.9", "0.0.0.0", "0.48.48.48", "240.0.0.1", "169.254.169.254", "224.0.0.1", "255.255.255.255", "10.9.0.1", "::1", "fe80::1", "ff02::1", "fd00::1"} {
		dst := netip.MustParseAddr(a)
		w.in <- syn(dst, 80)
		w.in <- datagram(dst, 80)
		if a != "10.9.0.1" && a != "fd00::1" {
			w.in <- echoRequest(dst)
		}
	}
	w.in <- syn(far, 80) // the last, so that those before have been seen
	if !eventually(func() bool { return slices.Contains(h.calls(), "tcp 203.0.113.7:80") }) {
		t.Errorf("called: %v", h.calls())
	}
	if calls := h.calls(); len(calls) != 1 {
		t.Errorf("called: %v; want the last alone", calls)
	}
}

// introduce has the gateway learn alice's address.
func introduce(w *wire) { w.in <- arpRequest(netip.MustParseAddr("10.9.0.1")) }

func eventually(f func() bool) bool {
	for range 1000 {
		if f() {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

// TestCalls: connections go where they were to go, the resolver's excepted; who
// is not there is reset.
func TestCalls(t *testing.T) {
	w, h := start(t)
	introduce(w)
	w.in <- syn(far, 443)
	reset := func(k *frame.Key) bool { return k.Class() == frame.ClassIPv4TCP && k.Uint(frame.TCPRst) == 1 }
	if b := next(w, 10*time.Second, reset); b == nil {
		t.Error("no reset of who is not there")
	}
	w.in <- datagram(far, 123)
	w.in <- datagram(netip.MustParseAddr("10.9.0.1"), 53)
	w.in <- syn(netip.MustParseAddr("10.9.0.1"), 53)
	w.in <- echoRequest(far)
	echoed := func(k *frame.Key) bool { return k.Class() == frame.ClassIPv4ICMP && k.Uint(frame.ICMPType) == 0 }
	b := next(w, 10*time.Second, echoed)
	if b == nil {
		t.Fatal("no echo")
	}
	if !bytes.Equal(b[:6], alice[:]) || !bytes.HasSuffix(b, append([]byte{0x12, 0x34, 0, 1}, "are you there"...)) {
		t.Errorf("the echo: %x", b)
	}
	w.in <- echoRequest(far6)
	if b := next(w, 10*time.Second, func(k *frame.Key) bool { return k.Class() == frame.ClassIPv6ICMP && k.Uint(frame.ICMPType) == 129 }); b == nil {
		t.Error("no echo over IPv6")
	}
	want := []string{"ping 2001:db8::7", "ping 203.0.113.7", "tcp 198.51.100.53:53", "tcp 203.0.113.7:443", "udp 198.51.100.53:53", "udp 203.0.113.7:123"}
	if !eventually(func() bool { got := h.calls(); slices.Sort(got); return slices.Equal(got, want) }) {
		t.Errorf("called %v; want %v", h.calls(), want)
	}
}

// FuzzTake: whatever a container sends, the gateway lives, ends, and calls nobody
// who is refused.
func FuzzTake(f *testing.F) {
	for _, b := range [][]byte{
		arpRequest(far), syn(far, 80), syn(far6, 80), datagram(far, 53), echoRequest(far), echoRequest(far6), syn(netip.MustParseAddr("127.0.0.1"), 1), nil,
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return // the end of a socket pair
		}
		w, h := start(t)
		w.in <- b
		w.in <- arpRequest(netip.MustParseAddr("10.9.0.1"))
		if next(w, 10*time.Second, func(k *frame.Key) bool { return k.Class() == frame.ClassARP && k.Uint(frame.ARPOp) == 2 }) == nil {
			t.Error("it answers no more")
		}
		for _, c := range h.calls() {
			for _, no := range []string{" 127.", " 169.254.", " 0.", " 255.255.255.255", " 10.9.0.1:", " [::1]", " [fe80:"} {
				if bytes.Contains([]byte(c), []byte(no)) {
					t.Errorf("called %s", c)
				}
			}
		}
	})
}
