package rule

import "sekimori/nicshadow/frame"

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
		if x > uint32(Audit) {
			return blame(pc, in, "verdict %d", x)
		}
	case opField:
		return v.field(pc, in, x, s)
	case opAddr:
		if k := frame.Field(x).Kind(); x < uint32(frame.NumFields) && k != frame.KindIPv4 && k != frame.KindIPv6 {
			return blame(pc, in, "field %s is no address", frame.Field(x))
		}
		return v.field(pc, in, x, s)
	case opLimit:
		return index("limit", len(u.Limits))
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
