package nicshadow_test

import (
	"errors"
	"testing"

	"sekimori/nicshadow"
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

func TestTableErrors(t *testing.T) {
	table := nicshadow.NewTable()
	p := program(t, rule.Forward, 1)
	for _, s := range []nicshadow.Sender{0, nicshadow.MaxSenders + 1, 1<<32 - 1} {
		if err := table.Register(s, "x"); !errors.Is(err, nicshadow.ErrSenderRange) {
			t.Errorf("Register(%d) = %v; want %v", s, err, nicshadow.ErrSenderRange)
		}
	}
	put(t, table, 1, p)
	if err := table.Register(1, "again"); !errors.Is(err, nicshadow.ErrSenderExists) {
		t.Errorf("Register twice = %v; want %v", err, nicshadow.ErrSenderExists)
	}
	for name, err := range map[string]error{
		"Load":       func() error { _, err := table.Load(2, p.Bytes()); return err }(),
		"Swap":       table.Swap(2, p.Hash(), nicshadow.Enforce),
		"SetMode":    table.SetMode(2, nicshadow.Audit),
		"Stats":      func() error { _, err := table.Stats(2); return err }(),
		"Unregister": table.Unregister(2),
	} {
		if !errors.Is(err, nicshadow.ErrUnknownSender) {
			t.Errorf("%s of an unknown sender = %v; want %v", name, err, nicshadow.ErrUnknownSender)
		}
	}
	if err := table.Swap(1, [32]byte{1}, nicshadow.Enforce); !errors.Is(err, nicshadow.ErrNotLoaded) {
		t.Errorf("Swap to what was not loaded = %v; want %v", err, nicshadow.ErrNotLoaded)
	}
	if err := table.Swap(1, p.Hash(), nicshadow.Enforce); err != nil {
		t.Errorf("Swap to the program in force = %v", err)
	}
}

// TestBadProgram: a program that fails verification leaves the old one in
// force, and so does one that is loaded and not swapped to.
func TestBadProgram(t *testing.T) {
	table := nicshadow.NewTable()
	old := program(t, rule.Forward, 1)
	put(t, table, 1, old)
	bad := old.Bytes()
	bad[len(bad)/2] ^= 0xff
	var v *rule.VerifyError
	if _, err := table.Load(1, bad[:len(bad)-1]); !errors.As(err, &v) {
		t.Errorf("Load of a cut program = %v; want a *rule.VerifyError", err)
	}
	if _, err := table.Load(1, program(t, rule.Drop, 2).Bytes()); err != nil {
		t.Fatal(err)
	}
	if got := table.Program(1).Hash(); got != old.Hash() {
		t.Errorf("in force %x; want %x", got[:4], old.Bytes()[:4])
	}
	var j nicshadow.Judgement
	if !table.Judge(1, udp(2, 1, 0), &j) {
		t.Errorf("Judge = %v; want allowed by the old program", j.Reason)
	}
}

// TestStagedBound: a sender that loads and never swaps costs a bounded number
// of programs.
func TestStagedBound(t *testing.T) {
	table := nicshadow.NewTable()
	put(t, table, 1, program(t, rule.Forward, 1))
	var hashes [][32]byte
	for i := range nicshadow.MaxStaged + 1 {
		h, err := table.Load(1, program(t, rule.Forward, uint32(10+i)).Bytes())
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, h)
	}
	if err := table.Swap(1, hashes[0], nicshadow.Enforce); !errors.Is(err, nicshadow.ErrNotLoaded) {
		t.Errorf("Swap to the oldest = %v; want %v", err, nicshadow.ErrNotLoaded)
	}
	for _, h := range hashes[1:] {
		if err := table.Swap(1, h, nicshadow.Enforce); err != nil {
			t.Errorf("Swap = %v", err)
		}
	}
}

func TestJudge(t *testing.T) {
	ssh := tcpTo22()
	llc := append(udp(2, 1, 0)[:12], 0, 3, 0xaa, 0xaa, 3)
	group := udp(2, 1, 0)
	group[6] |= 1
	tests := []struct {
		name    string
		program *rule.Program // nil: none in force
		mode    nicshadow.Mode
		frame   []byte
		want    nicshadow.Reason
		forward bool
	}{
		{"allowed", program(t, rule.Forward, 1), nicshadow.Enforce, udp(2, 1, 0), nicshadow.Allowed, true},
		{"policy", program(t, rule.Drop, 1), nicshadow.Enforce, udp(2, 1, 0), nicshadow.Policy, false},
		{"no program", nil, nicshadow.Enforce, udp(2, 1, 0), nicshadow.NoProgram, false},
		{"no program, audit", nil, nicshadow.Audit, udp(2, 1, 0), nicshadow.NoProgram, false},
		{"empty", program(t, rule.Forward, 1), nicshadow.Enforce, nil, nicshadow.FromFrame(frame.Truncated), false},
		{"short", program(t, rule.Forward, 1), nicshadow.Enforce, udp(2, 1, 0)[:13], nicshadow.FromFrame(frame.Truncated), false},
		{"llc", program(t, rule.Forward, 1), nicshadow.Enforce, llc, nicshadow.FromFrame(frame.LLC), false},
		{"group source", program(t, rule.Forward, 1), nicshadow.Enforce, group, nicshadow.FromFrame(frame.GroupSource), false},
		{"audit, allowed", program(t, rule.Forward, 1), nicshadow.Audit, udp(2, 1, 0), nicshadow.Allowed, true},
		{"audit, policy", program(t, rule.Forward, 1), nicshadow.Audit, ssh, nicshadow.Policy, true},
		{"audit, llc", program(t, rule.Forward, 1), nicshadow.Audit, llc, nicshadow.FromFrame(frame.LLC), true},
		{"audit, no destination to go to", program(t, rule.Forward, 1), nicshadow.Audit, udp(2, 1, 0)[:13], nicshadow.FromFrame(frame.Truncated), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table := nicshadow.NewTable()
			if err := table.Register(1, "web"); err != nil {
				t.Fatal(err)
			}
			if tt.program != nil {
				put(t, table, 1, tt.program)
			}
			if err := table.SetMode(1, tt.mode); err != nil {
				t.Fatal(err)
			}
			j := nicshadow.Judgement{Reason: 77, Forward: true, Audit: true} // of another frame
			if got := table.Judge(1, tt.frame, &j); got != tt.forward || j.Forward != got || j.Reason != tt.want {
				t.Errorf("Judge = %t, Judgement.Forward %t, Reason %v; want %t, %v", got, j.Forward, j.Reason, tt.forward, tt.want)
			}
			st := stats(t, table, 1)
			var want nicshadow.Stats
			switch {
			case tt.want == nicshadow.Allowed:
				want.Forwarded = 1
			case tt.forward:
				want.WouldDrop = 1
			default:
				want.Dropped = 1
			}
			if st.Frames != 1 || st.Forwarded != want.Forwarded || st.WouldDrop != want.WouldDrop || st.Dropped != want.Dropped || st.Bytes != uint64(len(tt.frame)) {
				t.Errorf("Stats = %+v", st)
			}
			if tt.want != nicshadow.Allowed && reason(st, tt.want.String()) != 1 {
				t.Errorf("Reasons = %+v; want one %q", st.Reasons, tt.want)
			}
			if tt.want == nicshadow.Policy && (len(st.Lines) != 1 || st.Lines[0].File != "a.star" || st.Lines[0].WouldDrop != (tt.mode == nicshadow.Audit)) {
				t.Errorf("Lines = %+v", st.Lines)
			}
		})
	}
}

