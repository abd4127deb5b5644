package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sekimori/lifecycle"
	"sekimori/nicshadow"
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/replay"
	"sekimori/nicshadow/rule"
	"sekimori/starlark"
)

var _ lifecycle.Trier = (*network)(nil)

// Try has a program judge beside the one in force.
func (n *network) Try(container string, program []byte, tell func(json.RawMessage)) (<-chan struct{}, func() json.RawMessage, error) {
	var tr *nicshadow.Trial
	err := n.with(container, func(c *card) (err error) {
		tr, err = n.table.Try(nicshadow.Sender(c.sender), program, func(d nicshadow.Difference) {
			if raw, err := json.Marshal(d); err == nil {
				tell(raw)
			}
		})
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return tr.Over(), func() json.RawMessage {
		raw, _ := json.Marshal(tr.Stop()) // three numbers
		return raw
	}, nil
}

// shadowOptions are the flags of shadow.
type shadowOptions struct {
	source
	name    string // of the pod
	pcap    string
	during  time.Duration
	promote bool
	json    bool
}

func (a *app) shadowCommand() *cobra.Command {
	var o shadowOptions
	cmd := &cobra.Command{
		Use:   "shadow FILE",
		Short: "have the policies of a .star file judge a running pod's frames, and decide nothing",
		Long: `Shadow evaluates the file again and has the policies of its containers judge each
frame of the running pod beside those in force. Nothing is decided by them. Each
frame that they would judge otherwise is shown with both deciding lines, until
Ctrl-C, the end of --for, or a reload; then frames are counted. Where seki reload
--diff finds frames that might differ, this shows those that really come.

--promote puts the policies in force in the end, if no frame was judged otherwise.
The exit code is 1 if some were.`,
		Example: "  seki shadow --for 10m --pcap changed.pcapng web.star && seki reload web.star",
		Args:    args(1, 1, "one FILE"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.shadow(cmd.Context(), args[0], o) }
	o.source.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "name of the pod (default: that of the file)")
	f.StringVar(&o.pcap, "pcap", "", "write the frames that were shown to this file")
	f.DurationVar(&o.during, "for", 0, "end after this long (default: at Ctrl-C)")
	f.BoolVar(&o.promote, "promote", false, "put the policies in force in the end, if no frame was judged otherwise")
	f.BoolVar(&o.json, "json", false, "print JSON, a line for each frame and one in the end")
	// The error is that of a flag that does not exist: a bug that tests meet.
	_ = cmd.RegisterFlagCompletionFunc("name", a.completePods)
	return cmd
}

// A shadowing compares the policies of a file with those in force.
type shadowing struct {
	app   *app
	o     shadowOptions
	pod   *starlark.Pod
	old   map[string]*rule.Program // in force, by container
	shown []frameDiff
	time  []time.Time // of each
	where []string    // its container
	err   error       // of writing them
}

func (a *app) shadow(ctx context.Context, path string, o shadowOptions) error {
	if o.during < 0 {
		return usage("--for %v: want a time", o.during)
	}
	name := podName(path, o.name)
	pod, c, running, err := a.again(ctx, path, name, o.source)
	if err != nil {
		return err
	}
	defer c.Close()
	s := &shadowing{app: a, o: o, pod: pod, old: map[string]*rule.Program{}}
	next, err := s.prepare(running)
	if err != nil {
		return err
	}
	if len(next) == 0 {
		_, err := fmt.Fprintf(a.stdout, "%s: all policies are in force already\n", name)
		return err
	}
	if o.during > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.during)
		defer cancel()
	}
	trials, err := c.Try(ctx, next, s.saw)
	if err := errors.Join(err, s.err); err != nil {
		return err
	}
	differs, over, err := s.report(trials)
	switch {
	case err != nil:
		return err
	case over:
		return fmt.Errorf("%s: another policy was put in force meanwhile", name)
	case differs:
		return &codeError{code: exitFailed}
	case !o.promote:
		return nil
	}
	// Interrupted is not given up: that is how it ends.
	if err := c.Reload(context.WithoutCancel(ctx), next); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stderr, "seki: %s: in force\n", name)
	return err
}

