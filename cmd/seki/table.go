package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// A table prints rows with their columns aligned.
type table struct{ *tabwriter.Writer }

func newTable(w io.Writer) table {
	return table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
}

func (t table) row(cells ...string) {
	fmt.Fprintln(t, strings.Join(cells, "\t"))
}
