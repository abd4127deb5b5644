package nicshadow_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"sekimori/nicshadow"
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

// shared is a switch with a shared port "nic" of senders 1 to n at 10.0.0.n
// and fd00::n, and a pushed card 9.
func shared(t testing.TB, cfg nicshadow.Config, n int, reflect bool) (*nicshadow.Table, *nicshadow.Switch, *nicshadow.SharedPort, *guestDevice, *guestDevice) {
	t.Helper()
	cfg.Table = nicshadow.NewTable()
	sw := nicshadow.NewSwitch(cfg)
	t.Cleanup(func() { sw.Close() })
	nic, other := &guestDevice{}, &guestDevice{}
	p, err := sw.AddSharedPort(nicshadow.SharedConfig{Name: "nic", Device: nic, Reflect: reflect})
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= n; i++ {
		put(t, cfg.Table, nicshadow.Sender(i), blocking(t, "policy.star", 443))
		if err := p.Attach(memberOf(t, i)); err != nil {
			t.Fatal(err)
		}
	}
	put(t, cfg.Table, 9, program(t, rule.Forward, 1))
	if _, err := sw.AddPushPort(nicshadow.PushConfig{Name: "c9", Sender: 9, MAC: macOf(9), Device: other, Envelope: blocking(t, "e.star", 1)}); err != nil {
		t.Fatal(err)
	}
	return cfg.Table, sw, p, nic, other
}

func memberOf(t testing.TB, i int) nicshadow.Member {
	return nicshadow.Member{
		Name: fmt.Sprint("c", i), Sender: nicshadow.Sender(i), MAC: macOf(i), Envelope: blocking(t, "envelope.star", 22),
		Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), netip.MustParseAddr(fmt.Sprint("fd00::", i))},
	}
}

// by is the origin of a frame that was traced to a sender.
func by(s nicshadow.Sender) nicshadow.Origin { return nicshadow.Origin{Sender: s} }

var kernel = nicshadow.Origin{Kernel: true}

// ndp is a neighbour solicitation (135) or advertisement (136) of card i.
func ndp(i int, typ byte, src, target netip.Addr, link frame.MAC) []byte {
	m := macOf(i)
	b := append([]byte{0x33, 0x33, 0, 0, 0, 1}, m[:]...)
	b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255)
	b = append(b, src.AsSlice()...)
	b = append(b, netip.MustParseAddr("ff02::1").AsSlice()...)
	b = append(b, typ, 0, 0, 0, 0, 0, 0, 0)
	b = append(b, target.AsSlice()...)
	return append(append(b, typ-134, 1), link[:]...)
}

// dad is the probe for an address (RFC 4862, 5.4.2).
func dad(i int, target netip.Addr) []byte {
	b := ndp(i, 135, netip.IPv6Unspecified(), target, frame.MAC{})
	b = b[:len(b)-8]
	binary.BigEndian.PutUint16(b[18:], 24)
	copy(b[38:], netip.MustParseAddr("ff02::1:ff00:0").AsSlice())
	copy(b[38+13:], target.AsSlice()[13:])
	return b
}

