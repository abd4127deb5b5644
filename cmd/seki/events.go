package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sekimori/lifecycle"
	"sekimori/lifecycle/store"
	"sekimori/nicshadow"
)

func (a *app) eventsCommand() *cobra.Command {
	var asJSON, follow bool
	cmd := &cobra.Command{
		Use:   "events POD",
		Short: "print what happened to a pod",
		Long: `Events prints what has happened to the pod, oldest first: each step of its
containers' lives, hooks, policies that were loaded, frames that dropped.`,
		Example: "  seki events -f --json arp_guard",
		Args:    args(1, 1, "one POD"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		show := func(line []byte) error {
			_, err := a.stdout.Write(line)
			return err
		}
		if !asJSON {
			show = a.printEvent
		}
		return a.events(cmd.Context(), args[0], follow, show)
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object a line")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the pod ends")
	cmd.ValidArgsFunction = a.completePods
	return cmd
}

// errEnded ends the following of a pod that has ended.
var errEnded = errors.New("pod has ended")

// events hands over the lines of a pod's events.
func (a *app) events(ctx context.Context, pod string, follow bool, show func([]byte) error) error {
	if _, err := a.lookup(pod); err != nil {
		return err
	}
	s, err := store.OpenExisting(a.root)
	if err != nil {
		return err
	}
	defer s.Close()
	err = a.follow(ctx, s, pod, follow, "events.jsonl", func(line []byte) error {
		err := show(line)
		if follow && err == nil && ends(line) {
			return errEnded
		}
		return err
	})
	return quiet(err)
}

// follow hands over the lines of one file of a pod; if more is set, those to
// come, too, until line returns an error.
func (a *app) follow(ctx context.Context, s *store.Store, pod string, more bool, name string, line func([]byte) error) error {
	// The watch first: what is written between it and the first read is seen.
	w, err := newWatch(a.root, pod)
	if err != nil {
		return err
	}
	defer w.f.Close()
	t, err := openTail(s, pod, name, line)
	if err != nil {
		return err
	}
	defer t.close()
	for {
		if err := t.more(line); err != nil || !more {
			return err
		}
		if e, err := s.Lookup(pod); err != nil || !e.Live {
			return t.more(line)
		}
		if err := w.wait(ctx); err != nil {
			return err
		}
	}
}

// ends reports whether an event is the last of its pod.
func ends(line []byte) bool {
	var e lifecycle.Event
	return json.Unmarshal(line, &e) == nil && e.Type == lifecycle.EventPodStopped
}

// quiet takes away errors that are the way following ends.
func quiet(err error) error {
	if errors.Is(err, errEnded) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// printEvent prints an event for people.
func (a *app) printEvent(line []byte) error {
	var e lifecycle.Event
	if err := json.Unmarshal(line, &e); err != nil {
		return fmt.Errorf("event %q: %w", line, err)
	}
	who := e.Container
	if who == "" {
		who = "-"
	}
	_, err := fmt.Fprintf(a.stdout, "%s  %-12s %-12s %s\n", e.Time.Local().Format("15:04:05.000"), who, e.Type, strings.Join(details(e), " "))
	return err
}

// details are what an event says besides its type.
func details(e lifecycle.Event) []string {
	var d []string
	add := func(ok bool, format string, args ...any) {
		if ok {
			d = append(d, fmt.Sprintf(format, args...))
		}
	}
	add(e.Point != "", "%s", e.Point)
	add(e.Hook != "", "%s", e.Hook)
	add(e.Message != "", "%s", e.Message)
	for _, k := range sorted(e.Fields) {
		add(true, "%s=%s", k, e.Fields[k])
	}
	if e.Type == lifecycle.EventViolation {
		var r nicshadow.Record
		if json.Unmarshal(e.Record, &r) == nil {
			add(true, "%s", strings.TrimPrefix(dropLine(r), "seki: "+e.Container+": "))
		}
	}
	add(e.Pid != 0, "pid %d", e.Pid)
	add(len(e.Args) > 0, "%s", strings.Join(e.Args, " "))
	add(e.Mode != "", "%s", e.Mode)
	add(e.Program != "", "%.12s", e.Program)
	add(e.Status != nil, "status %d", deref(e.Status))
	add(e.Signal != "", "signal %s", e.Signal)
	add(e.Count > 1, "%d times", e.Count)
	add(e.DurationNS != 0, "in %s", short(e.DurationNS))
	add(e.Error != "", "error: %s", e.Error)
	return d
}

func deref(p *int) int {
	if p == nil {
		return 0
	}
	return *p
}

func sorted(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// short is a duration with three or four digits.
func short(ns int64) time.Duration {
	d := time.Duration(ns)
	for unit := time.Duration(1); ; unit *= 10 {
		if d < unit*10000 {
			return d.Round(unit)
		}
	}
}
