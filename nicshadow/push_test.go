package nicshadow_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sekimori/nicshadow"
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

// blocking returns a program that forwards all but TCP to a port, by line 7 of
// the file.
func blocking(t testing.TB, file string, port uint64) *rule.Program {
	t.Helper()
	u := &rule.Unit{
		Files: []string{file},
		Whys: []rule.Why{
			{Kind: rule.WhyPredicate, Name: "allow_all", Pos: rule.Pos{Line: 1, Col: 5}},
			{Kind: rule.WhyGuard, Name: "port", Pos: rule.Pos{Line: 7, Col: 3}},
		},
		Insns: []rule.Insn{
			{Op: rule.OpTestEq, A: uint8(frame.DstPort), Off: 1, K: uint32(port)},
			{Op: rule.OpRet, A: uint8(rule.Drop), K: 1},
			{Op: rule.OpRet, A: uint8(rule.Forward), K: 0},
		},
	}
	for c := frame.ClassNone + 1; c < frame.NumClasses; c++ {
		u.Entries[c] = 2
	}
	u.Entries[frame.ClassIPv4TCP] = 0
	p, err := rule.New(u)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A guestDevice takes frames for a guest.
type guestDevice struct {
	mu     sync.Mutex
	out    [][]byte
	closed bool
	onTake func()
}

func (d *guestDevice) Write(b []byte) (int, error) {
	if d.onTake != nil {
		d.onTake()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return 0, os.ErrClosed
	}
	d.out = append(d.out, bytes.Clone(b))
	return len(b), nil
}

func (d *guestDevice) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return nil
}

func (d *guestDevice) frames() [][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.out
}

// guest is a switch with pushed cards 1 to n, whose policies forward all and
// whose envelopes drop TCP to 22 by envelope.star:7.
func guest(t testing.TB, cfg nicshadow.Config, n int) (*nicshadow.Table, *nicshadow.Switch, []*nicshadow.PushPort, []*guestDevice) {
	t.Helper()
	cfg.Table = nicshadow.NewTable()
	sw := nicshadow.NewSwitch(cfg)
	t.Cleanup(func() { sw.Close() })
	ports, devices := make([]*nicshadow.PushPort, n+1), make([]*guestDevice, n+1)
	for i := 1; i <= n; i++ {
		put(t, cfg.Table, nicshadow.Sender(i), blocking(t, "policy.star", 443))
		devices[i] = &guestDevice{}
		p, err := sw.AddPushPort(nicshadow.PushConfig{
			Name: fmt.Sprint("c", i), Sender: nicshadow.Sender(i), MAC: macOf(i), Device: devices[i],
			Envelope: blocking(t, "envelope.star", 22),
		})
		if err != nil {
			t.Fatal(err)
		}
		ports[i] = p
	}
	return cfg.Table, sw, ports, devices
}

// TestPush: when Send returns, all is decided. Nothing runs in between.
func TestPush(t *testing.T) {
	table, _, ports, devices := guest(t, nicshadow.Config{}, 3)
	ports[1].Send(udp(2, 1, 7))
	if got := devices[2].frames(); len(got) != 1 || !bytes.Equal(got[0], udp(2, 1, 7)) {
		t.Errorf("card 2 received %x; want the datagram", got)
	}
	ports[1].Send(arpReply(broadcast, macOf(1), "10.0.0.1", "10.0.0.1"))
	if len(devices[2].frames()) != 2 || len(devices[3].frames()) != 1 || len(devices[1].frames()) != 0 {
		t.Error("a broadcast did not reach all others, or came back")
	}
	ports[1].Send(udp(1, 1, 0))
	ports[1].Send(nil)
	ports[1].Send(make([]byte, 1600))
	st := stats(t, table, 1)
	for _, want := range []string{"unknown destination", "truncated", "too long"} {
		if reason(st, want) != 1 {
			t.Errorf("Reasons = %+v; want one %q", st.Reasons, want)
		}
	}
}

