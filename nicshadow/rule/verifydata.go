package rule

import "slices"

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
	for i, l := range u.Limits {
		if l.Period < 1 || l.Period > MaxPeriod || l.Burst < 1 || l.Burst > MaxBurst {
			return refuse("limit %d: %d tokens, one every %d ns", i, l.Burst, l.Period)
		}
		if slices.Contains(u.Limits[:i], l) {
			return refuse("limit %d: there twice", i)
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
