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
	// buckets is the map of the limits, where there are any.
	buckets, limits int
}

// Len is the number of instructions, as the kernel counts them.
func (c *Code) Len() int { return int(c.insns.Size()) / asm.InstructionSize }

// An Executor is a program in the kernel, with its maps. Any number of
// goroutines may use one.
type Executor struct {
	prog *ebpf.Program
	maps []*ebpf.Map
	code *Code
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
func (c *Code) Load() (_ *Executor, err error) { return c.load(nil) }

// load is Load with the maps that are there already, by name.
func (c *Code) load(shared map[string]*ebpf.Map) (_ *Executor, err error) {
	x := &Executor{code: c}
	defer func() {
		if err != nil {
			x.Close()
		}
	}()
	for i := range c.maps {
		if c.maps[i].shared != "" {
			x.maps = append(x.maps, nil)
			continue
		}
		m, err := c.maps[i].make()
		if err != nil {
			return nil, fmt.Errorf("ebpf: map %s: %w", c.maps[i].name, err)
		}
		x.maps = append(x.maps, m)
	}
	insns := make(asm.Instructions, len(c.insns))
	copy(insns, c.insns)
	for i, m := range c.uses {
		used := x.maps[m]
		if name := c.maps[m].shared; name != "" {
			used = shared[name]
		}
		if used == nil {
			return nil, fmt.Errorf("ebpf: map %s: there is none", c.maps[m].shared)
		}
		if err := insns[i].AssociateMap(used); err != nil {
			return nil, fmt.Errorf("ebpf: map %s%s: %w", c.maps[m].name, c.maps[m].shared, err)
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
		Key: d.keyType, Value: d.valueType,
	})
	if err != nil || d.keys == nil {
		return m, err
	}
	values := any(make([]uint8, d.size))
	if d.values != nil {
		values = d.values()
	}
	if _, err := m.BatchUpdate(d.keys, values, nil); err != nil {
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
// out or to the container.
func (x *Executor) Judge(k *frame.Key, now int64, ingress bool) (rule.Outcome, error) {
	n, err := x.prog.Run(&ebpf.RunOptions{Data: contextOf(k, now, ingress)})
	if err != nil {
		return rule.Outcome{}, fmt.Errorf("ebpf: %w", err)
	}
	return outcome(n)
}

// Repeat judges a frame n times in one call, and says how long each took.
func (x *Executor) Repeat(k *frame.Key, now int64, ingress bool, n int) (rule.Outcome, time.Duration, error) {
	r, each, err := x.prog.Benchmark(contextOf(k, now, ingress), n, nil)
	if err != nil {
		return rule.Outcome{}, 0, fmt.Errorf("ebpf: %w", err)
	}
	o, err := outcome(r)
	return o, each, err
}

// contextOf is the packet of a program: see the package comment.
func contextOf(k *frame.Key, now int64, ingress bool) []byte {
	ne, b := binary.NativeEndian, make([]byte, 0, contextLen)
	for _, w := range k.Words {
		b = ne.AppendUint64(b, w)
	}
	b = ne.AppendUint64(b, uint64(now))
	if ingress {
		return ne.AppendUint64(b, 1)
	}
	return ne.AppendUint64(b, 0)
}

// errNoAnswer is a bug of this package: the context was not one.
var errNoAnswer = errors.New("ebpf: the program did not get its context")

func outcome(n uint32) (rule.Outcome, error) {
	if n&3 == noAnswer {
		return rule.Outcome{}, errNoAnswer
	}
	return rule.Outcome{Verdict: rule.Verdict(n & 3), PC: n >> 2}, nil
}

// Refused counts, by limit of the program, the frames that found no token, as
// [rule.State.Refused] does.
func (x *Executor) Refused() ([]uint64, error) {
	out := make([]uint64, x.code.limits)
	for i := range out {
		var b struct {
			Lock, _ uint32
			Tat     int64
			Refused uint64
		}
		if err := x.maps[x.code.buckets].Lookup(uint32(i), &b); err != nil {
			return nil, fmt.Errorf("ebpf: limit %d: %w", i, err)
		}
		out[i] = b.Refused
	}
	return out, nil
}

// Close gives the program and its maps back.
func (x *Executor) Close() error {
	var errs []error
	if x.prog != nil {
		errs = append(errs, x.prog.Close())
	}
	for _, m := range x.maps {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}
