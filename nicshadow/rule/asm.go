package rule

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"sekimori/nicshadow/frame"
)

// Assemble reads the text form of a program, which the package comment
// describes. It checks syntax only: [New] judges the unit. An error begins
// with the number of its line.
func Assemble(src string) (*Unit, error) {
	a := assembler{labels: make(map[string]int)}
	a.pools = newInterner(&a.u)
	for i, line := range strings.Split(src, "\n") {
		if err := a.line(stripComment(line)); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	if a.table != nil {
		return nil, errors.New("a table without its closing brace")
	}
	if len(a.pending[0])+len(a.pending[1]) != 0 {
		return nil, errors.New("an entry without an instruction behind it")
	}
	for c := frame.ClassNone + 1; c < frame.NumClasses; c++ {
		if !a.entries[0].Has(c) {
			return nil, fmt.Errorf("class %s has no entry", c)
		}
		if a.entries[1] != 0 && !a.entries[1].Has(c) {
			return nil, fmt.Errorf("class %s has no entry for ingress", c)
		}
	}
	for _, j := range a.jumps {
		target, ok := a.labels[j.label]
		if !ok {
			return nil, fmt.Errorf("line of insn %d: no label %s", j.pc, j.label)
		}
		off := target - j.pc - 1
		if off < 0 || off > 0xffff {
			return nil, fmt.Errorf("line of insn %d: label %s is not ahead, or too far", j.pc, j.label)
		}
		a.u.Insns[j.pc].Off = uint16(off)
	}
	return &a.u, nil
}

type assembler struct {
	u       Unit
	pools   *interner // of u
	labels  map[string]int
	jumps   []jump
	entries [2]frame.ClassSet // that have an entry: on the way out, and in
	pending [2][]frame.Class  // likewise, whose instruction is still to come
	table   *Table            // the table whose braces are open
}

type jump struct {
	pc    int
	label string
}

// stripComment cuts line at its first semicolon outside of a quoted string.
func stripComment(line string) string {
	quoted := false
	for i := 0; i < len(line); i++ {
		switch {
		case quoted && line[i] == '\\':
			i++
		case line[i] == '"':
			quoted = !quoted
		case line[i] == ';' && !quoted:
			return strings.TrimSpace(line[:i])
		}
	}
	return strings.TrimSpace(line)
}

func (a *assembler) line(s string) error {
	if a.table != nil {
		return a.tableLine(s)
	}
	word, rest := cutWord(s)
	switch {
	case s == "":
		return nil
	case strings.HasSuffix(s, ":") && rest == "":
		label := strings.TrimSuffix(s, ":")
		if _, twice := a.labels[label]; twice {
			return fmt.Errorf("label %s twice", label)
		}
		a.labels[label] = len(a.u.Insns)
		return nil
	case strings.HasPrefix(word, "."):
		return a.directive(word, rest)
	}
	return a.insn(word, rest)
}

func (a *assembler) directive(word, rest string) error {
	switch word {
	case ".file":
		path, err := strconv.Unquote(rest)
		if err != nil {
			return fmt.Errorf("%s is no quoted path", rest)
		}
		a.u.Files = append(a.u.Files, path)
	case ".table":
		return a.openTable(rest)
	case ".const":
		c, err := parseConst(rest)
		if err != nil {
			return err
		}
		a.pools.pushConst(c)
	case ".row":
		r, err := parseRow(rest)
		if err != nil {
			return err
		}
		a.pools.pushRow(r)
	case ".why":
		w, err := a.parseWhy(rest)
		if err != nil {
			return err
		}
		a.pools.pushWhy(w)
	case ".limit":
		return a.limit(rest)
	case ".entry":
		return a.entry(0, strings.Fields(rest))
	case ".ingress":
		return a.entry(1, strings.Fields(rest))
	default:
		return fmt.Errorf("unknown directive %s", word)
	}
	return nil
}

// limit reads a quoted name, a period in nanoseconds and a burst.
func (a *assembler) limit(s string) error {
	bad := fmt.Errorf("%q is no limit like: \"allow_udp 100/s\" 10000000 20", s)
	quoted, err := strconv.QuotedPrefix(s)
	if err != nil {
		return bad
	}
	name, err := strconv.Unquote(quoted)
	numbers := strings.Fields(s[len(quoted):])
	if err != nil || len(numbers) != 2 {
		return bad
	}
	period, err1 := strconv.ParseUint(numbers[0], 10, 64)
	burst, err2 := strconv.ParseUint(numbers[1], 10, 32)
	if err1 != nil || err2 != nil {
		return bad
	}
	a.u.Limits = append(a.u.Limits, Limit{name, period, uint32(burst)})
	return nil
}

// entry notes the classes that begin at the next instruction: on the way out,
// or in.
func (a *assembler) entry(way int, names []string) error {
	for _, name := range names {
		c, ok := frame.ClassNamed(name)
		if !ok {
			return fmt.Errorf("unknown class %q", name)
		}
		if a.entries[way].Has(c) {
			return fmt.Errorf("class %s has an entry already", c)
		}
		a.entries[way] |= frame.SetOf(c)
		a.pending[way] = append(a.pending[way], c)
	}
	return nil
}

func (a *assembler) openTable(rest string) error {
	kind, brace := cutWord(rest)
	for k := TableExact64; int(k) < len(tableKindNames); k++ {
		if tableKindNames[k] == kind && strings.HasPrefix(brace, "{") {
			a.u.Tables = append(a.u.Tables, Table{Kind: k})
			a.table = &a.u.Tables[len(a.u.Tables)-1]
			return a.tableLine(strings.TrimSpace(brace[1:]))
		}
	}
	return fmt.Errorf("want a kind of table and {, not %q", rest)
}

// tableLine reads entries, separated by spaces, up to the closing brace.
func (a *assembler) tableLine(s string) error {
	s, closed := strings.CutSuffix(s, "}")
	t := a.table
	for _, word := range strings.Fields(s) {
		if t.Kind == TableExact64 || t.Kind == TableExact128 {
			c, err := parseConst(word)
			if err != nil {
				return err
			}
			t.Values = append(t.Values, c)
			continue
		}
		value, mask, err := parseMasked(word, t.Kind.width())
		if err != nil {
			return err
		}
		t.Prefixes = append(t.Prefixes, Prefix{value, maskBits(mask)})
	}
	if closed {
		a.table = nil
	}
	return nil
}

// insn reads one instruction: its name, operands separated by commas, the
// label behind else, the position behind @.
func (a *assembler) insn(name, rest string) error {
	op, ok := opNamed(name)
	if !ok {
		return fmt.Errorf("unknown instruction %q", name)
	}
	in, def, pc := Insn{Op: op}, opDefs[op], len(a.u.Insns)
	pos, rest, err := a.cutPos(rest)
	if err != nil {
		return err
	}
	switch def.flow {
	case flowJump:
		a.jumps = append(a.jumps, jump{pc, rest})
		rest = ""
	case flowTest:
		rest = " " + rest // there may be nothing before else
		i := strings.LastIndex(rest, " else ")
		if i < 0 {
			return errors.New("a test without else")
		}
		a.jumps = append(a.jumps, jump{pc, strings.TrimSpace(rest[i+len(" else "):])})
		rest = strings.TrimSpace(rest[:i])
	}
	if def.a != opNone {
		first, others, _ := strings.Cut(rest, ",")
		x, err := a.operand(in, def.a, strings.TrimSpace(first))
		if err != nil {
			return err
		}
		in.A, rest = uint8(x), strings.TrimSpace(others)
	}
	if in.K, err = a.operand(in, def.k, rest); err != nil {
		return err
	}
	for _, c := range a.pending[0] {
		a.u.Entries[c] = uint32(pc)
	}
	for _, c := range a.pending[1] {
		if a.u.Ingress == nil {
			a.u.Ingress = make([]uint32, frame.NumClasses)
		}
		a.u.Ingress[c] = uint32(pc)
	}
	a.pending = [2][]frame.Class{}
	a.u.Insns = append(a.u.Insns, in)
	a.u.Lines = append(a.u.Lines, pos)
	return nil
}

// operand reads an operand of the kind want; in.A has been read before in.K.
func (a *assembler) operand(in Insn, want operand, s string) (uint32, error) {
	f := frame.Field(in.A)
	if index, ok := strings.CutPrefix(s, "$"); ok {
		return parseIndex(index)
	}
	switch want {
	case opNone:
		if s != "" {
			return 0, fmt.Errorf("%q behind the last operand", s)
		}
		return 0, nil
	case opVerdict:
		for _, v := range [...]Verdict{Drop, Forward, Audit} {
			if s == v.String() {
				return uint32(v), nil
			}
		}
		return 0, fmt.Errorf("%q is no verdict", s)
	case opField, opPeer, opAddr:
		g, ok := frame.FieldNamed(s)
		if !ok {
			return 0, fmt.Errorf("unknown field %q", s)
		}
		return uint32(g), nil
	case opReg, opRegOut:
		if len(s) == 2 && s[0] == 'r' && s[1] >= '0' && s[1] < '0'+NumRegs {
			return uint32(s[1] - '0'), nil
		}
		return 0, fmt.Errorf("%q is no register", s)
	case opTable, opTableReg:
		if index, ok := strings.CutPrefix(s, "t"); ok {
			return parseIndex(index)
		}
		return 0, fmt.Errorf("%q is no table", s)
	case opLimit:
		if index, ok := strings.CutPrefix(s, "l"); ok {
			return parseIndex(index)
		}
		return 0, fmt.Errorf("%q is no limit", s)
	case opInt32:
		n, err := strconv.ParseInt(s, 0, 32)
		if err != nil {
			return 0, fmt.Errorf("%q is no number of 32 bits", s)
		}
		return uint32(n), nil
	case opRange:
		return parseRange(s)
	case opRow:
		r, err := parseRow(s)
		if err != nil {
			return 0, err
		}
		return a.pools.row(r), nil
	case opWhy:
		w, err := a.parseWhy(s)
		if err != nil {
			return 0, err
		}
		return a.pools.why(w), nil
	case opPair:
		value, mask, err := parseMasked(s, uint8(f.Width()))
		if err != nil {
			return 0, err
		}
		return a.pools.pair(value, mask), nil
	}
	c, err := parseConst(s)
	if err != nil {
		return 0, err
	}
	if want != opImm {
		return a.pools.constant(c), nil
	}
	if !c.fits(32) {
		return 0, fmt.Errorf("%q is wider than 32 bits", s)
	}
	return uint32(c.Lo), nil
}
