package lifecycle_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sekimori/lifecycle"
	"sekimori/lifecycle/store"
)

// says has every container write to its output when it starts, and exit.
func (r *rig) says(f func(i *fakeInstance, out, err io.Writer)) {
	r.rt.onCreate = func(i *fakeInstance) {
		i.onStart = func(i *fakeInstance) {
			go func() {
				f(i, i.stdio[1], i.stdio[2])
				i.exit(lifecycle.ExitStatus{})
			}()
		}
	}
}

// readers gives the pod pipes as its output and returns what was written to
// them, once the pod has ended.
func (r *rig) readers() (out, err func() string) {
	r.cfg.Detached = false
	open := func() (*os.File, func() string) {
		pr, pw, err := os.Pipe()
		if err != nil {
			r.t.Fatal(err)
		}
		got := make(chan string, 1)
		go func() {
			b, _ := io.ReadAll(pr)
			pr.Close()
			got <- string(b)
		}()
		return pw, func() string { pw.Close(); return <-got }
	}
	r.cfg.Stdio.Out, out = open()
	r.cfg.Stdio.Err, err = open()
	return out, err
}

func TestOutputAlone(t *testing.T) {
	r := newRig(t, "a")
	r.cfg.Keep = true
	out, errOut := r.readers()
	r.says(func(_ *fakeInstance, out, err io.Writer) {
		io.WriteString(out, "one\ntwo \xff without an end")
		io.WriteString(err, "oops\n")
	})
	wait(t, r.start())
	if got, want := out(), "one\ntwo \xff without an end"; got != want {
		t.Errorf("stdout = %q; want %q", got, want)
	}
	if got := errOut(); got != "oops\n" {
		t.Errorf("stderr = %q", got)
	}
	var lines []string
	for _, l := range readLog(t, r.root, "a") {
		lines = append(lines, l.Stream+" "+l.Line)
		if time.Since(l.Time) > time.Minute {
			t.Errorf("log record of %v", l.Time)
		}
	}
	slices.Sort(lines)
	want := []string{"stderr oops", "stdout one", "stdout two � without an end"}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

func TestOutputPrefixed(t *testing.T) {
	r := newRig(t, "a", "long")
	out, errOut := r.readers()
	r.says(func(i *fakeInstance, out, _ io.Writer) {
		for n := range 200 {
			fmt.Fprintf(out, "%s", i.name)
			fmt.Fprintf(out, " %d\n", n)
		}
		io.WriteString(out, "end")
	})
	wait(t, r.start())
	errOut()
	counts := map[string]int{}
	for line := range strings.Lines(out()) {
		prefix, rest, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " | ")
		name := strings.TrimSpace(prefix)
		if want := fmt.Sprint(name, " ", counts[name]); !ok || len(prefix) != 4 || rest != want && rest != "end" {
			t.Fatalf("line %q; want %q", line, want)
		}
		counts[name]++
	}
	if want := map[string]int{"a": 201, "long": 201}; !cmp.Equal(counts, want) {
		t.Errorf("lines: %v; want %v", counts, want)
	}
}

// TestOutputReaderGone: when the reader of our output has gone, the container's
// writes fail, as they would without us.
func TestOutputReaderGone(t *testing.T) {
	r := newRig(t, "a")
	r.cfg.Detached = false
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	pr.Close()
	defer pw.Close()
	r.cfg.Stdio.Out = pw
	failed := make(chan error, 1)
	r.says(func(_ *fakeInstance, out, _ io.Writer) {
		for {
			if _, err := io.WriteString(out, strings.Repeat("y\n", 1000)); err != nil {
				failed <- err
				return
			}
		}
	})
	p := r.start()
	select {
	case err := <-failed:
		if !strings.Contains(err.Error(), "broken pipe") {
			t.Errorf("the container's write: %v; want a broken pipe", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the container writes for ever")
		p.Kill()
	}
	wait(t, p)
}

// TestLogRotates: a log never takes more than twice its bound, and what is kept
// is the end, whole.
func TestLogRotates(t *testing.T) {
	r := newRig(t, "a")
	r.cfg.Keep = true
	line := strings.Repeat("z", 15_000)
	r.says(func(_ *fakeInstance, out, _ io.Writer) {
		for n := range 2000 { // 30 MB
			fmt.Fprintf(out, "%d %s\n", n, line)
		}
	})
	wait(t, r.start())
	for _, name := range []string{store.LogName("a"), store.LogName("a") + ".1"} {
		st, err := os.Stat(filepath.Join(r.root, "pods/pod", name))
		if err != nil || st.Size() > 10<<20 || st.Size() == 0 {
			t.Errorf("%s: %+v, %v", name, st, err)
		}
	}
	log := readLog(t, r.root, "a")
	if last := log[len(log)-1].Line; !strings.HasPrefix(last, "1999 ") {
		t.Errorf("last line begins with %.10q; want 1999", last)
	}
}

// TestKeep leaves the records, and the next pod of the name starts afresh.
func TestKeep(t *testing.T) {
	r := newRig(t, "a")
	r.cfg.Keep = true
	p := r.start()
	r.exit("a", 3)
	wait(t, p)
	list := listPods(t, r.root)
	if len(list) != 1 || list[0].Live || !list[0].State.Ended() || *list[0].State.ExitStatus != 3 {
		t.Fatalf("List() = %+v; want one ended pod", list)
	}
	if removed, err := lifecycle.CleanUp(context.Background(), lifecycle.CleanUpConfig{Root: r.root, Runtime: r.rt}); len(removed) != 0 || err != nil {
		t.Errorf("CleanUp() = %q, %v; want kept records left alone", removed, err)
	}
	r.net.closed = 0
	events := readEvents(t, r.root)
	want := []lifecycle.EventType{"pod_starting", "created", "attached", "prepared", "started", "pod_started", "exit", "destroyed", "pod_stopped"}
	var got []lifecycle.EventType
	for i, e := range events {
		if e.Seq != uint64(i+1) || e.Pod != "pod" || e.Time.IsZero() || i > 0 && e.Time.Before(events[i-1].Time) {
			t.Errorf("event %d: %+v", i, e)
		}
		if e.Type != lifecycle.EventReady { // by itself, at any moment from started on, or never
			got = append(got, e.Type)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	r.cfg.Keep = false
	p = r.start()
	if events := readEvents(t, r.root); events[0].Seq != 1 || events[0].Type != lifecycle.EventPodStarting || time.Since(events[0].Time) > time.Minute {
		t.Errorf("first event of the second pod: %+v", events[0])
	}
	r.exit("a", 0)
	wait(t, p)
}

func readEvents(t *testing.T, root string) []lifecycle.Event {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "pods/pod/events.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var list []lifecycle.Event
	for line := range strings.Lines(string(b)) {
		var e lifecycle.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		list = append(list, e)
	}
	return list
}