// TestEnvelope: a frame must pass both programs. What the envelope drops drops
// in audit mode as well, with the envelope's own line, and no call of the table
// changes it.
func TestEnvelope(t *testing.T) {
	var records []nicshadow.Record
	log := nicshadow.NewDropLog(nicshadow.DropLogConfig{Sink: func(r nicshadow.Record) { records = append(records, r) }})
	table, sw, ports, devices := guest(t, nicshadow.Config{DropLog: log}, 2)
	put(t, table, 1, blocking(t, "policy.star", 80))
	ssh, http := tcpTo22(), tcpTo22()
	http[37] = 80
	steps := []struct {
		name  string
		mode  nicshadow.Mode
		frame []byte
		want  string // verdict and reason of its record; "" where it goes on
		pos   string
	}{
		{"both say yes", nicshadow.Enforce, udp(2, 1, 0), "", ""},
		{"the program says no", nicshadow.Enforce, http, "drop: policy", "policy.star:7:3"},
		{"the envelope says no", nicshadow.Enforce, ssh, "drop: envelope", "envelope.star:7:3"},
		{"the program says no, audit", nicshadow.Audit, http, "would drop: policy", "policy.star:7:3"},
		{"the envelope says no, audit", nicshadow.Audit, ssh, "drop: envelope", "envelope.star:7:3"},
		{"does not parse, audit", nicshadow.Audit, udp(2, 1, 0)[:20], "drop: malformed ipv4", ""},
	}
	delivered := 0
	for _, s := range steps {
		if err := table.SetMode(1, s.mode); err != nil {
			t.Fatal(err)
		}
		ports[1].Send(s.frame)
		if !strings.HasPrefix(s.want, "drop") {
			delivered++
		}
		if n := len(devices[2].frames()); n != delivered {
			t.Errorf("%s: %d frames delivered; want %d", s.name, n, delivered)
		}
	}
	// Both say no, and the program alone would let go on in audit mode.
	put(t, table, 1, blocking(t, "policy.star", 22))
	if err := table.SetMode(1, nicshadow.Audit); err != nil {
		t.Fatal(err)
	}
	if ports[1].Send(ssh); len(devices[2].frames()) != delivered {
		t.Error("audit mode let pass what the envelope drops")
	}
	// Whatever a guest asks of the table, registered anew included.
	if err := errors.Join(table.Unregister(1), table.Register(1, "again")); err != nil {
		t.Fatal(err)
	}
	put(t, table, 1, blocking(t, "policy.star", 443))
	ports[1].Send(ssh)
	if n := len(devices[2].frames()); n != delivered {
		t.Error("the envelope was gone after the sender was registered anew")
	}
	st := stats(t, table, 1)
	if reason(st, "envelope") != 1 || st.Frames != 1 || st.Dropped != 1 {
		t.Errorf("Stats = %+v; want one drop by the envelope", st)
	}
	want := nicshadow.LineKey{File: "envelope.star", Line: 7, Col: 3, Kind: "guard", Why: "port", Envelope: true}
	if len(st.Lines) != 1 || st.Lines[0].LineKey != want {
		t.Errorf("Lines = %+v; want %+v", st.Lines, want)
	}
	if err := sw.RemovePort("c1"); err != nil {
		t.Fatal(err)
	}
	if after := stats(t, table, 1); len(after.Lines) != 1 || after.Lines[0].Frames != st.Lines[0].Frames {
		t.Errorf("Lines without the port = %+v; want %+v", after.Lines, st.Lines)
	}
	log.Close()
	for _, s := range steps {
		if s.want == "" {
			continue
		}
		if len(records) == 0 {
			t.Fatalf("%s: no record", s.name)
		}
		r := records[0]
		records = records[1:]
		if got := r.Verdict + ": " + r.Reason; got != s.want || r.Position() != s.pos {
			t.Errorf("%s: told as %q at %q; want %q at %q", s.name, got, r.Position(), s.want, s.pos)
		}
	}
}

