package rule_test

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"testing"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

// benchProgram is the policy of the benchmarks, testdata/rule/bench.s.
func benchProgram(t testing.TB) *rule.Program {
	t.Helper()
	src, err := os.ReadFile("../../testdata/rule/bench.s")
	if err != nil {
		t.Fatal(err)
	}
	return assemble(t, string(src))
}

func assemble(t testing.TB, src string) *rule.Program {
	t.Helper()
	u, err := rule.Assemble(src)
	if err != nil {
		t.Fatalf("Assemble: %v", err)
	}
	p, err := rule.New(u)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return p
}

// A benchFrame is one of the five kinds of frames of the mix.
type benchFrame struct {
	name  string
	bytes []byte
	want  rule.Verdict
}

func benchFrames() []benchFrame {
	return []benchFrame{
		{"arp-reply", arpFrame(2, "10.0.0.5", "10.0.0.2"), rule.Forward},
		{"arp-request", arpFrame(1, "10.0.0.5", "10.0.0.1"), rule.Drop},
		{"tcp-1514", ipv4Frame(6, "10.0.0.5", "93.184.216.34", 40000, 443, 1514), rule.Forward},
		{"udp-60", ipv4Frame(17, "10.0.0.5", "10.0.0.8", 40000, 9999, 60), rule.Forward},
		// Its message is all zero: the parser refuses it. frame.BenchmarkDHCP has a
		// real one.
		{"dhcp-342", ipv4Frame(17, "0.0.0.0", "255.255.255.255", 68, 67, 342), rule.Drop},
	}
}

var ownMAC = frame.MAC{2, 0, 0, 0, 0, 5}

func ethernet(typ uint16, n int) []byte {
	b := make([]byte, n)
	copy(b, []byte{2, 0, 0, 0, 0, 2})
	copy(b[6:], ownMAC[:])
	binary.BigEndian.PutUint16(b[12:], typ)
	return b
}

func arpFrame(op byte, src, dst string) []byte {
	b := ethernet(0x0806, 60)
	copy(b[14:], []byte{0, 1, 8, 0, 6, 4, 0, op})
	copy(b[22:], ownMAC[:])
	copy(b[28:], addr(src))
	copy(b[38:], addr(dst))
	return b
}

// ipv4Frame is a frame of n bytes, of which all behind the headers are zero.
func ipv4Frame(proto byte, src, dst string, sport, dport uint16, n int) []byte {
	b := ethernet(0x0800, n)
	b[14], b[22], b[23] = 0x45, 64, proto
	binary.BigEndian.PutUint16(b[16:], uint16(n-14))
	copy(b[26:], addr(src))
	copy(b[30:], addr(dst))
	binary.BigEndian.PutUint16(b[34:], sport)
	binary.BigEndian.PutUint16(b[36:], dport)
	if proto == 17 {
		binary.BigEndian.PutUint16(b[38:], uint16(n-34))
	} else {
		b[46], b[47] = 0x50, 0x10
	}
	return b
}

// mix is 4096 frames in a pseudo-random order that is always the same. Equal
// frames share their bytes, as those in a NIC's few buffers would.
func mix() [][]byte {
	frames := benchFrames()
	r := rand.New(rand.NewPCG(1, 2))
	out := make([][]byte, 4096)
	for i := range out {
		out[i] = frames[r.IntN(len(frames))].bytes
	}
	return out
}

func TestBenchPolicy(t *testing.T) {
	p := benchProgram(t)
	for _, f := range benchFrames() {
		var k frame.Key
		if r := frame.Parse(f.bytes, &k); r == frame.MalformedDHCP && f.want == rule.Drop {
			continue
		} else if r != frame.OK {
			t.Fatalf("%s: Parse = %v", f.name, r)
		}
		got := p.Run(&k)
		if got.Verdict != f.want {
			t.Errorf("%s: Run = %v, want %v", f.name, got, f.want)
		}
		if want := p.Trace(&k, func(int, bool) {}); got != want {
			t.Errorf("%s: Run = %v, Trace = %v", f.name, got, want)
		}
	}
}

var sink rule.Outcome

// BenchmarkJudge is parsing and judging a frame: each kind by itself, and the
// mix. ns/op is ns a frame.
func BenchmarkJudge(b *testing.B) {
	p := benchProgram(b)
	judge := func(frames [][]byte) func(*testing.B) {
		return func(b *testing.B) {
			b.ReportAllocs()
			var k frame.Key
			i := 0
			for b.Loop() {
				if frame.Parse(frames[i&(len(frames)-1)], &k) == frame.OK {
					sink = p.Run(&k)
				}
				i++
			}
		}
	}
	for _, f := range benchFrames() {
		b.Run(f.name, judge([][]byte{f.bytes}))
	}
	b.Run("mix", judge(mix()))
}

// BenchmarkParse is the parser's part of BenchmarkJudge.
func BenchmarkParse(b *testing.B) {
	parse := func(frames [][]byte) func(*testing.B) {
		return func(b *testing.B) {
			var k frame.Key
			i := 0
			for b.Loop() {
				frame.Parse(frames[i&(len(frames)-1)], &k)
				i++
			}
		}
	}
	for _, f := range benchFrames() {
		b.Run(f.name, parse([][]byte{f.bytes}))
	}
	b.Run("mix", parse(mix()))
}

// BenchmarkRun is the program's part of BenchmarkJudge, over parsed keys.
func BenchmarkRun(b *testing.B) {
	p := benchProgram(b)
	run := func(frames [][]byte) func(*testing.B) {
		keys := make([]frame.Key, len(frames))
		for i := range keys {
			frame.Parse(frames[i], &keys[i])
		}
		return func(b *testing.B) {
			i := 0
			for b.Loop() {
				sink = p.Run(&keys[i&(len(keys)-1)])
				i++
			}
		}
	}
	for _, f := range benchFrames() {
		b.Run(f.name, run([][]byte{f.bytes}))
	}
	b.Run("mix", run(mix()))
}

// BenchmarkNew is encoding, decoding, verifying and preparing the policy.
func BenchmarkNew(b *testing.B) {
	u := benchProgram(b).Unit()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := rule.New(u); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDecode is what loading a program costs.
func BenchmarkDecode(b *testing.B) {
	bytes := benchProgram(b).Bytes()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := rule.Decode(bytes); err != nil {
			b.Fatal(err)
		}
	}
}