func TestShared(t *testing.T) {
	ip := netip.MustParseAddr
	own6, other6, link := ip("fd00::1"), ip("fd00::2"), ip("fe80::ff:fe00:1")
	tagged := append(append(append([]byte{}, udp(9, 1, 0)[:12]...), 0x81, 0, 0, 0), udp(9, 1, 0)[12:]...)
	nobodys := udp(9, 1, 0)
	nobodys[11] = 0x77
	spoofed4 := udp(9, 1, 0)
	spoofed4[29] = 2
	v6 := ndp(1, 135, own6, other6, macOf(1))
	v6[20] = 17 // UDP
	tests := []struct {
		name   string
		frame  []byte
		from   nicshadow.Origin
		sender nicshadow.Sender // who is charged; 0: nobody
		want   nicshadow.Reason
	}{
		{"found", udp(9, 1, 0), by(1), 1, nicshadow.Allowed},
		{"nobody", udp(9, 1, 0), nicshadow.Origin{}, 0, nicshadow.Unattributed},
		{"not a member", udp(9, 1, 0), by(3), 0, nicshadow.Unattributed},
		{"of another port", udp(9, 1, 0), by(9), 0, nicshadow.Unattributed},
		{"far out of range", udp(9, 1, 0), by(1<<32 - 1), 0, nicshadow.Unattributed},
		{"another member's address", udp(9, 2, 0), by(1), 1, nicshadow.IdentityMismatch},
		{"another card's address", udp(2, 9, 0), by(1), 1, nicshadow.IdentityMismatch},
		{"nobody's address is the policy's affair", nobodys, by(1), 1, nicshadow.Allowed},
		{"a stub", []byte{1, 2, 3}, by(1), 1, nicshadow.FromFrame(frame.Truncated)},
		{"too long", make([]byte, 1600), by(1), 1, nicshadow.FromFrame(frame.TooLong)},
		{"the member's envelope", tcpTo22(), by(1), 1, nicshadow.Envelope},

		{"kernel, own arp answer", arpReply(macOf(9), macOf(1), "10.0.0.1", "10.0.0.9"), kernel, 1, nicshadow.Allowed},
		{"kernel, another's address in arp", arpReply(macOf(9), macOf(1), "10.0.0.2", "10.0.0.9"), kernel, 0, nicshadow.Unattributed},
		{"kernel, nobody's address in arp", arpReply(macOf(9), macOf(1), "0.0.0.0", "10.0.0.9"), kernel, 0, nicshadow.Unattributed},
		{"kernel, another mac in arp", kernelARP(macOf(1), macOf(2)), kernel, 0, nicshadow.Unattributed},
		{"kernel, own datagram", udp(9, 1, 0), kernel, 1, nicshadow.Allowed},
		{"kernel, another's datagram", spoofed4, kernel, 0, nicshadow.Unattributed},
		{"kernel, another card's", udp(1, 9, 0), kernel, 0, nicshadow.Unattributed},
		{"kernel, nobody's mac", nobodys, kernel, 0, nicshadow.Unattributed},
		{"kernel, tagged", tagged, kernel, 0, nicshadow.Unattributed},
		{"kernel, stub", []byte{1, 2, 3}, kernel, 0, nicshadow.Unattributed},
		{"kernel, solicits from own", ndp(1, 135, own6, other6, macOf(1)), kernel, 1, nicshadow.Allowed},
		{"kernel, solicits from link-local", ndp(1, 135, link, other6, macOf(1)), kernel, 1, nicshadow.Allowed},
		{"kernel, solicits from another's", ndp(1, 135, other6, own6, macOf(1)), kernel, 0, nicshadow.Unattributed},
		{"kernel, solicits with another's link address", ndp(1, 135, own6, other6, macOf(2)), kernel, 0, nicshadow.Unattributed},
		{"kernel, advertises own", ndp(1, 136, own6, own6, macOf(1)), kernel, 1, nicshadow.Allowed},
		{"kernel, advertises another's", ndp(1, 136, own6, other6, macOf(1)), kernel, 0, nicshadow.Unattributed},
		{"kernel, probes own", dad(1, own6), kernel, 1, nicshadow.Allowed},
		{"kernel, probes another's", dad(1, other6), kernel, 0, nicshadow.Unattributed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table, _, p, _, other := shared(t, nicshadow.Config{}, 2, false)
			p.Send(tt.frame, tt.from)
			if got := len(other.frames()); got != 1 && tt.want == nicshadow.Allowed || got != 0 && tt.want != nicshadow.Allowed {
				t.Errorf("%d frames received", got)
			}
			charged := p.Stats()
			if tt.sender != 0 {
				charged = stats(t, table, tt.sender)
			}
			if n := reason(charged, tt.want.String()); tt.want != nicshadow.Allowed && n != 1 || tt.want == nicshadow.Allowed && charged.Forwarded != 1 {
				t.Errorf("Stats = %+v; want one %q", charged, tt.want)
			}
			sum := p.Stats().Frames
			for _, s := range table.Senders() {
				sum += stats(t, table, s).Frames
			}
			if sum != 1 {
				t.Errorf("%d frames counted; want 1", sum)
			}
		})
	}
}

// kernelARP is an ARP answer sent from one address that speaks of another.
func kernelARP(src, sender frame.MAC) []byte {
	b := arpReply(macOf(9), sender, "10.0.0.1", "10.0.0.9")
	copy(b[6:], src[:])
	return b
}

// TestSharedAudit: what is not about the frame drops in audit mode too.
func TestSharedAudit(t *testing.T) {
	table, _, p, _, other := shared(t, nicshadow.Config{}, 2, false)
	for _, s := range []nicshadow.Sender{1, 2} {
		if err := table.SetMode(s, nicshadow.Audit); err != nil {
			t.Fatal(err)
		}
	}
	p.Send(udp(9, 2, 0), by(1))
	p.Send(udp(9, 2, 0), nicshadow.Origin{})
	p.Send(tcpTo22(), by(1))
	if n := len(other.frames()); n != 0 {
		t.Errorf("%d frames passed", n)
	}
}