// tcpTo22 is a TCP segment to port 22, which program drops.
func tcpTo22() []byte {
	b := udp(2, 1, 0)[:34]
	b[17], b[23] = 40, 6 // total length, protocol
	return append(b, 0x10, 0, 0, 22, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0)
}

func TestUnattributed(t *testing.T) {
	table := nicshadow.NewTable()
	put(t, table, 3, program(t, rule.Forward, 1))
	if err := table.Unregister(3); err != nil {
		t.Fatal(err)
	}
	var j nicshadow.Judgement
	for _, s := range []nicshadow.Sender{0, 1, 3, 4, 1<<32 - 1} {
		if table.Judge(s, udp(2, 1, 0), &j) || j.Reason != nicshadow.Unattributed {
			t.Errorf("Judge of sender %d: %v; want %v", s, j.Reason, nicshadow.Unattributed)
		}
	}
	if n := table.Unattributed(); n != 5 {
		t.Errorf("Unattributed = %d; want 5", n)
	}
}

func TestReasonNames(t *testing.T) {
	seen := make(map[string]nicshadow.Reason)
	for r := nicshadow.Unjudged; r <= nicshadow.ReceiverDown; r++ {
		seen[r.String()] = r
	}
	for f := frame.Unparsed; f < frame.NumReasons; f++ {
		r := nicshadow.FromFrame(f)
		if other, ok := seen[r.String()]; ok {
			t.Errorf("reasons %d and %d are both %q", other, r, r)
		}
		if r.String() != f.String() || r.String() == "" {
			t.Errorf("FromFrame(%v) = %v", f, r)
		}
		seen[r.String()] = r
	}
}

func TestJudgeAllocates(t *testing.T) {
	table := nicshadow.NewTable()
	put(t, table, 1, program(t, rule.Forward, 1))
	var j nicshadow.Judgement
	frames := [][]byte{udp(2, 1, 0), tcpTo22(), udp(2, 1, 0)[:20], arpReply(macOf(2), macOf(1), "10.0.0.1", "10.0.0.2")}
	if n := testing.AllocsPerRun(1000, func() {
		for _, b := range frames {
			table.Judge(1, b, &j)
		}
		table.Judge(9, frames[0], &j)
	}); n != 0 {
		t.Errorf("Judge allocates %v times", n)
	}
}

func BenchmarkJudge(b *testing.B) {
	table := nicshadow.NewTable()
	put(b, table, 1, program(b, rule.Forward, 1))
	var j nicshadow.Judgement
	f := udp(2, 1, 0)
	b.ReportAllocs()
	for b.Loop() {
		table.Judge(1, f, &j)
	}
}

// BenchmarkJudgeParse is what of BenchmarkJudge is parser and program.
func BenchmarkJudgeParse(b *testing.B) {
	p := program(b, rule.Forward, 1)
	var k frame.Key
	f := udp(2, 1, 0)
	for b.Loop() {
		frame.Parse(f, &k)
		p.Run(&k)
	}
}

// TestSwapMode looks at programs and modes that change in one step.
func TestSwapMode(t *testing.T) {
	table := nicshadow.NewTable()
	if err := table.Register(1, "web"); err != nil {
		t.Fatal(err)
	}
	p := program(t, rule.Forward, 1)
	for _, m := range []nicshadow.Mode{nicshadow.Audit, nicshadow.Enforce, nicshadow.Audit, 77} {
		hash, err := table.Load(1, p.Bytes())
		if err == nil {
			err = table.Swap(1, hash, m)
		}
		if err != nil {
			t.Fatal(err)
		}
		want := m
		if m == 77 {
			want = nicshadow.Enforce
		}
		if got := stats(t, table, 1).Mode; got != want {
			t.Errorf("mode after Swap(%v) = %v; want %v", m, got, want)
		}
	}
}
