package policy_test

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/replay"
	"sekimori/nicshadow/rule"
	"sekimori/nicshadow/rule/ebpf"
	"sekimori/nicshadow/rule/ruletest"
	star "sekimori/starlark"
	"sekimori/starlark/policy"
)

// The third executor: the program as the kernel runs it. A duel that it is
// enlisted in has interpreter, kernel and oracle judge every frame.

// requireBPF skips the test unless the kernel takes our programs. Where
// SEKI_TEST_REQUIRE lists "bpf", that fails instead.
func requireBPF(t testing.TB) {
	t.Helper()
	_, prog := compile(t, "P = policy(allow_arp = True)")
	x, err := ebpf.Load(prog)
	switch {
	case err == nil:
		x.Close()
	case slices.Contains(strings.Split(os.Getenv("SEKI_TEST_REQUIRE"), ","), "bpf"):
		t.Fatalf("SEKI_TEST_REQUIRE wants bpf: %v", err)
	default:
		t.Skipf("needs bpf: %v", err)
	}
}

// enlist adds the kernel to a duel.
func enlist(d *duel) {
	d.t.Helper()
	x, err := ebpf.Load(d.prog)
	if err != nil {
		d.t.Fatalf("Load: %v\n%s\n%s", err, d.src, rule.Disassemble(d.prog))
	}
	d.t.Cleanup(func() { x.Close() })
	if n, ok := x.Verified(); ok && n > 2000+50*d.prog.Len() { // at most 7,605 for 766, of 374 programs
		d.t.Errorf("the verifier looked at %d instructions for %d of the program", n, d.prog.Len())
	}
	d.kernel = x.Judge
}

// askKernel holds the kernel to the interpreter's answer. A disagreement is
// shown as its smallest case.
func (d *duel) askKernel(k *frame.Key, ingress bool, want rule.Outcome) {
	d.t.Helper()
	if d.kernel == nil {
		return
	}
	d.turns = append(d.turns, ruletest.Turn{Key: *k, Now: d.memory.Now, Ingress: ingress})
	got, err := d.kernel(k, d.memory.Now, ingress)
	if err == nil && got == want {
		return
	}
	small := ruletest.Minimise(ruletest.Case{Unit: d.prog.Unit(), Turns: d.turns}, func(p *rule.Program, turns []ruletest.Turn) bool {
		x, err := ebpf.Load(p)
		if err != nil {
			return false
		}
		defer x.Close()
		return ruletest.Disagree(p, turns, x.Judge) != nil
	})
	d.t.Fatalf("kernel %v, %v; interpreter %v; the smallest case:\n%v\n%s", got, err, want, small, d.src)
}

// TestKernelRandom has the three executors judge by random predicates.
func TestKernelRandom(t *testing.T) {
	requireBPF(t)
	r := rand.New(rand.NewPCG(59, 26))
	programs, good := 300, 0
	if testing.Short() {
		programs = 60
	}
	for i := range programs {
		data := make([]byte, 20+r.IntN(1000))
		for j := range data {
			data[j] = byte(r.Uint32())
		}
		t.Run("", func(t *testing.T) {
			if duelOn(t, data, uint64(i), 60, enlist) {
				good++
			}
		})
	}
	if good < programs/2 {
		t.Errorf("only %d of %d random programs compile: the test has lost its grip", good, programs)
	}
}

// FuzzKernel is TestKernelRandom with a guide.
func FuzzKernel(f *testing.F) {
	requireBPF(f)
	r := rand.New(rand.NewPCG(28, 18))
	for range 20 {
		data := make([]byte, 200)
		for j := range data {
			data[j] = byte(r.Uint32())
		}
		f.Add(data, uint64(1))
	}
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		duelOn(t, data, seed, 40, enlist)
	})
}

