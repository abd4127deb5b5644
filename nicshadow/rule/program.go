package rule

import (
	"crypto/sha256"
	"slices"
	"sync"

	"sekimori/nicshadow/frame"
)

// A Verdict is the answer of a program. The zero Verdict drops, so that a
// forgotten return and a missing program fail closed.
type Verdict uint8

// The verdicts.
const (
	Drop Verdict = iota
	Forward
	// Audit forwards a frame that a predicate in audit mode would have dropped:
	// the one that the why names.
	Audit
)

// Passes reports whether a frame of this verdict goes on.
func (v Verdict) Passes() bool { return v == Forward || v == Audit }

// String is "drop", "forward" or "audit".
func (v Verdict) String() string {
	switch v {
	case Forward:
		return "forward"
	case Audit:
		return "audit"
	}
	return "drop"
}

// An Outcome is a verdict and the instruction that gave it: a RET, or the one
// that faulted (division by zero, shift out of range), which drops.
type Outcome struct {
	Verdict Verdict
	PC      uint32
}

// A Program is a verified program: it comes only from [Decode] or [New], so
// holding one proves that it ends and that it reads nothing it must not. It
// never changes; any number of goroutines may run it.
type Program struct {
	unit  Unit
	bytes []byte
	hash  [32]byte
	steps int
	fast  prepared
	asks  asks
}

// New checks u and makes it a program. It works on a copy, in which it first
// puts what has only one right form into that form: tables sorted and without
// duplicates, host bits of prefixes cleared, Lines as long as Insns.
func New(u *Unit) (*Program, error) {
	c, err := normalize(u)
	if err != nil {
		return nil, err
	}
	scratch := encodings.Get().(*[]byte)
	b, err := encode(c, *scratch)
	if err != nil {
		return nil, err
	}
	if len(b) <= maxKeptBytes {
		defer func() { *scratch = b; encodings.Put(scratch) }()
	}
	return Decode(b) // which keeps a copy
}

// encodings keeps the memory of encodings, but for those of huge programs.
var encodings = sync.Pool{New: func() any { return new([]byte) }}

const maxKeptBytes = 1 << 16

// Bytes is the encoded program: a copy, the caller's own.
func (p *Program) Bytes() []byte { return slices.Clone(p.bytes) }

// Hash is the SHA-256 of the encoded program. Equal programs have equal
// encodings.
func (p *Program) Hash() [32]byte { return p.hash }

// Unit is the contents of the program: a copy, the caller's own.
func (p *Program) Unit() *Unit { return p.unit.clone() }

// Len is the number of instructions.
func (p *Program) Len() int { return len(p.unit.Insns) }

// MaxSteps is the number of instructions on the longest path from an entry to
// a return: no frame takes more.
func (p *Program) MaxSteps() int { return p.steps }

// Entry is the pc where judging frames of class c begins.
func (p *Program) Entry(c frame.Class) uint32 {
	if c < frame.NumClasses {
		return p.unit.Entries[c]
	}
	return 0
}

// JudgesIngress reports whether the program judges frames on their way to the
// container.
func (p *Program) JudgesIngress() bool { return p.unit.Ingress != nil }

// Limits are the program's rate limits, in the order of a [State]'s buckets.
func (p *Program) Limits() []Limit { return slices.Clone(p.unit.Limits) }

// Insn is the instruction at pc; the zero Insn where there is none.
func (p *Program) Insn(pc uint32) Insn {
	if int64(pc) < int64(len(p.unit.Insns)) {
		return p.unit.Insns[pc]
	}
	return Insn{}
}

// Why is the reason that the RET at pc names; the zero Why where pc is not
// that of a RET.
func (p *Program) Why(pc uint32) Why {
	if in := p.Insn(pc); in.Op == OpRet {
		return p.unit.Whys[in.K]
	}
	return Why{}
}

// File is the source file of pos, "" where pos is unknown.
func (p *Program) File(pos Pos) string {
	if pos.Line == 0 || int(pos.File) >= len(p.unit.Files) {
		return ""
	}
	return p.unit.Files[pos.File]
}

// Position is the source position of the instruction at pc: its own, or for a
// RET without one that of its why. All is zero where neither is known.
func (p *Program) Position(pc uint32) (file string, line, col int) {
	if int64(pc) >= int64(len(p.unit.Lines)) {
		return "", 0, 0
	}
	pos := p.unit.Lines[pc]
	if pos.Line == 0 {
		pos = p.Why(pc).Pos
	}
	return p.File(pos), int(pos.Line), int(pos.Col)
}

// build makes a program of a unit that verify accepted.
func build(u *Unit, b []byte, steps int) *Program {
	p := &Program{unit: *u, bytes: b, hash: sha256.Sum256(b), steps: steps}
	prepare(u, &p.fast)
	p.asks = u.asks()
	return p
}

func (u *Unit) clone() *Unit {
	c := *u
	c.Insns = slices.Clone(u.Insns)
	c.Consts = slices.Clone(u.Consts)
	c.Whys = slices.Clone(u.Whys)
	c.Limits = slices.Clone(u.Limits)
	c.Ingress = slices.Clone(u.Ingress)
	c.Files = slices.Clone(u.Files)
	c.Lines = slices.Clone(u.Lines)
	c.Rows = slices.Clone(u.Rows)
	for i, r := range c.Rows {
		c.Rows[i] = slices.Clone(r)
	}
	c.Tables = slices.Clone(u.Tables)
	for i, t := range c.Tables {
		c.Tables[i].Values = slices.Clone(t.Values)
		c.Tables[i].Prefixes = slices.Clone(t.Prefixes)
	}
	return &c
}
