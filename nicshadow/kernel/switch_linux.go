package kernel

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"sekimori/nicshadow"
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
	"sekimori/nicshadow/rule/ebpf"
	"sekimori/nicshadow/tap"
)

// reasons are the numbers that programs count under.
var reasons = ebpf.Reasons{
	Unjudged: uint8(nicshadow.Unjudged), Allowed: uint8(nicshadow.Allowed), Policy: uint8(nicshadow.Policy),
	NoProgram: uint8(nicshadow.NoProgram), IdentityMismatch: uint8(nicshadow.IdentityMismatch), BadOffload: uint8(nicshadow.BadOffloadHeader),
	UnknownDestination: uint8(nicshadow.UnknownDestination), ReceiverClosed: uint8(nicshadow.ReceiverClosed),
	ReceiverShort: uint8(nicshadow.ReceiverShort), ReceiverRefuses: uint8(nicshadow.ReceiverRefuses),
	Ingress: uint8(nicshadow.Ingress), Frame: uint8(nicshadow.FromFrame(0)),
}

// A Config configures a [Switch].
type Config struct {
	// Ports is the switch that the cards are ports of.
	Ports *nicshadow.Switch
	// Cards is how many there may be at once, the uplink included.
	Cards int
	// Log takes what goes wrong; nil discards it.
	Log *slog.Logger
}

// A Switch is the kernel's side of a [nicshadow.Switch].
type Switch struct {
	cfg    Config
	yard   *os.File
	fabric *ebpf.Fabric
	done   sync.WaitGroup

	// mu guards cards, by slot, and last.
	mu    sync.Mutex
	cards map[uint32]*card
	last  int // number of the last card's other end
}

// New makes a switch without cards. [Switch.Close] ends it, when the ports are
// closed.
func New(cfg Config) (*Switch, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	fabric, err := ebpf.NewFabric(cfg.Cards, reasons)
	if err != nil {
		return nil, err
	}
	yard, err := tap.NewNetNS()
	if err != nil {
		return nil, errors.Join(err, fabric.Close())
	}
	s := &Switch{cfg: cfg, yard: yard, fabric: fabric, cards: map[uint32]*card{}}
	s.done.Go(s.tell)
	return s, nil
}

// Close ends the goroutine that tells of frames, and lets go of the yard: the
// kernel destroys it in the background, with whatever is in it.
func (s *Switch) Close() error {
	err := s.fabric.Close()
	s.done.Wait()
	return errors.Join(err, s.yard.Close())
}

// A CardConfig says what a card is.
type CardConfig struct {
	// Name and Sender are the container's: see [nicshadow.PathConfig].
	Name   string
	Sender nicshadow.Sender
	// Trusted marks the uplink.
	Trusted bool
	// NetNS is where the card is to be; nil for the caller's namespace. It is
	// held on to, open, unless the card ends with it.
	NetNS *os.File
	// Card is what it is like there. With EndsWithNetNS its end is left to the
	// namespace; otherwise closing the port destroys it.
	Card tap.Config
	// Closed is called when the card is closed; nil for nothing.
	Closed func() error
}

// Lengths of a frame beside its payload: an Ethernet header and two tags, as
// many as the parser takes.
const maxHeader = 14 + 2*4

// AddCard makes a card, attaches its programs, and adds it to the ports. With
// Trusted, or a program in force for its sender, frames pass when it returns.
func (s *Switch) AddCard(cfg CardConfig) error {
	pair, err := tap.OpenPair(cfg.NetNS, s.yard, s.far(), cfg.Card)
	if err != nil {
		return err
	}
	c, err := s.open(pair, cfg)
	if err != nil {
		return errors.Join(err, pair.Remove())
	}
	if err := s.start(c); err != nil {
		return errors.Join(err, c.Close(), pair.Remove())
	}
	// Last: the card sends its first frame here.
	if err := pair.Up(); err != nil {
		return errors.Join(err, s.cfg.Ports.RemovePort(cfg.Name), pair.Remove())
	}
	return nil
}