// prepare lists the policies that are not in force.
func (s *shadowing) prepare(running []lifecycle.Policy) (next []lifecycle.Policy, err error) {
	for _, r := range running {
		n := named(s.pod, r.Container)
		if n == nil || n.Program == nil || bytes.Equal(n.Program.Bytes(), r.Program) {
			continue
		}
		old := nothingProgram()
		if len(r.Program) > 0 {
			if old, err = rule.Decode(r.Program); err != nil {
				return nil, fmt.Errorf("container %q: the program in force: %w", r.Container, err)
			}
		}
		s.old[r.Container] = old
		next = append(next, lifecycle.Policy{Container: r.Container, Mode: n.Policy.Mode(), Program: n.Program.Bytes()})
	}
	return next, nil
}

// saw shows a frame.
func (s *shadowing) saw(seen lifecycle.Seen) {
	var d nicshadow.Difference
	n := named(s.pod, seen.Container)
	if err := json.Unmarshal(seen.Difference, &d); err != nil || n == nil {
		s.err = errors.Join(s.err, fmt.Errorf("the supervisor's answer: %w", err))
		return
	}
	var k frame.Key
	frame.Parse(d.Frame, &k) // it did, or no program had judged it
	f := frameDiff{
		Summary: replay.Summary(d.Frame), Class: k.Class().String(), Ingress: d.Ingress,
		Old: sideOf(s.pod, s.old[seen.Container], d.Now), New: sideOf(s.pod, n.Program, d.Then),
		Frame: fmt.Sprintf("%x", d.Frame), data: d.Frame,
	}
	if s.o.pcap != "" {
		s.shown, s.time, s.where = append(s.shown, f), append(s.time, d.Time), append(s.where, seen.Container)
	}
	if s.o.json {
		s.err = errors.Join(s.err, s.app.printJSONLine(struct {
			Time      time.Time `json:"time"`
			Container string    `json:"container"`
			frameDiff
			Suppressed uint64 `json:"suppressed,omitempty"`
		}{d.Time, seen.Container, f, d.Suppressed}))
		return
	}
	out := &errWriter{w: s.app.stdout}
	if d.Suppressed > 0 {
		fmt.Fprintf(out, "%s: %s not shown\n", seen.Container, count(int(d.Suppressed), "frame"))
	}
	fmt.Fprintf(out, "%s: ", seen.Container)
	f.writeText(out)
	s.err = errors.Join(s.err, out.err)
}

// report writes what was counted, and the frames to a file.
func (s *shadowing) report(trials []lifecycle.Trial) (differs, over bool, err error) {
	if s.o.pcap != "" {
		var frames []replay.Frame
		for i, f := range s.shown {
			frames = append(frames, f.pcap(s.time[i], s.where[i]))
		}
		if err := writeFile(s.o.pcap, func(w io.Writer) error { return replay.WritePcapng(w, frames) }); err != nil {
			return false, false, err
		}
	}
	type line struct {
		Container string `json:"container"`
		nicshadow.TrialCounts
		Over bool `json:"over,omitempty"`
	}
	lines := []line{}
	for _, t := range trials {
		l := line{Container: t.Container, Over: t.Over}
		if err := json.Unmarshal(t.Counts, &l.TrialCounts); err != nil {
			return false, false, fmt.Errorf("the supervisor's answer: %w", err)
		}
		lines, over = append(lines, l), over || t.Over
		differs = differs || l.Tighter+l.Looser > 0
	}
	slices.SortFunc(lines, func(a, b line) int { return strings.Compare(a.Container, b.Container) })
	if s.o.json {
		return differs, over, s.app.printJSONLine(map[string]any{"containers": lines})
	}
	t := newTable(s.app.stdout)
	t.row("CONTAINER", "ALIKE", "WOULD DROP", "WOULD PASS")
	for _, l := range lines {
		t.row(l.Container, fmt.Sprint(l.Same), fmt.Sprint(l.Tighter), fmt.Sprint(l.Looser))
	}
	return differs, over, t.Flush()
}
