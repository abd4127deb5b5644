package nicshadow_test

import (
	"encoding/hex"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sekimori/nicshadow"
	"sekimori/nicshadow/rule"
)

// records collects what a drop log tells.
type records struct {
	mu  sync.Mutex
	all []nicshadow.Record
}

func (r *records) sink(x nicshadow.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, x)
}

func (r *records) get() []nicshadow.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all
}

// TestDropLog drops frames in both modes and reads what is told.
func TestDropLog(t *testing.T) {
	var r records
	log := nicshadow.NewDropLog(nicshadow.DropLogConfig{Sink: r.sink})
	b := newBench(t, nicshadow.Config{DropLog: log}, 2)
	p := program(t, rule.Drop, 42)
	put(t, b.table, 1, p)
	forged := arpReply(macOf(2), macOf(1), "10.0.0.3", "10.0.0.2")
	b.send(t, 1, forged)
	if err := b.table.SetMode(1, nicshadow.Audit); err != nil {
		t.Fatal(err)
	}
	b.send(t, 1, forged)
	b.send(t, 1, forged[:20])
	b.send(t, 2, udp(9, 2, 0))
	b.send(t, 2, udp(1, 2, 0)) // allowed: nothing is told
	b.send(t, up, udp(1, 2, 0))
	log.Close()
	arp := "arp reply 10.0.0.3 is-at 02:00:00:00:00:01 -> 10.0.0.2"
	want := []nicshadow.Record{
		{Container: "c1", Verdict: "drop", Reason: "policy", Kind: "predicate", Why: "allow_all", File: "a.star", Line: 42, Col: 5, PC: 2, Summary: arp},
		{Container: "c1", Verdict: "would drop", Reason: "policy", Kind: "predicate", Why: "allow_all", File: "a.star", Line: 42, Col: 5, PC: 2, Summary: arp},
		{Container: "c1", Verdict: "would drop", Reason: "malformed arp", Summary: "02:00:00:00:00:01 -> 02:00:00:00:00:02 type 0x0806 length 20"},
		{Container: "c2", Verdict: "drop", Reason: "unknown destination", Summary: "udp 10.0.0.2:4096 -> 10.0.0.9:8192 length 50"},
		{Container: "up", Verdict: "drop", Reason: "identity mismatch", Summary: "02:00:00:00:00:02 -> 02:00:00:00:00:01 type 0x0800 length 50"},
	}
	got := r.get()
	h := p.Hash()
	for i := range got {
		if got[i].Kind != "" {
			if got[i].Program != hex.EncodeToString(h[:]) || got[i].Class != "arp" || got[i].Fields["arp.spa"] != "10.0.0.3" || got[i].Fields["arp.op"] != "2" {
				t.Errorf("program, class, fields = %s, %s, %v", got[i].Program, got[i].Class, got[i].Fields)
			}
			got[i].Program, got[i].Class, got[i].Fields = "", "", nil
		}
		if time.Since(got[i].Time) > time.Minute {
			t.Errorf("Time = %v", got[i].Time)
		}
		got[i].Time = time.Time{}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("records (-want +got):\n%s", d)
	}
	if at := got[0].Position(); at != "a.star:42:5" {
		t.Errorf("Position = %q", at)
	}
}

// TestDropLogRate floods: the burst is told of, the rest is counted, and the
// next record says how many.
func TestDropLogRate(t *testing.T) {
	var r records
	log := nicshadow.NewDropLog(nicshadow.DropLogConfig{Rate: 20, Burst: 10, Sink: r.sink})
	src, other := log.Source("web"), log.Source("db")
	j := &nicshadow.Judgement{Reason: nicshadow.NoProgram}
	f := udp(2, 1, 0)
	start := time.Now()
	for range 5000 {
		src.Offer(f, j)
	}
	other.Offer(f, j) // not web's flood's business
	fresh := uint64(time.Since(start).Seconds()*20) + 1
	suppressed := src.Suppressed()
	if suppressed < 5000-10-fresh || suppressed > 5000-10 {
		t.Errorf("Suppressed = %d; want about %d", suppressed, 5000-10)
	}
	time.Sleep(120 * time.Millisecond) // two tokens
	src.Offer(f, j)
	log.Close()
	src.Offer(f, j) // after Close: nothing
	got := r.get()
	last := got[len(got)-1]
	if last.Container != "web" || last.Suppressed != suppressed || src.Suppressed() != 0 {
		t.Errorf("last record = %+v; want %d suppressed", last, suppressed)
	}
	if n := len(got); n < 12 || n > 12+int(fresh) {
		t.Errorf("%d records; want 12", n)
	}
}

// TestDropLogSlowSink: a sink that does not come back holds up nobody who
// offers.
func TestDropLogSlowSink(t *testing.T) {
	release := make(chan struct{})
	log := nicshadow.NewDropLog(nicshadow.DropLogConfig{Rate: 1e6, Burst: 1e6, Sink: func(nicshadow.Record) { <-release }})
	src := log.Source("web")
	j := &nicshadow.Judgement{Reason: nicshadow.NoProgram}
	start := time.Now()
	for range 2000 {
		src.Offer(udp(2, 1, 0), j)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("2000 offers took %v", d)
	}
	if src.Suppressed() == 0 {
		t.Error("nothing suppressed")
	}
	close(release)
	log.Close()
}

func TestRecordLogValue(t *testing.T) {
	var out strings.Builder
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	r := nicshadow.Record{
		Container: "web", Verdict: "drop", Reason: "policy", Kind: "guard", Why: "arp", File: "a.star", Line: 4, Col: 2, PC: 7,
		Summary: "arp reply", Suppressed: 3,
	}
	log.Warn("frame dropped", "", &r)
	want := `level=WARN msg="frame dropped" container=web verdict=drop reason=policy why="guard arp" pos=a.star:4:2 pc=7 frame="arp reply" suppressed=3` + "\n"
	if out.String() != want {
		t.Errorf("log = %s; want %s", out.String(), want)
	}
}

func TestOfferAllocates(t *testing.T) {
	log := nicshadow.NewDropLog(nicshadow.DropLogConfig{Rate: 1, Burst: 1})
	defer log.Close()
	src := log.Source("web")
	j := &nicshadow.Judgement{Reason: nicshadow.NoProgram}
	f := udp(2, 1, 0)
	if n := testing.AllocsPerRun(1000, func() { src.Offer(f, j) }); n != 0 {
		t.Errorf("Offer allocates %v times", n)
	}
}
