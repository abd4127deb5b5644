package reference

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// WriteText writes sections for a terminal.
func WriteText(w io.Writer, sections []Section) error {
	b := bufio.NewWriter(w)
	for i, s := range sections {
		if i > 0 {
			fmt.Fprintln(b)
		}
		fmt.Fprintln(b, strings.ToUpper(s.Title))
		if s.Doc != "" {
			fmt.Fprintln(b, indent(s.Doc, "  "))
		}
		for _, e := range s.Entries {
			fmt.Fprintln(b)
			e.writeText(b)
		}
	}
	return b.Flush()
}

// WriteText writes one entry for a terminal.
func (e *Entry) WriteText(w io.Writer) error {
	b := bufio.NewWriter(w)
	e.writeText(b)
	return b.Flush()
}

func (e *Entry) writeText(b *bufio.Writer) {
	fmt.Fprintf(b, "  %s\n", e.head())
	if e.Doc != "" {
		fmt.Fprintln(b, indent(e.Doc, "      "))
	}
	for _, p := range e.Params {
		fmt.Fprintf(b, "      %-18s %s\n", p.Name, p.text())
	}
}

// head is the entry as one writes it, and what comes of it.
func (e *Entry) head() string {
	head := e.Name
	if e.Signature != "" {
		head = e.Signature
	}
	if e.Result != "" {
		head += " -> " + e.Result
	}
	return head
}

// text says what an argument is: "its name; a string, default ...".
func (p *Param) text() string {
	s := p.Doc
	var more []string
	if p.Type != "" {
		more = append(more, p.Type)
	}
	if p.Default != "" {
		more = append(more, "default "+p.Default)
	}
	if len(more) > 0 {
		s = strings.TrimPrefix(s+" ("+strings.Join(more, "; ")+")", " ")
	}
	return s
}

// WriteMarkdown writes sections as one page.
func WriteMarkdown(w io.Writer, title string, sections []Section) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "# %s\n", title)
	for _, s := range sections {
		fmt.Fprintf(b, "\n## %s\n", s.Title)
		if s.Doc != "" {
			fmt.Fprintf(b, "\n%s\n", s.Doc)
		}
		if plain(s.Entries) {
			fmt.Fprintf(b, "\n| | |\n|---|---|\n")
			for _, e := range s.Entries {
				fmt.Fprintf(b, "| `%s` | %s |\n", e.head(), cell(e.Doc))
			}
			continue
		}
		for _, e := range s.Entries {
			e.writeMarkdown(b)
		}
	}
	return b.Flush()
}

// plain reports whether entries fit the rows of a table.
func plain(entries []Entry) bool {
	for _, e := range entries {
		if len(e.Params) > 0 || strings.Contains(e.Doc, "\n") {
			return false
		}
	}
	return true
}

func (e *Entry) writeMarkdown(b *bufio.Writer) {
	fmt.Fprintf(b, "\n### `%s`\n", e.head())
	if e.Doc != "" {
		fmt.Fprintf(b, "\n%s\n", e.Doc)
	}
	if len(e.Params) == 0 {
		return
	}
	fmt.Fprintf(b, "\n| argument | is | default |\n|---|---|---|\n")
	for _, p := range e.Params {
		is := p.Doc
		if p.Type != "" {
			is = strings.TrimPrefix(is+" ("+p.Type+")", " ")
		}
		def := ""
		if p.Default != "" {
			def = "`" + p.Default + "`"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", p.Name, cell(is), cell(def))
	}
}

// cell is text that does not end a cell of a table.
func cell(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "|", "\\|"), "\n", " ")
}

func indent(s, by string) string {
	return by + strings.ReplaceAll(s, "\n", "\n"+by)
}
