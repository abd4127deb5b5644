package kernel_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/nicshadow"
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/replay"
	"sekimori/nicshadow/rule"
	"sekimori/nicshadow/tap"
)

// traffic is what card 1 sends: every captured frame, as it is and with other
// addresses, and what no capture holds. Its source is often not its own.
func traffic(t testing.TB) [][]byte {
	t.Helper()
	files, err := filepath.Glob("../../testdata/pcap/*.pcap")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captures: %v", err)
	}
	var out [][]byte
	to := []frame.MAC{macOf(2), macOf(3), macOf(1), macOf(9), {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, {0x33, 0x33, 0, 0, 0, 1}}
	for _, name := range files {
		frames, err := replay.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range frames {
			if i >= 120 || len(f.Data) < 14 {
				break
			}
			dst := to[i%len(to)]
			b := slices.Concat(dst[:], f.Data[6:])
			out = append(out, b)
			tagged := slices.Concat(b[:12], []byte{0x81, 0, 0x20, 5}, b[12:])
			out = append(out, tagged, slices.Concat(b[:12], []byte{0x88, 0xa8, 0, 7}, tagged[12:]), slices.Concat(tagged[:12], []byte{0x91, 0, 0, 0}, tagged[12:]))
		}
	}
	udp := func(dst, src int, n int) []byte {
		d, s := macOf(dst), macOf(src)
		b := slices.Concat(d[:], s[:], []byte{8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, byte(src), 10, 0, 0, byte(dst)})
		b = append(b, 0x10, 0, 0x20, 0, byte((n-34)>>8), byte(n-34), 0, 0)
		b[16], b[17] = byte((n-14)>>8), byte(n-14)
		return append(b, make([]byte, n-42)...)
	}
	for _, n := range []int{42, 60, 200, 1000, 1514} {
		out = append(out, udp(2, 1, n))
	}
	group := udp(2, 1, 60)
	group[6] = 3
	zero := udp(2, 1, 60)
	copy(zero[6:12], make([]byte, 6))
	out = append(out, group, zero)
	// The kernel itself drops a tagged frame without two bytes behind its tag
	// (skb_vlan_untag, net/core/skbuff.c v6.18).
	return slices.DeleteFunc(out, func(b []byte) bool {
		return len(b) < 20 && (b[12] == 0x81 && b[13] == 0 || b[12] == 0x88 && b[13] == 0xa8)
	})
}

// refusals is a program with a say in what the card is sent: it lets ARP and
// IPv4 TCP in, and nothing else.
func refusals(t testing.TB, v rule.Verdict) *rule.Program {
	t.Helper()
	u := all(t, rule.Forward, 1).Unit()
	in := make([]uint32, frame.NumClasses)
	at := uint32(len(u.Insns))
	u.Insns = append(slices.Clone(u.Insns), rule.Insn{Op: rule.OpRet, A: uint8(v), K: 1})
	for c := range in {
		in[c] = at
	}
	in[0], in[frame.ClassARP], in[frame.ClassIPv4TCP] = 0, 2, 2
	u.Ingress = in
	p, err := rule.New(u)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// outcome is what became of the traffic.
type outcome struct {
	stats    []nicshadow.Stats
	received [][][]byte // by card
	records  []string
}

// judged waits for the n-th frame of card 1, and for the drop log to have told
// of all there was to tell.
func (r *rig) judged(n int) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("%d frames judged and told of", n), func() bool {
		st := r.stats(1)
		tell := st.Dropped + st.WouldDrop + reason(st, "unknown destination") + reason(r.stats(2), "ingress policy")
		return st.Frames >= uint64(n) && uint64(len(r.told())) == tell
	})
}

func (r *rig) outcome(wires []*wire, sent int) outcome {
	r.t.Helper()
	r.judged(sent)
	var o outcome
	quiet := 0
	got := make([][][]byte, len(wires))
	eventually(r.t, "all delivered", func() bool {
		n := 0
		for i, w := range wires {
			more := w.received()
			got[i] = append(got[i], more...)
			n += len(more)
		}
		if quiet++; n > 0 {
			quiet = 0
		}
		return quiet > 20
	})
	for i := range wires {
		st := r.stats(i + 1)
		st.Name = ""
		o.stats = append(o.stats, st)
	}
	o.received = got
	// Told of in the order they were judged.
	for _, rec := range r.told() {
		rec.Time = time.Time{}
		b, err := json.Marshal(rec)
		if err != nil {
			r.t.Fatal(err)
		}
		o.records = append(o.records, string(b))
	}
	return o
}

