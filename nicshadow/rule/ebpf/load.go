package ebpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// The context: see the package comment.
const (
	contextNow     = 8 * frame.NumWords
	contextIngress = contextNow + 8
	contextLen     = contextIngress + 8
)

// noAnswer is what a program returns that could not judge.
const noAnswer = 3

// Code is a program of the kernel that it has not seen yet.
type Code struct {
	insns asm.Instructions
	maps  []mapDef
	uses  map[int]int
}

// Len is the number of instructions, as the kernel counts them.
func (c *Code) Len() int { return int(c.insns.Size()) / asm.InstructionSize }

// String is a listing of the program.
func (c *Code) String() string { return fmt.Sprint(c.insns) }

// An Executor is a program in the kernel, with its maps.
type Executor struct {
	prog *ebpf.Program
	maps []*ebpf.Map
	buf  [contextLen]byte
}

// Load compiles p and loads it.
func Load(p *rule.Program) (*Executor, error) {
	c, err := Compile(p)
	if err != nil {
		return nil, err
	}
	return c.Load()
}

// Load has the kernel verify the program. Its maps are its own: no state is
// shared between two programs loaded from one Code.
func (c *Code) Load() (_ *Executor, err error) {
	x := new(Executor)
	defer func() {
		if err != nil {
			x.Close()
		}
	}()
	for i := range c.maps {
		m, err := c.maps[i].make()
		if err != nil {
			return nil, fmt.Errorf("ebpf: map %s: %w", c.maps[i].name, err)
		}
		x.maps = append(x.maps, m)
	}
	insns := make(asm.Instructions, len(c.insns))
	copy(insns, c.insns)
	for i, m := range c.uses {
		if err := insns[i].AssociateMap(x.maps[m]); err != nil {
			return nil, fmt.Errorf("ebpf: map %s: %w", c.maps[m].name, err)
		}
	}
	x.prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{Name: "seki_judge", Type: ebpf.SchedCLS, License: "GPL", Instructions: insns})
	if err != nil {
		return nil, fmt.Errorf("ebpf: %w", err)
	}
	return x, nil
}

// make makes the map, with its entries.
func (d *mapDef) make() (*ebpf.Map, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "seki_" + d.name, Type: d.typ, KeySize: d.key, ValueSize: d.value, MaxEntries: d.size, Flags: d.flags,
	})
	if err != nil || d.keys == nil {
		return m, err
	}
	if _, err := m.BatchUpdate(d.keys, make([]uint8, d.size), nil); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// Verified is how many instructions the kernel's verifier looked at; its limit
// is a million. ok is false before Linux 5.16.
func (x *Executor) Verified() (n int, ok bool) {
	info, err := x.prog.Info()
	if err != nil {
		return 0, false
	}
	v, ok := info.VerifiedInstructions()
	return int(v), ok
}

// Judge judges the frame that k was parsed from, at the time now, on its way
// out or to the container. It is not for several goroutines at once.
func (x *Executor) Judge(k *frame.Key, now int64, ingress bool) (rule.Outcome, error) {
	n, err := x.prog.Run(&ebpf.RunOptions{Data: x.context(k, now, ingress)})
	if err != nil {
		return rule.Outcome{}, fmt.Errorf("ebpf: %w", err)
	}
	return outcome(n)
}

// Repeat judges a frame n times in one call, and says how long each took.
func (x *Executor) Repeat(k *frame.Key, now int64, ingress bool, n int) (rule.Outcome, time.Duration, error) {
	r, each, err := x.prog.Benchmark(x.context(k, now, ingress), n, nil)
	if err != nil {
		return rule.Outcome{}, 0, fmt.Errorf("ebpf: %w", err)
	}
	o, err := outcome(r)
	return o, each, err
}

func (x *Executor) context(k *frame.Key, now int64, ingress bool) []byte {
	ne := binary.NativeEndian
	for i, w := range k.Words {
		ne.PutUint64(x.buf[8*i:], w)
	}
	ne.PutUint64(x.buf[contextNow:], uint64(now))
	ne.PutUint64(x.buf[contextIngress:], 0)
	if ingress {
		ne.PutUint64(x.buf[contextIngress:], 1)
	}
	return x.buf[:]
}

// errNoAnswer is a bug of this package: the context was not one.
var errNoAnswer = errors.New("ebpf: the program did not get its context")

func outcome(n uint32) (rule.Outcome, error) {
	if n&3 == noAnswer {
		return rule.Outcome{}, errNoAnswer
	}
	return rule.Outcome{Verdict: rule.Verdict(n & 3), PC: n >> 2}, nil
}

// Close gives the program and its maps back.
func (x *Executor) Close() error {
	var errs []error
	if x.prog != nil {
		errs = append(errs, x.prog.Close())
	}
	for _, m := range x.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}
