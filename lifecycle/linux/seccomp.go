package linux

import (
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A rule of a system call filter: if the call's number is nr and all
// conditions hold, action is what happens. Of several rules for one call the
// first that holds counts.
type rule struct {
	nr     uint32
	conds  []cond
	action uint32 // SECCOMP_RET_*
}

// A cond compares one argument of a system call with a constant. Only
// the bits of mask count.
type cond struct {
	arg   uint
	op    specs.LinuxSeccompOperator
	value uint64
	mask  uint64 // all ones for the whole argument
}

// A profile is a filter before it is compiled.
type profile struct {
	rules   []rule
	other   uint32 // action for known calls without a rule that holds
	unknown uint32 // action for calls newer than this program
}

// A filterInsn is one instruction of a filter, as the kernel takes it.
type filterInsn unix.SockFilter

// seccompFilter returns the filter that the specification asks for: its own
// profile, the default one if it has none, and nil for one that allows all.
func seccompFilter(s *specs.LinuxSeccomp, caps capSets) ([]filterInsn, error) {
	switch {
	case s == nil && caps.bounding&filterCaps == usualCaps:
		return usualFilter[:], nil
	case s == nil:
		return defaultProfile(caps).filter()
	case s.DefaultAction == specs.ActAllow && len(s.Syscalls) == 0:
		return nil, nil
	}
	p, err := fromOCI(s)
	if err != nil {
		return nil, err
	}
	return p.filter()
}

// filter is the profile as the kernel takes it.
func (p *profile) filter() ([]filterInsn, error) {
	insns, err := p.compile()
	if err != nil {
		return nil, err
	}
	raw, err := bpf.Assemble(insns)
	if err != nil {
		return nil, fmt.Errorf("system call filter: %w", err)
	}
	if len(raw) > 4096 { // BPF_MAXINSNS
		return nil, fmt.Errorf("system call filter: %d instructions, at most 4096", len(raw))
	}
	out := make([]filterInsn, len(raw))
	for i, r := range raw {
		out[i] = filterInsn{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return out, nil
}

// fromOCI reads a profile of the specification. Names that this architecture
// does not have are skipped, as profiles list those of all.
func fromOCI(s *specs.LinuxSeccomp) (*profile, error) {
	other, err := action(s.DefaultAction, s.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	if len(s.Architectures) > 0 && !slices.Contains(s.Architectures, nativeArch) {
		return nil, fmt.Errorf("system call filter: architectures %v leave out this one, %s", s.Architectures, nativeArch)
	}
	p := &profile{other: other, unknown: other}
	for _, r := range s.Syscalls {
		act, err := action(r.Action, r.ErrnoRet)
		if err != nil {
			return nil, err
		}
		sets, err := argSets(r.Args)
		if err != nil {
			return nil, err
		}
		for _, name := range r.Names {
			nr, ok := syscallNumbers()[name]
			if !ok {
				continue
			}
			for _, c := range sets {
				p.rules = append(p.rules, rule{nr: nr, conds: c, action: act})
			}
		}
	}
	return p, nil
}

// argSets turns the conditions of an OCI rule into alternatives. All must hold,
// unless two speak of the same argument: then each counts alone, as in runc,
// whose profiles rely on it.
func argSets(args []specs.LinuxSeccompArg) ([][]cond, error) {
	var all []cond
	seen := map[uint]bool{}
	alone := false
	for _, a := range args {
		c := cond{arg: a.Index, op: a.Op, value: a.Value, mask: ^uint64(0)}
		switch a.Op {
		case specs.OpMaskedEqual:
			c = cond{arg: a.Index, op: specs.OpEqualTo, value: a.ValueTwo, mask: a.Value}
		case specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpGreaterThan, specs.OpGreaterEqual:
		default:
			return nil, fmt.Errorf("system call filter: unknown operator %q", a.Op)
		}
		alone = alone || seen[a.Index]
		seen[a.Index] = true
		all = append(all, c)
	}
	if !alone {
		return [][]cond{all}, nil
	}
	var sets [][]cond
	for _, c := range all {
		sets = append(sets, []cond{c})
	}
	return sets, nil
}

// action returns the kernel's number of an action.
func action(a specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	data := uint32(unix.EPERM)
	if errno != nil {
		data = uint32(*errno)
		if data > 4095 {
			return 0, fmt.Errorf("system call filter: errno %d is above 4095", data)
		}
	}
	switch a {
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | data, nil
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | data, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	default:
		return 0, fmt.Errorf("system call filter: unsupported action %q", a)
	}
}

// Offsets into struct seccomp_data (include/uapi/linux/seccomp.h).
const (
	offNr   = 0
	offArch = 4
	offArgs = 16
)

// A span is a run of call numbers that are treated alike.
type span struct {
	lo, hi uint32
	body   []bpf.Instruction // ends in a return on every path
	plain  bool              // the body is but this action
	action uint32
}

// compile makes the filter:
//
//	arch is ours?              no: kill, the numbers below would mean other calls
//	x32 call?                  yes: ENOSYS
//	binary search for nr       about 7 comparisons for 460 calls
//	conditions on arguments    return
//
// Neighbours that are treated alike are one leaf, which makes about 60 of 460.
func (p *profile) compile() ([]bpf.Instruction, error) {
	tree := p.tree(p.spans())
	head := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS},
		bpf.LoadAbsolute{Off: offNr, Size: 4},
	}
	if x32Bit != 0 {
		head = append(head,
			bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: x32Bit, SkipFalse: 1},
			bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)})
	}
	return append(head, tree...), nil
}

