package nicshadow

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"sekimori/nicshadow/frame"
)

// Lengths of a frame beside its payload.
const (
	tagLen  = 4
	maxTags = 2 // the parser refuses more
)

// A port is one card: its goroutine reads frames, judges them and writes them
// to the ports they are for. run is that goroutine; stop ends it.
type port struct {
	sw    *Switch
	cfg   PortConfig
	limit int // longest frame in bytes
	// own counts for a trusted port, which the table does not know.
	own  *slot
	done sync.WaitGroup

	// The goroutine's own.
	judgement Judgement
	drops     *DropSource
	capture   *CaptureSource
}

func newPort(s *Switch, cfg PortConfig) *port {
	p := &port{sw: s, cfg: cfg, limit: headerLen + maxTags*tagLen + cfg.MTU}
	if cfg.Trusted {
		p.own = &slot{name: cfg.Name}
		p.own.force.Store(&force{})
	}
	if s.cfg.DropLog != nil {
		p.drops = s.cfg.DropLog.Source(cfg.Name)
	}
	if s.cfg.Capture != nil {
		p.capture = s.cfg.Capture.Source(cfg.Name)
	}
	return p
}

// stop closes the device, which ends run's Read, and waits for run.
func (p *port) stop() error {
	err := p.cfg.Device.Close()
	p.done.Wait()
	if err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close port %s: %w", p.cfg.Name, err)
	}
	return nil
}

// maxRetries bounds how often in a row reading is tried again when the kernel
// is short of memory.
const maxRetries = 100

// run moves the port's frames until its device is closed or gone. A container
// that may administer its own card can delete it: that ends its port, and
// costs nobody else anything.
func (p *port) run() {
	// One byte more than a frame may have: the kernel cuts a frame to the
	// buffer, and a frame cut to the limit would pass as one.
	buf := make([]byte, p.limit+1)
	for frames, retries := 0, 0; ; frames++ {
		// A flood is read without ever waiting. With three containers that
		// flood, a ping between two others took 8 ms on average, and 5.6 when
		// the goroutine makes room now and then.
		if frames%64 == 63 {
			runtime.Gosched()
		}
		n, err := p.cfg.Device.Read(buf)
		switch {
		case err == nil:
			retries = 0
			p.frame(buf[:n])
		case errors.Is(err, os.ErrClosed):
			return
		case retries < maxRetries && (errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.ENOBUFS)):
			retries++
			time.Sleep(time.Millisecond)
		default:
			p.sw.cfg.Log.Warn("port lost", "container", p.cfg.Name, "err", err)
			return
		}
	}
}

// no allocation, no lock, no log below this line

// frame judges one frame and moves it on. b is private and is what is sent.
func (p *port) frame(b []byte) {
	j := &p.judgement
	switch {
	case len(b) > p.limit:
		p.refuse(b, FromFrame(frame.TooLong))
	case p.cfg.Trusted:
		p.admit(b)
	case p.sw.cfg.Table.Judge(p.cfg.Sender, b, j):
		if j.Reason != Allowed { // audit
			p.tell(b)
		}
		p.forward(b)
	default:
		p.tell(b)
	}
}

// admit moves on a frame from outside, unless it claims to be a container's.
func (p *port) admit(b []byte) {
	p.own.bytes.Add(uint64(len(b)))
	if len(b) < headerLen {
		p.refuse(b, FromFrame(frame.Truncated))
		return
	}
	if owner := p.sw.ports.Load().byMAC[mac(b[6:])]; b[6]&1 != 0 || owner != nil && owner != p {
		p.refuse(b, IdentityMismatch)
		return
	}
	p.own.allowed.Add(1)
	p.forward(b)
}

// refuse drops a frame that no program judges.
func (p *port) refuse(b []byte, r Reason) {
	p.count(r)
	p.judgement.Sender = p.cfg.Sender
	p.judgement.refuse(r)
	p.tell(b)
}

// forward writes a frame to the port that owns its destination, or, if that is
// a group, to all others. Nothing is flooded because it is not known.
func (p *port) forward(b []byte) {
	set := p.sw.ports.Load()
	if b[0]&1 != 0 {
		for _, q := range set.all {
			if q != p {
				p.deliver(q, b)
			}
		}
		return
	}
	q := set.byMAC[mac(b)]
	if q == nil || q == p {
		p.count(UnknownDestination)
		p.judgement.Reason, p.judgement.Forward = UnknownDestination, false
		p.tell(b)
		return
	}
	p.deliver(q, b)
}

// deliver writes a frame to a port's device, which does not wait: a receiver
// that is slow or down holds up no sender.
func (p *port) deliver(q *port, b []byte) {
	to := q.slot()
	if to == nil || !q.cfg.Trusted && to.force.Load().program == nil {
		p.count(ReceiverClosed)
		return
	}
	if _, err := q.cfg.Device.Write(b); err != nil {
		p.count(deliveryReason(err))
		return
	}
	to.delivered.Add(1)
}

func deliveryReason(err error) Reason {
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ENOBUFS) {
		return ReceiverFull
	}
	return ReceiverDown
}

// slot is where the port's frames are counted; nil if the table has forgotten
// its sender.
func (p *port) slot() *slot {
	if p.cfg.Trusted {
		return p.own
	}
	return p.sw.cfg.Table.slot(p.cfg.Sender)
}

func (p *port) count(r Reason) {
	if sl := p.slot(); sl != nil {
		sl.dropped[r].Add(1)
	}
}

// tell offers a frame that did not go on, or would not have, to the drop log
// and the capture.
func (p *port) tell(b []byte) {
	if p.drops != nil {
		p.drops.Offer(b, &p.judgement)
	}
	if p.capture != nil {
		p.capture.Offer(b, &p.judgement)
	}
}

// mac is the address at the beginning of b as a number.
func mac(b []byte) uint64 {
	_ = b[5]
	return uint64(b[0])<<40 | uint64(b[1])<<32 | uint64(b[2])<<24 | uint64(b[3])<<16 | uint64(b[4])<<8 | uint64(b[5])
}