// far is a name for the other end of the next card.
func (s *Switch) far() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	return fmt.Sprintf("c%d", s.last)
}

// open attaches programs to the other end, which let nothing pass, and sets it
// up.
func (s *Switch) open(pair *tap.Pair, cfg CardConfig) (*card, error) {
	mtu := cfg.Card.MTU
	if mtu == 0 {
		mtu = 1500
	}
	c := &card{sw: s, pair: pair, cfg: cfg}
	err := tap.In(s.yard, func() error {
		return tap.FarUp(pair.Far(), func(device int) (err error) {
			c.programs, err = s.fabric.Open(ebpf.CardConfig{Device: device, MAC: cfg.Card.MAC, Limit: maxHeader + mtu, Trusted: cfg.Trusted})
			return err
		})
	})
	if err != nil {
		if c.programs != nil {
			err = errors.Join(err, c.programs.Close())
		}
		return nil, err
	}
	return c, nil
}

// start makes the card a port, and has its events told.
func (s *Switch) start(c *card) (err error) {
	s.mu.Lock()
	s.cards[c.programs.Slot()] = c
	s.mu.Unlock()
	port, err := s.cfg.Ports.AddPathPort(nicshadow.PathConfig{Name: c.cfg.Name, Sender: c.cfg.Sender, MAC: c.cfg.Card.MAC, Trusted: c.cfg.Trusted, Path: c})
	if err != nil {
		return err
	}
	c.port.Store(port)
	return nil
}

// tell hands events to the ports, until the fabric is closed.
func (s *Switch) tell() {
	events, e, told := s.fabric.Events(), &ebpf.Event{}, map[uint32]*missed{}
	for {
		err := events.Read(e)
		switch {
		case err == nil:
			s.told(e, told)
		case errors.Is(err, os.ErrClosed):
			return
		case errors.Is(err, ebpf.ErrEvent): // a bug, but none that silences the others
			s.cfg.Log.Error("frame not told of", "err", err)
		default:
			s.cfg.Log.Error("frames are not told of", "err", err)
			return
		}
	}
}

// missed is how many events a card has left out, as it last said.
type missed struct {
	card             *card
	suppressed, lost uint32
}

var tellings = map[ebpf.Kind]nicshadow.Telling{
	ebpf.Judged: nicshadow.TellJudged, ebpf.Refused: nicshadow.TellRefused, ebpf.Told: nicshadow.TellRefused, ebpf.Arrived: nicshadow.TellArrived,
}

func (s *Switch) told(e *ebpf.Event, told map[uint32]*missed) {
	s.mu.Lock()
	from, judge := s.cards[e.Slot], s.cards[e.Card]
	s.mu.Unlock()
	if from == nil || judge == nil {
		return // closed meanwhile
	}
	port := from.port.Load()
	if port == nil {
		return
	}
	m := told[e.Card]
	if m == nil || m.card != judge {
		m = &missed{card: judge}
		told[e.Card] = m
	}
	port.Lost(uint64(e.Suppressed-m.suppressed), uint64(e.Lost-m.lost))
	m.suppressed, m.lost = e.Suppressed, e.Lost
	j := judge.judgement(e)
	port.Tell(tellings[e.Kind], judge.cfg.Name, e.Frame, &j)
}

// judgement is what an event of the card's programs says.
func (c *card) judgement(e *ebpf.Event) nicshadow.Judgement {
	j := nicshadow.Judgement{Key: e.Key, Sender: c.cfg.Sender, Reason: nicshadow.Reason(e.Reason), Forward: e.Forward}
	if e.Kind == ebpf.Refused {
		j.Key = frame.Key{}
		return j
	}
	p, audit, _ := c.programs.Program(e.Generation)
	j.Program, j.Audit = p, audit
	j.Outcome = rule.Outcome{Verdict: rule.Verdict(e.Outcome & 3), PC: e.Outcome >> 2}
	return j
}
