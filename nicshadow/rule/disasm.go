package rule

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sekimori/nicshadow/frame"
)

// Disassemble writes p as text that [Assemble] reads back to the same
// program; the package comment describes it.
func Disassemble(p *Program) string {
	d := disassembler{u: &p.unit}
	d.survey()
	d.directives()
	d.instructions()
	return d.out.String()
}

type disassembler struct {
	u   *Unit
	out strings.Builder
	// pools is what the assembler will have interned so far.
	pools *interner
	// labels are the pcs that something jumps to.
	labels map[int]bool
	// kinds says, for each table, what fields are looked up in it.
	kinds map[uint32]frame.Kind
}

// survey finds the labels and the kinds of the tables' values.
func (d *disassembler) survey() {
	d.labels, d.kinds = make(map[int]bool), make(map[uint32]frame.Kind)
	for pc, in := range d.u.Insns {
		if f := opDefs[in.Op].flow; f == flowTest || f == flowJump {
			d.labels[pc+1+int(in.Off)] = true
		}
		if opDefs[in.Op].k == opTable {
			d.kinds[in.K] = frame.Field(in.A).Kind()
		}
	}
}

// directives writes what stands before the instructions: files, tables, and
// the pools where the instructions alone would not bring them back.
func (d *disassembler) directives() {
	for _, f := range d.u.Files {
		fmt.Fprintf(&d.out, ".file %q\n", f)
	}
	for i, t := range d.u.Tables {
		fmt.Fprintf(&d.out, ".table %s {\n", tableKindNames[t.Kind])
		kind := d.kinds[uint32(i)]
		switch t.Kind {
		case TablePrefix32:
			kind = frame.KindIPv4
		case TablePrefix128:
			kind = frame.KindIPv6
		case TableExact128:
			kind = frame.KindIPv6
		}
		for _, v := range t.Values {
			fmt.Fprintf(&d.out, "\t%s\n", formatConst(v, kind))
		}
		for _, p := range t.Prefixes {
			fmt.Fprintf(&d.out, "\t%s/%d\n", formatConst(p.Value, kind), p.Bits)
		}
		d.out.WriteString("}\n")
	}
	for _, l := range d.u.Limits {
		fmt.Fprintf(&d.out, ".limit %q %d %d\n", l.Name, l.Period, l.Burst)
	}
	d.pools = newInterner(&Unit{})
	follow, u := d.interned(), d.u
	if !slices.Equal(follow.Consts, u.Consts) {
		for _, c := range u.Consts {
			fmt.Fprintf(&d.out, ".const %s\n", formatConst(c, frame.KindInt))
			d.pools.pushConst(c)
		}
	}
	if !slices.EqualFunc(follow.Rows, u.Rows, slices.Equal) {
		for _, r := range u.Rows {
			fmt.Fprintf(&d.out, ".row %s\n", formatRow(r))
			d.pools.pushRow(r)
		}
	}
	if !slices.Equal(follow.Whys, u.Whys) {
		for _, w := range u.Whys {
			fmt.Fprintf(&d.out, ".why %s\n", d.why(w))
			d.pools.pushWhy(w)
		}
	}
}

// interned is the pools that come of interning the operands of the
// instructions in their order.
func (d *disassembler) interned() *Unit {
	u, p := d.u, newInterner(&Unit{})
	for _, in := range u.Insns {
		switch opDefs[in.Op].k {
		case opConst, opConst64:
			p.constant(u.Consts[in.K])
		case opPair:
			p.pair(u.Consts[in.K], u.Consts[in.K+1])
		case opRow:
			p.row(u.Rows[in.K])
		case opWhy:
			p.why(u.Whys[in.K])
		}
	}
	return p.u
}

func (d *disassembler) instructions() {
	for pc, in := range d.u.Insns {
		d.entries(pc)
		if d.labels[pc] {
			fmt.Fprintf(&d.out, "L%d:\n", pc)
		}
		text := strings.TrimSpace(in.Op.String() + "\t" + d.operands(in))
		switch opDefs[in.Op].flow {
		case flowTest:
			text += fmt.Sprintf(" else L%d", pc+1+int(in.Off))
		case flowJump:
			text += fmt.Sprintf("\tL%d", pc+1+int(in.Off))
		}
		if pos := d.u.Lines[pc]; pos.Line != 0 {
			text += " @ " + d.pos(pos)
		}
		fmt.Fprintf(&d.out, "\t%s\t; %d\n", text, pc)
	}
}

