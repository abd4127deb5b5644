package replay

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// WriteText writes the explanation for people:
//
//	frame 3: arp reply 10.0.0.3 is-at 02:00:00:00:00:01 -> 10.0.0.2
//	  drop: guard arp at web.star:4:10
//	    return policy(allow_arp = True)
//	  class arp
//	    eth.src         02:00:00:00:00:01
//	  tests
//	    yes  eqc eth.src, 02:00:00:00:00:01       guard mac
//	    no   eq arp.spa, 10.0.0.2                 web.star:4:10
func (x *Explanation) WriteText(w io.Writer) error {
	b := bufio.NewWriter(w)
	if x.Number > 0 {
		fmt.Fprintf(b, "frame %d: ", x.Number)
	}
	fmt.Fprintln(b, clean(x.Summary))
	if x.Captured != 0 {
		fmt.Fprintf(b, "  captured %d of %d bytes: a frame on the wire may have another verdict\n", x.Captured, x.Length)
	}
	if x.Comment != "" {
		fmt.Fprintf(b, "  recorded: %s\n", clean(x.Comment))
	}
	x.verdict(b)
	if len(x.Fields) > 0 {
		fmt.Fprintf(b, "  class %s\n", x.Class)
		for _, f := range x.Fields {
			fmt.Fprintf(b, "    %-16s %s\n", f.Name, f.Value)
		}
	}
	if len(x.Steps) > 0 {
		fmt.Fprintf(b, "  tests\n")
	}
	last := ""
	for _, s := range x.Steps {
		at := clean(s.Place.String())
		if s.Guard != "" {
			at = "guard " + s.Guard
		}
		line := fmt.Sprintf("    %-4s %-44s %s", yesNo(s.Holds), s.Text, at)
		fmt.Fprintln(b, strings.TrimRight(line, " "))
		// A line that several tests come from is quoted once.
		if at := fmt.Sprint(s.File, ":", s.Line); s.Source != "" && at != last {
			fmt.Fprintf(b, "           %s\n", clean(s.Source))
			last = at
		}
	}
	return b.Flush()
}

func (x *Explanation) verdict(b *bufio.Writer) {
	if x.Why == nil {
		fmt.Fprintf(b, "  %s: %s\n", x.Verdict, x.Reason)
		return
	}
	fmt.Fprintf(b, "  %s: %s %s", x.Verdict, x.Why.Kind, clean(x.Why.Name))
	if at := x.Why.Place.String(); at != "" {
		fmt.Fprintf(b, " at %s", clean(at))
	}
	fmt.Fprintln(b)
	if x.Why.Source != "" {
		fmt.Fprintf(b, "    %s\n", clean(x.Why.Source))
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// clean makes text safe for a terminal: file names and source lines are
// somebody else's.
func clean(s string) string {
	var out []rune
	for _, r := range s {
		if r == '\t' {
			r = ' '
		}
		if !unicode.IsPrint(r) {
			r = '?'
		}
		out = append(out, r)
	}
	return string(out)
}
