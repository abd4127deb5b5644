package nicshadow

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sekimori/nicshadow/rule"
)

// A Sender is the number of a container whose frames are judged, from 1 to
// [MaxSenders]. Sender 0 is nobody.
type Sender uint32

// Limits of a table.
const (
	MaxSenders = 4096
	// MaxStaged is the number of programs that a sender may have verified and
	// not in force; a further one puts the oldest out.
	MaxStaged = 4
)

// Errors of a table, to compare with by errors.Is. A program that fails
// verification is a *rule.VerifyError.
var (
	ErrUnknownSender = errors.New("unknown sender")
	ErrSenderExists  = errors.New("sender exists")
	ErrSenderRange   = errors.New("sender is not in 1 to 4096")
	ErrNotLoaded     = errors.New("program is not loaded")
)

// A Table says which program judges which sender, in which mode, and counts.
// Any number of goroutines may judge while one changes it.
type Table struct {
	// slots is indexed by Sender and never changed: changes store a new one.
	slots atomic.Pointer[[]*slot]
	// unattributed counts frames of senders that the table does not know.
	unattributed atomic.Uint64
	// now is a clock that does not step back, in nanoseconds above 0: what
	// programs that remember go by.
	now func() int64

	// mu guards changes: slots, what slot says it guards, and envelopes.
	mu sync.Mutex
	// envelopes are what ports count for a sender besides its program. They
	// are not the sender's: it may be registered anew while a port stays.
	envelopes map[Sender][]*tally
}

// A force is what judges a sender's frames: replaced whole, never changed.
type force struct {
	program *rule.Program // nil: nothing passes
	mode    Mode
	state   *rule.State     // what the program remembers; nil for nothing
	hits    []atomic.Uint64 // frames by pc of the deciding instruction
}

// A slot is one sender.
type slot struct {
	name  string
	force atomic.Pointer[force]
	trial atomic.Pointer[Trial] // nil for none
	watch atomic.Pointer[port]  // the port with path; nil for none
	counters

	// Guarded by Table.mu.
	staged  []*rule.Program // oldest first
	tallies []*tally
	folded  map[LineKey]uint64
	path    Path // judges in this process's stead; nil for none
}

// NewTable returns a table that knows nobody.
func NewTable() *Table {
	began := time.Now()
	t := &Table{envelopes: make(map[Sender][]*tally), now: func() int64 { return int64(time.Since(began)) + 1 }}
	t.slots.Store(new([]*slot))
	return t
}

// Register makes a sender known under the container's name. Nothing it sends
// passes until a program is in force.
func (t *Table) Register(s Sender, name string) error {
	if s == 0 || s > MaxSenders {
		return fmt.Errorf("register sender %d: %w", s, ErrSenderRange)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.slot(s) != nil {
		return fmt.Errorf("register sender %d: %w", s, ErrSenderExists)
	}
	sl := &slot{name: name}
	sl.force.Store(&force{})
	t.put(s, sl)
	return nil
}

// Unregister forgets a sender and its counters. From then on nothing it sends
// passes.
func (t *Table) Unregister(s Sender) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	sl := t.slot(s)
	if sl == nil {
		return fmt.Errorf("unregister sender %d: %w", s, ErrUnknownSender)
	}
	t.put(s, nil)
	sl.endTrial()
	if sl.path != nil {
		return sl.path.Enforce(nil, Enforce)
	}
	return nil
}

// bind lets the counters of an envelope appear in the sender's. It says
// nothing about what is in force: an envelope is the port's, and no call of a
// table reaches it.
func (t *Table) bind(s Sender, envelope *tally) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.envelopes[s] = append(t.envelopes[s], envelope)
}

// unbind ends bind; what was counted stays.
func (t *Table) unbind(s Sender, envelope *tally) {
	t.mu.Lock()
	defer t.mu.Unlock()
	left := slices.DeleteFunc(t.envelopes[s], func(e *tally) bool { return e == envelope })
	if t.envelopes[s] = left; len(left) == 0 {
		delete(t.envelopes, s)
	}
	if sl := t.slot(s); sl != nil {
		sl.fold(envelope)
	}
}