// lastSyscall is the highest number with a name.
func lastSyscall() (last uint32) {
	for _, nr := range syscallNumbers() {
		last = max(last, nr)
	}
	return last
}

// spans covers all numbers, in order.
func (p *profile) spans() []span {
	last := lastSyscall()
	byNr := make([][]rule, last+1)
	for _, r := range p.rules {
		byNr[r.nr] = append(byNr[r.nr], r)
	}
	var out []span
	for nr := uint32(0); nr <= last; nr++ {
		s := p.leaf(nr, byNr[nr])
		if n := len(out); n > 0 && s.plain && out[n-1].plain && out[n-1].action == s.action {
			out[n-1].hi = nr
			continue
		}
		out = append(out, s)
	}
	return append(out, span{lo: last + 1, hi: ^uint32(0), plain: true, action: p.unknown})
}

func ret(action uint32) []bpf.Instruction {
	return []bpf.Instruction{bpf.RetConstant{Val: action}}
}

// leaf is what happens to one call.
func (p *profile) leaf(nr uint32, rules []rule) span {
	s := span{lo: nr, hi: nr, plain: true, action: p.other}
	for _, r := range rules {
		if len(r.conds) == 0 {
			s.action = r.action
			break
		}
		s.plain = false
		s.body = append(s.body, r.code()...)
	}
	if !s.plain {
		s.body = append(s.body, bpf.RetConstant{Val: s.action})
	}
	return s
}

// code tests the conditions of r in turn; where one fails it falls through to
// what comes behind.
func (r *rule) code() []bpf.Instruction {
	body := ret(r.action)
	for _, c := range slices.Backward(r.conds) {
		body = append(c.code(len(body)), body...)
	}
	return body
}

// code falls through if the condition holds, and skips rest instructions more
// if it does not. Arguments are 64 bits, registers of the filter 32.
func (c cond) code(rest int) []bpf.Instruction {
	lo, hi := uint32(c.value), uint32(c.value>>32)
	loadLo := []bpf.Instruction{bpf.LoadAbsolute{Off: offArgs + 8*uint32(c.arg), Size: 4}}
	loadHi := []bpf.Instruction{bpf.LoadAbsolute{Off: offArgs + 8*uint32(c.arg) + 4, Size: 4}}
	if c.mask != ^uint64(0) {
		loadLo = append(loadLo, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: uint32(c.mask)})
		loadHi = append(loadHi, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: uint32(c.mask >> 32)})
	}
	n := uint8(len(loadLo)) // instructions to load a half
	skip := uint8(rest)
	jump := func(t bpf.JumpTest, v uint32, yes, no uint8) bpf.Instruction {
		return bpf.JumpIf{Cond: t, Val: v, SkipTrue: yes, SkipFalse: no}
	}
	var code []bpf.Instruction
	add := func(list []bpf.Instruction, more ...bpf.Instruction) {
		code = append(append(code, list...), more...)
	}
	switch c.op {
	case specs.OpEqualTo:
		add(loadHi, jump(bpf.JumpEqual, hi, 0, skip+n+1))
		add(loadLo, jump(bpf.JumpEqual, lo, 0, skip))
	case specs.OpNotEqual:
		add(loadHi, jump(bpf.JumpEqual, hi, 0, n+1))
		add(loadLo, jump(bpf.JumpEqual, lo, skip, 0))
	case specs.OpGreaterThan, specs.OpGreaterEqual:
		test := bpf.JumpGreaterThan
		if c.op == specs.OpGreaterEqual {
			test = bpf.JumpGreaterOrEqual
		}
		add(loadHi, jump(bpf.JumpGreaterThan, hi, n+2, 0), jump(bpf.JumpEqual, hi, 0, skip+n+1))
		add(loadLo, jump(test, lo, 0, skip))
	case specs.OpLessThan, specs.OpLessEqual:
		test := bpf.JumpGreaterOrEqual // its opposite
		if c.op == specs.OpLessEqual {
			test = bpf.JumpGreaterThan
		}
		add(loadHi, jump(bpf.JumpGreaterThan, hi, skip+n+2, 0), jump(bpf.JumpEqual, hi, 0, n+1))
		add(loadLo, jump(test, lo, skip, 0))
	}
	return code
}

// tree is a binary search over spans; the number is in the register.
func (p *profile) tree(spans []span) []bpf.Instruction {
	if len(spans) == 1 {
		if spans[0].plain {
			return ret(spans[0].action)
		}
		return spans[0].body
	}
	mid := len(spans) / 2
	left, right := p.tree(spans[:mid]), p.tree(spans[mid:])
	pivot := spans[mid].lo
	if len(left) <= 255 {
		return slices.Concat([]bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: pivot, SkipTrue: uint8(len(left))}}, left, right)
	}
	return slices.Concat([]bpf.Instruction{
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: pivot, SkipFalse: 1},
		bpf.Jump{Skip: uint32(len(left))},
	}, left, right)
}
