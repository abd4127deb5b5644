package rule

import (
	"sync"
	"sync/atomic"

	"sekimori/nicshadow/frame"
)

// A lease is the addresses that a DHCP server gave the container, by what was
// seen of their talk: a server's word counts only in answer to a transaction
// that the container began, for the MAC that it began it with, within a minute.
// It ends when its time is over, when the server takes it back (NAK) and when
// the client gives it back (RELEASE, DECLINE).
type lease struct {
	granted [2]atomic.Pointer[grant] // IPv4, IPv6

	mu      sync.Mutex // mu guards pending
	pending [2]transaction
}

// A grant is an address and when it ends, by the clock of a [Moment].
type grant struct {
	addr  Const
	until int64
}

// A transaction is a request that a server may answer.
type transaction struct {
	xid, mac uint64
	asked    int64 // 0: none
}

// maxAnswer is how long a server may take, in nanoseconds: clients give up
// after 64 s and begin again (RFC 2131, 4.1).
const maxAnswer = 64e9

// forever is the lease time of a lease without end (RFC 2131, 3.3).
const forever = 0xffffffff

// Message types.
const (
	dhcpDiscover, dhcpRequest, dhcpDecline, dhcpAck, dhcpNak, dhcpRelease = 1, 3, 4, 5, 6, 7

	dhcp6Solicit, dhcp6Request, dhcp6Renew, dhcp6Rebind = 1, 3, 5, 6
	dhcp6Reply, dhcp6Release, dhcp6Decline              = 7, 8, 9
)

// Lease is the address that a DHCP server gave the container last, by version
// 4 or 6; ok is false where there is none at the time now.
func (s *State) Lease(version int, now int64) (addr Const, ok bool) {
	if s == nil || s.lease == nil {
		return Const{}, false
	}
	g := s.lease.granted[b2i(version == 6)].Load()
	if g == nil || now >= g.until {
		return Const{}, false
	}
	return g.addr, true
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// no log below this line; allocation and lock for DHCP only

// holds reports whether v is a leased address.
func (l *lease) holds(v Const, now int64) bool {
	for i := range l.granted {
		if g := l.granted[i].Load(); g != nil && g.addr == v && now < g.until {
			return true
		}
	}
	return false
}

// note follows the talk of client and server.
func (l *lease) note(k *frame.Key, ingress bool, now int64) {
	version := 0
	switch k.Class() {
	case frame.ClassIPv4DHCP:
	case frame.ClassIPv6DHCP:
		version = 1
	default:
		return
	}
	t := transaction{k.Uint(frame.DHCPTransaction), k.Uint(frame.DHCPClientMAC), now}
	op := k.Uint(frame.DHCPOp)
	switch {
	case k.Uint(frame.DHCPRelayed) != 0 && version == 1:
	case !ingress && op == 1:
		l.request(version, k.Uint(frame.DHCPType), t)
	case ingress && op == 2:
		l.answer(version, k, t)
	}
}

// request notes what the client asks for, or gives back.
func (l *lease) request(version int, typ uint64, t transaction) {
	asks, ends := typ == dhcpDiscover || typ == dhcpRequest, typ == dhcpDecline || typ == dhcpRelease
	if version == 1 {
		asks = typ == dhcp6Solicit || typ == dhcp6Request || typ == dhcp6Renew || typ == dhcp6Rebind
		ends = typ == dhcp6Release || typ == dhcp6Decline
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case asks:
		l.pending[version] = t
	case ends:
		l.granted[version].Store(nil)
	}
}

// answer takes what the server gives, or takes back.
func (l *lease) answer(version int, k *frame.Key, t transaction) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := &l.pending[version]
	if p.asked == 0 || t.asked-p.asked > maxAnswer || t.xid != p.xid || t.mac != p.mac {
		return
	}
	addr, typ := read(k, frame.DHCPRequested4), k.Uint(frame.DHCPType)
	gives, group := typ == dhcpAck, addr.Lo>>28 == 0xe || addr.Lo>>28 == 0xf
	if version == 1 {
		addr = read(k, frame.DHCPRequested6)
		gives, group = typ == dhcp6Reply, addr.Hi>>56 == 0xff
	}
	seconds := k.Uint(frame.DHCPLeaseTime)
	switch {
	case version == 0 && typ == dhcpNak:
		l.granted[0].Store(nil)
		p.asked = 0
	case !gives || group || addr == Const{} || seconds == 0:
		// An answer to INFORM gives no address; a reply with a lifetime of 0
		// takes one back (RFC 8415, 18.2.10.1).
		if g := l.granted[version].Load(); gives && version == 1 && g != nil && g.addr == addr {
			l.granted[version].Store(nil)
		}
	default:
		g := &grant{addr, t.asked + int64(seconds)*1e9}
		if seconds == forever {
			g.until = 1<<63 - 1
		}
		l.granted[version].Store(g)
		p.asked = 0
	}
}
