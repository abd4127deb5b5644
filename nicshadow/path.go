package nicshadow

import (
	"errors"
	"fmt"
	"io"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

// A Path judges and moves the frames of one port elsewhere than in this
// process: in the kernel. The table is still what says which program is in
// force: it hands each over before it is.
type Path interface {
	// Enforce puts a program and its mode in force, in one step; nil lets
	// nothing pass. On an error the one before stays. The program comes with
	// what the one before remembers.
	Enforce(p *rule.Program, m Mode) error
	// Read adds up what was counted since it was last called. It is called once
	// more behind Close.
	Read(c *Counts) error
	// Watch sets which frames are told of ([PathPort.Tell]).
	Watch(w Watch) error
	// Close ends the path: nothing passes any more.
	io.Closer
}

// Counts are what a [Path] counted.
type Counts struct {
	Bytes, Allowed, Delivered uint64
	Dropped, Would            [256]uint64 // by Reason
	Hits                      []Hits
}

// Hits are how many frames each instruction of a program decided, in a mode.
type Hits struct {
	Program *rule.Program
	Mode    Mode
	Count   []uint64
}

// A Watch says which frames a [Path] tells of.
type Watch struct {
	All         bool // every frame that is judged, as fast as they come
	Rate, Burst int  // of those that drop, or would: a second, and at once
}

// A PathConfig configures a port whose frames take a [Path].
type PathConfig struct {
	// Name, Sender, MAC and Trusted are those of a [PortConfig].
	Name    string
	Sender  Sender
	MAC     frame.MAC
	Trusted bool
	// Path is the switch's from then on, and closed by it; on an error it is
	// still the caller's.
	Path Path
}

// A PathPort is a port whose frames take a [Path].
type PathPort struct{ port *port }

// AddPathPort adds a port whose frames never come here: what becomes of them is
// told ([PathPort.Tell]), and counted. Such a port and others do not reach each
// other: a switch has the one kind or the other.
func (s *Switch) AddPathPort(cfg PathConfig) (*PathPort, error) {
	if cfg.Trusted != (cfg.Sender == 0) {
		return nil, fmt.Errorf("add port %s: a port is either trusted or has a sender", cfg.Name)
	}
	if err := unicast(cfg.MAC); err != nil {
		return nil, fmt.Errorf("add port %s: %w", cfg.Name, err)
	}
	p := newPort(s, cfg.Name, cfg.Sender, cfg.MAC, 0, nil, pathDevice{cfg.Path})
	p.path, p.trusted = cfg.Path, cfg.Trusted
	if err := p.takePath(); err != nil {
		return nil, fmt.Errorf("add port %s: %w", cfg.Name, err)
	}
	if err := s.add(p); err != nil {
		p.letGo()
		return nil, err
	}
	return &PathPort{p}, nil
}

// pathDevice is a port's device where there is none to write to.
type pathDevice struct{ Path }

// errNoDevice says that a frame came to a port that takes none from here.
var errNoDevice = errors.New("the port is served elsewhere")

func (pathDevice) Write([]byte) (int, error) { return 0, errNoDevice }

// takePath makes the path the judge of the port's sender, with the program in
// force.
func (p *port) takePath() error {
	if err := p.watchPath(); err != nil {
		return err
	}
	t := p.sw.cfg.Table
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.trusted {
		p.own.path = p.path
		return nil
	}
	sl := t.slot(p.self.sender)
	if sl == nil {
		return ErrUnknownSender
	}
	if now := sl.force.Load(); now.program != nil {
		if err := p.path.Enforce(now.program, now.mode); err != nil {
			return err
		}
	}
	sl.path = p.path
	sl.watch.Store(p)
	return nil
}

// letGo ends takePath; what was counted stays.
func (p *port) letGo() {
	if p.path == nil {
		return
	}
	t := p.sw.cfg.Table
	t.mu.Lock()
	defer t.mu.Unlock()
	if sl := p.self.slot(); sl != nil && sl.path == p.path {
		sl.pull()
		sl.path = nil
		sl.watch.Store(nil)
	}
}

// pull adds what the path counted. Table.mu is held.
func (sl *slot) pull() {
	if sl.path == nil {
		return
	}
	var c Counts
	if err := sl.path.Read(&c); err != nil {
		return // nothing is counted twice, and the next time may be better
	}
	sl.bytes.Add(c.Bytes)
	sl.allowed.Add(c.Allowed)
	sl.delivered.Add(c.Delivered)
	for r := range c.Dropped {
		sl.dropped[r].Add(c.Dropped[r])
		sl.would[r].Add(c.Would[r])
	}
	for _, h := range c.Hits {
		sl.tallied(h)
	}
}

// tallied adds hits to the tally of their program, or, where that is no more,
// to its source lines.
func (sl *slot) tallied(h Hits) {
	for _, t := range sl.tallies {
		if t.mode == h.Mode && t.program.Hash() == h.Program.Hash() {
			for pc, n := range h.Count {
				t.hits[pc].Add(n)
			}
			return
		}
	}
	t := &tally{program: h.Program, mode: h.Mode, hits: newHits(h.Count)}
	sl.fold(t)
}

// watching is what paths are to tell of.
func (s *Switch) watching() Watch {
	w := Watch{Rate: 1, Burst: 1}
	if l := s.cfg.DropLog; l != nil {
		// Twice the log's own limit: it is the log that leaves out, and counts.
		w.Rate, w.Burst = 2*l.cfg.Rate, 2*l.cfg.Burst
	}
	live := s.live.Load()
	if s.cfg.Capture != nil || live != nil {
		w.Rate, w.Burst = max(w.Rate, DefaultCaptureRate), max(w.Burst, DefaultCaptureRate)
	}
	w.All = s.cfg.Record != nil || live != nil && !live.Drops
	return w
}

// watchPath tells the port's path what to tell of: a trial wants every frame.
func (p *port) watchPath() error {
	w := p.sw.watching()
	if sl := p.self.slot(); sl != nil && sl.trial.Load() != nil {
		w.All = true
	}
	return p.path.Watch(w)
}

// watchPath is that of the slot's port, if its frames take a path.
func (sl *slot) watchPath() error {
	if p := sl.watch.Load(); p != nil {
		return p.watchPath()
	}
	return nil
}

// watchPaths tells the paths what to tell of.
func (s *Switch) watchPaths() error {
	var errs []error
	for _, p := range s.ports.Load().all {
		if p.path != nil {
			errs = append(errs, p.watchPath())
		}
	}
	return errors.Join(errs...)
}

// A Telling is what a [Path] tells of a frame.
type Telling uint8

// The tellings.
const (
	TellJudged  Telling = iota // the sender's program judged it
	TellRefused                // it dropped, judged or not
	TellArrived                // the receiver's program judged it
)

// Tell takes what became of a frame that the port's container sent. to is the
// receiver whose program judged it, for TellArrived. The calls of one port come
// one after the other; neither b nor j is kept.
func (p *PathPort) Tell(what Telling, to string, b []byte, j *Judgement) {
	st := p.port.self
	p.port.judgement = *j
	switch what {
	case TellJudged:
		st.keep(b, j)
		st.watch(b, j)
		if sl := st.slot(); sl != nil && j.Key.Class() != frame.ClassNone && j.Program != nil {
			if tr := sl.trial.Load(); tr != nil {
				tr.judge(b, &j.Key, j.Outcome, false, j.Forward)
			}
		}
		if j.Reason != Allowed {
			st.tell(b)
		}
	case TellRefused:
		st.tell(b)
	case TellArrived:
		if st.record != nil && j.Program != nil {
			st.record.offer(to, b, j, true)
		}
		if j.Reason != Allowed && st.drops != nil {
			st.drops.offer(to, b, &j.Key, j)
		}
	}
}

// Lost takes how many frames the path did not tell of: what its limit left out,
// and for which there was no room.
func (p *PathPort) Lost(suppressed, lost uint64) {
	st := p.port.self
	if st.drops != nil {
		st.drops.suppressed.Add(suppressed)
	}
	for _, c := range []*Capture{p.port.sw.cfg.Capture, p.port.sw.cfg.Record} {
		if c != nil {
			c.missed.Add(lost)
		}
	}
	if l := p.port.sw.live.Load(); l != nil {
		l.Capture.missed.Add(lost)
	}
}
