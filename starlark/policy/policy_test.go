package policy_test

import (
	"net/netip"
	"testing"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
	"sekimori/nicshadow/rule/ruletest"
	"sekimori/starlark/policy"
	"sekimori/starlark/value"

	"go.starlark.net/starlark"
)

// identity is the NIC of most tests: dual stack.
var identity = policy.Identity{
	MAC:   frame.MAC{2, 0, 10, 0, 0, 5},
	Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::5")},
}

// exec runs a file with policies in it.
func exec(src string) (starlark.StringDict, error) {
	return policy.NewSources(value.Builtins()).Exec(new(starlark.Thread), "p.star", src)
}

// load runs a file and returns its global P.
func load(t testing.TB, src string) *policy.Policy {
	t.Helper()
	g, err := exec(src)
	if err != nil {
		t.Fatalf("exec: %v\n%s", err, src)
	}
	p, ok := g["P"].(*policy.Policy)
	if !ok {
		t.Fatalf("no policy P in\n%s", src)
	}
	return p
}

// compile runs a file and compiles its global P.
func compile(t testing.TB, src string) (*policy.Policy, *rule.Program) {
	t.Helper()
	p := load(t, src)
	prog, err := p.Compile(identity)
	if err != nil {
		t.Fatalf("compile: %v\n%s", err, src)
	}
	return p, prog
}

// A key is a frame of a class with the fields set, otherwise as the NIC
// itself would send it.
func key(c frame.Class, fields map[frame.Field]any) *frame.Key {
	k := new(frame.Key)
	k.Words[frame.ClassWord] = uint64(c)
	for f := range frame.NumFields {
		if c.Has(f) {
			if v, ok := honest(c, f); ok {
				set(k, f, v)
			}
		}
	}
	for f, v := range fields {
		set(k, f, v)
	}
	return k
}

// honest is the value of a field in a frame that passes the guards.
func honest(c frame.Class, f frame.Field) (any, bool) {
	switch f {
	case frame.EthSrc, frame.ARPSenderMAC, frame.NDPLinkMAC, frame.DHCPClientMAC:
		return identity.MAC, true
	case frame.EthDst:
		return frame.MAC{2, 0, 10, 0, 0, 9}, true
	case frame.ARPSenderIP, frame.IPv4Src:
		return "10.0.0.5", true
	case frame.IPv6Src, frame.NDPTarget:
		return "fd00::5", true
	case frame.IPv4Dst, frame.ARPTargetIP:
		return "10.0.0.9", true
	case frame.IPv6Dst:
		return "fd00::9", true
	case frame.EtherType:
		switch {
		case c == frame.ClassARP:
			return 0x0806, true
		case c == frame.ClassOther:
			return 0x88cc, true
		case c.Has(frame.IPv4Src):
			return 0x0800, true
		}
		return 0x86dd, true
	case frame.IPProtocol:
		switch {
		case c.Has(frame.TCPSyn):
			return 6, true
		case c.Has(frame.SrcPort):
			return 17, true
		case c.Has(frame.ICMPType) && c.Has(frame.IPv4Src):
			return 1, true
		case c.Has(frame.ICMPType):
			return 58, true
		}
		return 47, true
	case frame.ARPOp:
		return 1, true
	case frame.ICMPType:
		if c == frame.ClassIPv6NDP {
			return 135, true
		}
		return 128, true
	case frame.IPFragment:
		return 1, c == frame.ClassIPv4Fragment || c == frame.ClassIPv6Fragment
	case frame.DHCPOp, frame.DHCPType:
		return 1, true
	case frame.IPTTL:
		return 64, true
	case frame.Length:
		return 60, true
	}
	return nil, false
}

