package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// A section measures one thing and returns its bars.
type section struct {
	name string
	run  func(w io.Writer, rounds int) ([]bar, error)
}

var sections = []section{
	{"judge", judge},
	{"kernel", kernel},
	{"compile", compiling},
	{"reload", reload},
	{"path", path},
	{"reloads", reloading},
	{"start", start},
	{"machine", machine},
	{"kick", kick},
}

// sekiPath names a built seki; empty to build one.
var sekiPath = new(string)

func main() {
	inside := map[string]func(string) error{"flood": floodFrom, "files": filesAt} // in a container of section machine
	if len(os.Args) == 3 && inside[os.Args[1]] != nil {
		if err := inside[os.Args[1]](os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the command: 0 if every bar holds, 1 if not, 2 if it cannot measure.
func run(args []string, out, diag io.Writer) int {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(diag)
	rounds := flags.Int("rounds", 15, "`rounds` of each measurement, of which the least counts")
	only := flags.String("only", "", "comma-separated sections to run: "+sectionNames())
	flags.StringVar(sekiPath, "seki", "", "measure this `binary` instead of building one")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	var bars []bar
	for _, s := range sections {
		if *only != "" && !strings.Contains(","+*only+",", ","+s.name+",") {
			continue
		}
		b, err := s.run(out, *rounds)
		if err != nil {
			fmt.Fprintf(diag, "bench: %s: %v\n", s.name, err)
			return 2
		}
		bars = append(bars, b...)
		fmt.Fprintln(out)
	}
	if missed := report(out, bars); len(missed) > 0 {
		for _, b := range missed {
			fmt.Fprintf(diag, "bench: missed: %s: %.3g, limit %.3g with slack %.1f\n", b.what, b.have, b.limit, slack)
		}
		return 1
	}
	return 0
}

func sectionNames() string {
	var names []string
	for _, s := range sections {
		names = append(names, s.name)
	}
	return strings.Join(names, ",")
}
