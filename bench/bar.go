package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// slack is how far above its bar a figure may lie on a noisy machine.
const slack = 1.3

// A bar is a promise with the figure that was measured.
type bar struct {
	what  string
	have  float64
	limit float64
	exact bool // without slack: a count, not a time
}

// met reports whether the promise holds, within the slack.
func (b bar) met() bool {
	if b.exact {
		return b.have <= b.limit
	}
	return b.have <= b.limit*slack
}

func (b bar) String() string {
	switch {
	case b.have <= b.limit:
		return "ok"
	case b.met():
		return "ok within the slack"
	}
	return "MISSED"
}

// report prints the bars and returns those that were missed.
func report(w io.Writer, bars []bar) []bar {
	var missed []bar
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "bar\tlimit\tmeasured\t\n")
	for _, b := range bars {
		fmt.Fprintf(t, "%s\t%.3g\t%.3g\t%s\n", b.what, b.limit, b.have, b)
		if !b.met() {
			missed = append(missed, b)
		}
	}
	t.Flush()
	return missed
}
