package nicshadow

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync/atomic"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

// A SharedConfig configures a port through which several containers of a
// guest send.
type SharedConfig struct {
	// Name is what the port is called: frames that nobody can be named for are
	// told under it.
	Name string
	// MTU and Device are as in [PushConfig].
	MTU    int
	Device io.WriteCloser
	// Reflect sends a frame from one member to another back into the guest:
	// for links there that forward nothing among themselves (macvlan in VEPA
	// mode), so that such a frame is judged too.
	Reflect bool
}

// A Member is a container that sends through a shared port.
type Member struct {
	Name   string
	Sender Sender
	// MAC and Addrs are assigned by the host. What the guest's kernel sends of
	// its own accord is this container's where it carries exactly these; with
	// any IPv6 address comes the link-local one of the MAC. Without any, nothing
	// is: so it must be where a container of the guest may administer its own
	// network (CAP_NET_ADMIN), and have the kernel speak for another.
	MAC   frame.MAC
	Addrs []netip.Addr
	// Envelope is as in [PushConfig], for the frames of this container. A
	// guest's kernel that lies about who sent a frame gets the envelope of who
	// it named: all its members' together is what it can reach.
	Envelope *rule.Program
	Watched  bool // as in [PushConfig]
}

// An Origin is who sent a frame through a shared port, as introspection found
// it. The zero Origin is nobody: the frame drops as "unattributed".
type Origin struct {
	// Sender is whom the frame was traced to.
	Sender Sender
	// Kernel says that the frame belongs to no socket: the guest's kernel
	// sends it of its own accord (an ARP answer, a neighbour solicitation).
	// Sender does not count then.
	Kernel bool
	// Cause says why nobody was found. It is told with the drop.
	Cause string
}

// ErrMemberExists says that a sender is attached to a shared port.
var ErrMemberExists = errors.New("member exists")

// A SharedPort is a port with several senders. Who sent a frame comes with it;
// the port is proof of nothing.
type SharedPort struct{ port *port }

// AddSharedPort adds a shared port without members. The device is the
// switch's from then on, and closed by it; on an error it is still the
// caller's.
func (s *Switch) AddSharedPort(cfg SharedConfig) (*SharedPort, error) {
	mtu, err := payload(cfg.MTU)
	if err != nil {
		return nil, fmt.Errorf("add port %s: %w", cfg.Name, err)
	}
	p := newPort(s, cfg.Name, 0, frame.MAC{}, mtu, nil, cfg.Device)
	p.reflect, p.members = cfg.Reflect, new(atomic.Pointer[[]*station])
	p.members.Store(new([]*station))
	if err := s.add(p); err != nil {
		return nil, err
	}
	return &SharedPort{p}, nil
}

// Attach makes a container a member: its address leads to the port, and its
// frames may come from there.
func (p *SharedPort) Attach(m Member) error {
	err := unicast(m.MAC)
	switch {
	case err != nil:
	case m.Sender == 0 || m.Sender > MaxSenders:
		err = ErrSenderRange
	case m.Envelope == nil:
		err = ErrNoEnvelope
	default:
		st := p.port.newStation(m.Name, m.Sender, m.MAC.Uint64(), newEnvelope(m.Envelope, m.Watched))
		st.addrs = newAddrSet(m.MAC, m.Addrs)
		err = p.port.attach(st)
	}
	if err != nil {
		return fmt.Errorf("attach %s to port %s: %w", m.Name, p.port.name, err)
	}
	return nil
}

func (p *port) attach(st *station) error {
	p.sw.mu.Lock()
	defer p.sw.mu.Unlock()
	set, members := p.sw.ports.Load(), *p.members.Load()
	switch {
	case !slices.Contains(set.all, p):
		return ErrNoPort
	case set.byMAC[st.mac] != nil:
		return ErrMACInUse
	case member(members, st.sender) != nil:
		return ErrMemberExists
	}
	p.putMember(st.sender, st)
	st.bind()
	return nil
}

// Detach ends [SharedPort.Attach]. A frame that is being judged may still be
// the container's.
func (p *SharedPort) Detach(s Sender) error {
	p.port.sw.mu.Lock()
	defer p.port.sw.mu.Unlock()
	st := member(*p.port.members.Load(), s)
	if st == nil || !slices.Contains(p.port.sw.ports.Load().all, p.port) {
		return fmt.Errorf("detach sender %d from port %s: %w", s, p.port.name, ErrUnknownSender)
	}
	p.port.putMember(s, nil)
	st.unbind()
	return nil
}

// putMember stores a new slice of members with st at s, and a forwarding table
// that knows it. Switch.mu is held.
func (p *port) putMember(s Sender, st *station) {
	old := *p.members.Load()
	members := make([]*station, max(len(old), int(s)+1))
	copy(members, old)
	members[s] = st
	p.members.Store(&members)
	p.sw.ports.Store(newPortSet(p.sw.ports.Load().all))
}

// Stats returns the counters of the frames that nobody can be named for; those
// of the members are [Table.Stats] of their senders.
func (p *SharedPort) Stats() Stats { return p.port.own.stats() }

// no allocation, no lock, no log below this line

// Send judges a frame as its origin's and moves it on, as [PushPort.Send].
func (p *SharedPort) Send(b []byte, from Origin) {
	if !p.port.enter() {
		return
	}
	p.port.shared(b, from)
	p.port.gate.leave()
}

// shared finds the station of a frame.
func (p *port) shared(b []byte, from Origin) {
	var st, owner *station
	if len(b) >= headerLen {
		owner = p.sw.ports.Load().byMAC[mac(b[6:])]
	}
	if from.Kernel {
		if owner == nil || owner.port != p || !owner.speaks(b, &p.judgement.Key) {
			p.unattributed(b, "the kernel's own, and no member's addresses")
			return
		}
		st = owner
	} else if st = member(*p.members.Load(), from.Sender); st == nil {
		p.unattributed(b, from.Cause)
		return
	}
	// A source address that is another's is no mistake: the container, or the
	// kernel below it, wrote it there.
	if owner != nil && owner != st {
		st.refuse(b, IdentityMismatch)
		return
	}
	p.frame(st, b)
}

func (p *port) unattributed(b []byte, cause string) {
	p.sw.cfg.Table.unattributed.Add(1)
	p.own.bytes.Add(uint64(len(b)))
	p.own.dropped[Unattributed].Add(1)
	p.judgement.Sender = 0
	p.judgement.refuse(Unattributed)
	p.judgement.Cause = cause
	p.self.tell(b)
}

// member is the station of a sender, nil for none.
func member(members []*station, s Sender) *station {
	if uint64(s) < uint64(len(members)) {
		return members[s]
	}
	return nil
}

// deliverMembers writes a frame to a group once for all members of q: the
// guest tells them apart.
func (st *station) deliverMembers(q *port, b []byte) {
	members := *q.members.Load()
	open, passes := false, true
	for _, to := range members {
		if to == nil || to == st {
			continue
		}
		if sl := to.open(); sl != nil {
			// The guest hands it to all of them: one that refuses it does so
			// for all.
			open, passes = true, st.deliverable(to, sl, b) && passes
		}
	}
	if open && !passes {
		return
	}
	if !open {
		st.count(ReceiverClosed)
		return
	}
	if _, err := q.device.Write(b); err != nil {
		st.count(deliveryReason(err))
		return
	}
	for _, to := range members {
		if to != nil && to != st {
			if sl := to.open(); sl != nil {
				sl.delivered.Add(1)
			}
		}
	}
}
