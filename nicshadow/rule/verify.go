package rule

import (
	"slices"

	"sekimori/nicshadow/frame"
)

// verify checks u and returns the number of instructions on its longest path.
//
// Jumps go forward only, so one pass in the order of the instructions sees
// each after all that lead to it. What is known on every path to it has been
// merged by then: the classes whose frames may get there (union) and the
// registers written before (intersection).
func verify(u *Unit) (steps int, err error) {
	if err := verifyData(u); err != nil {
		return 0, err
	}
	v := verifier{u: u, at: make([]state, len(u.Insns))}
	if err := v.entries(); err != nil {
		return 0, err
	}
	for pc := range u.Insns {
		if err := v.insn(pc); err != nil {
			return 0, err
		}
		steps = max(steps, int(v.at[pc].depth))
	}
	return steps, nil
}

// A state is what is known when control gets to an instruction.
type state struct {
	classes frame.ClassSet // empty: nothing gets here
	written uint8          // registers, one bit each
	depth   uint32         // instructions on the longest path up to this one, itself included
}

type verifier struct {
	u  *Unit
	at []state
}

func (v *verifier) entries() error {
	n := len(v.u.Insns)
	if n == 0 {
		return refuse("no instructions")
	}
	if v.u.Entries[frame.ClassNone] != 0 {
		return refuse("entry of class none: %d, want 0", v.u.Entries[frame.ClassNone])
	}
	for c := frame.ClassNone + 1; c < frame.NumClasses; c++ {
		pc := v.u.Entries[c]
		if int64(pc) >= int64(n) {
			return refuse("entry of class %s: %d is past the end (%d instructions)", c, pc, n)
		}
		v.merge(int(pc), state{classes: frame.SetOf(c)})
	}
	return nil
}

// merge adds what is known on one more way to pc.
func (v *verifier) merge(pc int, s state) {
	t := &v.at[pc]
	if t.classes == 0 {
		t.written = s.written
	}
	t.classes |= s.classes
	t.written &= s.written
	t.depth = max(t.depth, s.depth+1)
}

func (v *verifier) insn(pc int) error {
	in, s := v.u.Insns[pc], v.at[pc]
	if !in.Op.Valid() {
		return blame(pc, in, "unknown opcode")
	}
	if s.classes == 0 {
		return blame(pc, in, "unreachable")
	}
	def := opDefs[in.Op]
	if err := v.operand(pc, in, def.a, uint32(in.A), s); err != nil {
		return err
	}
	if err := v.operand(pc, in, def.k, in.K, s); err != nil {
		return err
	}
	if def.a == opRegOut {
		s.written |= 1 << in.A
	}
	return v.flow(pc, in, def.flow, s)
}

// flow hands s on to what may follow the instruction.
func (v *verifier) flow(pc int, in Insn, f flow, s state) error {
	n := len(v.u.Insns)
	next, jump := pc+1, pc+1+int(in.Off)
	switch f {
	case flowTest, flowJump:
		if jump >= n {
			return blame(pc, in, "jump to %d is past the end (%d instructions)", jump, n)
		}
		v.merge(jump, s)
	default:
		if in.Off != 0 {
			return blame(pc, in, "an offset of %d where there is no jump", in.Off)
		}
	}
	switch f {
	case flowTest, flowNext:
		if next >= n {
			return blame(pc, in, "the path ends without a return")
		}
		v.merge(next, s)
	}
	return nil
}

// operand checks one operand: x is in.A or in.K, to be of the kind want.
func (v *verifier) operand(pc int, in Insn, want operand, x uint32, s state) error {
	u := v.u
	width := frame.Field(in.A).Width() // where A is a field
	index := func(what string, n int) error {
		if int64(x) >= int64(n) {
			return blame(pc, in, "%s %d of %d", what, x, n)
		}
		return nil
	}
	switch want {
	case opNone:
		if x != 0 {
			return blame(pc, in, "an operand of %d where there is none", x)
		}
	case opVerdict:
		if x > uint32(Forward) {
			return blame(pc, in, "verdict %d", x)
		}
	case opField:
		return v.field(pc, in, x, s)
	case opPeer:
		if err := v.field(pc, in, x, s); err != nil {
			return err
		}
		if frame.Field(x).Width() != width {
			return blame(pc, in, "fields of %d and %d bits", width, frame.Field(x).Width())
		}
	case opReg, opRegOut:
		if x >= NumRegs {
			return blame(pc, in, "register %d of %d", x, NumRegs)
		}
		if want == opReg && s.written>>x&1 == 0 {
			return blame(pc, in, "register %d is not written on every path", x)
		}
	case opImm:
		if width > 32 || !(Const{Lo: uint64(x)}).fits(width) {
			return blame(pc, in, "number %d and a field of %d bits", x, width)
		}
	case opRange:
		lo, hi := x&0xffff, x>>16
		if width > 16 || lo > hi || !(Const{Lo: uint64(hi)}).fits(width) {
			return blame(pc, in, "range %d to %d and a field of %d bits", lo, hi, width)
		}
	case opConst, opConst64:
		if err := index("constant", len(u.Consts)); err != nil {
			return err
		}
		if want == opConst64 {
			width = 64
		}
		if !u.Consts[x].fits(width) {
			return blame(pc, in, "constant %d is wider than %d bits", x, width)
		}
	case opPair:
		return v.pair(pc, in, x, width)
	case opRow:
		if err := index("row", len(u.Rows)); err != nil {
			return err
		}
		for _, m := range u.Rows[x] {
			if err := v.field(pc, in, uint32(m.Field), s); err != nil {
				return err
			}
		}
	case opTable, opTableReg:
		if err := index("table", len(u.Tables)); err != nil {
			return err
		}
		kind := u.Tables[x].Kind
		if want == opTableReg && kind != TableExact64 || want == opTable && !kind.suits(frame.Field(in.A)) {
			return blame(pc, in, "table %d is of another kind", x)
		}
	case opWhy:
		return index("why", len(u.Whys))
	}
	return nil
}

