package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"sekimori/lifecycle"
	"sekimori/lifecycle/bundle"
	"sekimori/nicshadow"
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
	"sekimori/vmm/hypercall"
)

// These tests are in package main: the data path is reached through no
// exported name, and its devices are replaced by pipes.

// A wirePair is a device without a kernel: the test sends frames into out, and
// what the switch delivers arrives at in.
type wirePair struct {
	out, in chan []byte
	closed  chan struct{}
}

func newWirePair() *wirePair {
	return &wirePair{out: make(chan []byte), in: make(chan []byte, 16), closed: make(chan struct{})}
}

func (w *wirePair) Read(b []byte) (int, error) {
	select {
	case f := <-w.out:
		return copy(b, f), nil
	case <-w.closed:
		return 0, os.ErrClosed
	}
}

func (w *wirePair) Write(b []byte) (int, error) {
	w.in <- append([]byte(nil), b...)
	return len(b), nil
}

func (w *wirePair) Close() error { close(w.closed); return nil }

// constant is the program that gives every frame the same verdict.
func constant(t testing.TB, v rule.Verdict) []byte {
	p, err := rule.New(&rule.Unit{
		Insns: []rule.Insn{{Op: rule.OpRet, A: uint8(v)}},
		Whys:  []rule.Why{{Kind: rule.WhyPredicate, Name: "allow_ethernet"}},
		Lines: []rule.Pos{{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p.Bytes()
}

var cards = map[string]string{"a": "02:00:00:00:00:0a", "b": "02:00:00:00:00:0b"}

// frame is an EtherType nobody knows, from a to b, of the shortest length.
func aToB(t *testing.T) []byte {
	f := make([]byte, 60)
	for i, who := range []string{"b", "a"} {
		m, err := frame.ParseMAC(cards[who])
		if err != nil {
			t.Fatal(err)
		}
		copy(f[6*i:], m[:])
	}
	f[12], f[13] = 0x88, 0xb5
	return f
}

// attach makes a network with containers a and b; b's program forwards.
func attach(t *testing.T, forced string, program []byte, mode string) (*network, map[string]*wirePair) {
	t.Helper()
	n, err := newNetwork(nicshadow.Config{Table: nicshadow.NewTable()}, forced, nil)
	if err != nil {
		t.Fatal(err)
	}
	devices := map[string]*wirePair{"a": newWirePair(), "b": newWirePair()}
	for _, name := range []string{"a", "b"} {
		n.open = func(*os.File, *bundle.NIC, frame.MAC) (io.ReadWriteCloser, error) { return devices[name], nil }
		prog, m := program, mode
		if mode == "card" { // audit is the card's
			m = lifecycle.Enforce
		}
		if name == "b" {
			prog, m = constant(t, rule.Forward), lifecycle.Enforce
		}
		if err := n.Attach(t.Context(), name, &bundle.NIC{Name: "eth0", MAC: cards[name], Audit: name == "a" && mode == "card"}, nil, prog, m); err != nil {
			t.Fatal(err)
		}
	}
	return n, devices
}

// passes reports whether a frame of a's reaches b.
func passes(t *testing.T, devices map[string]*wirePair) bool {
	t.Helper()
	devices["a"].out <- aToB(t)
	synctest.Wait()
	select {
	case <-devices["b"].in:
		return true
	default:
		return false
	}
}

func TestNetworkModes(t *testing.T) {
	drop, forward := constant(t, rule.Drop), constant(t, rule.Forward)
	tests := []struct {
		name    string
		forced  string
		program []byte
		mode    string
		change  func(context.Context, *network) error
		want    bool
	}{
		{name: "forward", program: forward, mode: "enforce", want: true},
		{name: "drop", program: drop, mode: "enforce"},
		{name: "audit lets go on", program: drop, mode: "audit", want: true},
		{name: "no program", mode: "enforce"},
		{name: "no program, audit", mode: "audit"},
		{name: "forced to audit", forced: "audit", program: drop, mode: "enforce", want: true},
		{name: "forced to enforce", forced: "enforce", program: drop, mode: "audit"},
		{name: "a card in audit mode", program: drop, mode: "card", want: true},
		{name: "a card in audit mode, forced to enforce", forced: "enforce", program: drop, mode: "card"},
		{name: "a card in audit mode, and no program", mode: "card"},
		{name: "a card in audit mode, another policy", program: forward, mode: "card", change: func(ctx context.Context, n *network) error {
			return n.LoadPolicy(ctx, "a", drop, "enforce")
		}, want: true},
		{name: "a card in audit mode until it is told", program: drop, mode: "card", change: func(ctx context.Context, n *network) error {
			return errors.Join(n.SetMode(ctx, "a", "enforce"), n.LoadPolicy(ctx, "a", drop, "enforce"))
		}},
		{name: "reload to drop", program: forward, mode: "enforce", change: func(ctx context.Context, n *network) error {
			return n.LoadPolicy(ctx, "a", drop, "enforce")
		}},
		{name: "reload to nothing in audit", program: forward, mode: "audit", change: func(ctx context.Context, n *network) error {
			return n.LoadPolicy(ctx, "a", nil, "audit")
		}},
		{name: "audit opens no closed card", program: nil, mode: "enforce", change: func(ctx context.Context, n *network) error {
			return n.SetMode(ctx, "a", "audit")
		}},
		{name: "reload to audit", program: nil, mode: "enforce", change: func(ctx context.Context, n *network) error {
			return n.LoadPolicy(ctx, "a", drop, "audit")
		}, want: true},
		{name: "reload from audit to enforce", program: forward, mode: "audit", change: func(ctx context.Context, n *network) error {
			return n.LoadPolicy(ctx, "a", drop, "enforce")
		}},
		{name: "mode cannot leave what was forced", forced: "enforce", program: drop, mode: "enforce", change: func(ctx context.Context, n *network) error {
			return n.SetMode(ctx, "a", "audit")
		}},
		{name: "a bad program changes nothing", program: forward, mode: "enforce", change: func(ctx context.Context, n *network) error {
			if err := n.LoadPolicy(ctx, "a", []byte("garbage"), "enforce"); err == nil {
				return errors.New("LoadPolicy(garbage) = nil; want an error")
			}
			return nil
		}, want: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, devices := attach(t, tt.forced, tt.program, tt.mode)
				defer n.Close()
				if tt.change != nil {
					if err := tt.change(t.Context(), n); err != nil {
						t.Fatal(err)
					}
				}
				if got := passes(t, devices); got != tt.want {
					t.Errorf("frame of a's reaches b = %v; want %v", got, tt.want)
				}
			})
		})
	}
}

func TestNetworkStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, devices := attach(t, "", constant(t, rule.Drop), "audit")
		defer n.Close()
		passes(t, devices)
		if err := n.SetMode(t.Context(), "a", "enforce"); err != nil {
			t.Fatal(err)
		}
		passes(t, devices)
		raw, err := n.Stats(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		var st netStats
		if err := json.Unmarshal(raw, &st); err != nil {
			t.Fatal(err)
		}
		if st.Frames != 2 || st.Dropped != 1 || st.WouldDrop != 1 || st.Mode != "enforce" || len(st.Program) != 64 {
			t.Errorf("Stats = %s; want 2 frames, 1 dropped, 1 would drop", raw)
		}
		for _, would := range []bool{false, true} {
			found := false
			for _, d := range st.Drops {
				found = found || d.Would == would && d.Why == "allow_ethernet" && d.Count == 1
			}
			if !found {
				t.Errorf("Stats = %s; want one drop with would = %v", raw, would)
			}
		}
	})
}