// TestSharedDelivery: each member's address leads to the port; a frame to a
// group is written once; members reach each other only where the switch
// reflects.
func TestSharedDelivery(t *testing.T) {
	for _, reflect := range []bool{false, true} {
		table, sw, p, nic, other := shared(t, nicshadow.Config{}, 3, reflect)
		nine, err := sw.AddPushPort(nicshadow.PushConfig{Name: "c8", Sender: 8, MAC: macOf(8), Device: &guestDevice{}, Envelope: blocking(t, "e.star", 1)})
		if err != nil {
			t.Fatal(err)
		}
		put(t, table, 8, program(t, rule.Forward, 1))
		nine.Send(udp(1, 8, 1))
		nine.Send(udp(2, 8, 1))
		nine.Send(arpReply(broadcast, macOf(8), "10.0.0.8", "10.0.0.8"))
		if n := len(nic.frames()); n != 3 {
			t.Errorf("%d frames for the guest; want 3", n)
		}
		for s := nicshadow.Sender(1); s <= 3; s++ {
			if got, want := stats(t, table, s).Delivered, uint64(2-s/3); got != want {
				t.Errorf("member %d: %d delivered; want %d", s, got, want)
			}
		}
		p.Send(udp(2, 1, 1), by(1))
		p.Send(arpReply(broadcast, macOf(1), "10.0.0.1", "10.0.0.1"), by(1))
		want := 3
		if reflect {
			want = 5
		}
		if n := len(nic.frames()); n != want {
			t.Errorf("reflect %v: %d frames for the guest; want %d", reflect, n, want)
		}
		if n := len(other.frames()); n != 2 {
			t.Errorf("%d frames for card 9; want the 2 broadcasts", n)
		}
		if n := reason(stats(t, table, 1), "unknown destination"); n != uint64(5-want)/2 {
			t.Errorf("reflect %v: %d unknown destinations", reflect, n)
		}
	}
}

// TestSharedClosed: nothing reaches members without a program.
func TestSharedClosed(t *testing.T) {
	table, sw, _, nic, _ := shared(t, nicshadow.Config{}, 1, false)
	eight, err := sw.AddPushPort(nicshadow.PushConfig{Name: "c8", Sender: 8, MAC: macOf(8), Device: &guestDevice{}, Envelope: blocking(t, "e.star", 1)})
	if err != nil {
		t.Fatal(err)
	}
	put(t, table, 8, program(t, rule.Forward, 1))
	if err := table.Unregister(1); err != nil {
		t.Fatal(err)
	}
	eight.Send(udp(1, 8, 0))
	eight.Send(arpReply(broadcast, macOf(8), "10.0.0.8", "10.0.0.8"))
	if n := len(nic.frames()); n != 0 {
		t.Errorf("%d frames reached a guest without programs", n)
	}
	if n := reason(stats(t, table, 8), "receiver closed"); n != 2 {
		t.Errorf("receiver closed: %d; want 2", n)
	}
}

func TestAttach(t *testing.T) {
	table, sw, p, nic, _ := shared(t, nicshadow.Config{}, 2, false)
	change := func(f func(*nicshadow.Member)) nicshadow.Member {
		m := memberOf(t, 5)
		f(&m)
		return m
	}
	tests := []struct {
		name string
		m    nicshadow.Member
		is   error
	}{
		{"again", memberOf(t, 1), nicshadow.ErrMACInUse},
		{"sender again", change(func(m *nicshadow.Member) { m.Sender = 1 }), nicshadow.ErrMemberExists},
		{"mac of a card", change(func(m *nicshadow.Member) { m.MAC = macOf(9) }), nicshadow.ErrMACInUse},
		{"nobody", change(func(m *nicshadow.Member) { m.Sender = 0 }), nicshadow.ErrSenderRange},
		{"out of range", change(func(m *nicshadow.Member) { m.Sender = nicshadow.MaxSenders + 1 }), nicshadow.ErrSenderRange},
		{"no envelope", change(func(m *nicshadow.Member) { m.Envelope = nil }), nicshadow.ErrNoEnvelope},
	}
	for _, tt := range tests {
		if err := p.Attach(tt.m); !errors.Is(err, tt.is) {
			t.Errorf("%s: Attach = %v; want %v", tt.name, err, tt.is)
		}
	}
	if err := p.Attach(change(func(m *nicshadow.Member) { m.MAC = broadcast })); err == nil {
		t.Error("Attach took a group's address")
	}
	if err := p.Detach(5); !errors.Is(err, nicshadow.ErrUnknownSender) {
		t.Errorf("Detach of no member = %v", err)
	}
	if err := p.Detach(1); err != nil {
		t.Fatal(err)
	}
	p.Send(udp(9, 1, 0), by(1))
	if n := table.Unattributed(); n != 1 {
		t.Errorf("Unattributed = %d; want 1: sender 1 is detached", n)
	}
	if err := p.Attach(memberOf(t, 1)); err != nil {
		t.Errorf("Attach afterwards = %v", err)
	}
	if err := sw.RemovePort("nic"); err != nil || !nic.closed {
		t.Errorf("RemovePort = %v, device closed: %v", err, nic.closed)
	}
	if err := p.Attach(memberOf(t, 3)); !errors.Is(err, nicshadow.ErrNoPort) {
		t.Errorf("Attach to a removed port = %v", err)
	}
	if err := p.Detach(2); !errors.Is(err, nicshadow.ErrUnknownSender) {
		t.Errorf("Detach from a removed port = %v", err)
	}
	p.Send(udp(9, 2, 0), by(2))
}

