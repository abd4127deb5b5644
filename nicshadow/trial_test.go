package nicshadow_test

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"sekimori/nicshadow"
	"sekimori/nicshadow/rule"
)

// told collects differences.
type told struct {
	mu  sync.Mutex
	all []nicshadow.Difference
}

func (d *told) take(x nicshadow.Difference) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = append(d.all, x)
}

func try(t *testing.T, table *nicshadow.Table, s nicshadow.Sender, p *rule.Program) (*nicshadow.Trial, *told) {
	t.Helper()
	d := &told{}
	tr, err := table.Try(s, p.Bytes(), d.take)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Stop() })
	return tr, d
}

// TestTrial: a program beside the one in force decides nothing, and where the
// two differ the frame is told of with both verdicts.
func TestTrial(t *testing.T) {
	table, _, ports, devices := guest(t, nicshadow.Config{}, 2)
	put(t, table, 1, blocking(t, "old.star", 80))
	http := tcpTo22()
	http[37] = 80
	alt := tcpTo22()
	alt[36], alt[37] = 8080>>8, 8080&0xff
	tr, diffs := try(t, table, 1, blocking(t, "new.star", 8080))
	before := stats(t, table, 1)
	ports[1].Send(udp(2, 1, 1)) // alike
	ports[1].Send(http)         // drops, and would pass
	ports[1].Send(alt)          // passes, and would drop
	ports[1].Send(alt[:20])     // does not parse: nobody's to judge
	if n := len(devices[2].frames()); n != 2 {
		t.Errorf("%d frames delivered; want the 2 that the program in force lets pass", n)
	}
	st := stats(t, table, 1)
	if st.Program != before.Program || st.Forwarded-before.Forwarded != 2 || len(st.Lines) != 1 || st.Lines[0].File != "old.star" {
		t.Errorf("Stats = %+v; want those of the program in force", st)
	}
	if got, want := tr.Stop(), (nicshadow.TrialCounts{Same: 1, Tighter: 1, Looser: 1}); got != want {
		t.Errorf("counts %+v; want %+v", got, want)
	}
	if len(diffs.all) != 2 {
		t.Fatalf("%d differences; want 2", len(diffs.all))
	}
	for i, want := range []struct {
		frame     []byte
		now, then rule.Verdict
	}{{http, rule.Drop, rule.Forward}, {alt, rule.Forward, rule.Drop}} {
		d := diffs.all[i]
		if !bytes.Equal(d.Frame, want.frame) || d.Now.Verdict != want.now || d.Then.Verdict != want.then || d.Ingress {
			t.Errorf("difference %d: %+v; want %v, then %v", i, d, want.now, want.then)
		}
	}
	ports[1].Send(http)
	if got := tr.Stop(); got.Looser != 1 {
		t.Errorf("stopped, it judged on: %+v", got)
	}
}

