package nicshadow_test

import (
	"strings"
	"sync"
	"testing"

	"sekimori/nicshadow"
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
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
	answers  = "flow else no\n" + yes + "\nno:\n" + no
	invited  = "flow else uninvited\n" + yes + "\nuninvited:\n" + no
	oneLimit = `.limit "a 1/h" 3600000000000 3`
)

// TestIngress: what a container's own policy refuses does not reach it, and is
// counted and told as its own.
func TestIngress(t *testing.T) {
	var mu sync.Mutex
	var told []nicshadow.Record
	log := nicshadow.NewDropLog(nicshadow.DropLogConfig{Sink: func(r nicshadow.Record) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, r)
	}})
	b := newBench(t, nicshadow.Config{DropLog: log}, 3)
	put(t, b.table, 2, assembled(t, "", yes, no))
	b.send(t, 1, udp(2, 1, 7))
	group := udp(2, 1, 8)
	copy(group, broadcast[:])
	b.send(t, 1, group)
	outside := udp(2, 9, 9)
	copy(outside[6:], []byte{2, 0, 0, 0, 9, 9})
	b.send(t, up, outside)
	if n := len(b.cards[2].frames()); n != 0 {
		t.Errorf("%d frames reach card 2, want none", n)
	}
	if n := len(b.cards[3].frames()); n != 1 {
		t.Errorf("%d frames reach card 3, want the one to all", n)
	}
	st := b.stats(t, 2)
	if reason(st, "ingress policy") != 3 || st.Frames != 0 || st.Dropped != 0 || st.Delivered != 0 {
		t.Errorf("receiver: %+v; want 3 of ingress policy and nothing sent", st)
	}
	if len(st.Lines) != 1 || st.Lines[0].Line != 2 || st.Lines[0].Frames != 3 {
		t.Errorf("receiver's lines: %+v; want 3 at line 2", st.Lines)
	}
	if got := reason(b.stats(t, 1), "receiver refuses"); got != 2 {
		t.Errorf("sender: %d of receiver refuses, want 2", got)
	}
	// ARP is let in; in audit mode all is, and told.
	b.send(t, 1, arpReply(macOf(2), macOf(1), "10.0.0.1", "10.0.0.2"))
	if err := b.table.SetMode(2, nicshadow.Audit); err != nil {
		t.Fatal(err)
	}
	b.send(t, 1, udp(2, 1, 7))
	malformed := udp(2, 1, 7)
	malformed[14] = 0x44
	copy(malformed[6:], []byte{2, 0, 0, 0, 9, 9})
	b.send(t, up, malformed)
	if n := len(b.cards[2].frames()); n != 3 {
		t.Errorf("%d frames reach card 2, want 3", n)
	}
	log.Close()
	var text []string
	for _, r := range told {
		text = append(text, r.Container+" "+r.Verdict+" "+r.Reason+" "+r.Why)
	}
	want := "c2 drop ingress policy no,c2 drop ingress policy no,c2 drop ingress policy no,c2 would drop ingress policy no,c2 would drop malformed ipv4 "
	if got := strings.Join(text, ","); got != want {
		t.Errorf("told %q, want %q", got, want)
	}
}

// TestMalformedIngress: what does not parse comes in only where nothing is
// judged.
func TestMalformedIngress(t *testing.T) {
	b := newBench(t, nicshadow.Config{}, 3)
	put(t, b.table, 2, assembled(t, "", yes, yes))
	put(t, b.table, 3, assembled(t, oneLimit, limited, ""))
	for _, to := range []int{1, 2, 3} {
		f := udp(to, 9, 7)
		f[14] = 0x44
		copy(f[6:], []byte{2, 0, 0, 0, 9, 9})
		b.send(t, up, f)
	}
	for i, want := range map[int]int{1: 1, 2: 0, 3: 1} {
		if n := len(b.cards[i].frames()); n != want {
			t.Errorf("%d frames reach card %d, want %d", n, i, want)
		}
	}
}

