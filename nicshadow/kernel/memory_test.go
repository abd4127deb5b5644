package kernel_test

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"sekimori/nicshadow"
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/kernel"
	"sekimori/nicshadow/replay"
	"sekimori/nicshadow/rule"
	"sekimori/nicshadow/tap"
	"sekimori/nicshadow/tap/taptest"
	"sekimori/nicshadow/uplink"
)

// assembled is a program that forwards all but UDP on its way out, for which
// out decides, and on its way in, for which in does; "" for no ingress.
func assembled(t testing.TB, limits, out, in string) *rule.Program {
	t.Helper()
	rest := " arp other ipv4-tcp ipv4-dhcp ipv4-icmp ipv4-other ipv4-fragment ipv6-tcp ipv6-udp ipv6-dhcp ipv6-icmp ipv6-ndp ipv6-other ipv6-fragment\n"
	src := limits + "\n.entry ipv4-udp\n" + out + "\n.entry" + rest + "ret forward, predicate \"other\"\n"
	if in != "" {
		src += ".ingress ipv4-udp\n" + in + "\n.ingress" + rest + "ret forward, predicate \"other\"\n"
	}
	u, err := rule.Assemble(src)
	if err != nil {
		t.Fatal(err)
	}
	p, err := rule.New(u)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const (
	yes      = "ret forward, predicate \"yes\" (a.star:1:1)"
	no       = "ret drop, predicate \"no\" (a.star:2:1)"
	limited  = "rate l0 else no\n" + yes + "\nno:\n" + no
	second   = "rate l1 else no\n" + yes + "\nno:\n" + no
	answers  = "flow else no\n" + yes + "\nno:\n" + no
	invited  = "flow else uninvited\n" + yes + "\nuninvited:\n" + no
	oneLimit = `.limit "a 1/h" 3600000000000 3`
	two      = `.limit "b 1/h" 3600000000000 5` + "\n" + oneLimit
)

// TestLimitsStay: a token bucket goes on over a reload where the same limit
// stays, under whichever number, and a new one begins full.
func TestLimitsStay(t *testing.T) {
	r := newBareRig(t, true, 2)
	r.put(2, all(t, rule.Forward, 1), nicshadow.Enforce)
	w := r.wire(1)
	send := func(n int) (passed uint64) {
		t.Helper()
		before := r.stats(1)
		for range n {
			if err := w.send(datagram(60)); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "judged", func() bool { return r.stats(1).Frames == before.Frames+uint64(n) })
		return r.stats(1).Forwarded - before.Forwarded
	}
	for i, s := range []struct {
		limits, out string
		send        int
		want        uint64
	}{
		{oneLimit, limited, 2, 2}, // of three tokens
		{two, second, 2, 1},       // the third, under another number
		{two, limited, 6, 5},      // the other's, full
		{"", yes, 4, 4},
		{oneLimit, limited, 2, 0}, // still empty
	} {
		r.put(1, assembled(t, s.limits, s.out, ""), nicshadow.Enforce)
		if got := send(s.send); got != s.want {
			t.Errorf("step %d: %d of %d datagrams passed, want %d", i, got, s.send, s.want)
		}
	}
}

// TestAnswers: who was called may answer, also behind a reload, and nobody else.
// What arrives at a card without a say in it is noted all the same.
func TestAnswers(t *testing.T) {
	r := newBareRig(t, true, 2)
	r.put(1, all(t, rule.Forward, 1), nicshadow.Enforce)
	r.put(2, assembled(t, "", answers, ""), nicshadow.Enforce)
	a, b := r.wire(1), r.wire(2)
	call := datagram(60)
	answer := append([]byte(nil), call...)
	copy(answer, call[6:12])
	copy(answer[6:], call[:6])
	copy(answer[26:], call[30:34])
	copy(answer[30:], call[26:30])
	copy(answer[34:], call[36:38])
	copy(answer[36:], call[34:36])
	reply := func(want string) {
		t.Helper()
		before := r.stats(2)
		if err := b.send(answer); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the answer", func() bool { return r.stats(2).Frames > before.Frames })
		if got := r.stats(2).Forwarded > before.Forwarded; got != (want == "passes") {
			t.Errorf("the answer passes: %v; want that it %s", got, want)
		}
	}
	reply("drops")
	if err := a.send(call); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the call", func() bool { return r.stats(2).Delivered == 1 })
	reply("passes")
	r.put(2, assembled(t, oneLimit, answers, ""), nicshadow.Enforce)
	reply("passes")
}

// TestUplink: the host and the containers reach each other, as the policy
// allows, and the host cannot pass for a container. What was made on the host is
// gone with the port.
func TestUplink(t *testing.T) {
	r := newRig(t, nicshadow.Config{}, true, 2)
	for i := 1; i <= 2; i++ {
		r.put(i, all(t, rule.Forward, 1), nicshadow.Enforce)
	}
	host := len(r.ns)
	r.ns = append(r.ns, taptest.NetNS(t))
	cfg := uplink.Config{
		Table: "seki-test", Name: "seki0", MAC: macOf(254), NetNS: r.ns[host], Masquerade: true,
		Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.254/24")},
	}
	remove, err := uplink.Masquerade(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.kernel.AddCard(kernel.CardConfig{Name: "uplink", Trusted: true, NetNS: r.ns[host], Card: uplink.Card(cfg), Closed: remove}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ping", func() bool { return r.ping(1, "10.0.0.254", 1) && r.ping(host, "10.0.0.2", 1) })
	r.put(1, all(t, rule.Drop, 1), nicshadow.Enforce)
	if r.ping(1, "10.0.0.254", 1) || r.ping(host, "10.0.0.1", 1) {
		t.Error("ping of a container whose policy drops: answered")
	}
	m2 := macOf(2)
	if out, err := r.run(host, "ip", "link", "set", "seki0", "address", m2.String()); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if r.ping(host, "10.0.0.2", 1) {
		t.Error("ping by the host as container 2: answered")
	}
	if st, err := r.sw.TrustedStats("uplink"); err != nil || reason(st, "identity mismatch") == 0 || st.Forwarded == 0 {
		t.Errorf("TrustedStats = %+v, %v; want identity mismatches", st, err)
	}
	if err := r.sw.RemovePort("uplink"); err != nil {
		t.Error(err)
	}
	if got, err := r.run(host, "sh", "-c", "nft list ruleset; ip -o link show seki0 2>/dev/null"); got != "" {
		t.Errorf("left behind on the host: %s, %v", got, err)
	}
}

// TestMixed: a switch has cards of one kind.
func TestMixed(t *testing.T) {
	taptest.TUN(t)
	r := newBareRig(t, true, 1)
	dev, err := tap.Open(taptest.NetNS(t), tap.Config{Name: "eth0", MAC: macOf(9)})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	if err := r.table.Register(9, "c9"); err != nil {
		t.Fatal(err)
	}
	err = r.sw.AddPort(nicshadow.PortConfig{Name: "c9", Sender: 9, MAC: macOf(9), Device: dev})
	if err == nil || !strings.Contains(err.Error(), nicshadow.ErrMixed.Error()) {
		t.Errorf("AddPort = %v; want %v", err, nicshadow.ErrMixed)
	}
}

// TestLiveCapture: a capture that begins while frames pass has each from then on,
// whole, with its verdict, and its tag.
func TestLiveCapture(t *testing.T) {
	r := newBareRig(t, true, 2)
	r.put(1, all(t, rule.Forward, 1), nicshadow.Enforce)
	r.put(2, all(t, rule.Forward, 1), nicshadow.Enforce)
	w := r.wire(1)
	path := filepath.Join(t.TempDir(), "live.pcapng")
	c, err := nicshadow.NewCapture(nicshadow.CaptureConfig{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.send(datagram(77)); err != nil { // before
		t.Fatal(err)
	}
	eventually(t, "the frame before", func() bool { return r.stats(1).Frames == 1 })
	end, err := r.sw.Live(nicshadow.LiveConfig{Capture: c, Container: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	tagged := datagram(300)
	tagged = append(append(append([]byte(nil), tagged[:12]...), 0x81, 0, 0, 5), tagged[12:]...)
	want := [][]byte{datagram(60), datagram(1514), tagged}
	for _, b := range want {
		if err := w.send(b); err != nil {
			t.Fatal(err)
		}
	}
	var frames []replay.Frame
	eventually(t, "three captured frames", func() bool {
		frames, err = replay.Open(path)
		return err == nil && len(frames) == len(want)
	})
	end()
	if err := w.send(datagram(78)); err != nil { // after
		t.Fatal(err)
	}
	eventually(t, "the frame after", func() bool { return r.stats(1).Frames == 5 })
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for i, f := range frames {
		if string(f.Data) != string(want[i]) || !strings.HasPrefix(f.Comment, "forward: predicate allow_all at a.star:1:5") {
			t.Errorf("frame %d: %x %q; want %x", i, f.Data, f.Comment, want[i])
		}
	}
	if frames, err := replay.Open(path); err != nil || len(frames) != len(want) {
		t.Errorf("%d frames in the end, %v; want %d", len(frames), err, len(want))
	}
}

// TestTooLarge: a program that the kernel does not take is refused with the line
// at which it is too much, and the one in force stays.
func TestTooLarge(t *testing.T) {
	r := newBareRig(t, true, 1)
	r.put(1, all(t, rule.Forward, 1), nicshadow.Enforce)
	u := all(t, rule.Forward, 1).Unit()
	large := *u
	large.Insns, large.Lines = nil, nil
	for n := range 9000 {
		large.Insns = append(large.Insns, rule.Insn{Op: rule.OpTestEq, A: uint8(frame.Length), K: uint32(n)})
		large.Lines = append(large.Lines, rule.Pos{Line: uint32(n + 1), Col: 1})
	}
	large.Insns = append(large.Insns, rule.Insn{Op: rule.OpRet, A: uint8(rule.Drop)})
	large.Lines = append(large.Lines, rule.Pos{Line: 9001, Col: 1})
	for c := range large.Entries {
		large.Entries[c] = 0
	}
	p, err := rule.New(&large)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := r.table.Load(1, p.Bytes())
	if err == nil {
		err = r.table.Swap(1, hash, nicshadow.Enforce)
	}
	if err == nil || !strings.Contains(err.Error(), "a.star:") || !strings.Contains(err.Error(), "conditional jumps") {
		t.Errorf("Swap = %v; want the line at which it is too much", err)
	}
	w := r.wire(1)
	if err := w.send(datagram(60)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the frame", func() bool { return r.stats(1).Forwarded == 1 })
}

// BenchmarkEnforce is a reload: verified by the kernel, both ways, and in force.
func BenchmarkEnforce(b *testing.B) {
	r := newBareRig(b, true, 1)
	for name, ps := range map[string][2]*rule.Program{
		"plain":     {all(b, rule.Forward, 1), all(b, rule.Drop, 2)},
		"remembers": {assembled(b, oneLimit, answers, ""), assembled(b, two, second, invited)},
	} {
		b.Run(name, func(b *testing.B) {
			for i := range b.N {
				r.put(1, ps[i%2], nicshadow.Enforce)
			}
		})
	}
}