// entries writes which classes begin at pc.
func (d *disassembler) entries(pc int) {
	for way, entries := range [][]uint32{d.u.Entries[:], d.u.Ingress} {
		var names []string
		for c, at := range entries {
			if c > 0 && at == uint32(pc) {
				names = append(names, frame.Class(c).String())
			}
		}
		if names != nil {
			fmt.Fprintf(&d.out, "%s %s\n", [...]string{".entry", ".ingress"}[way], strings.Join(names, " "))
		}
	}
}

func (d *disassembler) operands(in Insn) string {
	def := opDefs[in.Op]
	var parts []string
	switch def.a {
	case opVerdict:
		parts = append(parts, Verdict(in.A).String())
	case opField, opAddr:
		parts = append(parts, frame.Field(in.A).String())
	case opReg, opRegOut:
		parts = append(parts, "r"+strconv.Itoa(int(in.A)))
	}
	if s := d.operandK(in, def.k); s != "" {
		parts = append(parts, s)
	}
	return strings.Join(parts, ", ")
}

func (d *disassembler) operandK(in Insn, want operand) string {
	f := frame.Field(in.A)
	// Where an earlier entry of the pool is equal, only the index brings this one back.
	pick := func(first uint32, text string) string {
		if first != in.K {
			return "$" + strconv.Itoa(int(in.K))
		}
		return text
	}
	switch want {
	case opField, opPeer:
		return frame.Field(in.K).String()
	case opReg:
		return "r" + strconv.Itoa(int(in.K))
	case opImm:
		return formatConst(Const{Lo: uint64(in.K)}, f.Kind())
	case opRange:
		return fmt.Sprintf("%d..%d", in.K&0xffff, in.K>>16)
	case opInt32:
		return strconv.Itoa(int(int32(in.K)))
	case opConst:
		c := d.u.Consts[in.K]
		return pick(d.pools.constant(c), formatConst(c, f.Kind()))
	case opConst64:
		c := d.u.Consts[in.K]
		return pick(d.pools.constant(c), fmt.Sprintf("%#x", c.Lo))
	case opPair:
		value, mask := d.u.Consts[in.K], d.u.Consts[in.K+1]
		return pick(d.pools.pair(value, mask), formatMasked(value, mask, f))
	case opRow:
		r := d.u.Rows[in.K]
		return pick(d.pools.row(r), formatRow(r))
	case opLimit:
		return "l" + strconv.Itoa(int(in.K))
	case opTable, opTableReg:
		return "t" + strconv.Itoa(int(in.K))
	case opWhy:
		w := d.u.Whys[in.K]
		return pick(d.pools.why(w), d.why(w))
	}
	return ""
}

func formatRow(r Row) string {
	parts := make([]string, len(r))
	for i, m := range r {
		parts[i] = m.Field.String() + "=" + formatMasked(m.Value, m.Mask, m.Field)
	}
	return strings.Join(parts, ", ")
}

func (d *disassembler) why(w Why) string {
	s := whyKindNames[w.Kind] + " " + strconv.Quote(w.Name)
	if w.Pos.Line != 0 {
		s += " (" + d.pos(w.Pos) + ")"
	}
	return s
}

// pos writes a position as path:line:column. A path that would not read back,
// or that an earlier file has too, is written as #number.
func (d *disassembler) pos(pos Pos) string {
	path := d.u.Files[pos.File]
	if d.u.fileNamed(path) != int(pos.File) || !plainPath(path) {
		path = "#" + strconv.Itoa(int(pos.File))
	}
	return fmt.Sprintf("%s:%d:%d", path, pos.Line, pos.Col)
}

func plainPath(s string) bool {
	return s != "" && s[0] != '#' && !strings.ContainsAny(s, " \t\"(){};,@") && strings.TrimSpace(s) == s
}

// String is the name of the kind, as assembly writes it.
func (k TableKind) String() string {
	if int(k) < len(tableKindNames) {
		return tableKindNames[k]
	}
	return "invalid"
}

// String is the name of the kind, as assembly writes it.
func (k WhyKind) String() string {
	if int(k) < len(whyKindNames) {
		return whyKindNames[k]
	}
	return "invalid"
}

var tableKindNames = [...]string{
	TableInvalid:   "invalid",
	TableExact64:   "exact64",
	TableExact128:  "exact128",
	TablePrefix32:  "prefix32",
	TablePrefix128: "prefix128",
}

var whyKindNames = [...]string{
	WhyInvalid:   "invalid",
	WhyPredicate: "predicate",
	WhyGuard:     "guard",
	WhyUnspoken:  "unspoken",
	WhyFragment:  "fragment",
}