// set writes a field of a key: an int, a bool, a MAC or an address as text.
func set(k *frame.Key, f frame.Field, v any) {
	var hi, lo uint64
	switch v := v.(type) {
	case int:
		lo = uint64(v)
	case uint64:
		lo = v
	case bool:
		if v {
			lo = 1
		}
	case frame.MAC:
		lo = v.Uint64()
	case string:
		a := netip.MustParseAddr(v)
		b := a.As16()
		for i := range 8 {
			hi, lo = hi<<8|uint64(b[i]), lo<<8|uint64(b[8+i])
		}
		if a.Is4() {
			hi, lo = 0, lo&0xffffffff
		}
	}
	i := f.Info()
	if i.Width == 128 {
		k.Words[i.Word], k.Words[i.Word+1] = hi, lo
		return
	}
	mask := uint64(1<<i.Width-1) << i.Shift
	k.Words[i.Word] = k.Words[i.Word]&^mask | lo<<i.Shift&mask
}

// agree checks that the program and the oracle give one verdict for one
// reason, and returns it.
func agree(t testing.TB, src string, p *policy.Policy, prog *rule.Program, k *frame.Key) (bool, rule.Why) {
	t.Helper()
	out := prog.Run(k)
	why := prog.Why(out.PC)
	forward, want, err := p.Judge(identity, k)
	if err != nil {
		t.Fatalf("%s: Judge: %v\n%s\n%s", k.Class(), err, src, rule.Disassemble(prog))
	}
	if got := out.Verdict.Passes(); got != forward || why.Kind != want.Kind || why.Name != want.Name {
		t.Fatalf("%s %x: Run = %v, %+v; Judge = %v, %+v\n%s\n%s", k.Class(), k.Words, got, why, forward, want, src, rule.Disassemble(prog))
	}
	return forward, why
}

// A duel has a program and the oracle judge one frame after the other, each
// with a memory of its own.
type duel struct {
	t      testing.TB
	src    string
	policy *policy.Policy
	prog   *rule.Program
	id     policy.Identity
	state  *rule.State
	memory policy.Memory
	// kernel, where there is one, judges too: see enlist.
	kernel ruletest.Judge
	turns  []ruletest.Turn
}

func newDuel(t testing.TB, src string, id policy.Identity) *duel {
	t.Helper()
	p := load(t, src)
	prog, err := p.Compile(id)
	if err != nil {
		t.Fatalf("compile: %v\n%s", err, src)
	}
	return startDuel(t, src, p, prog, id)
}

func startDuel(t testing.TB, src string, p *policy.Policy, prog *rule.Program, id policy.Identity) *duel {
	return &duel{t: t, src: src, policy: p, prog: prog, id: id, state: prog.NewState(nil), memory: policy.Memory{Now: 1}}
}

// judge judges a frame; what passes is noted.
func (d *duel) judge(k *frame.Key, ingress bool) (rule.Verdict, rule.Why) {
	d.t.Helper()
	d.memory.Ingress = ingress
	m := rule.Moment{State: d.state, Now: d.memory.Now, Ingress: ingress}
	out := d.prog.RunAt(k, &m)
	if traced := d.prog.TraceAt(k, &m, func(int, bool) {}); traced != out {
		d.t.Fatalf("%s: RunAt = %v, TraceAt = %v\n%s", k.Class(), out, traced, rule.Disassemble(d.prog))
	}
	d.askKernel(k, ingress, out)
	v, want, err := d.policy.JudgeAt(d.id, k, &d.memory)
	if err != nil {
		d.t.Fatalf("%s: JudgeAt: %v\n%s\n%s", k.Class(), err, d.src, rule.Disassemble(d.prog))
	}
	why := d.prog.Why(out.PC)
	if ingress && !d.prog.JudgesIngress() {
		why = rule.Why{}
	}
	if out.Verdict != v || why.Kind != want.Kind || why.Name != want.Name {
		d.t.Fatalf("%s %x ingress %v at %d: RunAt = %v, %+v; JudgeAt = %v, %+v\n%s\n%s", k.Class(), k.Words, ingress, d.memory.Now, out.Verdict, why, v, want, d.src, rule.Disassemble(d.prog))
	}
	if v.Passes() {
		m.Passed(k)
		d.memory.Passed(k)
	}
	return v, why
}
