// Package format lays out .star files as buildifier does: one form, so that
// nobody talks about spaces.
package format

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/bazelbuild/buildtools/build"
	"go.starlark.net/syntax"

	"sekimori/starlark/dotload"
	"sekimori/starlark/policy"
)

// Source returns src in the one form. The error is that of the parser, with its
// position.
func Source(filename string, src []byte) ([]byte, error) {
	if bytes.Contains(src, []byte(dotload.Word)) {
		return nil, fmt.Errorf("%s: holds the word %s, which this program uses itself", filename, dotload.Word)
	}
	if !utf8.Valid(src) {
		return nil, fmt.Errorf("%s: not UTF-8", filename)
	}
	text := dotload.Allow(filename, src)
	// The language's own parser first: its errors are those of seki check.
	tree, err := policy.Options.Parse(filename, text, 0)
	if err != nil {
		return nil, err
	}
	text, restore := hideBytes(text, tree)
	f, err := build.ParseDefault(filename, text)
	if err != nil {
		return nil, err
	}
	out := restore(build.Format(f))
	if _, err := policy.Options.Parse(filename, out, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: formatting breaks it, and was not done", filename), err)
	}
	return bytes.ReplaceAll(out, []byte(dotload.Word), []byte("load")), nil
}

// hideBytes puts a name in the place of each b"..." of text, which buildtools
// cannot read, and returns what puts them back.
func hideBytes(text []byte, tree *syntax.File) (hidden []byte, restore func([]byte) []byte) {
	stem := "bytes_literal_"
	for bytes.Contains(text, []byte(stem)) {
		stem += "_"
	}
	var literals []*syntax.Literal
	syntax.Walk(tree, func(n syntax.Node) bool {
		if l, ok := n.(*syntax.Literal); ok && l.Token == syntax.BYTES {
			literals = append(literals, l)
		}
		return true
	})
	var pairs []string
	at := 0
	for i, l := range literals { // in the order of the text
		start := dotload.Offset(text, l.TokenPos)
		name := fmt.Sprintf("%s%d_", stem, i)
		hidden = append(append(hidden, text[at:start]...), name...)
		at = start + len(l.Raw)
		pairs = append(pairs, name, l.Raw)
	}
	back := strings.NewReplacer(pairs...)
	return append(hidden, text[at:]...), func(out []byte) []byte { return []byte(back.Replace(string(out))) }
}