// TestParity: the same traffic, by both data paths, has the same counters, the
// same deciding lines, the same records of the drop log, and reaches the same
// cards with the same bytes.
func TestParity(t *testing.T) {
	type forces struct {
		name string
		set  func(t testing.TB, r *rig)
	}
	set := func(out *rule.Program, m nicshadow.Mode, in *rule.Program, inMode nicshadow.Mode) func(testing.TB, *rig) {
		return func(t testing.TB, r *rig) {
			if out != nil {
				r.put(1, out, m)
			}
			r.put(2, in, inMode)
		}
	}
	forward := all(t, rule.Forward, 1)
	for _, f := range []forces{
		{"forward", set(forward, nicshadow.Enforce, forward, nicshadow.Enforce)},
		{"drop", set(all(t, rule.Drop, 3), nicshadow.Enforce, forward, nicshadow.Enforce)},
		{"audit by predicate", set(all(t, rule.Audit, 3), nicshadow.Enforce, forward, nicshadow.Enforce)},
		{"audit", set(all(t, rule.Drop, 3), nicshadow.Audit, forward, nicshadow.Enforce)},
		{"no program", set(nil, nicshadow.Enforce, forward, nicshadow.Enforce)},
		{"receiver refuses", set(forward, nicshadow.Enforce, refusals(t, rule.Drop), nicshadow.Enforce)},
		{"receiver audits", set(forward, nicshadow.Enforce, refusals(t, rule.Drop), nicshadow.Audit)},
		{"receiver audits by predicate", set(forward, nicshadow.Enforce, refusals(t, rule.Audit), nicshadow.Enforce)},
	} {
		t.Run(f.name, func(t *testing.T) {
			var got [2]outcome
			for i, inKernel := range []bool{false, true} {
				r := newBareRig(t, inKernel, 3)
				f.set(t, r)
				wires := []*wire{r.wire(1), r.wire(2), r.wire(3)}
				sent := 0
				for _, b := range traffic(t) {
					switch err := wires[0].send(b); err {
					case nil:
						sent++
						if sent%32 == 0 { // the drop log's queue is short
							r.judged(sent)
						}
					case unix.EMSGSIZE, unix.EINVAL:
					default:
						t.Fatal(err)
					}
				}
				if sent < 300 {
					t.Fatalf("only %d frames sent", sent)
				}
				got[i] = r.outcome(wires, sent)
			}
			same(t, got[0], got[1])
		})
	}
}

func newBareRig(t testing.TB, inKernel bool, n int) *rig {
	t.Helper()
	r := newRig(t, nicshadow.Config{}, inKernel, 0)
	for i := 1; i <= n; i++ {
		r.join(i, tap.Config{Name: "eth0", MAC: macOf(i), EndsWithNetNS: true})
	}
	return r
}

func same(t *testing.T, user, kernel outcome) {
	t.Helper()
	for i := range user.stats {
		a, b := user.stats[i], kernel.stats[i]
		x, y := fmt.Sprintf("%+v", a), fmt.Sprintf("%+v", b)
		if x != y {
			t.Errorf("card %d:\nuser   %s\nkernel %s", i+1, x, y)
		}
		if len(user.received[i]) != len(kernel.received[i]) {
			t.Errorf("card %d received %d frames by this process, %d by the kernel", i+1, len(user.received[i]), len(kernel.received[i]))
			t.Log(missing(user.received[i], kernel.received[i]))
			continue
		}
		for j := range user.received[i] {
			if !bytes.Equal(user.received[i][j], kernel.received[i][j]) {
				t.Errorf("card %d, frame %d:\nuser   %x\nkernel %x", i+1, j, user.received[i][j], kernel.received[i][j])
				break
			}
		}
	}
	slices.Sort(user.records)
	slices.Sort(kernel.records)
	if len(user.records) != len(kernel.records) {
		t.Errorf("%d records by this process, %d by the kernel", len(user.records), len(kernel.records))
	}
	for i := range min(len(user.records), len(kernel.records)) {
		if user.records[i] != kernel.records[i] {
			t.Errorf("record %d:\nuser   %s\nkernel %s", i, user.records[i], kernel.records[i])
			break
		}
	}
}

// missing are the frames of a that are not in b.
func missing(a, b [][]byte) (out []string) {
	left := map[string]int{}
	for _, f := range b {
		left[string(f)]++
	}
	for _, f := range a {
		if left[string(f)]--; left[string(f)] < 0 {
			out = append(out, fmt.Sprintf("%x", f))
		}
	}
	return out
}
