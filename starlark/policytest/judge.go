package policytest

import (
	"encoding/hex"
	"fmt"
	"sync"

	"sekimori/nicshadow/replay"
	"sekimori/nicshadow/rule"
	"sekimori/starlark/args"
	"sekimori/starlark/frames"
	"sekimori/starlark/policy"
)

// A judge compiles policies, each once for each card, and asks the programs.
type judge struct {
	cov *coverage
	// mu guards programs.
	mu       sync.Mutex
	programs map[programKey]*compiled
}

type programKey struct {
	policy *policy.Policy
	sender string
	dhcp   [2]bool // IPv4, IPv6
}

// A compiled program is one that went through bytes, as on its way to a
// machine.
type compiled struct {
	once    sync.Once
	program *rule.Program
	hash    string
	err     error
}

func newJudge(cov *coverage) *judge {
	return &judge{cov: cov, programs: map[programKey]*compiled{}}
}

// compile is p compiled for s.
func (j *judge) compile(p *policy.Policy, s card) *compiled {
	key := programKey{p, fmt.Sprint(s.Sender), [2]bool{s.dhcp4, s.dhcp6}}
	j.mu.Lock()
	c := j.programs[key]
	if c == nil {
		c = &compiled{}
		j.programs[key] = c
	}
	j.mu.Unlock()
	c.once.Do(func() {
		prog, err := p.Compile(policy.Identity{MAC: s.MAC, Addrs: s.Addrs, DHCP4: s.dhcp4, DHCP6: s.dhcp6})
		if err != nil {
			c.err = err
			return
		}
		// The machine gets bytes, and trusts only what it decoded itself.
		if c.program, c.err = rule.Decode(prog.Bytes()); c.err == nil {
			h := c.program.Hash()
			c.hash = hex.EncodeToString(h[:])
			j.cov.add(c.program)
		}
	})
	return c
}

// judge asks the program about one frame at a moment.
func (j *judge) judge(c *compiled, data []byte, m rule.Moment) *replay.Result {
	r := replay.JudgeAt(c.program, &replay.Frame{Number: 1, Data: data, Length: len(data)}, m)
	j.cov.trace(c.program, &r)
	return &r
}

// A card is whose frames are judged: its addresses, or that DHCP gives it one.
type card struct {
	frames.Sender
	dhcp4, dhcp6 bool
}

// A memory is what a policy, or the policies of a container, remember in one
// test: it begins empty.
type memory struct {
	program *rule.Program
	state   *rule.State
}

// memory is that of what the call asks, now that prog judges there.
func (t *test) memory(c *args.Call, prog *compiled) *rule.State {
	of := c.Vals["policy"]
	m := t.memories[of]
	if m == nil {
		m = &memory{}
		t.memories[of] = m
	}
	if m.program != prog.program {
		m.program, m.state = prog.program, prog.program.NewState(m.state)
	}
	return m.state
}
