package rule

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"sekimori/nicshadow/frame"
)

func opNamed(name string) (Op, bool) {
	for op := OpInvalid + 1; op < NumOps; op++ {
		if opDefs[op].name == name {
			return op, true
		}
	}
	return OpInvalid, false
}

// cutWord splits s at its first white space.
func cutWord(s string) (word, rest string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimSpace(s[i:])
}

func maskBits(mask Const) uint8 {
	return uint8(bits.OnesCount64(mask.Hi) + bits.OnesCount64(mask.Lo))
}

func parseIndex(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is no index", s)
	}
	return uint32(n), nil
}

func parseRange(s string) (uint32, error) {
	lo, hi, ok := strings.Cut(s, "..")
	l, err1 := strconv.ParseUint(lo, 0, 16)
	h, err2 := strconv.ParseUint(hi, 0, 16)
	if !ok || err1 != nil || err2 != nil {
		return 0, fmt.Errorf("%q is no range like 80..89", s)
	}
	return uint32(l | h<<16), nil
}

// parseRow reads matches like ip4.src=10.0.0.5, separated by commas.
func parseRow(s string) (Row, error) {
	var r Row
	for _, part := range strings.Split(s, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		f, ok := frame.FieldNamed(name)
		if !ok {
			return nil, fmt.Errorf("unknown field %q", name)
		}
		v, mask, err := parseMasked(value, uint8(f.Width()))
		if err != nil {
			return nil, err
		}
		r = append(r, Match{f, mask, v})
	}
	return r, nil
}

// parseWhy reads a kind, a quoted name and, in parentheses, a position.
func (a *assembler) parseWhy(s string) (Why, error) {
	kind, rest := cutWord(s)
	var w Why
	for k := WhyPredicate; int(k) < len(whyKindNames); k++ {
		if whyKindNames[k] == kind {
			w.Kind = k
		}
	}
	quoted, err := strconv.QuotedPrefix(rest)
	if w.Kind == WhyInvalid || err != nil {
		return w, fmt.Errorf("%q is no why like: predicate \"allow_arp\" (web.star:7:12)", s)
	}
	if w.Name, err = strconv.Unquote(quoted); err != nil {
		return w, err
	}
	rest = strings.TrimSpace(rest[len(quoted):])
	if rest == "" {
		return w, nil
	}
	if !strings.HasPrefix(rest, "(") || !strings.HasSuffix(rest, ")") {
		return w, fmt.Errorf("%q behind a why", rest)
	}
	w.Pos, err = a.parsePos(rest[1 : len(rest)-1])
	return w, err
}

// cutPos takes the position off the end of an instruction.
func (a *assembler) cutPos(s string) (Pos, string, error) {
	i := strings.LastIndex(s, "@")
	if i < 0 || strings.Contains(s[i:], `"`) { // within the name of a why
		return Pos{}, s, nil
	}
	pos, err := a.parsePos(strings.TrimSpace(s[i+1:]))
	return pos, strings.TrimSpace(s[:i]), err
}

// parsePos reads path:line:column or #number:line:column. A path that no
// .file directive named is added to the files.
func (a *assembler) parsePos(s string) (Pos, error) {
	bad := fmt.Errorf("%q is no position like web.star:7:12", s)
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return Pos{}, bad
	}
	j := strings.LastIndexByte(s[:i], ':')
	if j < 0 {
		return Pos{}, bad
	}
	col, err1 := strconv.ParseUint(s[i+1:], 10, 16)
	line, err2 := strconv.ParseUint(s[j+1:i], 10, 32)
	if err1 != nil || err2 != nil {
		return Pos{}, bad
	}
	pos := Pos{Line: uint32(line), Col: uint16(col)}
	path := s[:j]
	if index, ok := strings.CutPrefix(path, "#"); ok {
		n, err := strconv.ParseUint(index, 10, 16)
		if err != nil {
			return Pos{}, bad
		}
		pos.File = uint16(n)
		return pos, nil
	}
	n := a.u.fileNamed(path)
	if n < 0 {
		n = len(a.u.Files)
		a.u.Files = append(a.u.Files, path)
	}
	if n >= maxFiles {
		return Pos{}, fmt.Errorf("more than %d files", maxFiles)
	}
	pos.File = uint16(n)
	return pos, nil
}
