// Package dotload lets .star files write ctx.policy.load(p).
//
// load is a keyword of Starlark, even behind a dot. So where the parser
// stumbles over a .load, a word of as many letters takes its place for the
// parser, and whoever reads the tree puts the name back: no position moves.
package dotload

import (
	"bytes"
	"errors"

	"go.starlark.net/syntax"

	"sekimori/starlark/policy"
)

// Word stands for load behind a dot.
const Word = "loaḓ"

// Allow returns the source with each attribute named load spelled as
// Word. It asks the parser where they are, so that strings and comments
// stay as they are.
func Allow(filename string, src []byte) []byte {
	for range min(bytes.Count(src, []byte(".load")), maxDotLoads) {
		_, err := policy.Options.Parse(filename, src, 0)
		var bad syntax.Error
		if !errors.As(err, &bad) {
			return src
		}
		at := Offset(src, bad.Pos)
		head := bytes.TrimRight(src[:max(at, 0)], " \t")
		if at < 0 || !bytes.HasSuffix(head, []byte("load")) || !dotBefore(head[:len(head)-4]) {
			return src // the loader's own parse reports what is wrong
		}
		start := len(head) - 4
		src = append(append(append([]byte{}, src[:start]...), Word...), src[start+4:]...)
	}
	return src
}

// maxDotLoads bounds the parses of one file.
const maxDotLoads = 200

func dotBefore(head []byte) bool {
	return bytes.HasSuffix(bytes.TrimRight(head, " \t\r\n"), []byte("."))
}

// Offset is the byte offset of a position, whose column counts runes from 1;
// -1 if it lies outside.
func Offset(src []byte, pos syntax.Position) int {
	at := 0
	for line := int32(1); line < pos.Line; line++ {
		nl := bytes.IndexByte(src[at:], '\n')
		if nl < 0 {
			return -1
		}
		at += nl + 1
	}
	for col := int32(1); col < pos.Col; col++ {
		r := bytes.Runes(src[at:min(at+4, len(src))])
		if len(r) == 0 {
			return -1
		}
		at += len(string(r[0]))
	}
	return at
}
