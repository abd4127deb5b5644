package rule

import "sekimori/nicshadow/frame"

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
	ways := [][]uint32{v.u.Entries[:]}
	if v.u.Ingress != nil {
		ways = append(ways, v.u.Ingress)
	}
	for _, entries := range ways {
		if entries[frame.ClassNone] != 0 {
			return refuse("entry of class none: %d, want 0", entries[frame.ClassNone])
		}
		for c := frame.ClassNone + 1; c < frame.NumClasses; c++ {
			pc := entries[c]
			if int64(pc) >= int64(n) {
				return refuse("entry of class %s: %d is past the end (%d instructions)", c, pc, n)
			}
			v.merge(int(pc), state{classes: frame.SetOf(c)})
		}
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
