package replay_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/replay"
	"sekimori/nicshadow/rule"
)

var update = flag.Bool("update", false, "rewrite golden files")

// source is the policy file that the program below says it is from.
var source = strings.Split(`def allow_arp(dst_ip):
    return dst_ip in net("10.77.0.0/29")

def allow_udp(dst_port):
	return 1000 // dst_port > 1

policy(allow_arp, allow_udp)`, "\n")

func line(file string, n int) string {
	if file != "web.star" || n < 1 || n > len(source) {
		return ""
	}
	return source[n-1]
}

const text = `
.file "web.star"
.table prefix32 { 10.77.0.0/29 }
.entry arp
	eqc	arp.sha, 02:00:0a:4d:00:04 else stranger
	in	arp.tpa, t0 else no @ web.star:2:12
	ret	forward, predicate "allow_arp" (web.star:2:5)
no:
	ret	drop, predicate "allow_arp" (web.star:2:5)
stranger:
	ret	drop, guard "arp" (web.star:7:1)
.entry other ipv4-tcp ipv4-icmp ipv4-other ipv4-fragment ipv6-tcp ipv6-udp ipv6-dhcp ipv6-icmp ipv6-ndp ipv6-other ipv6-fragment
	ret	drop, unspoken "this" (web.star:7:1)
.entry ipv4-udp ipv4-dhcp
	ldi	r0, 1000
	ldf	r1, port.dst
	div	r0, r1
	ldi	r2, 1
	rlt	r2, r0 else low @ web.star:5:28
	ret	forward, predicate "allow_udp" (web.star:5:2)
low:
	ret	drop, predicate "allow_udp" (web.star:5:2)
`

func program(t testing.TB) *rule.Program {
	t.Helper()
	u, err := rule.Assemble(text)
	if err != nil {
		t.Fatal(err)
	}
	p, err := rule.New(u)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// udpTo is a datagram to a port.
func udpTo(port uint16) []byte {
	b := []byte{2, 0, 10, 77, 0, 2, 2, 0, 10, 77, 0, 4, 8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 77, 0, 4, 10, 77, 0, 2}
	return append(b, 0x10, 0, byte(port>>8), byte(port), 0, 8, 0, 0)
}

func arp(op, sha, tpa byte) []byte {
	b := []byte{2, 0, 10, 77, 0, 2, 2, 0, 10, 77, 0, 4, 8, 6, 0, 1, 8, 0, 6, 4, 0, op}
	return append(b, 2, 0, 10, 77, 0, sha, 10, 77, 0, 3, 2, 0, 10, 77, 0, 2, 10, 77, 0, tpa)
}

// frames are one of each way through the program.
func frames() []replay.Frame {
	data := [][]byte{arp(2, 4, 2), arp(2, 4, 9), arp(2, 3, 2), udpTo(9), udpTo(0), udpTo(700), arp(2, 4, 2)[:30], append(udpTo(9)[:12], 0x88, 0xcc, 1)}
	var all []replay.Frame
	for i, b := range data {
		all = append(all, replay.Frame{Number: i + 1, Data: b, Length: len(b)})
	}
	all[6].Length = 42
	return all
}

// TestExplain compares explanations of every way through the program, as text
// and as JSON, with golden files.
func TestExplain(t *testing.T) {
	p := program(t)
	e := replay.NewExplainer(p, line)
	var out strings.Builder
	var all []*replay.Explanation
	for _, f := range frames() {
		x := e.Explain(&f)
		all = append(all, x)
		if err := x.WriteText(&out); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "explain.txt", out.String())
	b, err := json.MarshalIndent(all[1:5], "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "explain.json", string(b)+"\n")
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", path, d)
	}
}

// TestJudge: verdicts, and the line of each.
func TestJudge(t *testing.T) {
	p := program(t)
	all := frames()
	var got []string
	for _, r := range replay.Judge(p, all) {
		file, line, col := r.Position()
		got = append(got, fmt.Sprintf("%d %v %v %v %s %s:%d:%d", r.Frame.Number, r.Verdict(), r.Reason, r.Why().Kind, r.Why().Name, file, line, col))
	}
	want := []string{
		"1 forward ok predicate allow_arp web.star:2:5",
		"2 drop ok predicate allow_arp web.star:2:5",
		"3 drop ok guard arp web.star:7:1",
		"4 forward ok predicate allow_udp web.star:5:2",
		"5 drop ok invalid  :0:0", // division by zero
		"6 drop ok predicate allow_udp web.star:5:2",
		"7 drop malformed arp invalid  :0:0",
		"8 drop ok unspoken this web.star:7:1",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Judge (-want +got):\n%s", d)
	}
}

// TestExplainAgrees: an explanation has the verdict that judging has, on every
// recorded frame, and says nothing that a terminal would obey.
func TestExplainAgrees(t *testing.T) {
	p := program(t)
	hostile := func(string, int) string { return "\x1b[2J\u009b31m\x9b31m" }
	for _, path := range captures(t) {
		all, err := replay.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range replay.Judge(p, all) {
			x := replay.Explain(p, r.Frame, hostile)
			if x.Verdict != r.Verdict().String() || (x.Why == nil) != (r.Reason != frame.OK) {
				t.Errorf("%s frame %d: Explain says %s; Judge %v", path, r.Frame.Number, x.Verdict, r.Verdict())
			}
			var out strings.Builder
			if err := x.WriteText(&out); err != nil || strings.ContainsAny(out.String(), "\x1b\u009b") || !utf8.ValidString(out.String()) {
				t.Fatalf("WriteText = %q, %v", out.String(), err)
			}
		}
	}
}