// TestTrialEnds: what was compared is gone when another program is in force, or
// the sender is.
func TestTrialEnds(t *testing.T) {
	table, _, ports, _ := guest(t, nicshadow.Config{}, 3)
	over := func(tr *nicshadow.Trial) bool {
		select {
		case <-tr.Over():
			return true
		default:
			return false
		}
	}
	tr, _ := try(t, table, 1, blocking(t, "new.star", 8080))
	if err := table.SetMode(1, nicshadow.Audit); err != nil || over(tr) {
		t.Errorf("a mode ended the trial, %v", err)
	}
	if _, err := table.Try(1, blocking(t, "x.star", 1).Bytes(), nil); !errors.Is(err, nicshadow.ErrTrialExists) {
		t.Errorf("a second trial: %v", err)
	}
	put(t, table, 1, blocking(t, "newer.star", 9))
	ports[1].Send(udp(2, 1, 1))
	if got := tr.Stop(); !over(tr) || got.Same != 0 {
		t.Errorf("after a reload: over %v, %+v", over(tr), got)
	}
	again, _ := try(t, table, 1, blocking(t, "x.star", 1))
	if err := table.Unregister(1); err != nil || !over(again) {
		t.Errorf("unregistered: %v, over %v", err, over(again))
	}
	for name, tt := range map[string]struct {
		sender  nicshadow.Sender
		program []byte
		is      error
	}{
		"nobody":           {9, blocking(t, "x.star", 1).Bytes(), nicshadow.ErrUnknownSender},
		"nothing in force": {4, blocking(t, "x.star", 1).Bytes(), nicshadow.ErrNoForce},
		"no program":       {2, []byte("x"), nil},
	} {
		if tt.sender == 4 {
			if err := table.Register(4, "c4"); err != nil {
				t.Fatal(err)
			}
		}
		var bad *rule.VerifyError
		_, err := table.Try(tt.sender, tt.program, nil)
		if err == nil || tt.is != nil && !errors.Is(err, tt.is) || tt.is == nil && !errors.As(err, &bad) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTrialMemory: a trial sees the flows of the program in force, takes no
// token of its buckets, and remembers flows by itself where that has none.
func TestTrialMemory(t *testing.T) {
	for _, c := range []struct {
		name               string
		out, in            string // of the program in force
		newOut, newIn      string
		same, tight, loose uint64
	}{
		{"tokens", limited, "", limited, "", 5, 0, 0},
		{"its own tokens", yes, "", limited, "", 3, 2, 0},
		{"flows of both", yes, invited, yes, invited, 7, 0, 0},
		{"its own flows", yes, yes, yes, invited, 6, 1, 0},
		{"flows of the one in force", yes, invited, yes, yes, 6, 0, 1},
		{"stricter on the way in", yes, yes, yes, no, 5, 2, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, nicshadow.Config{}, 2)
			limits := func(out string) string {
				if out == limited {
					return oneLimit
				}
				return ""
			}
			put(t, b.table, 1, assembled(t, limits(c.out), c.out, c.in))
			tr, _ := try(t, b.table, 1, assembled(t, limits(c.newOut), c.newOut, c.newIn))
			for range 5 {
				b.send(t, 1, udp(2, 1, 7))
			}
			if c.in != "" {
				answer := udp(1, 2, 7)
				copy(answer[34:38], []byte{0x20, 0, 0x10, 0}) // the other's ports
				b.send(t, 2, answer)
				// Nobody asked for this one.
				b.send(t, 2, udp(1, 2, 8))
			}
			if got, want := tr.Stop(), (nicshadow.TrialCounts{Same: c.same, Tighter: c.tight, Looser: c.loose}); got != want {
				t.Errorf("%+v; want %+v", got, want)
			}
			if c.out == limited && reason(b.stats(t, 1), "policy") != 2 {
				t.Errorf("the trial took tokens: %+v", b.stats(t, 1))
			}
		})
	}
}

// TestTrialFlood: a flood of differences is counted whole, told in part, and
// waits for nobody.
func TestTrialFlood(t *testing.T) {
	table, _, ports, _ := guest(t, nicshadow.Config{}, 2)
	held := make(chan struct{})
	tr, err := table.Try(1, blocking(t, "new.star", 22).Bytes(), func(nicshadow.Difference) { <-held })
	if err != nil {
		t.Fatal(err)
	}
	const n = 1000
	for range n {
		ports[1].Send(tcpTo22())
	}
	close(held)
	if got := tr.Stop(); got.Tighter != n {
		t.Errorf("%+v; want %d", got, n)
	}
}

// TestTrialAllocates nothing where both programs judge alike.
func TestTrialAllocates(t *testing.T) {
	table, _, _, _ := guest(t, nicshadow.Config{}, 1)
	try(t, table, 1, assembled(t, "", answers, ""))
	var j nicshadow.Judgement
	b := arpReply(macOf(2), macOf(1), "10.0.0.1", "10.0.0.2")
	if n := testing.AllocsPerRun(1000, func() { table.Judge(1, b, &j) }); n != 0 {
		t.Errorf("%v allocations a frame", n)
	}
}
