package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sekimori/lifecycle"
	"sekimori/nicshadow"
	"sekimori/vmm/hypercall"
)

// In package main: these are the texts that verbs print, below any exported
// name.

func TestTexts(t *testing.T) {
	tests := []struct{ got, want string }{
		{count(1, "policy"), "1 policy"},
		{count(2, "policy"), "2 policies"},
		{count(0, "container"), "0 containers"},
		{size(0), "0 B"},
		{size(1023), "1023 B"},
		{size(1024), "1.0 KiB"},
		{size(1536 << 20), "1.5 GiB"},
		{size(1 << 63), "8.0 EiB"},
		{short(999).String(), "999ns"},
		{short(31_234).String(), "31.23µs"},
		{short(1_234_567_890).String(), "1.235s"},
		{age(time.Time{}), "-"},
		{age(time.Now().Add(-90 * time.Second)), "1m"},
		{age(time.Now().Add(-50 * time.Hour)), "2d"},
		{uplinkName("web"), "seki-web"},
		{uplinkName("a-pod-of-a-long-name"), "seki-53476c7c"},
		{because("guard", "arp"), "guard arp"},
		{because("unspoken", "udp"), "no predicate for udp"},
		{because("predicate", "allow_arp"), "allow_arp"},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("got %q; want %q", tt.got, tt.want)
		}
		if strings.HasPrefix(tt.want, "seki-") && len(tt.got) > 15 {
			t.Errorf("interface name %q is longer than 15 bytes", tt.got)
		}
	}
}

func TestDropLine(t *testing.T) {
	tests := []struct {
		in   nicshadow.Record
		want string
	}{
		{
			nicshadow.Record{Container: "m", Verdict: "drop", Reason: "truncated", Summary: "12 bytes"},
			"seki: m: dropped 12 bytes: truncated",
		},
		{
			nicshadow.Record{Container: "m", Verdict: "would drop", Reason: "policy", Kind: "predicate", Why: "allow_arp", File: "w.star", Line: 3, Col: 5, Summary: "arp reply", Suppressed: 7},
			"seki: m: would drop arp reply: allow_arp at w.star:3:5 (7 more not shown)",
		},
		{
			nicshadow.Record{Container: "m", Verdict: "drop", Reason: "envelope", Kind: "guard", Why: "mac", File: "w.star", Line: 3, Col: 5, Summary: "arp reply"},
			"seki: m: dropped arp reply: envelope: guard mac at w.star:3:5",
		},
		{
			nicshadow.Record{Container: "card", Verdict: "drop", Reason: "unattributed", Cause: "an xdp frame has no socket", Summary: "arp reply"},
			"seki: card: dropped arp reply: unattributed: an xdp frame has no socket",
		},
	}
	for _, tt := range tests {
		if got := dropLine(tt.in); got != tt.want {
			t.Errorf("dropLine(%+v) = %q; want %q", tt.in, got, tt.want)
		}
	}
}

// TestNetStats: a drop is listed once, by its line where there is one, and the
// envelope's lines are told from the policy's.
func TestNetStats(t *testing.T) {
	got := newNetStats(hypercall.Stats{
		Reasons: []hypercall.ReasonCount{{Reason: "policy", Frames: 3}, {Reason: "envelope", Frames: 2}, {Reason: "no program", Frames: 1}},
		Lines: []hypercall.LineCount{
			{File: "w.star", Line: 3, Col: 5, Kind: "predicate", Name: "allow_arp", Frames: 3},
			{File: "w.star", Line: 1, Col: 1, Kind: hypercall.EnvelopeLine + "guard", Name: "mac", Frames: 2},
		},
	})
	var lines []string
	for _, d := range got.Drops {
		lines = append(lines, fmt.Sprint(d.Count, " ", d.what(), " ", d.where()))
	}
	want := []string{"3 allow_arp w.star:3:5", "2 envelope: guard mac w.star:1:1", "1 no program "}
	if fmt.Sprint(lines) != fmt.Sprint(want) {
		t.Errorf("drops %q; want %q", lines, want)
	}
}

func TestDetails(t *testing.T) {
	status := 3
	e := lifecycle.Event{Type: lifecycle.EventExit, Status: &status, Signal: "TERM", Fields: map[string]string{"b": "2", "a": "1"}, DurationNS: 1500}
	if got, want := strings.Join(details(e), " "), "a=1 b=2 status 3 signal TERM in 1.5µs"; got != want {
		t.Errorf("details(%+v) = %q; want %q", e, got, want)
	}
}

func TestPlainRun(t *testing.T) {
	tests := []struct {
		args   []string
		code   int
		stdout string
		stderr string
	}{
		{args: []string{"version"}, stdout: "seki devel"},
		{args: []string{}, stdout: "Available Commands"},
		{args: []string{"hepl"}, code: exitUsage, stderr: `unknown command "hepl" (did you mean help?)`},
		{args: []string{"ps", "--jsn"}, code: exitUsage, stderr: "unknown flag --jsn (did you mean --json?)"},
		{args: []string{"ps", "-z"}, code: exitUsage, stderr: "unknown flag -z"},
		{args: []string{"stop", "--timeout", "soon", "x"}, code: exitUsage, stderr: `"soon"`},
		{args: []string{"ps", "x"}, code: exitUsage, stderr: "ps: want no arguments, have 1"},
		{args: []string{"--root", "/nonexistent/seki", "ps"}, stdout: "POD"},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			var stdout, stderr strings.Builder
			a := app{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, env: func(string) string { return "" }}
			if code := a.run(tt.args); code != tt.code {
				t.Errorf("run(%q) = %d; want %d (%s)", tt.args, code, tt.code, stderr.String())
			}
			if !strings.Contains(stdout.String(), tt.stdout) {
				t.Errorf("run(%q) printed %q; want %q", tt.args, stdout.String(), tt.stdout)
			}
			if !strings.Contains(stderr.String(), tt.stderr) || tt.stderr == "" && stderr.Len() > 0 {
				t.Errorf("run(%q) complained %q; want %q", tt.args, stderr.String(), tt.stderr)
			}
		})
	}
}
