package nicshadow_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"sekimori/nicshadow"
	"sekimori/nicshadow/rule"
)

// reloads is how often the tests reload (reliability.md 5.1: libvirt crashed
// when its filters were listed while they changed, CVE-2022-0897).
const reloads = 10_000

// TestReloadWhileJudged reloads, changes the mode and reads the counters while
// frames are judged. Each judgement must be that of one program in one mode,
// whole: run again, the program of the judgement must give its outcome, and the
// two that forward are never in audit mode.
func TestReloadWhileJudged(t *testing.T) {
	table := nicshadow.NewTable()
	forward, drop := program(t, rule.Forward, 1), program(t, rule.Drop, 2)
	put(t, table, 1, forward)
	var stop atomic.Bool
	var wg sync.WaitGroup
	var judged, dropped, would atomic.Uint64
	for range 2 {
		wg.Go(func() {
			var j nicshadow.Judgement
			f := udp(2, 1, 0)
			for !stop.Load() {
				on := table.Judge(1, f, &j)
				judged.Add(1)
				again := j.Program.Run(&j.Key)
				if again != j.Outcome || on != (again.Verdict == rule.Forward || j.Audit) {
					t.Errorf("Judge = %t, %+v in audit %t; its program says %+v", on, j.Outcome, j.Audit, again)
					return
				}
				switch {
				case !on:
					dropped.Add(1)
				case j.Reason == nicshadow.Policy:
					would.Add(1)
				}
			}
		})
	}
	wg.Go(func() {
		for !stop.Load() {
			st, err := table.Stats(1)
			if err != nil || st.Frames != st.Forwarded+st.Dropped+st.WouldDrop {
				t.Errorf("Stats = %+v, %v", st, err)
				return
			}
		}
	})
	for i := range reloads {
		p := forward
		if i%2 == 0 {
			p = drop
		}
		put(t, table, 1, p)
		if i%100 == 0 {
			if err := table.SetMode(1, nicshadow.Mode(i/100%2)); err != nil {
				t.Fatal(err)
			}
		}
	}
	stop.Store(true)
	wg.Wait()
	st := stats(t, table, 1)
	if st.Frames != judged.Load() || st.Dropped != dropped.Load() || st.WouldDrop != would.Load() {
		t.Errorf("Stats = %+v; judged %d, dropped %d, would drop %d", st, judged.Load(), dropped.Load(), would.Load())
	}
	var lines, wouldLines uint64
	for _, l := range st.Lines {
		if l.WouldDrop {
			wouldLines += l.Frames
		} else {
			lines += l.Frames
		}
	}
	if lines != st.Dropped || wouldLines != st.WouldDrop {
		t.Errorf("by line %d dropped, %d would drop; want %d, %d", lines, wouldLines, st.Dropped, st.WouldDrop)
	}
}

// TestLinesFold puts more programs in force than tallies are kept: what the
// forgotten ones dropped is still counted by line.
func TestLinesFold(t *testing.T) {
	table := nicshadow.NewTable()
	var j nicshadow.Judgement
	const programs = 100
	for i := range programs {
		put(t, table, 1, program(t, rule.Drop, uint32(i+1)))
		for range i + 1 {
			table.Judge(1, udp(2, 1, 0), &j)
		}
	}
	st := stats(t, table, 1)
	if len(st.Lines) != programs {
		t.Fatalf("%d lines; want %d", len(st.Lines), programs)
	}
	for i, l := range st.Lines {
		want := fmt.Sprintf("a.star:%d %d", programs-i, programs-i)
		if got := fmt.Sprintf("%s:%d %d", l.File, l.Line, l.Frames); got != want {
			t.Errorf("line %d: %s; want %s", i, got, want)
		}
	}
}

// BenchmarkReload is from the bytes of a program to its being in force.
func BenchmarkReload(b *testing.B) {
	table := nicshadow.NewTable()
	ps := [2][]byte{program(b, rule.Forward, 1).Bytes(), program(b, rule.Drop, 2).Bytes()}
	put(b, table, 1, program(b, rule.Forward, 1))
	i := 0
	for b.Loop() {
		i++
		h, err := table.Load(1, ps[i%2])
		if err == nil {
			err = table.Swap(1, h, nicshadow.Enforce)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
