package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sekimori/nicshadow/replay"
	"sekimori/nicshadow/rule"
	"sekimori/nicshadow/witness"
	"sekimori/starlark"
)

// diffOptions are the flags of diff.
type diffOptions struct {
	source
	name, pcap string
	steps      int
	json       bool
}

func (a *app) diffCommand() *cobra.Command {
	var o diffOptions
	cmd := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "say which frames two versions of a .star file judge differently",
		Long: `Diff compares the policies of the containers of two files. It walks the decisions
of both programs at once, over all frames that parse, not over samples, and for
each place where the verdicts part it builds a frame, has both programs judge
it, and prints it with the lines that decided; --pcap writes these frames.

Its exit code is 1 if something differs, 0 if nothing does. Where the search
could not be whole, because of its limit, of arithmetic on several fields or of
state, it says so.`,
		Example: "  seki diff --pcap changed.pcap web.star web-new.star",
		Args:    args(2, 2, "OLD and NEW"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.diff(cmd.Context(), args[0], args[1], o) }
	o.source.flags(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.name, "container", "c", "", "compare only the policies of this container")
	f.StringVar(&o.pcap, "pcap", "", "write the frames whose verdict changes to this file")
	f.IntVar(&o.steps, "steps", witness.DefaultSteps, "how many places to visit for each class of frames")
	f.BoolVar(&o.json, "json", false, "print JSON")
	a.completeContainerOf(cmd, &o.source)
	return cmd
}

func (a *app) diff(ctx context.Context, before, after string, o diffOptions) error {
	if o.steps < 1 {
		return usage("--steps %d: want 1 or more", o.steps)
	}
	old, err := a.load(ctx, before, o.source)
	if err != nil {
		return err
	}
	// MAC addresses that no file gives are made from the names of pod and
	// container: that of the file must not make a difference.
	src := o.source
	src.pod = old.Name
	now, err := a.load(ctx, after, src)
	if err != nil {
		return err
	}
	d, err := comparePods(old, now, o.name, witness.Limits{Steps: o.steps})
	if err != nil {
		return err
	}
	if o.pcap != "" {
		if err := writeFile(o.pcap, d.writePcap); err != nil {
			return err
		}
	}
	return a.printDiff(d, o.json)
}

// A podDiff is what differs between two pods.
type podDiff struct {
	Differs    bool            `json:"differs"`
	Containers []containerDiff `json:"containers"`
}

// A containerDiff is what differs for one container.
type containerDiff struct {
	Container string `json:"container"`
	// Note says what is not a matter of frames: "only in old.star",
	// "mode enforce -> audit"; several are joined by "; ".
	Note    string            `json:"note,omitempty"`
	Changes []frameDiff       `json:"changes,omitempty"`
	More    int               `json:"more,omitempty"`
	Search  *witness.Searched `json:"searched,omitempty"`
}

// A frameDiff is a frame whose verdict changes.
type frameDiff struct {
	Summary string    `json:"summary"`
	Class   string    `json:"class"`
	Ingress bool      `json:"ingress,omitempty"`
	Old     sideOfOne `json:"old"`
	New     sideOfOne `json:"new"`
	// Frame is the frame in hex.
	Frame string `json:"frame"`

	data []byte
}

// A sideOfOne is what one of the versions says of a frame.
type sideOfOne struct {
	Verdict string `json:"verdict"`
	Why     string `json:"why"`
	At      string `json:"at,omitempty"`
	Source  string `json:"source,omitempty"`
}

// comparePods compares the containers of two pods, those of one name each;
// name "" means all.
func comparePods(old, now *starlark.Pod, name string, l witness.Limits) (*podDiff, error) {
	var names []string
	for _, c := range slices.Concat(old.Containers, now.Containers) {
		if n := c.Spec.Name; !slices.Contains(names, n) && (name == "" || n == name) {
			names = append(names, n)
		}
	}
	if len(names) == 0 && name != "" {
		return nil, usage("container %q: in neither %s nor %s", name, old.Path, now.Path)
	}
	d := &podDiff{Containers: []containerDiff{}}
	for _, n := range names {
		c := compareContainers(old, now, n, l)
		d.Differs = d.Differs || c.Note != "" || len(c.Changes) > 0
		d.Containers = append(d.Containers, c)
	}
	return d, nil
}

