package policytest_test

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/replay"
	"sekimori/starlark"
	"sekimori/starlark/frames"
	"sekimori/starlark/policytest"

	gostarlark "go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

const recordedPod = `
def lock(ctx):
    ctx.policy.load(CLOSED)

OPEN = policy(allow_tcp = lambda dst_port: dst_port in (80, 443))
CLOSED = policy(allow_tcp = lambda dst_port: dst_port == 80)

container(name = "web", nic = nic("10.0.0.2/24", mac = "02:00:00:00:00:02", policy = OPEN), on = {"ready": lock})
`

// bytesOf is the frame of a builder's call, as the default card sends it.
func bytesOf(t *testing.T, expr string) []byte {
	t.Helper()
	v, err := gostarlark.EvalOptions(&syntax.FileOptions{}, &gostarlark.Thread{}, "t", expr, frames.Predeclared())
	if err != nil {
		t.Fatal(err)
	}
	b, err := v.(*frames.Frame).Bytes(frames.Sender{MAC: frame.MAC{2, 0, 0, 0, 0, 2}, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.2")}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// record writes a recording: "event" lines are callbacks or programs, all else
// is a frame with its note, one a second.
func record(t *testing.T, file string, rows ...[2]string) string {
	t.Helper()
	dir := t.TempDir()
	meta, err := json.Marshal(policytest.RecordMeta{Version: policytest.RecordVersion, File: file, Pod: "p"})
	if err != nil {
		t.Fatal(err)
	}
	var fs []replay.Frame
	var events []byte
	at := time.Unix(1000, 0).UTC()
	for _, row := range rows {
		at = at.Add(time.Second)
		switch row[0] {
		case "callback":
			point, name, _ := strings.Cut(row[1], " ")
			b, _ := json.Marshal(policytest.RecordEvent{Time: at, Container: "web", Point: point, Callback: name, ExitStatus: -1})
			events = append(append(events, b...), '\n')
		case "program":
			b, _ := json.Marshal(policytest.RecordEvent{Time: at, Container: "web", Program: row[1]})
			events = append(append(events, b...), '\n')
		default:
			data := bytesOf(t, row[0])
			fs = append(fs, replay.Frame{Number: len(fs) + 1, Time: at, Data: data, Length: len(data), Interface: "web", Comment: row[1]})
		}
	}
	out, err := os.Create(filepath.Join(dir, policytest.RecordFramesFile))
	if err == nil {
		err = replay.WritePcapng(out, fs)
	}
	if err == nil {
		err = out.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{policytest.RecordMetaFile: meta, policytest.RecordEventsFile: events} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// note reads "verdict program".
func note(comment string) (policytest.Note, bool) {
	v, p, ok := strings.Cut(comment, " ")
	return policytest.Note{Verdict: v, Program: p}, ok
}

func replayed(t *testing.T, dir, file string) *policytest.Report {
	t.Helper()
	r, err := policytest.Replay(t.Context(), policytest.ReplayOptions{Dir: dir, File: file, Note: note})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestReplay(t *testing.T) {
	write := func(src string) string {
		path := filepath.Join(t.TempDir(), "p.star")
		if err := os.WriteFile(path, []byte(src), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file := write(recordedPod)
	if _, err := starlark.Load(t.Context(), file, starlark.Options{}); err != nil {
		t.Fatal(err)
	}
	dir := record(t, file, [][2]string{
		{"program", "a"},
		{"tcp(dst_port = 443)", "forward a"},
		{"tcp(dst_port = 22)", "drop a"},
		{"callback", "ready lock"},
		{"tcp(dst_port = 443)", "forward a"}, // the callback runs, the old policy is in force
		{"program", "b"},
		{"tcp(dst_port = 443)", "drop b"},
		{"tcp(dst_port = 80)", "forward b"},
	}...)
	r := replayed(t, dir, "")
	if r.ExitCode() != 0 || len(r.Files[0].Tests) != 1 || r.Files[0].Tests[0].Frames != 5 || len(r.Files[0].Tests[0].Programs) != 2 {
		t.Errorf("the same file: exit code %d\n%s", r.ExitCode(), text(t, r, true))
	}

	// Another policy after the callback: the frame and the line are named.
	other := write(strings.Replace(recordedPod, "dst_port == 80)", "dst_port == 443)", 1))
	r = replayed(t, dir, other)
	got := text(t, r, false)
	for _, want := range []string{
		"frame 4: tcp 10.0.0.2:40000 -> 10.0.0.1:443 syn length 60: recorded drop, now forward by predicate allow_tcp: CLOSED = policy",
		"frame 5: tcp 10.0.0.2:40000 -> 10.0.0.1:80 syn length 60: recorded forward, now drop",
		"p.star:6:",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if r.ExitCode() != 3 || len(r.Files[0].Tests[0].Failures) != 2 {
		t.Errorf("exit code %d, %d failures", r.ExitCode(), len(r.Files[0].Tests[0].Failures))
	}

	// A callback that is gone is told of; without it the first policy stays.
	r = replayed(t, dir, write(strings.Replace(recordedPod, `, on = {"ready": lock}`, "", 1)))
	if got := text(t, r, false); !strings.Contains(got, "callback lock, which was recorded, is gone") || !strings.Contains(got, "recorded drop, now forward") {
		t.Errorf("no callback:\n%s", got)
	}
	// So is a file that is wrong.
	if r := replayed(t, dir, write("undefined")); r.ExitCode() != 2 {
		t.Errorf("a wrong file: exit code %d", r.ExitCode())
	}
}

func TestReplayRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ meta, want string }{
		{"", "no recording"},
		{"{", "unexpected end"},
		{`{"version": 99}`, "version 99, want 1"},
	} {
		if c.meta != "" {
			if err := os.WriteFile(filepath.Join(dir, policytest.RecordMetaFile), []byte(c.meta), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := policytest.Replay(t.Context(), policytest.ReplayOptions{Dir: dir, Note: note}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Replay of %q = %v; want %q", c.meta, err, c.want)
		}
	}
}