// pair checks a value and its mask in the constants x and x+1.
func (v *verifier) pair(pc int, in Insn, x uint32, width int) error {
	if n := len(v.u.Consts); int64(x)+1 >= int64(n) {
		return blame(pc, in, "constants %d and %d of %d", x, int64(x)+1, n)
	}
	if !maskedValue(v.u.Consts[x+1], v.u.Consts[x], width) {
		return blame(pc, in, "constants %d and %d are no value and mask of %d bits", x, x+1, width)
	}
	return nil
}

// maskedValue reports whether value lies within mask, and mask within width.
// A value outside of its mask would never match.
func maskedValue(mask, value Const, width int) bool {
	return mask.fits(width) && value.and(mask) == value
}

// field checks that field x is valid in every class that gets to pc.
func (v *verifier) field(pc int, in Insn, x uint32, s state) error {
	f := frame.Field(x)
	if x >= uint32(frame.NumFields) || !f.Valid() {
		return blame(pc, in, "unknown field %d", x)
	}
	if in.Op == OpLoadF && f.Width() > maxReadable {
		return blame(pc, in, "field %s is too wide for a register", f)
	}
	if bad := s.classes &^ f.Classes(); bad != 0 {
		for c := frame.ClassNone; c < frame.NumClasses; c++ {
			if bad.Has(c) {
				return blame(pc, in, "field %s in a frame of class %s", f, c)
			}
		}
	}
	return nil
}

// verifyData checks what does not depend on the instructions.
func verifyData(u *Unit) error {
	if len(u.Lines) != len(u.Insns) {
		return refuse("%d lines for %d instructions", len(u.Lines), len(u.Insns))
	}
	for i, pos := range u.Lines {
		if !u.validPos(pos) {
			return refuse("line of insn %d: no such position", i)
		}
	}
	for i, r := range u.Rows {
		if len(r) == 0 || len(r) > MaxRow {
			return refuse("row %d: %d matches, want 1 to %d", i, len(r), MaxRow)
		}
		for _, m := range r {
			if !m.Field.Valid() || !maskedValue(m.Mask, m.Value, m.Field.Width()) {
				return refuse("row %d: no value and mask of a field", i)
			}
		}
	}
	for i := range u.Tables {
		if err := u.Tables[i].verify(); err != nil {
			return refuse("table %d: %v", i, err)
		}
	}
	for i, w := range u.Whys {
		if w.Kind < WhyPredicate || w.Kind > WhyFragment {
			return refuse("why %d: unknown kind %d", i, w.Kind)
		}
		if !u.validPos(w.Pos) {
			return refuse("why %d: no such position", i)
		}
	}
	return nil
}

// validPos reports whether pos is in a file of the unit, or wholly zero.
func (u *Unit) validPos(pos Pos) bool {
	if pos.Line == 0 {
		return pos == Pos{}
	}
	return int(pos.File) < len(u.Files)
}

// verify checks that the table is in its one form.
func (t *Table) verify() error {
	if !slices.IsSortedFunc(t.Values, Const.compare) || !slices.IsSortedFunc(t.Prefixes, Prefix.compare) {
		return errString("not sorted")
	}
	for i := 1; i < len(t.Values); i++ {
		if t.Values[i] == t.Values[i-1] {
			return errString("a value twice")
		}
	}
	for i, p := range t.Prefixes {
		width := t.Kind.width()
		if p.Bits > width || p.Value.and(prefixMask(p.Bits, width)) != p.Value {
			return errString("a prefix with host bits, or longer than its address")
		}
		if i > 0 && p == t.Prefixes[i-1] {
			return errString("a prefix twice")
		}
	}
	return nil
}
