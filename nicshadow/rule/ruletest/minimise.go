package ruletest

import (
	"fmt"
	"slices"
	"strings"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

// A Turn is a frame to be judged, when, and which way it goes.
type Turn struct {
	Key     frame.Key
	Now     int64
	Ingress bool
}

// A Case is a program and the frames that it judges one after the other.
type Case struct {
	Unit  *rule.Unit
	Turns []Turn
}

// A Judge is another executor of a program, with what it remembers.
type Judge func(k *frame.Key, now int64, ingress bool) (rule.Outcome, error)

// Disagree has the interpreter and judge judge the turns, each remembering for
// itself, and says where they first differ; nil where they do not.
func Disagree(p *rule.Program, turns []Turn, judge Judge) error {
	state := p.NewState(nil)
	for i := range turns {
		t := &turns[i]
		m := rule.Moment{State: state, Now: t.Now, Ingress: t.Ingress}
		want := p.RunAt(&t.Key, &m)
		if want.Verdict.Passes() {
			m.Passed(&t.Key)
		}
		got, err := judge(&t.Key, t.Now, t.Ingress)
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("frame %d: %v at %d, the interpreter %v at %d", i, got.Verdict, got.PC, want.Verdict, want.PC)
		}
	}
	return nil
}

// maxTries bounds the cases that Minimise looks at.
const maxTries = 4000

// Minimise takes away from c, frames, instructions, entries of tables and
// fields, as long as differs holds of what is left. It needs to hold of c.
func Minimise(c Case, differs func(p *rule.Program, turns []Turn) bool) Case {
	m := minimiser{c, differs, maxTries}
	for before := -1; before != m.tries && m.tries > 0; {
		before = m.tries
		if !m.turns() && !m.insns() && !m.rest() {
			break
		}
	}
	return m.Case
}

type minimiser struct {
	Case
	differs func(*rule.Program, []Turn) bool
	tries   int
}

// try takes a smaller case, if it is one.
func (m *minimiser) try(u *rule.Unit, turns []Turn) bool {
	if m.tries <= 0 {
		return false
	}
	m.tries--
	p, err := rule.New(u)
	if err != nil || !m.differs(p, turns) {
		return false
	}
	m.Case = Case{u, turns}
	return true
}

func (m *minimiser) turns() (smaller bool) {
	for size := len(m.Turns); size > 0; size /= 2 {
		for i := 0; i+size <= len(m.Turns); {
			if less := slices.Delete(slices.Clone(m.Turns), i, i+size); len(less) > 0 && m.try(m.Unit, less) {
				smaller = true
			} else {
				i += size
			}
		}
	}
	return smaller
}

func (m *minimiser) insns() (smaller bool) {
	for pc := 0; pc < len(m.Unit.Insns); {
		in := m.Unit.Insns[pc]
		jump := in.Op.IsTest() && in.Off > 0
		switch {
		case m.try(prune(without(m.Unit, pc, 1)), m.Turns),
			jump && m.with(pc, rule.Insn{Op: rule.OpJmp, Off: in.Off}),
			jump && m.thread(pc, in):
			smaller = true
		default:
			pc++
		}
	}
	return smaller
}

// with puts in at pc.
func (m *minimiser) with(pc int, in rule.Insn) bool {
	u := without(m.Unit, pc, 0)
	u.Insns[pc] = in
	return m.try(prune(u), m.Turns)
}

// thread has the test in at pc jump where the jump that it goes to goes.
func (m *minimiser) thread(pc int, in rule.Insn) bool {
	to := m.Unit.Insns[pc+1+int(in.Off)]
	in.Off += 1 + to.Off
	return to.Op == rule.OpJmp && m.with(pc, in)
}

