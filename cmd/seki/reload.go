package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"sekimori/lifecycle"
	"sekimori/nicshadow/replay"
	"sekimori/nicshadow/rule"
	"sekimori/nicshadow/witness"
	"sekimori/starlark"
)

// reloadOptions are the flags of reload.
type reloadOptions struct {
	source
	name       string // of the pod
	diff, json bool
}

func (a *app) reloadCommand() *cobra.Command {
	var o reloadOptions
	cmd := &cobra.Command{
		Use:   "reload FILE",
		Short: "put the policies of a .star file in force in a running pod",
		Long: `Reload evaluates the file again and puts the policies of its containers in force,
by name. Each frame is judged by the old policy or by the new one, whole; if one
is refused, all go back. Only policies change: cards, callbacks and all else
stay those of the run. Then callbacks at the point reload run.

--diff first prints the frames that the new policies judge differently from
those in force, and changes nothing.`,
		Example: "  seki reload --diff web.star && seki reload web.star",
		Args:    args(1, 1, "one FILE"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.reload(cmd.Context(), args[0], o) }
	o.source.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "name of the pod (default: that of the file)")
	f.BoolVar(&o.diff, "diff", false, "print what would change, and change nothing")
	f.BoolVar(&o.json, "json", false, "print JSON")
	// The error is that of a flag that does not exist: a bug that tests meet.
	_ = cmd.RegisterFlagCompletionFunc("name", a.completePods)
	return cmd
}

// again evaluates the file of the running pod of that name, and asks for the
// policies that are in force there.
func (a *app) again(ctx context.Context, path, name string, src source) (*starlark.Pod, *lifecycle.Client, []lifecycle.Policy, error) {
	src.pod = name // MAC addresses are made from it, as they were for the run
	pod, err := a.load(ctx, path, src)
	if err != nil {
		return nil, nil, nil, err
	}
	if _, err := a.lookup(name); err != nil {
		return nil, nil, nil, err
	}
	c, err := a.dial(name)
	if err != nil {
		return nil, nil, nil, err
	}
	running, err := c.Policies(ctx)
	if err != nil {
		return nil, nil, nil, errors.Join(err, c.Close())
	}
	return pod, c, running, nil
}

func (a *app) reload(ctx context.Context, path string, o reloadOptions) error {
	name := podName(path, o.name)
	pod, c, running, err := a.again(ctx, path, name, o.source)
	if err != nil {
		return err
	}
	defer c.Close()
	d := &podDiff{Containers: []containerDiff{}}
	var next []lifecycle.Policy
	for _, r := range running {
		n := named(pod, r.Container)
		if n == nil || n.Program == nil {
			if len(r.Program) > 0 {
				fmt.Fprintf(a.stderr, "seki: container %q: %s has no policy for it: it keeps the one in force\n", r.Container, path)
			}
			continue
		}
		p := lifecycle.Policy{Container: r.Container, Mode: n.Policy.Mode(), Program: n.Program.Bytes()}
		if p.Mode == r.Mode && bytes.Equal(p.Program, r.Program) {
			continue
		}
		next = append(next, p)
		c, err := a.reloadDiff(pod, n, r, o.diff)
		if err != nil {
			return err
		}
		d.Containers, d.Differs = append(d.Containers, c), d.Differs || c.Note != "" || len(c.Changes) > 0
	}
	switch {
	case o.diff:
		return a.printDiff(d, o.json)
	case len(next) == 0:
		_, err := fmt.Fprintf(a.stdout, "%s: all policies are in force already\n", name)
		return err
	}
	if err := c.Reload(ctx, next); err != nil {
		return err
	}
	for _, p := range next {
		fmt.Fprintf(a.stdout, "%s/%s: %s, %s\n", name, p.Container, p.Mode, count(len(p.Program), "byte"))
	}
	return nil
}

// reloadDiff compares the policy in force with the new one; search says whether
// frames are looked for.
func (a *app) reloadDiff(pod *starlark.Pod, n *starlark.Container, r lifecycle.Policy, search bool) (containerDiff, error) {
	d := containerDiff{Container: r.Container}
	if r.Mode != n.Policy.Mode() {
		d.Note = fmt.Sprintf("mode %s -> %s", r.Mode, n.Policy.Mode())
	}
	if !search {
		return d, nil
	}
	if len(r.Program) == 0 {
		d.Note = "has no policy in force: nothing passes"
		return d, nil
	}
	old, err := rule.Decode(r.Program)
	if err != nil {
		return d, fmt.Errorf("container %q: the program in force: %w", r.Container, err)
	}
	found := witness.Diff(old, n.Program, witness.Limits{})
	d.More, d.Search = found.More, &found.Searched
	for _, c := range found.Changes {
		d.Changes = append(d.Changes, frameDiff{
			Summary: replay.Summary(c.Frame), Class: c.Class.String(), Ingress: c.Ingress,
			Old: sideOf(pod, old, c.Old), New: sideOf(pod, n.Program, c.New), Frame: fmt.Sprintf("%x", c.Frame), data: c.Frame,
		})
	}
	return d, nil
}

// printDiff prints a comparison; its exit code is 1 if something differs.
func (a *app) printDiff(d *podDiff, asJSON bool) (err error) {
	if asJSON {
		err = a.printJSON(d)
	} else {
		err = d.writeText(a.stdout)
	}
	if err == nil && d.Differs {
		err = &codeError{code: exitFailed}
	}
	return err
}
