package main

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"sekimori/nicshadow"
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
	"sekimori/starlark"
	"sekimori/vmm/hypercall"
	"sekimori/vmm/virtio"
)

// A sink takes what is delivered to a guest's card.
type sink struct{ got [][]byte }

func (s *sink) Write(b []byte) (int, error) {
	s.got = append(s.got, append([]byte(nil), b...))
	return len(b), nil
}
func (s *sink) Close() error { return nil }

// A rogue is a machine whose guest belongs to the attacker: its kernel sends
// what it likes on card a, its agent makes what hypercalls it likes. Card b is
// the neighbour.
type rogue struct {
	calls  *hypercall.Client
	policy *guestPolicy
	a      *guestNIC
	b      *sink
	table  *nicshadow.Table
}

const rogueStar = `
def only(own):
    return policy(allow_arp = lambda src_ip: src_ip == own, allow_ipv4 = lambda src_ip: src_ip == own%s)
container(name = "a", rootfs = host_root(), args = ["true"], nic = nic("10.0.0.2/24", mac = "02:00:00:00:00:0a", policy = only(ip("10.0.0.2"))))
container(name = "b", rootfs = host_root(), args = ["true"], nic = nic("10.0.0.3/24", mac = "02:00:00:00:00:0b", policy = only(ip("10.0.0.3"))))
`

func newRogue(t *testing.T, more string) *rogue {
	t.Helper()
	pod, err := starlark.Load(t.Context(), "rogue.star", starlark.Options{Sources: map[string][]byte{"rogue.star": []byte(strings.Replace(rogueStar, "%s", more, 1))}})
	if err != nil {
		t.Fatal(err)
	}
	r := &rogue{b: &sink{}, table: nicshadow.NewTable()}
	sw := nicshadow.NewSwitch(nicshadow.Config{Table: r.table})
	t.Cleanup(func() { sw.Close() })
	r.policy = newGuestPolicy()
	r.policy.bind(r.table, "")
	w := wire{}
	for i, c := range pod.Containers {
		n, err := w.nic(c, nil)
		if err != nil {
			t.Fatal(err)
		}
		cfg := nicshadow.PushConfig{Name: n.name, Sender: nicshadow.Sender(i + 1), MAC: c.Identity().MAC, Device: r.b, Envelope: n.envelope}
		if n.name == "a" {
			r.a, cfg.Device = n, n
		}
		port, err := sw.AddPushPort(cfg)
		if err != nil {
			t.Fatal(err)
		}
		n.port.Store(port)
		r.policy.admit(uint32(i+1), n.name, c.Identity().MAC, c.Spec.NIC.Audit)
	}
	secret := [hypercall.SecretSize]byte{7}
	r.calls = hypercall.NewClient(hypercall.Direct(hypercall.NewServer(r.policy, secret, 0)))
	if err := r.calls.Hello(secret); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"a", "b"} {
		mac, _ := frame.ParseMAC(cards[name])
		if err := r.calls.Register(hypercall.Registration{Sender: uint32(i + 1), Name: name, MAC: mac}); err != nil {
			t.Fatal(err)
		}
		hash, err := r.calls.Load(uint32(i+1), constant(t, rule.Forward)) // the attacker's own program: all passes
		if err != nil {
			t.Fatal(err)
		}
		if err := r.calls.Swap(uint32(i+1), hash, hypercall.ModeAudit); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// arpReply is an answer to b that ip is at mac, sent from src.
func arpReply(src, sender frame.MAC, ip netip.Addr) []byte {
	b := append([]byte{2, 0, 0, 0, 0, 0x0b}, src[:]...)
	b = append(b, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2)
	b = append(append(b, sender[:]...), ip.AsSlice()...)
	b = append(b, 2, 0, 0, 0, 0, 0x0b, 10, 0, 0, 3)
	return append(b, make([]byte, 18)...)
}

// TestEnvelope: a guest that has the agent's channel and the kernel's card, and
// a program of its own in audit mode, still speaks for nobody but itself.
func TestEnvelope(t *testing.T) {
	own, other := frame.MAC{2, 0, 0, 0, 0, 0x0a}, frame.MAC{2, 0, 0, 0, 0, 0x0c}
	ip2, ip9 := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.9")
	tests := []struct {
		name  string
		more  string // of the policy
		frame []byte
		want  bool
	}{
		{"its own address", "", arpReply(own, own, ip2), true},
		{"another's address", "", arpReply(own, own, ip9), false},
		{"another's mac in the body", "", arpReply(own, other, ip2), false},
		{"another's mac as source", "", arpReply(other, own, ip2), false},
		{"the file switched that guard off", `, guard = ["arp"]`, arpReply(own, own, ip9), true},
		{"but not the others", `, guard = ["arp"]`, arpReply(other, other, ip9), false},
		{"the file asks only to watch", `, mode = "audit"`, arpReply(other, other, ip9), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRogue(t, tt.more)
			r.a.Transmit(tt.frame, 0)
			if got := len(r.b.got) == 1; got != tt.want {
				st, _ := r.table.Stats(1)
				t.Errorf("it arrived: %t; want %t (%+v)", got, tt.want, st.Reasons)
			}
		})
	}
}