// rest makes fields 0, and tables smaller, and drops the entries of ingress.
func (m *minimiser) rest() (smaller bool) {
	for i := range m.Turns {
		for f := frame.FieldInvalid + 1; f < frame.NumFields; f++ {
			turns := slices.Clone(m.Turns)
			k := &turns[i].Key
			hi, lo := k.Wide(f)
			if hi|lo == 0 {
				continue
			}
			Set(k, f, 0, 0)
			smaller = m.try(m.Unit, turns) || smaller
		}
	}
	for i := range m.Unit.Tables {
		for n := m.Unit.Tables[i].Len() - 1; n >= 0; n-- {
			u := without(m.Unit, 0, 0)
			t := u.Tables[i]
			if len(t.Values) > 0 {
				t.Values = slices.Delete(slices.Clone(t.Values), n, n+1)
			} else {
				t.Prefixes = slices.Delete(slices.Clone(t.Prefixes), n, n+1)
			}
			u.Tables = slices.Clone(u.Tables)
			u.Tables[i] = t
			smaller = m.try(u, m.Turns) || smaller
		}
	}
	if m.Unit.Ingress != nil {
		u := without(m.Unit, 0, 0)
		u.Ingress = nil
		smaller = m.try(prune(u), m.Turns) || smaller
	}
	return smaller
}

// without is a copy of u without n instructions from pc on: what led to them
// leads behind them.
func without(u *rule.Unit, pc, n int) *rule.Unit {
	to := func(old int) int {
		if old < pc {
			return old
		}
		return max(pc, old-n)
	}
	c := *u
	c.Insns, c.Lines = nil, nil
	for i, in := range u.Insns {
		if i >= pc && i < pc+n {
			continue
		}
		if in.Op.IsTest() || in.Op == rule.OpJmp {
			in.Off = uint16(to(i+1+int(in.Off)) - to(i) - 1)
		}
		c.Insns = append(c.Insns, in)
		if i < len(u.Lines) {
			c.Lines = append(c.Lines, u.Lines[i])
		}
	}
	c.Ingress = slices.Clone(u.Ingress)
	for class := 1; class < int(frame.NumClasses); class++ {
		c.Entries[class] = uint32(to(int(u.Entries[class])))
		if c.Ingress != nil {
			c.Ingress[class] = uint32(to(int(u.Ingress[class])))
		}
	}
	return &c
}

// prune is u without what nothing leads to.
func prune(u *rule.Unit) *rule.Unit {
	reached := make([]bool, len(u.Insns)+1)
	mark := func(pc int) {
		if pc < len(reached) {
			reached[pc] = true
		}
	}
	for class := 1; class < int(frame.NumClasses); class++ {
		mark(int(u.Entries[class]))
		if u.Ingress != nil {
			mark(int(u.Ingress[class]))
		}
	}
	for pc, in := range u.Insns {
		if !reached[pc] {
			continue
		}
		if in.Op.IsTest() || in.Op == rule.OpJmp {
			mark(pc + 1 + int(in.Off))
		}
		if in.Op != rule.OpRet && in.Op != rule.OpJmp {
			mark(pc + 1)
		}
	}
	for pc := len(u.Insns) - 1; pc >= 0; pc-- {
		if !reached[pc] {
			u = without(u, pc, 1)
		}
	}
	return u
}

// String is the case as text: the program, and the fields of the frames. What
// an instruction names is written there, so the pools are left out.
func (c Case) String() string {
	var b strings.Builder
	if p, err := rule.New(c.Unit); err == nil {
		for line := range strings.Lines(rule.Disassemble(p)) {
			if word, _, _ := strings.Cut(line, " "); word != ".const" && word != ".row" && word != ".why" {
				b.WriteString(line)
			}
		}
	}
	for _, t := range c.Turns {
		fmt.Fprintf(&b, "%s at %d, ingress %v:", t.Key.Class(), t.Now, t.Ingress)
		for f := frame.FieldInvalid + 1; f < frame.NumFields; f++ {
			if hi, lo := t.Key.Wide(f); hi != 0 {
				fmt.Fprintf(&b, " %s %#x%016x", f, hi, lo)
			} else if lo != 0 {
				fmt.Fprintf(&b, " %s %#x", f, lo)
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}
