// The runtime would look for a processor quota of its cgroup at each start, and
// read it again while it runs: 0.1 ms, for the size of a pool of threads.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"os"
	"slices"
	"time"

	"sekimori/cmd/seki/early"
)

// aStart is how long seki run keeps to one processor: that of a pod takes less,
// unless it has many containers or the machine is busy.
const aStart = 100 * time.Millisecond

func main() {
	if slices.Contains(os.Args, "run") {
		time.AfterFunc(aStart, early.AllProcessors)
	} else {
		early.AllProcessors()
	}
	if isAgent(os.Args) {
		runAgent()
	}
	a := app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, env: os.Getenv}
	os.Exit(a.run(os.Args[1:]))
}
