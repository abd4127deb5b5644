package policytest

import (
	"encoding/hex"
	"fmt"
	"sync"

	"sekimori/nicshadow/replay"
	"sekimori/nicshadow/rule"
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
func (j *judge) compile(p *policy.Policy, s frames.Sender) *compiled {
	key := programKey{p, fmt.Sprint(s)}
	j.mu.Lock()
	c := j.programs[key]
	if c == nil {
		c = &compiled{}
		j.programs[key] = c
	}
	j.mu.Unlock()
	c.once.Do(func() {
		prog, err := p.Compile(policy.Identity{MAC: s.MAC, Addrs: s.Addrs})
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

// judge asks the program about one frame.
func (j *judge) judge(c *compiled, data []byte) *replay.Result {
	results := replay.Judge(c.program, []replay.Frame{{Number: 1, Data: data, Length: len(data)}})
	j.cov.trace(c.program, &results[0])
	return &results[0]
}
