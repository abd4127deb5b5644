package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"sekimori/lifecycle"
	"sekimori/nicshadow"
	"sekimori/nicshadow/replay"
	"sekimori/nicshadow/rule"
	"sekimori/starlark"
	"sekimori/starlark/policy"
)

// drops explains the frames that dropped among the events of a file.
func (x *explainer) drops(path string) error {
	in := x.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	d := json.NewDecoder(in)
	found := false
	for n := 1; ; n++ {
		var e lifecycle.Event
		err := d.Decode(&e)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%s: event %d: %w", path, n, err)
		}
		if e.Type != lifecycle.EventViolation {
			continue
		}
		var r nicshadow.Record
		if err := json.Unmarshal(e.Record, &r); err != nil {
			return fmt.Errorf("%s: event %d: record: %w", path, n, err)
		}
		found = true
		if err := x.drop(&r); err != nil {
			return fmt.Errorf("%s: event %d: %w", path, n, err)
		}
	}
	if !found {
		return fmt.Errorf("%s: no frame dropped in these events", path)
	}
	return nil
}

// drop explains one frame that dropped.
func (x *explainer) drop(r *nicshadow.Record) error {
	if r.Reason == nicshadow.Envelope.String() { // no program of the file's
		return x.show(&replay.Explanation{Time: r.Time, Interface: r.Container, Summary: r.Summary, Class: "none", Verdict: r.Verdict, Reason: why(*r)})
	}
	if r.Class == "" || r.Program == "" { // no program decided
		return x.show(&replay.Explanation{Time: r.Time, Interface: r.Container, Summary: r.Summary, Class: "none", Verdict: r.Verdict, Reason: r.Reason})
	}
	key, err := replay.ParseKey(r.Class, r.Fields)
	if err != nil {
		return err
	}
	name := x.name
	if name == "" {
		name = r.Container
	}
	c, err := judgedBy(x.pod, name)
	if err != nil {
		return err
	}
	p := x.programOf(c, r.Program)
	if p == nil {
		fmt.Fprintf(x.stderr, "seki: program %.12s of the event is none that %s has for %q today: explained by today's %x\n", r.Program, x.pod.Path, name, hashOf(c.Program))
		p = c.Program
	}
	e := replay.NewExplainer(p, x.pod.Line).Key(key, r.Reason == nicshadow.Ingress.String(), r.Summary)
	e.Time, e.Interface = r.Time, r.Container
	if e.Comment = r.Verdict + ": " + why(*r); p != c.Program {
		e.Comment += " (by a policy that a callback loaded)"
	}
	if e.Verdict == rule.Forward.String() && p.Remembers() {
		e.Comment += " (it hung on frames before it, which are not recorded)"
	}
	return x.show(e)
}

// programOf finds the program with that hash among those that the container
// begins with and those that its callbacks can load; nil if there is none.
func (x *explainer) programOf(c *starlark.Container, hash string) *rule.Program {
	if fmt.Sprintf("%x", c.Program.Hash()) == hash {
		return c.Program
	}
	for _, p := range x.pod.Policies {
		prog, err := compileFor(p, c)
		if err == nil && fmt.Sprintf("%x", prog.Hash()) == hash {
			return prog
		}
	}
	return nil
}

// compileFor compiles a policy for a container's card.
func compileFor(p *policy.Policy, c *starlark.Container) (*rule.Program, error) {
	return p.Compile(c.Identity())
}

// hashOf is the beginning of a program's hash, as tables print it.
func hashOf(p *rule.Program) []byte {
	h := p.Hash()
	return h[:6]
}