// TestMemory: rates and flows through the switch, over a reload.
func TestMemory(t *testing.T) {
	b := newBench(t, nicshadow.Config{}, 2)
	put(t, b.table, 1, assembled(t, oneLimit, limited, ""))
	for range 2 {
		b.send(t, 1, udp(2, 1, 1))
	}
	other := assembled(t, oneLimit+"\n"+`.limit "b 1/h" 3600000000000 9`, strings.Replace(limited, "yes", "again", 1), "")
	put(t, b.table, 1, other)
	for range 3 {
		b.send(t, 1, udp(2, 1, 1))
	}
	if err := b.table.SetMode(1, nicshadow.Audit); err != nil {
		t.Fatal(err)
	}
	b.send(t, 1, udp(2, 1, 1))
	st := b.stats(t, 1)
	if st.Forwarded != 3 || st.Dropped != 2 || st.WouldDrop != 1 {
		t.Errorf("forwarded %d, dropped %d, would drop %d; want 3, 2, 1", st.Forwarded, st.Dropped, st.WouldDrop)
	}

	put(t, b.table, 2, assembled(t, "", answers, ""))
	back := func(i int) []byte { // the answer to udp(2, i, ...)
		f := udp(i, 2, 1)
		copy(f[34:], []byte{0x20, 0, 0x10, 0})
		return f
	}
	b.send(t, 2, back(1)) // the flow was before the program asked
	b.send(t, 1, udp(2, 1, 1))
	b.send(t, 2, back(1))
	b.send(t, 2, back(up))
	if st := b.stats(t, 2); st.Forwarded != 1 || st.Dropped != 2 {
		t.Errorf("card 2: forwarded %d, dropped %d; want 1, 2", st.Forwarded, st.Dropped)
	}
	// Only what answers comes in to card 1.
	if err := b.table.SetMode(1, nicshadow.Enforce); err != nil {
		t.Fatal(err)
	}
	put(t, b.table, 1, assembled(t, "", yes, invited))
	got := len(b.cards[1].frames())
	put(t, b.table, 2, program(t, rule.Forward, 1))
	b.send(t, 2, udp(1, 2, 1))
	b.send(t, 1, udp(2, 1, 1))
	b.send(t, 2, back(1))
	if n := len(b.cards[1].frames()) - got; n != 1 {
		t.Errorf("%d frames come in, want the answer alone", n)
	}
}

// TestAuditVerdict: a predicate in audit mode drops nothing, and is counted.
func TestAuditVerdict(t *testing.T) {
	b := newBench(t, nicshadow.Config{}, 2)
	put(t, b.table, 1, assembled(t, "", `ret audit, predicate "allow_udp" (a.star:7:1)`, ""))
	b.send(t, 1, udp(2, 1, 1))
	st := b.stats(t, 1)
	if st.WouldDrop != 1 || st.Dropped != 0 || len(b.cards[2].frames()) != 1 {
		t.Errorf("%+v, %d frames arrive; want one that would drop, and arrives", st, len(b.cards[2].frames()))
	}
	if len(st.Lines) != 1 || !st.Lines[0].WouldDrop || st.Lines[0].Line != 7 {
		t.Errorf("lines %+v, want line 7 that would drop", st.Lines)
	}
}

// TestMemoryAllocatesNothing is the frame path of a program that asks.
func TestMemoryAllocatesNothing(t *testing.T) {
	table := nicshadow.NewTable()
	put(t, table, 1, assembled(t, oneLimit, "rate l0 else no\nno:\nflow else out\nout:\n"+yes, ""))
	var j nicshadow.Judgement
	f := udp(2, 1, 1)
	if n := testing.AllocsPerRun(100, func() { table.Judge(1, f, &j) }); n != 0 {
		t.Errorf("%v allocations a frame", n)
	}
	if j.Key.Class() != frame.ClassIPv4UDP || !j.Forward {
		t.Errorf("judged %+v", j)
	}
}

// TestEnvelopeRemembers: an envelope has a memory of its own, of both ways.
func TestEnvelopeRemembers(t *testing.T) {
	b := newBench(t, nicshadow.Config{}, 1)
	for i, tt := range []struct {
		name, envelope string
		want           uint64
	}{
		{"rate", limited, 3},
		{"flow", answers, 4},
	} {
		n := 7 + i
		b.cards[n] = newFake()
		put(t, b.table, nicshadow.Sender(n), program(t, rule.Forward, 1))
		p, err := b.sw.AddPushPort(nicshadow.PushConfig{Name: tt.name, Sender: nicshadow.Sender(n), MAC: macOf(n), Device: b.cards[n], Envelope: assembled(t, oneLimit, tt.envelope, "")})
		if err != nil {
			t.Fatal(err)
		}
		b.send(t, 1, udp(n, 1, 1))
		for range 4 {
			f := udp(1, n, 1)
			copy(f[34:], []byte{0x20, 0, 0x10, 0})
			p.Send(f)
		}
		stranger := udp(1, n, 1)
		p.Send(stranger)
		st := b.stats(t, n)
		if st.Forwarded != tt.want || reason(st, "envelope") != 5-tt.want {
			t.Errorf("%s: %d forwarded, %d dropped by the envelope; want %d, %d", tt.name, st.Forwarded, reason(st, "envelope"), tt.want, 5-tt.want)
		}
	}
}
