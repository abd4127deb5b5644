package nicshadow

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sekimori/nicshadow/frame"
)

// Lengths of a frame beside its payload.
const (
	tagLen  = 4
	maxTags = 2 // the parser refuses more
)

// A port is what frames come through and go to. Those of a card that is read
// come from run, its goroutine; those of a guest are pushed, and pass the gate.
type port struct {
	sw      *Switch
	name    string
	device  io.WriteCloser
	reader  io.Reader // nil where frames are pushed
	limit   int       // longest frame in bytes
	trusted bool
	reflect bool

	// self is the port's own station, and own counts for it where it is not a
	// sender's.
	self *station
	own  *slot
	// members are a shared port's stations by Sender, never changed: changes
	// store a new slice. nil at other ports.
	members *atomic.Pointer[[]*station]
	// path moves the frames of a port that this process does not; nil at others.
	path Path

	done sync.WaitGroup
	gate gate

	// For whoever moves the port's frames: run, or the one inside the gate.
	judgement Judgement
	// inbound is that of the receiver of the frame at hand.
	inbound Judgement
}

// newPort returns a port whose frames are those of sender s, 0 for none.
func newPort(sw *Switch, name string, s Sender, mac frame.MAC, mtu int, envelope *tally, device io.WriteCloser) *port {
	p := &port{sw: sw, name: name, device: device, limit: headerLen + maxTags*tagLen + mtu, gate: newGate()}
	if s == 0 {
		p.own = &slot{name: name}
		p.own.force.Store(&force{})
	}
	p.self = p.newStation(name, s, mac.Uint64(), envelope)
	return p
}

// stations are those with an address.
func (p *port) stations() []*station {
	if p.members == nil {
		return []*station{p.self}
	}
	var all []*station
	for _, st := range *p.members.Load() {
		if st != nil {
			all = append(all, st)
		}
	}
	return all
}

// stop closes the device, which ends run's Read, and waits for run and for
// whoever is inside the gate.
func (p *port) stop() error {
	p.gate.shut()
	err := p.device.Close()
	p.done.Wait()
	for _, st := range p.stations() {
		st.unbind()
	}
	p.letGo()
	if err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close port %s: %w", p.name, err)
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
		n, err := p.reader.Read(buf)
		switch {
		case err == nil:
			retries = 0
			p.frame(p.self, buf[:n])
		case errors.Is(err, os.ErrClosed):
			return
		case retries < maxRetries && (errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.ENOBUFS)):
			retries++
			time.Sleep(time.Millisecond)
		default:
			p.sw.cfg.Log.Warn("port lost", "container", p.name, "err", err)
			return
		}
	}
}

// no allocation, no lock, no log below this line

// frame judges one frame of a station and moves it on. b is private and is
// what is sent.
func (p *port) frame(from *station, b []byte) {
	j := &p.judgement
	switch {
	case len(b) > p.limit:
		from.refuse(b, FromFrame(frame.TooLong))
	case p.trusted:
		p.admit(b)
	case p.sw.cfg.Table.judge(from.sender, from.envelope, b, j):
		from.keep(b, j)
		from.watch(b, j)
		if j.Reason != Allowed { // audit
			from.tell(b)
		}
		p.forward(from, b)
	default:
		from.keep(b, j)
		from.watch(b, j)
		from.tell(b)
	}
}

// keep records a frame that was judged.
func (st *station) keep(b []byte, j *Judgement) {
	if st.record != nil && j.Program != nil {
		st.record.offer(st.name, b, j, false)
	}
}

// admit moves on a frame from outside, unless it claims to be a container's.
func (p *port) admit(b []byte) {
	p.own.bytes.Add(uint64(len(b)))
	p.judgement.Key.Words[frame.ClassWord] = 0 // parsed when a receiver asks
	if len(b) < headerLen {
		p.self.refuse(b, FromFrame(frame.Truncated))
		return
	}
	if owner := p.sw.ports.Load().byMAC[mac(b[6:])]; b[6]&1 != 0 || owner != nil && owner != p.self {
		p.self.refuse(b, IdentityMismatch)
		return
	}
	p.own.allowed.Add(1)
	p.forward(p.self, b)
}

// forward writes a frame to the station that owns its destination, or, if that
// is a group, to all others. Nothing is flooded because it is not known.
func (p *port) forward(from *station, b []byte) {
	set := p.sw.ports.Load()
	if b[0]&1 != 0 {
		for _, q := range set.all {
			switch {
			case q == p && !p.reflect:
			case q.members != nil:
				from.deliverMembers(q, b)
			case q != p:
				from.deliver(q.self, b)
			}
		}
		return
	}
	to := set.byMAC[mac(b)]
	if to == nil || to == from || to.port == p && !p.reflect {
		from.count(UnknownDestination)
		p.judgement.Reason, p.judgement.Forward = UnknownDestination, false
		from.tell(b)
		return
	}
	from.deliver(to, b)
}

// deliver writes a frame to a station's device, which does not wait: a
// receiver that is slow or down holds up no sender.
func (st *station) deliver(to *station, b []byte) {
	sl := to.open()
	if sl == nil {
		st.count(ReceiverClosed)
		return
	}
	if !st.deliverable(to, sl, b) {
		return
	}
	if _, err := to.port.device.Write(b); err != nil {
		st.count(deliveryReason(err))
		return
	}
	sl.delivered.Add(1)
}

func deliveryReason(err error) Reason {
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ENOBUFS) {
		return ReceiverFull
	}
	return ReceiverDown
}

// mac is the address at the beginning of b as a number.
func mac(b []byte) uint64 {
	_ = b[5]
	return uint64(b[0])<<40 | uint64(b[1])<<32 | uint64(b[2])<<24 | uint64(b[3])<<16 | uint64(b[4])<<8 | uint64(b[5])
}
