package config

import (
	"fmt"
	"slices"
	"strings"

	"sekimori/starlark/args"
	"sekimori/starlark/value"
)

// A point of a container's life at which callbacks run.
type point struct {
	name string
	doc  string
}

// points are the fixed points in the order in which they are reached. The
// first four and the last carry the names of the OCI runtime specification
// 1.3 (Lifecycle), in Starlark's spelling.
var points = []point{
	{"create_runtime", "the namespaces exist; nothing is mounted and nothing of the workload runs"},
	{"create_container", "the file systems are mounted, the root is not yet changed"},
	{"start_container", "the policy is in force; the workload is about to be executed"},
	{"poststart", "the workload runs"},
	{"ready", "the check of ready= succeeded; without one, right after poststart"},
	{"oom", "the kernel killed a process of the container for its memory limit"},
	{"memory_pressure", "the container is short of memory"},
	{"pids_max", "the container reached its limit of processes"},
	{"reload", "the pod's file was read again and is in force"},
	{"violation", "frames of the container were dropped, or would have been in audit mode; rate-limited"},
	{"poststop", "the workload ended; ctx.exit_status says how"},
}

// signalNames are the signals to the supervisor that callbacks can take:
// those that neither stop it nor belong to the Go runtime.
var signalNames = []string{"HUP", "USR1", "USR2", "TTIN", "TTOU", "WINCH"}

// An alias is another tool's name for a point.
type alias struct {
	point string
	// onlyFailed narrows the callback to containers that did not exit with 0.
	onlyFailed bool
}

// haconiwa are the hook names of Haconiwa (mrblib/haconiwa/hookable.rb), for
// files that come from there. Its hooks for restoring checkpoints have no
// counterpart yet and are not among them.
var haconiwa = map[string]alias{
	"setup":                            {point: "create_runtime"},
	"before_fork":                      {point: "create_runtime"},
	"after_network_created":            {point: "create_runtime"},
	"immediately_after_fork_on_parent": {point: "create_runtime"},
	"after_fork":                       {point: "create_runtime"},
	"after_network_initialized":        {point: "create_container"},
	"before_chroot":                    {point: "create_container"},
	"after_chroot":                     {point: "start_container"},
	"before_start_wait":                {point: "poststart"},
	"after_reload":                     {point: "reload"},
	"teardown_container":               {point: "poststop"},
	"after_failure":                    {point: "poststop", onlyFailed: true},
	"system_failure":                   {point: "poststop", onlyFailed: true},
	"teardown":                         {point: "poststop"},
}

// Points documents every point and, for each, the Haconiwa hooks that mean it.
func Points() []struct{ Name, Doc string } {
	byPoint := map[string][]string{}
	for a, to := range haconiwa {
		byPoint[to.point] = append(byPoint[to.point], a)
	}
	var out []struct{ Name, Doc string }
	for _, p := range points {
		doc := p.doc
		if as := byPoint[p.name]; len(as) > 0 {
			slices.Sort(as)
			doc += "; Haconiwa's " + strings.Join(as, ", ")
		}
		out = append(out, struct{ Name, Doc string }{p.name, doc})
	}
	return append(out,
		struct{ Name, Doc string }{"signal:NAME", "the supervisor got the signal: one of " + strings.Join(signalNames, ", ")},
		struct{ Name, Doc string }{"after:DURATION", "once, that long after poststart"},
		struct{ Name, Doc string }{"every:DURATION", "again and again, beginning that long after poststart"})
}

// CanonicalPoint is the canonical spelling of a point that a file may name:
// "signal:USR1" for "signal:SIGUSR1", "create_runtime" for Haconiwa's "setup".
func CanonicalPoint(given string) (string, error) {
	a, err := parsePoint(given)
	return a.point, err
}

// parsePoint checks the name of a point and returns it in its canonical
// spelling: "signal:SIGUSR1" becomes "signal:USR1", "after:60s" "after:1m0s",
// Haconiwa's names ours.
func parsePoint(given string) (alias, error) {
	if a, ok := haconiwa[given]; ok {
		return a, nil
	}
	if kind, rest, ok := strings.Cut(given, ":"); ok {
		switch kind {
		case "signal":
			name := strings.TrimPrefix(strings.ToUpper(rest), "SIG")
			if !slices.Contains(signalNames, name) {
				return alias{}, args.Hinted("callbacks can take "+strings.Join(signalNames, ", "),
					"unknown signal %q%s", rest, args.DidYouMean(name, signalNames))
			}
			return alias{point: "signal:" + name}, nil
		case "after", "every":
			d, err := value.ParseDuration(rest)
			if err != nil {
				return alias{}, fmt.Errorf("point %q: %w", given, err)
			}
			if d <= 0 {
				return alias{}, fmt.Errorf("point %q: duration is not positive", given)
			}
			return alias{point: kind + ":" + d.String()}, nil
		}
	}
	known := make([]string, 0, len(points)+3)
	for _, p := range points {
		known = append(known, p.name)
	}
	known = append(known, "signal:USR1", "after:3s", "every:5s")
	for _, p := range points {
		if p.name == given {
			return alias{point: given}, nil
		}
	}
	return alias{}, args.Hinted("known are "+strings.Join(known, ", "), "unknown point %q%s", given, args.DidYouMean(given, known))
}
