package policytest

import (
	"bufio"
	"fmt"
	"html"
	"io"
	"strings"
)

// htmlHead is all of the page that does not depend on the report. It loads
// nothing from anywhere.
const htmlHead = `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Coverage of policies</title>
<style>
body { font-family: sans-serif; margin: 2em; }
table { border-collapse: collapse; }
td, th { padding: 0 1em 0 0; text-align: left; }
pre { line-height: 1.4; }
.n { color: #888; }
.y { background: #d7f5d7; }
.m { background: #fbd5d5; }
.why { color: #a00; }
@media (prefers-color-scheme: dark) { body { background: #111; color: #ddd; } .y { background: #143d14; } .m { background: #571a1a; } .why { color: #f88; } }
</style></head><body>
<h1>Coverage of policies</h1>
`

// WriteHTML writes the annotated sources as one page.
func (r *Report) WriteHTML(w io.Writer) error {
	b := bufio.NewWriter(w)
	b.WriteString(htmlHead)
	b.WriteString("<table><tr><th>file</th><th>branches</th><th>covered</th></tr>\n")
	for i := range r.Coverage {
		c := &r.Coverage[i]
		fmt.Fprintf(b, "<tr><td><a href=\"#f%d\">%s</a></td><td>%d</td><td>%.1f %%</td></tr>\n", i, html.EscapeString(c.File), c.Branches, c.Percent())
	}
	b.WriteString("</table>\n")
	for i := range r.Coverage {
		c := &r.Coverage[i]
		fmt.Fprintf(b, "<h2 id=\"f%d\">%s</h2>\n<pre>\n", i, html.EscapeString(c.File))
		byLine := c.byLine()
		for n, line := range c.lines() {
			writeHTMLLine(b, n+1, line, byLine[n+1])
		}
		b.WriteString("</pre>\n")
	}
	b.WriteString("</body></html>\n")
	return b.Flush()
}

func writeHTMLLine(b *bufio.Writer, n int, line string, places []PlaceCoverage) {
	class, why := "", []string{}
	for _, p := range places {
		if p.Missing != "" {
			why = append(why, p.text())
		}
	}
	switch {
	case len(why) > 0:
		class = "m"
	case len(places) > 0:
		class = "y"
	}
	fmt.Fprintf(b, "<span class=\"n\">%4d</span> <span class=\"%s\">%s</span>", n, class, html.EscapeString(line))
	if len(why) > 0 {
		fmt.Fprintf(b, " <span class=\"why\">%s</span>", html.EscapeString(strings.Join(why, "; ")))
	}
	b.WriteString("\n")
}
