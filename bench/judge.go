package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// ours is the row that the bars are about.
const ours = "seki"

// judge measures every engine on each sample and on the mix.
func judge(w io.Writer, rounds int) ([]bar, error) {
	all, err := engines()
	if err != nil {
		return nil, err
	}
	var frames [][]byte
	names := []string{}
	for _, s := range samples() {
		frames = append(frames, s.frame)
		names = append(names, s.name)
	}
	var tasks []*task
	sets := append(single(frames), mix(frames))
	names = append(names, "mix")
	for _, e := range all {
		for _, set := range sets {
			tasks = append(tasks, &task{name: e.name, run: e.over(set), least: 512})
		}
	}
	race(tasks, rounds, 3*time.Millisecond)

	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "Judging a frame: ns of processor time, least / median of %d rounds\n\n", rounds)
	fmt.Fprintf(t, "engine\t")
	for _, n := range names {
		fmt.Fprintf(t, "%s\t", n)
	}
	fmt.Fprintf(t, "allocs\tx %s\t\n", ours)
	mixed := map[string]*task{}
	for i, tk := range tasks {
		if (i+1)%len(sets) == 0 {
			mixed[tk.name] = tk
		}
	}
	if mixed[ours] == nil {
		return nil, fmt.Errorf("no engine named %s", ours)
	}
	for i, tk := range tasks {
		if i%len(sets) == 0 {
			fmt.Fprintf(t, "%s\t", tk.name)
		}
		fmt.Fprintf(t, "%.1f / %.1f\t", tk.minimum(), tk.median())
		if (i+1)%len(sets) == 0 {
			fmt.Fprintf(t, "%.1f\t%.2f\t\n", tk.allocs, tk.minimum()/mixed[ours].minimum())
		}
	}
	t.Flush()
	ratio := func(peer string, limit float64) bar {
		return bar{"judge, mix: time of " + peer, mixed[ours].minimum() / mixed[peer].minimum(), limit, false}
	}
	return []bar{
		// A run of thousands of frames: any allocation of the engine's own
		// shows as a whole number, the test's as a small fraction.
		{"judge, mix: allocations", float64(int(mixed[ours].allocs * 100)), 0, true},
		ratio("x-net-bpf", 1.0/4),
		ratio("wazero-compiled", 1.0/2),
		ratio("starlark-judge", 1.0/100),
		ratio("starlark-bytes", 1.0/100),
	}, nil
}

// single makes each frame a set of its own, as long as the mix.
func single(frames [][]byte) [][][]byte {
	var sets [][][]byte
	for _, f := range frames {
		set := make([][]byte, 4096)
		for i := range set {
			set[i] = f
		}
		sets = append(sets, set)
	}
	return sets
}

// verdicts keeps the compiler from removing the judging.
var verdicts int

// over is a run of the engine over a set of 4096 frames, again and again. The
// next run goes on where this one ended: a slow engine's few frames a round
// are not always the same.
func (e engine) over(set [][]byte) func(n int) {
	set = set[:4096]
	next := 0
	return func(n int) {
		yes := 0
		for i := next; i < next+n; i++ {
			if e.judge(set[i&4095]) {
				yes++
			}
		}
		next += n
		verdicts += yes
	}
}