// put stores a new slice of slots with sl at s.
func (t *Table) put(s Sender, sl *slot) {
	old := *t.slots.Load()
	slots := make([]*slot, max(len(old), int(s)+1))
	copy(slots, old)
	slots[s] = sl
	t.slots.Store(&slots)
}

// Load verifies a program and stages it for a sender. It returns the hash by
// which [Table.Swap] names it. The bytes are not kept. On an error, a
// *rule.VerifyError where the program is at fault, nothing has changed.
func (t *Table) Load(s Sender, program []byte) (hash [32]byte, err error) {
	// Verified outside of mu: a large program must not hold up a swap.
	p, err := rule.Decode(program)
	if err != nil {
		return hash, fmt.Errorf("load program of sender %d: %w", s, err)
	}
	hash = p.Hash()
	t.mu.Lock()
	defer t.mu.Unlock()
	sl := t.slot(s)
	if sl == nil {
		return hash, fmt.Errorf("load program of sender %d: %w", s, ErrUnknownSender)
	}
	if sl.find(hash) != nil {
		return hash, nil
	}
	if len(sl.staged) == MaxStaged {
		sl.staged = append(sl.staged[:0], sl.staged[1:]...)
	}
	sl.staged = append(sl.staged, p)
	return hash, nil
}

// find returns the staged program of that hash, or nil.
func (sl *slot) find(hash [32]byte) *rule.Program {
	for _, p := range sl.staged {
		if p.Hash() == hash {
			return p
		}
	}
	return nil
}

// Swap puts a staged program and its mode in force, in one step: frames judged
// before it returns see the old program in the old mode or the new one in the
// new, frames after it the new one. The program is no longer staged; swapping to
// the one in force only sets the mode.
func (t *Table) Swap(s Sender, hash [32]byte, m Mode) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	sl := t.slot(s)
	if sl == nil {
		return fmt.Errorf("swap program of sender %d: %w", s, ErrUnknownSender)
	}
	now := sl.force.Load()
	p := sl.find(hash)
	if p == nil {
		if now.program != nil && now.program.Hash() == hash {
			return sl.setMode(m)
		}
		return fmt.Errorf("swap program of sender %d to %x: %w", s, hash[:6], ErrNotLoaded)
	}
	if err := sl.enforce(p, m.strict()); err != nil {
		return fmt.Errorf("swap program of sender %d to %x: %w", s, hash[:6], err)
	}
	for i := range sl.staged {
		if sl.staged[i] == p {
			sl.staged = append(sl.staged[:i], sl.staged[i+1:]...)
			break
		}
	}
	return nil
}

// SetMode sets whether the sender's verdicts are enforced. It may come before
// the first program.
func (t *Table) SetMode(s Sender, m Mode) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	sl := t.slot(s)
	if sl == nil {
		return fmt.Errorf("set mode of sender %d: %w", s, ErrUnknownSender)
	}
	return sl.setMode(m)
}

// setMode changes the mode of the program in force. Table.mu is held.
func (sl *slot) setMode(m Mode) error {
	if now := sl.force.Load(); now.mode != m.strict() {
		return sl.enforce(now.program, m.strict())
	}
	return nil
}

// strict is m, or Enforce for a number that is no mode.
func (m Mode) strict() Mode {
	if m != Audit {
		return Enforce
	}
	return m
}

// Program returns the program in force, nil if there is none.
func (t *Table) Program(s Sender) *rule.Program {
	if sl := t.slot(s); sl != nil {
		return sl.force.Load().program
	}
	return nil
}

// Senders returns the senders that the table knows, in order.
func (t *Table) Senders() []Sender {
	var all []Sender
	for i, sl := range *t.slots.Load() {
		if sl != nil {
			all = append(all, Sender(i))
		}
	}
	return all
}

// slot returns the slot of a sender, nil if there is none.
func (t *Table) slot(s Sender) *slot {
	slots := *t.slots.Load()
	if uint64(s) < uint64(len(slots)) {
		return slots[s]
	}
	return nil
}