// captured are the frames of testdata/pcap that parse.
func captured(t *testing.T) (keys []frame.Key) {
	t.Helper()
	files, err := filepath.Glob("../../testdata/pcap/*.pcap")
	if err != nil || len(files) == 0 {
		t.Fatalf("captures: %v, %v", files, err)
	}
	for _, f := range files {
		frames, err := replay.Open(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, fr := range frames {
			var k frame.Key
			if frame.Parse(fr.Data, &k) == frame.OK {
				keys = append(keys, k)
			}
		}
	}
	if len(keys) < 50 {
		t.Fatalf("only %d frames of the captures parse", len(keys))
	}
	return keys
}

// mallory sends the captures: testdata/pcap/README.
var mallory = policy.Identity{
	MAC:   frame.MAC{2, 0, 0x0a, 0x4d, 0, 4},
	Addrs: []netip.Addr{netip.MustParseAddr("10.77.0.4"), netip.MustParseAddr("fd5e::4")},
}

// sentBy is the frame as it would be if what says mallory said id: so that not
// every frame ends at the first guard.
func sentBy(k frame.Key, id policy.Identity) frame.Key {
	for f := frame.Field(1); f < frame.NumFields; f++ {
		if !k.Class().Has(f) {
			continue
		}
		hi, lo := k.Wide(f)
		switch {
		case f.Kind() == frame.KindMAC && lo == mallory.MAC.Uint64():
			put(&k, f, [2]uint64{0, id.MAC.Uint64()})
		case f.Kind() == frame.KindIPv4 || f.Kind() == frame.KindIPv6:
			for i, a := range mallory.Addrs {
				var was frame.Key
				was.Words[frame.ClassWord] = k.Words[frame.ClassWord] & 0xff
				if a.Is4() == (f.Kind() == frame.KindIPv4) {
					set(&was, f, a.String())
					if h, l := was.Wide(f); h == hi && l == lo && i < len(id.Addrs) && id.Addrs[i].Is4() == a.Is4() {
						set(&k, f, id.Addrs[i].String())
					}
				}
			}
		}
	}
	return k
}

// TestKernelCaptures has the three executors judge every captured frame, both
// as it is and as the card's own, and random frames, by every policy of
// testdata/policy and of the examples.
func TestKernelCaptures(t *testing.T) {
	requireBPF(t)
	frames := captured(t)
	check := func(name string, p *policy.Policy, id policy.Identity) {
		t.Run(name, func(t *testing.T) {
			prog, err := p.Compile(id)
			if err != nil {
				t.Fatal(err)
			}
			d := startDuel(t, name, p, prog, id)
			enlist(d)
			r := rand.New(rand.NewPCG(1, 1))
			judge := func(k *frame.Key) {
				d.memory.Now += 1e6 * r.Int64N(1000)
				d.judge(k, r.IntN(4) == 0)
			}
			for i := range frames {
				own := sentBy(frames[i], id)
				judge(&frames[i])
				judge(&own)
				judge(ruletest.Reversed(&own))
			}
			for range 300 {
				k := randomKey(r)
				judge(k)
				judge(ruletest.Reversed(k))
			}
		})
	}
	for name, p := range policiesOf(t, "../../testdata/policy/*.star") {
		check(name, p, identity)
		check(name+" mallory", p, mallory)
	}
	examples, err := filepath.Glob("../../examples/*.star")
	if err != nil || len(examples) == 0 {
		t.Fatalf("examples: %v, %v", examples, err)
	}
	for _, file := range examples {
		if strings.HasSuffix(file, "_test.star") {
			continue
		}
		pod, err := star.Load(t.Context(), file, star.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range pod.Containers {
			if c.Policy != nil {
				check(pod.Name+" "+c.Spec.Name, c.Policy, c.Identity())
			}
		}
		for name, p := range pod.Policies {
			check(pod.Name+" "+name, p, identity)
		}
	}
}

// policiesOf are the policies P of the parts of files, those that compile.
func policiesOf(t *testing.T, pattern string) map[string]*policy.Policy {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v, %v", pattern, files, err)
	}
	out := map[string]*policy.Policy{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, part := range strings.Split(string(b), "\n---\n") {
			g, err := exec(part)
			if err != nil {
				continue // testdata/policy/errors.star is there to fail
			}
			for _, name := range g.Keys() {
				if p, ok := g[name].(*policy.Policy); ok {
					if _, err := p.Compile(identity); err == nil {
						out[filepath.Base(file)+" "+name+" "+string(rune('a'+i%26))] = p
					}
				}
			}
		}
	}
	return out
}
