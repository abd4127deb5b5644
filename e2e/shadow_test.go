package e2e_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"go.starlark.net/starlark"
	"golang.org/x/sys/unix"

	"sekimori/nicshadow"
	"sekimori/nicshadow/kernel"
	"sekimori/nicshadow/tap"
	"sekimori/starlark/policy"
	"sekimori/starlark/value"
)

// A shadow is a lan joined by the product's data path.
type shadow struct {
	*lan
	table *nicshadow.Table
}

// The senders of the stations.
var senders = map[string]nicshadow.Sender{"alice": 1, "bob": 2, "mallory": 3}

// allowAll is a policy that leaves everything to the default guards.
const allowAll = `result = policy(allow_ethernet = True, allow_arp = True, allow_ipv4 = True, allow_ipv6 = True)`

// A datapath is where the frames of a shadow are judged.
type datapath string

// onEach runs a test on each of the data paths.
func onEach(t *testing.T, test func(t *testing.T, on datapath)) {
	for _, on := range []datapath{"user", "kernel"} {
		t.Run(string(on), func(t *testing.T) {
			if on == "kernel" {
				require(t, "bpf")
			}
			test(t, on)
		})
	}
}

// newShadow joins the stations by a switch. Mallory's policy is the global
// result of the Starlark file source; the others' is allowAll.
func newShadow(t *testing.T, on datapath, source string) *shadow {
	t.Helper()
	s := &shadow{table: nicshadow.NewTable()}
	sw := nicshadow.NewSwitch(nicshadow.Config{Table: s.table})
	plug := func(sp *space, sender nicshadow.Sender, h host, cfg tap.Config) error {
		device, err := tap.Open(sp.file(t), cfg)
		if err != nil {
			return err
		}
		if err := sw.AddPort(nicshadow.PortConfig{Name: h.name, Sender: sender, MAC: h.mac, Device: device}); err != nil {
			return errors.Join(err, device.Close())
		}
		return nil
	}
	if on == "kernel" {
		k, err := kernel.New(kernel.Config{Ports: sw, Cards: len(senders)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := k.Close(); err != nil {
				t.Error("close the kernel's switch:", err)
			}
		})
		plug = func(sp *space, sender nicshadow.Sender, h host, cfg tap.Config) error {
			cfg.EndsWithNetNS = true
			return k.AddCard(kernel.CardConfig{Name: h.name, Sender: sender, NetNS: sp.file(t), Card: cfg})
		}
	}
	t.Cleanup(func() {
		if err := sw.Close(); err != nil {
			t.Error("close the switch:", err)
		}
	})
	join := func(h host, source string) *station {
		sender := senders[h.name]
		if err := s.table.Register(sender, h.name); err != nil {
			t.Fatal(err)
		}
		s.load(t, h, source)
		return newStation(t, h, func(sp *space) {
			err := plug(sp, sender, h, tap.Config{Name: "eth0", MAC: h.mac,
				Addrs: []netip.Prefix{netip.PrefixFrom(h.ip4, 24), netip.PrefixFrom(h.ip6, 64)}, Ping: true})
			if err != nil {
				t.Fatal(err)
			}
			// The card ignores routers for its container; here only the switch
			// is to stand between them.
			sp.sysctl(t, "ipv6/conf/eth0/accept_ra", "1")
		})
	}
	s.lan = &lan{alice: join(alice, allowAll), bob: join(bob, allowAll), mallory: join(mallory, source), where: s.whereIsBob}
	for _, st := range s.stations() {
		st.listen(t)
	}
	s.sinks(t)
	time.Sleep(300 * time.Millisecond) // multicast listener reports of the new cards
	return s
}

// load puts a policy in force for h.
func (s *shadow) load(t *testing.T, h host, source string) {
	t.Helper()
	p, err := compile(h, source)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := s.table.Load(senders[h.name], p)
	if err == nil {
		err = s.table.Swap(senders[h.name], hash, nicshadow.Enforce)
	}
	if err != nil {
		t.Fatalf("%s: %v", h.name, err)
	}
}

// compile is the program of source's global result, for the card of h.
func compile(h host, source string) ([]byte, error) {
	src := policy.NewSources(value.Builtins())
	globals, err := src.Exec(&starlark.Thread{Name: "e2e"}, "e2e.star", []byte(source))
	if err != nil {
		return nil, err
	}
	p, ok := globals["result"].(*policy.Policy)
	if !ok {
		return nil, fmt.Errorf("result is %v, not a policy", globals["result"])
	}
	program, err := p.Compile(policy.Identity{MAC: h.mac, Addrs: []netip.Addr{h.ip4, h.ip6}})
	if err != nil {
		return nil, err
	}
	return program.Bytes(), nil
}

// whereIsBob sends a frame to bob and looks who gets it.
func (s *shadow) whereIsBob() (string, error) {
	toBob, toMallory := s.alice.marker(s.bob), s.alice.marker(s.mallory)
	if err := s.alice.send(toBob, toMallory); err != nil {
		return "", err
	}
	heard, err := s.mallory.until(toMallory)
	if err != nil {
		return "", err
	}
	for _, f := range heard {
		if string(f) == string(toBob) {
			return "mallory", nil
		}
	}
	if _, err := s.bob.until(toBob); err != nil {
		return "", err
	}
	return "bob", nil
}

// drops are what mallory's frames dropped for: "guard arp" or "predicate
// allow_arp" where the program decided, else the name of the reason.
func (s *shadow) drops(t *testing.T) map[string]uint64 {
	t.Helper()
	st, err := s.table.Stats(senders["mallory"])
	if err != nil {
		t.Fatal(err)
	}
	drops := map[string]uint64{}
	for _, r := range st.Reasons {
		if r.Reason != nicshadow.Policy.String() {
			drops[r.Reason] += r.Frames
		}
	}
	for _, l := range st.Lines {
		drops[l.Kind+" "+l.Why] += l.Frames
	}
	return drops
}

// file is the namespace as a file, closed with the test.
func (s *space) file(t *testing.T) *os.File {
	t.Helper()
	fd, err := unix.FcntlInt(uintptr(s.ns), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "netns")
	t.Cleanup(func() { f.Close() })
	return f
}