// TestWatched: in audit mode the envelope is not asked if the host itself asks
// only to watch; a guest that sets the mode by itself gains nothing.
func TestWatched(t *testing.T) {
	table, sw, _, devices := guest(t, nicshadow.Config{}, 2)
	for n, watched := range map[int]bool{3: false, 4: true} {
		p, err := sw.AddPushPort(nicshadow.PushConfig{
			Name: fmt.Sprint("c", n), Sender: nicshadow.Sender(n), MAC: macOf(n), Device: &sinkDevice{}, Envelope: blocking(t, "envelope.star", 22), Watched: watched,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := table.Register(nicshadow.Sender(n), fmt.Sprint("c", n)); err != nil {
			t.Fatal(err)
		}
		put(t, table, nicshadow.Sender(n), blocking(t, "policy.star", 80))
		for _, mode := range []nicshadow.Mode{nicshadow.Enforce, nicshadow.Audit} {
			if err := table.SetMode(nicshadow.Sender(n), mode); err != nil {
				t.Fatal(err)
			}
			want := watched && mode == nicshadow.Audit
			for what, b := range map[string][]byte{"what does not parse": udp(2, n, 0)[:20], "what the envelope drops": tcpTo22()} {
				before := len(devices[2].frames())
				p.Send(b)
				if passed := len(devices[2].frames()) > before; passed != want {
					t.Errorf("watched %v, mode %v: %s: passed %v; want %v", watched, mode, what, passed, want)
				}
			}
		}
	}
}

func TestAddPushPortRefused(t *testing.T) {
	_, sw, _, _ := guest(t, nicshadow.Config{}, 1)
	env := blocking(t, "e.star", 1)
	tests := []struct {
		name string
		cfg  nicshadow.PushConfig
		is   error
	}{
		{"no envelope", nicshadow.PushConfig{Name: "x", Sender: 9, MAC: macOf(9)}, nicshadow.ErrNoEnvelope},
		{"nobody's", nicshadow.PushConfig{Name: "x", MAC: macOf(9), Envelope: env}, nicshadow.ErrUnknownSender},
		{"name in use", nicshadow.PushConfig{Name: "c1", Sender: 9, MAC: macOf(9), Envelope: env}, nicshadow.ErrPortExists},
		{"mac in use", nicshadow.PushConfig{Name: "x", Sender: 9, MAC: macOf(1), Envelope: env}, nicshadow.ErrMACInUse},
	}
	for _, tt := range tests {
		tt.cfg.Device = &guestDevice{}
		if _, err := sw.AddPushPort(tt.cfg); !errors.Is(err, tt.is) {
			t.Errorf("%s: AddPushPort = %v; want %v", tt.name, err, tt.is)
		}
	}
	for _, cfg := range []nicshadow.PushConfig{{Name: "x", Sender: 9, Envelope: env}, {Name: "x", Sender: 9, MAC: macOf(9), MTU: 67, Envelope: env}} {
		if _, err := sw.AddPushPort(cfg); err == nil {
			t.Errorf("AddPushPort(%+v) took it", cfg)
		}
	}
}

// TestRemovePushPort: it waits for the Send under way, and later ones are
// forgotten.
func TestRemovePushPort(t *testing.T) {
	_, sw, ports, devices := guest(t, nicshadow.Config{}, 2)
	inside, goOn := make(chan struct{}), make(chan struct{})
	devices[2].onTake = func() { close(inside); <-goOn }
	go ports[1].Send(udp(2, 1, 0))
	<-inside
	var removed atomic.Bool
	done := make(chan error)
	go func() {
		err := sw.RemovePort("c1")
		removed.Store(true)
		done <- err
	}()
	for range 1000 {
		runtime.Gosched()
	}
	if removed.Load() {
		t.Error("RemovePort returned during a Send")
	}
	close(goOn)
	if err := <-done; err != nil {
		t.Error(err)
	}
	devices[2].onTake = nil
	ports[1].Send(udp(2, 1, 0))
	if n := len(devices[2].frames()); n != 1 {
		t.Errorf("%d frames; want 1: the port is gone", n)
	}
}

// TestPushTwice: two calls at once are a bug of the device; the second frame
// drops and is counted.
func TestPushTwice(t *testing.T) {
	table, _, ports, devices := guest(t, nicshadow.Config{}, 2)
	devices[2].onTake = func() {
		devices[2].onTake = nil
		ports[1].Send(udp(2, 1, 2))
	}
	ports[1].Send(udp(2, 1, 1))
	if n := len(devices[2].frames()); n != 1 {
		t.Errorf("%d frames; want 1", n)
	}
	if st := stats(t, table, 1); reason(st, "unjudged") != 1 {
		t.Errorf("Reasons = %+v; want one unjudged", st.Reasons)
	}
}

func TestPushAllocates(t *testing.T) {
	table := nicshadow.NewTable()
	sw := nicshadow.NewSwitch(nicshadow.Config{Table: table})
	defer sw.Close()
	ports := make([]*nicshadow.PushPort, 3)
	for i := 1; i <= 2; i++ {
		put(t, table, nicshadow.Sender(i), program(t, rule.Forward, 1))
		p, err := sw.AddPushPort(nicshadow.PushConfig{
			Name: fmt.Sprint("c", i), Sender: nicshadow.Sender(i), MAC: macOf(i), Device: &sinkDevice{}, Envelope: blocking(t, "e.star", 80),
		})
		if err != nil {
			t.Fatal(err)
		}
		ports[i] = p
	}
	frames := [][]byte{udp(2, 1, 0), tcpTo22(), udp(2, 1, 0)[:20], arpReply(broadcast, macOf(1), "10.0.0.1", "10.0.0.2")}
	if n := testing.AllocsPerRun(1000, func() {
		for _, b := range frames {
			ports[1].Send(b)
		}
	}); n != 0 {
		t.Errorf("Send allocates %v times", n)
	}
}

// BenchmarkPush is BenchmarkFrame on the caller's goroutine and within an
// envelope.
func BenchmarkPush(b *testing.B) {
	table := nicshadow.NewTable()
	sw := nicshadow.NewSwitch(nicshadow.Config{Table: table})
	defer sw.Close()
	var from *nicshadow.PushPort
	for i := 2; i > 0; i-- {
		put(b, table, nicshadow.Sender(i), program(b, rule.Forward, 1))
		p, err := sw.AddPushPort(nicshadow.PushConfig{
			Name: fmt.Sprint("c", i), Sender: nicshadow.Sender(i), MAC: macOf(i), Device: &sinkDevice{}, Envelope: blocking(b, "e.star", 80),
		})
		if err != nil {
			b.Fatal(err)
		}
		from = p
	}
	f := udp(2, 1, 0)
	b.ReportAllocs()
	for b.Loop() {
		from.Send(f)
	}
}
