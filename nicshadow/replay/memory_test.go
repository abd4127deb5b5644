package replay_test

import (
	"strings"
	"testing"
	"time"

	"sekimori/nicshadow/replay"
	"sekimori/nicshadow/rule"
)

// limited lets one frame a second out, and in what answers it.
func limited(t *testing.T) *rule.Program {
	t.Helper()
	all := " arp other ipv4-tcp ipv4-udp ipv4-dhcp ipv4-icmp ipv4-other ipv4-fragment ipv6-tcp ipv6-udp ipv6-dhcp ipv6-icmp ipv6-ndp ipv6-other ipv6-fragment\n"
	u, err := rule.Assemble(`.limit "all 1/s" 1000000000 1
.entry` + all + `	rate l0 else no @ web.star:2:5
	ret forward, predicate "allow" (web.star:2:5)
.ingress` + all + `	answered else no @ web.star:2:5
	ret forward, predicate "allow" (web.star:2:5)
no:
	ret drop, predicate "allow" (web.star:2:5)
`)
	if err != nil {
		t.Fatal(err)
	}
	p, err := rule.New(u)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// asked is a request of 10.0.0.5 for 10.0.0.9, or the reply.
func asked(op byte) []byte {
	b := []byte{2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 5, 8, 6, 0, 1, 8, 0, 6, 4, 0, op, 2, 0, 0, 0, 0, 5, 10, 0, 0, 5, 0, 0, 0, 0, 0, 0, 10, 0, 0, 9}
	if op == 2 {
		b[31], b[41] = 9, 5
	}
	return b
}

// TestRemembers: recorded frames are judged by the times they were recorded
// at, and by what went before.
func TestRemembers(t *testing.T) {
	p := limited(t)
	began := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	var frames []replay.Frame
	want := []rule.Verdict{rule.Forward, rule.Drop, rule.Forward, rule.Drop, rule.Forward}
	for i, after := range []time.Duration{0, 500 * time.Millisecond, time.Second, 0, 2 * time.Second} { // the fourth's clock stepped back
		frames = append(frames, replay.Frame{Number: i + 1, Time: began.Add(after), Data: asked(1), Length: 42})
	}
	x := replay.NewExplainer(p, nil)
	for i, r := range replay.Judge(p, frames) {
		if r.Verdict() != want[i] {
			t.Errorf("frame %d: %v, want %v", i+1, r.Verdict(), want[i])
		}
		e := x.Explain(&frames[i])
		if e.Verdict != want[i].String() || len(e.Steps) != 1 || e.Steps[0].Holds != (want[i] == rule.Forward) || !strings.HasPrefix(e.Steps[0].Text, "rate") {
			t.Errorf("frame %d explained as %s by %+v, want %v", i+1, e.Verdict, e.Steps, want[i])
		}
	}
}

// TestJudgeAt plays both ways.
func TestJudgeAt(t *testing.T) {
	p := limited(t)
	m := rule.Moment{State: p.NewState(nil), Now: 1}
	in := m
	in.Ingress = true
	judge := func(m rule.Moment, op byte) rule.Verdict {
		r := replay.JudgeAt(p, &replay.Frame{Data: asked(op), Length: 42}, m)
		return r.Verdict()
	}
	if v := judge(in, 2); v != rule.Drop {
		t.Errorf("an answer to nothing: %v", v)
	}
	if v := judge(m, 1); v != rule.Forward {
		t.Errorf("a question: %v", v)
	}
	if v := judge(in, 2); v != rule.Forward {
		t.Errorf("its answer: %v", v)
	}
	// A policy that says nothing of what comes in lets it in, parsed or not,
	// and nothing decided that.
	u := p.Unit()
	u.Ingress = nil
	u.Insns, u.Lines = append(u.Insns[:2:2], u.Insns[4]), append(u.Lines[:2:2], u.Lines[4])
	u.Insns[0].Off = 1
	q, err := rule.New(u)
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range [][]byte{asked(2), asked(2)[:20]} {
		r := replay.JudgeAt(q, &replay.Frame{Data: data, Length: len(data)}, rule.Moment{State: q.NewState(nil), Now: 1, Ingress: true})
		file, _, _ := r.Position()
		if r.Verdict() != rule.Forward || r.Why() != (rule.Why{}) || file != "" {
			t.Errorf("%d bytes on their way in: %v by %+v in %q", len(data), r.Verdict(), r.Why(), file)
		}
	}
}