func TestNetworkAttachFails(t *testing.T) {
	n, err := newNetwork(nicshadow.Config{Table: nicshadow.NewTable()}, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	nic := &bundle.NIC{Name: "eth0", MAC: cards["a"]}
	boom := errors.New("no device")
	n.open = func(*os.File, *bundle.NIC, frame.MAC) (io.ReadWriteCloser, error) { return nil, boom }
	if err := n.Attach(t.Context(), "a", nic, nil, constant(t, rule.Forward), "enforce"); !errors.Is(err, boom) {
		t.Errorf("Attach without a device = %v; want %v", err, boom)
	}
	if err := n.Attach(t.Context(), "a", nic, nil, []byte("garbage"), "enforce"); err == nil || !strings.Contains(err.Error(), "program refused") {
		t.Errorf("Attach of a bad program = %v; want it refused", err)
	}
	if left := n.table.Senders(); len(left) != 0 {
		t.Errorf("senders after two failed Attach = %v; want none", left)
	}
	if err := n.Detach("a"); err == nil {
		t.Error("Detach of what was not attached = nil; want an error")
	}
}

// A reload must be in force within a millisecond.
func BenchmarkReload(b *testing.B) {
	n, err := newNetwork(nicshadow.Config{Table: nicshadow.NewTable()}, "", nil)
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	dev := newWirePair()
	n.open = func(*os.File, *bundle.NIC, frame.MAC) (io.ReadWriteCloser, error) { return dev, nil }
	programs := [][]byte{constant(b, rule.Drop), constant(b, rule.Forward)}
	if err := n.Attach(b.Context(), "a", &bundle.NIC{Name: "eth0", MAC: cards["a"]}, nil, programs[0], "enforce"); err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		if err := n.LoadPolicy(b.Context(), "a", programs[i%2], "enforce"); err != nil {
			b.Fatal(err)
		}
	}
}

// TestFigures: what a callback reads of its card.
func TestFigures(t *testing.T) {
	st := newNetStats(hypercall.Stats{
		Mode: hypercall.ModeEnforce, Frames: 9, Dropped: 3, Delivered: 4,
		Reasons: []hypercall.ReasonCount{{Reason: "policy", Frames: 3}, {Reason: "ingress policy", Frames: 2}, {Reason: "ingress policy", WouldDrop: true, Frames: 7}},
		Lines: []hypercall.LineCount{
			{Kind: "predicate", Name: "allow_tcp", Line: 3, Frames: 2}, {Kind: "predicate", Name: "allow_tcp", Line: 4, Frames: 1}, {Kind: "guard", Name: "mac", Frames: 5},
		},
	})
	got := figures(st)
	for name, want := range map[string]uint64{"frames": 9, "dropped": 3, "delivered": 4, "refused": 2, "allow_tcp": 3} {
		if got[name] != want {
			t.Errorf("%s = %d, want %d", name, got[name], want)
		}
	}
	if _, ok := got["mac"]; ok {
		t.Errorf("a guard among the predicates: %v", got)
	}
}