func compareContainers(old, now *starlark.Pod, name string, l witness.Limits) containerDiff {
	d := containerDiff{Container: name}
	x, y := named(old, name), named(now, name)
	switch {
	case x == nil:
		d.Note = "only in " + now.Path
		return d
	case y == nil:
		d.Note = "only in " + old.Path
		return d
	case x.Program == nil && y.Program == nil:
		return d
	case x.Program == nil:
		d.Note = "had no policy: nothing passed"
		return d
	case y.Program == nil:
		d.Note = "has no policy any more: nothing passes"
		return d
	}
	var notes []string
	if a, b := x.Policy.Mode(), y.Policy.Mode(); a != b {
		notes = append(notes, fmt.Sprintf("mode %s -> %s", a, b))
	}
	if a, b := fmt.Sprint(x.Identity()), fmt.Sprint(y.Identity()); a != b {
		notes = append(notes, fmt.Sprintf("card %s -> %s", cardText(x), cardText(y)))
	}
	d.Note = strings.Join(notes, "; ")
	r := witness.Diff(x.Program, y.Program, l)
	d.More, d.Search = r.More, &r.Searched
	for _, c := range r.Changes {
		d.Changes = append(d.Changes, frameDiff{
			Summary: replay.Summary(c.Frame), Class: c.Class.String(), Ingress: c.Ingress,
			Old:   sideOf(old, x.Program, c.Old),
			New:   sideOf(now, y.Program, c.New),
			Frame: fmt.Sprintf("%x", c.Frame), data: c.Frame,
		})
	}
	return d
}

func named(p *starlark.Pod, name string) *starlark.Container {
	for _, c := range p.Containers {
		if c.Spec.Name == name {
			return c
		}
	}
	return nil
}

func cardText(c *starlark.Container) string {
	id := c.Identity()
	return strings.TrimSpace(id.MAC.String() + " " + list(id.Addrs))
}

// sideOf says what decided in one version.
func sideOf(pod *starlark.Pod, p *rule.Program, o rule.Outcome) sideOfOne {
	w := p.Why(o.PC)
	s := sideOfOne{Verdict: o.Verdict.String(), Why: because(w.Kind.String(), w.Name)}
	file, line, col := p.File(w.Pos), int(w.Pos.Line), int(w.Pos.Col)
	if w.Kind == rule.WhyInvalid {
		s.Why = "arithmetic fault"
		file, line, col = p.Position(o.PC)
	}
	if file != "" {
		s.At, s.Source = fmt.Sprintf("%s:%d:%d", file, line, col), pod.Line(file, line)
	}
	return s
}

// writePcap writes the frames.
func (d *podDiff) writePcap(w io.Writer) error {
	var frames []replay.Frame
	for _, c := range d.Containers {
		for _, f := range c.Changes {
			frames = append(frames, f.pcap(time.Unix(0, 0), c.Container))
		}
	}
	return replay.WritePcapng(w, frames)
}

// pcap is the frame for a capture file.
func (f *frameDiff) pcap(at time.Time, container string) replay.Frame {
	return replay.Frame{
		Time: at, Data: f.data, Length: len(f.data), Interface: container, Comment: f.Old.Verdict + " -> " + f.New.Verdict,
	}
}

func (d *podDiff) writeText(w io.Writer) error {
	out := &errWriter{w: w}
	for _, c := range d.Containers {
		c.writeText(out)
	}
	whole := true
	for _, c := range d.Containers {
		whole = whole && (c.Search == nil || c.Search.Whole())
	}
	switch {
	case d.Differs:
	case whole:
		fmt.Fprintln(out, "no frame is judged differently")
	default:
		fmt.Fprintln(out, "no difference found, but the search was not whole")
	}
	return out.err
}

func (c *containerDiff) writeText(w io.Writer) {
	fmt.Fprintf(w, "%s\n", c.Container)
	if c.Note != "" {
		fmt.Fprintf(w, "  %s\n", c.Note)
	}
	for _, f := range c.Changes {
		fmt.Fprint(w, "  ")
		f.writeText(w)
	}
	if c.More > 0 {
		fmt.Fprintf(w, "  and %s\n", count(c.More, "further change"))
	}
	if c.Search == nil {
		return
	}
	fmt.Fprintf(w, "  searched: all frames of %s, %s\n", count(len(c.Search.Classes), "class"), count(c.Search.Steps, "step"))
	for _, cut := range c.Search.Cut {
		fmt.Fprintf(w, "  not whole: %s\n", cut)
	}
	if c.Search.Unresolved > 0 {
		fmt.Fprintf(w, "  not whole: %s to another verdict for which no frame was found: arithmetic on several fields, or state\n", count(c.Search.Unresolved, "path"))
	}
}

func (f *frameDiff) writeText(w io.Writer) {
	in := ""
	if f.Ingress {
		in = " (ingress)"
	}
	fmt.Fprintf(w, "%s -> %s  %s%s\n", f.Old.Verdict, f.New.Verdict, f.Summary, in)
	f.Old.writeText(w, "was")
	f.New.writeText(w, "is")
}

func (s *sideOfOne) writeText(w io.Writer, when string) {
	fmt.Fprintf(w, "    %-4s %s", when, s.Why)
	if s.At != "" {
		fmt.Fprintf(w, " at %s", s.At)
	}
	if s.Source != "" {
		fmt.Fprintf(w, ": %s", s.Source)
	}
	fmt.Fprintln(w)
}

// An errWriter keeps the first error of several writes.
type errWriter struct {
	w   io.Writer
	err error
}

func (e *errWriter) Write(b []byte) (int, error) {
	if e.err != nil {
		return 0, e.err
	}
	n, err := e.w.Write(b)
	e.err = err
	return n, err
}