// TestRogueCalls are hypercalls about what is not the machine's: refused, and
// nothing changes.
func TestRogueCalls(t *testing.T) {
	r := newRogue(t, "")
	if err := r.table.Register(9, "of another pod"); err != nil {
		t.Fatal(err)
	}
	mac, _ := frame.ParseMAC(cards["a"])
	tests := []struct {
		name string
		call func() error
		want hypercall.Status
	}{
		{"register a sender that the host has not admitted", func() error {
			return r.calls.Register(hypercall.Registration{Sender: 5, Name: "a", MAC: mac})
		}, hypercall.StatusUnknownSender},
		{"register under another name", func() error {
			return r.calls.Register(hypercall.Registration{Sender: 1, Name: "b", MAC: mac})
		}, hypercall.StatusRefused},
		{"register another's mac", func() error {
			return r.calls.Register(hypercall.Registration{Sender: 2, Name: "b", MAC: mac})
		}, hypercall.StatusRefused},
		{"load for another pod's sender", func() error {
			_, err := r.calls.Load(9, constant(t, rule.Forward))
			return err
		}, hypercall.StatusUnknownSender},
		{"mode of another pod's sender", func() error { return r.calls.SetMode(9, hypercall.ModeAudit) }, hypercall.StatusUnknownSender},
		{"close another pod's sender", func() error { return r.calls.Unregister(9) }, hypercall.StatusUnknownSender},
		{"counters of another pod's sender", func() error { _, err := r.calls.Stats(9); return err }, hypercall.StatusUnknownSender},
		{"swap to what was not loaded", func() error { return r.calls.Swap(1, [32]byte{1}, hypercall.ModeEnforce) }, hypercall.StatusNotLoaded},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var refused *hypercall.Error
			if err := tt.call(); !errors.As(err, &refused) || refused.Status != tt.want {
				t.Errorf("%v; want status %v", err, tt.want)
			}
		})
	}
}

// TestAttached: an agent that says that it put the policy in force, and did
// not, is found out.
func TestAttached(t *testing.T) {
	r := newRogue(t, "")
	if err := r.policy.attached(1, constant(t, rule.Drop)); err == nil {
		t.Error("another program than the pod's was taken for it")
	}
	if err := r.policy.attached(1, constant(t, rule.Forward)); err != nil {
		t.Errorf("attached = %v", err)
	}
	r.policy.forget(2)
	r.policy.admit(3, "c", frame.MAC{2, 0, 0, 0, 0, 0x0c}, false)
	if err := r.policy.attached(3, constant(t, rule.Forward)); err == nil {
		t.Error("a card that was never registered was taken as attached")
	}
}

// TestCardAudit: a card that the file only watches stays so, whatever the guest
// loads, until somebody sets a mode.
func TestCardAudit(t *testing.T) {
	r := newRogue(t, "")
	r.policy.cards[1].audit = true
	mode := func() nicshadow.Mode {
		st, err := r.table.Stats(1)
		if err != nil {
			t.Fatal(err)
		}
		return st.Mode
	}
	load := func() {
		hash, err := r.calls.Load(1, constant(t, rule.Drop))
		if err == nil {
			err = r.calls.Swap(1, hash, hypercall.ModeEnforce)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	load()
	if mode() != nicshadow.Audit {
		t.Error("a load ended the audit")
	}
	if err := r.calls.SetMode(1, hypercall.ModeEnforce); err != nil || mode() != nicshadow.Enforce {
		t.Errorf("SetMode: %v, mode %v", err, mode())
	}
	load()
	if mode() != nicshadow.Enforce {
		t.Error("the audit came back")
	}
}

// TestRefusedFrames: what the device refuses is counted under its name.
func TestRefusedFrames(t *testing.T) {
	r := newRogue(t, "")
	for fault, want := range map[virtio.NetFault]string{
		virtio.BadOffloadHeader: "bad offload header", virtio.BadBuffer: "bad descriptor", virtio.ShortFrame: "truncated", virtio.LongFrame: "too long",
	} {
		r.a.Refuse(nil, 0, fault)
		st, err := r.table.Stats(1)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, c := range st.Reasons {
			found = found || c.Reason == want
		}
		if !found {
			t.Errorf("%v: counted as %+v; want %q", fault, st.Reasons, want)
		}
	}
	if len(r.b.got) != 0 {
		t.Error("a refused frame arrived")
	}
}
