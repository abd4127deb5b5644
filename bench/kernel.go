package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
	"sekimori/nicshadow/rule/ebpf"
)

// kernel measures the program without the parser, by the interpreter and as
// the kernel runs it (BPF_PROG_TEST_RUN, thousands of times a call). It has no
// bar: there is no peer in it.
func kernel(w io.Writer, rounds int) ([]bar, error) {
	p, err := compile(policySource, "guarded")
	if err != nil {
		return nil, err
	}
	x, err := ebpf.Load(p)
	if err != nil {
		fmt.Fprintf(w, "Judging a parsed frame in the kernel: not measured: %v\n", err)
		return nil, nil
	}
	defer x.Close()
	// A key of no class drops at once: what it takes is the kernel's loop.
	keys, names := []*frame.Key{new(frame.Key)}, []string{"the loop"}
	for _, s := range samples() {
		k := new(frame.Key)
		if frame.Parse(s.frame, k) != frame.OK {
			continue // it drops without a program
		}
		if o, err := x.Judge(k, 1, false); err != nil || o != p.Run(k) {
			return nil, fmt.Errorf("%s: the kernel judges %v, %v; the interpreter %v", s.name, o, err, p.Run(k))
		}
		keys, names = append(keys, k), append(names, s.name)
	}
	var tasks []*task
	var failed error
	for _, k := range keys {
		tasks = append(tasks, &task{name: "interpreter", run: func(n int) {
			for range n {
				judged = p.Run(k)
			}
		}})
	}
	for _, k := range keys {
		tasks = append(tasks, &task{name: "kernel", least: 1000, run: func(n int) {
			if _, _, err := x.Repeat(k, 1, false, n); err != nil {
				failed = err
			}
		}})
	}
	race(tasks, rounds, 3*time.Millisecond)
	if failed != nil {
		return nil, failed
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "Judging a parsed frame, %d instructions: ns of processor time, least / median of %d rounds\n\n", p.Len(), rounds)
	fmt.Fprint(t, "engine\t")
	for _, n := range names {
		fmt.Fprintf(t, "%s\t", n)
	}
	for i, tk := range tasks {
		if i%len(keys) == 0 {
			fmt.Fprintf(t, "\n%s\t", tk.name)
		}
		fmt.Fprintf(t, "%.1f / %.1f\t", tk.minimum(), tk.median())
	}
	fmt.Fprintln(t)
	return nil, t.Flush()
}

// judged keeps the compiler from removing the judging.
var judged rule.Outcome
