package nicshadow

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

// Errors of a trial, to compare with by errors.Is.
var (
	ErrTrialExists = errors.New("another trial is under way")
	ErrNoForce     = errors.New("no program is in force")
	// ErrTrialPath says that the frames take a [Path], and the program asks for
	// more than each frame by itself: what went before only the path knows.
	ErrTrialPath = errors.New("the kernel judges the frames of this card, and only it remembers what went before: a policy with rate(), established(), answered(), ingress or ip = \"dhcp\" cannot be tried beside it")
)

// Limits of what a trial tells: a sender that floods must not hold up others.
const (
	trialRate  = 20 // differences a second
	trialBurst = 50
	trialQueue = 128 // that wait for the sink
)

// A Difference is a frame that a trial's program judges otherwise than the one in
// force: one of them lets it pass, the other does not.
type Difference struct {
	Time time.Time `json:"time"`
	// Ingress says that the frame was on its way to the container.
	Ingress bool `json:"ingress,omitempty"`
	// Now is what the program in force says, Then what the trial's does.
	Now  rule.Outcome `json:"now"`
	Then rule.Outcome `json:"then"`
	// Frame is the whole frame.
	Frame []byte `json:"frame"`
	// Suppressed is how many were not told since the last one.
	Suppressed uint64 `json:"suppressed,omitempty"`
}

// TrialCounts are the frames of a trial.
type TrialCounts struct {
	Same    uint64 `json:"same"`    // judged alike
	Tighter uint64 `json:"tighter"` // that pass, and would not
	Looser  uint64 `json:"looser"`  // that do not, and would
}

// A Trial is a program that judges a sender's frames beside the one in force,
// and decides nothing. What is compared are the two programs, whatever the mode
// and whatever an envelope says besides.
type Trial struct {
	slot    *slot
	program *rule.Program
	state   *rule.State
	now     func() int64
	over    chan struct{} // closed when another program was put in force, or by Stop
	once    sync.Once

	same, tighter, looser, untold atomic.Uint64

	// mu guards what follows. Nobody on the frame path waits for it.
	mu     sync.Mutex
	bucket bucket
	queue  chan Difference
	closed bool
	done   sync.WaitGroup
}

// Try has a program judge beside the one in force, until [Trial.Stop] or until
// another is put in force. It is verified as by [Table.Load]; its bytes are not
// kept. tell takes the differences, so many a second, one after the other.
func (t *Table) Try(s Sender, program []byte, tell func(Difference)) (*Trial, error) {
	p, err := rule.Decode(program)
	if err != nil {
		return nil, fmt.Errorf("try program of sender %d: %w", s, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	sl := t.slot(s)
	switch {
	case sl == nil:
		err = ErrUnknownSender
	case sl.trial.Load() != nil:
		err = ErrTrialExists
	case sl.force.Load().program == nil:
		err = ErrNoForce
	case sl.path != nil && (p.Remembers() || p.JudgesIngress()):
		err = ErrTrialPath
	}
	if err != nil {
		return nil, fmt.Errorf("try program of sender %d: %w", s, err)
	}
	tr := &Trial{
		slot: sl, program: p, state: p.Shadow(sl.force.Load().state), now: t.now, over: make(chan struct{}),
		bucket: newBucket(trialRate, trialBurst), queue: make(chan Difference, trialQueue),
	}
	tr.done.Go(func() { // ends with Stop
		for d := range tr.queue {
			tell(d)
		}
	})
	sl.trial.Store(tr)
	if err := sl.watchPath(); err != nil {
		tr.Stop()
		return nil, fmt.Errorf("try program of sender %d: %w", s, err)
	}
	return tr, nil
}

// end says that the trial judges no more. Table.mu is held, or the slot is its
// own.
func (sl *slot) endTrial() {
	if tr := sl.trial.Swap(nil); tr != nil {
		tr.once.Do(func() { close(tr.over) })
		_ = sl.watchPath() // at worst it tells of too much
	}
}

// Over is closed when the trial has ended, with or without Stop.
func (tr *Trial) Over() <-chan struct{} { return tr.over }

// Stop ends the trial and returns when all differences are told.
func (tr *Trial) Stop() TrialCounts {
	if tr.slot.trial.CompareAndSwap(tr, nil) {
		_ = tr.slot.watchPath()
	}
	tr.once.Do(func() { close(tr.over) })
	tr.mu.Lock()
	if !tr.closed {
		tr.closed = true
		close(tr.queue)
	}
	tr.mu.Unlock()
	tr.done.Wait()
	return TrialCounts{tr.same.Load(), tr.tighter.Load(), tr.looser.Load()}
}

// no allocation, no log below this line but for what differs

// judge runs the trial's program for a frame that the one in force has judged.
// passed says that the frame really goes on.
func (tr *Trial) judge(b []byte, k *frame.Key, now rule.Outcome, ingress, passed bool) {
	m := rule.Moment{State: tr.state, Ingress: ingress}
	if tr.state != nil {
		m.Now = tr.now()
	}
	then := tr.program.RunAt(k, &m)
	if passed {
		m.Passed(k)
	}
	switch {
	case now.Verdict.Passes() == then.Verdict.Passes():
		tr.same.Add(1)
		return
	case now.Verdict.Passes():
		tr.tighter.Add(1)
	default:
		tr.looser.Add(1)
	}
	tr.offer(b, now, then, ingress)
}

// offer tells of a difference, if there is room and nobody else is about it.
func (tr *Trial) offer(b []byte, now, then rule.Outcome, ingress bool) {
	if !tr.mu.TryLock() {
		tr.untold.Add(1)
		return
	}
	defer tr.mu.Unlock()
	at := time.Now()
	if tr.closed || !tr.bucket.allow(at) {
		tr.untold.Add(1)
		return
	}
	d := Difference{Time: at, Ingress: ingress, Now: now, Then: then, Frame: append([]byte(nil), b...), Suppressed: tr.untold.Load()}
	select {
	case tr.queue <- d:
		tr.untold.Add(-d.Suppressed)
	default:
		tr.untold.Add(1)
	}
}
