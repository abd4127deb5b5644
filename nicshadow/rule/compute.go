package rule

// Compute is what an instruction on registers, other than a load, makes of
// them: a op b, or op of a alone. ok is false where it faults, and for what is
// no such operation.
func (op Op) Compute(a, b int64) (v int64, ok bool) { return arith(op, a, b) }