// TestSharedNoAddresses: of a member without addresses the kernel says nothing.
func TestSharedNoAddresses(t *testing.T) {
	table, _, p, _, other := shared(t, nicshadow.Config{}, 0, false)
	m := memberOf(t, 1)
	m.Addrs = nil
	if err := p.Attach(m); err != nil {
		t.Fatal(err)
	}
	put(t, table, 1, blocking(t, "policy.star", 443))
	for _, f := range [][]byte{arpReply(macOf(9), macOf(1), "10.0.0.1", "10.0.0.9"), udp(9, 1, 0), dad(1, netip.MustParseAddr("fd00::1"))} {
		p.Send(f, kernel)
	}
	if n := p.Stats().Dropped; n != 3 || len(other.frames()) != 0 {
		t.Errorf("%d dropped, %d passed; want 3, 0", n, len(other.frames()))
	}
}

// TestSharedTold: a record bears the name of whom the frame is charged to, and
// why nobody is.
func TestSharedTold(t *testing.T) {
	var records []string
	log := nicshadow.NewDropLog(nicshadow.DropLogConfig{Sink: func(r nicshadow.Record) {
		records = append(records, strings.TrimSuffix(r.Container+": "+r.Reason+": "+r.Cause, ": "))
	}})
	capture, file := newCapture(t, nicshadow.CaptureConfig{})
	_, _, p, _, _ := shared(t, nicshadow.Config{DropLog: log, Capture: capture}, 2, false)
	p.Send(udp(9, 2, 0), by(1))
	p.Send(udp(9, 2, 0), nicshadow.Origin{Cause: "a kernel thread's"})
	p.Send(tcpTo22(), by(1))
	log.Close()
	if err := capture.Close(); err != nil {
		t.Fatal(err)
	}
	want := []string{"c1: identity mismatch", "nic: unattributed: a kernel thread's", "c1: envelope"}
	if fmt.Sprint(records) != fmt.Sprint(want) {
		t.Errorf("told %q; want %q", records, want)
	}
	written, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, comment := range []string{"drop: identity mismatch: ", "drop: unattributed: a kernel thread's: ", "drop: envelope: guard port at envelope.star:7:3: "} {
		if !bytes.Contains(written, []byte(comment)) {
			t.Errorf("no comment %q in the capture", comment)
		}
	}
}

func TestSharedAllocates(t *testing.T) {
	table := nicshadow.NewTable()
	sw := nicshadow.NewSwitch(nicshadow.Config{Table: table})
	defer sw.Close()
	p, err := sw.AddSharedPort(nicshadow.SharedConfig{Name: "nic", Device: &sinkDevice{}, Reflect: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 2; i++ {
		put(t, table, nicshadow.Sender(i), program(t, rule.Forward, 1))
		if err := p.Attach(memberOf(t, i)); err != nil {
			t.Fatal(err)
		}
	}
	arp, group := arpReply(macOf(2), macOf(1), "10.0.0.1", "10.0.0.2"), arpReply(broadcast, macOf(1), "10.0.0.1", "10.0.0.2")
	datagram := udp(2, 1, 0)
	if n := testing.AllocsPerRun(1000, func() {
		p.Send(datagram, by(1))
		p.Send(datagram, by(2))
		p.Send(datagram, nicshadow.Origin{Cause: "x"})
		p.Send(arp, kernel)
		p.Send(group, kernel)
	}); n != 0 {
		t.Errorf("Send allocates %v times", n)
	}
}

func BenchmarkShared(b *testing.B) {
	_, _, p, _, _ := shared(b, nicshadow.Config{}, 2, false)
	f := tcpTo22() // drops in the envelope: the device keeps nothing
	b.ReportAllocs()
	for b.Loop() {
		p.Send(f, by(1))
	}
}
