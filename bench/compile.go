package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"sekimori/starlark/value"
)

// compiling measures the way from source to what judges frames.
func compiling(w io.Writer, rounds int) ([]bar, error) {
	env, err := celEnv()
	if err != nil {
		return nil, err
	}
	if _, err := celCompile(env); err != nil {
		return nil, err
	}
	if _, err := compile(policySource, "bare"); err != nil {
		return nil, err
	}
	var failed error
	again := func(f func() error) func(int) {
		return func(n int) {
			for range n {
				if err := f(); err != nil {
					failed = err
				}
			}
		}
	}
	seki := &task{name: "seki: Starlark source to verified program", run: again(func() error {
		_, err := compile(policySource, "bare")
		return err
	})}
	guarded := &task{name: "seki, guards on", run: again(func() error {
		_, err := compile(policySource, "guarded")
		return err
	})}
	peer := &task{name: "cel-go: Compile and Program", run: again(func() error {
		_, err := celCompile(env)
		return err
	})}
	// The floor: policy() is a name that does nothing.
	builtins := value.Builtins()
	builtins["policy"] = starlark.NewBuiltin("policy", func(*starlark.Thread, *starlark.Builtin, starlark.Tuple, []starlark.Tuple) (starlark.Value, error) {
		return starlark.None, nil
	})
	floor := &task{name: "go.starlark.net: ExecFile alone", run: again(func() error {
		_, err := starlark.ExecFileOptions(&syntax.FileOptions{}, &starlark.Thread{}, "policy.star", policySource, builtins)
		return err
	})}
	tasks := []*task{seki, guarded, peer, floor}
	// Long enough for a dozen collections of garbage: the least of shorter
	// rounds is that of the one that met none.
	race(tasks, rounds, 100*time.Millisecond)
	if failed != nil {
		return nil, failed
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "Compiling the policy: us of processor time, %d rounds\n\n", rounds)
	fmt.Fprintf(t, "compiler\tleast\tmedian\tallocs\tx cel-go\t\n")
	for _, tk := range tasks {
		fmt.Fprintf(t, "%s\t%.1f\t%.1f\t%.0f\t%.2f\t\n", tk.name, tk.minimum()/1e3, tk.median()/1e3, tk.allocs, tk.minimum()/peer.minimum())
	}
	t.Flush()
	return []bar{{"compile: time of cel-go", seki.minimum() / peer.minimum(), 0.4, false}}, nil
}
