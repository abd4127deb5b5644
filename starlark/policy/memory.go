package policy

import (
	"net/netip"

	"sekimori/nicshadow/frame"
)

type key = *frame.Key

// A Memory is what the oracle remembers from frame to frame, and the moment of
// the next one. It is what a rule.State is to a program, written the plain
// way and without bounds. The zero Memory remembers nothing.
type Memory struct {
	// Now is in nanoseconds, above 0.
	Now int64
	// Ingress says that the frame is on its way to the container.
	Ingress bool

	full    map[limitKey]int64 // when the bucket will be full again
	seen    map[sighting]int64
	pending [2]begun // of DHCP, and of DHCPv6
	granted [2]held
}

// A sighting is a frame that an answer may follow, turned so that the answer
// has the same: of a flow what the container calls its own side comes first,
// of a request who asks.
type sighting struct {
	kind       string
	from, to   netip.Addr
	port, peer uint64
	ingress    bool
}

type begun struct{ xid, mac, at int64 }

type held struct {
	addr  u128
	until int64
}

// take takes a token of a bucket that refills evenly.
func (m *Memory) take(k limitKey) bool {
	if m.full == nil {
		m.full = make(map[limitKey]int64)
	}
	full := max(m.full[k], m.Now)
	period := int64(k.rate.Period)
	if full-m.Now > period*int64(k.rate.Burst-1) {
		return false
	}
	m.full[k] = full + period
	return true
}

// sight is what a frame is of; ask and answer say what it can be to another.
func (m *Memory) sight(k key) (s sighting, ttl int64, ask, answer bool) {
	addr := func(f frame.Field) netip.Addr { return addrOf(keyField(k, f), f.Width() == 32) }
	s.ingress = m.Ingress
	c := k.Class()
	if c == frame.ClassARP {
		s.kind, s.from, s.to = "arp", addr(frame.ARPSenderIP), addr(frame.ARPTargetIP)
		if ask = k.Uint(frame.ARPOp) == 1; !ask {
			s.from, s.to = s.to, s.from
		}
		return s, 3e9, ask, !ask
	}
	if c == frame.ClassIPv6NDP {
		unspecified := netip.IPv6Unspecified()
		switch k.Uint(frame.ICMPType) {
		case typeRS:
			return sighting{kind: "router", ingress: m.Ingress}, 10e9, true, false
		case typeRA:
			return sighting{kind: "router", ingress: m.Ingress}, 10e9, false, true
		case typeNS:
			s.kind, s.from, s.to = "neighbor", addr(frame.IPv6Src), addr(frame.NDPTarget)
			return s, 3e9, true, false
		case typeNA:
			s.kind, s.from, s.to = "neighbor", addr(frame.IPv6Dst), addr(frame.NDPTarget)
			if s.from.IsMulticast() {
				s.from = unspecified
			}
			return s, 3e9, false, true
		}
		return s, 0, false, false
	}
	switch family(c) {
	case family4:
		s.from, s.to = addr(frame.IPv4Src), addr(frame.IPv4Dst)
	case family6:
		s.from, s.to = addr(frame.IPv6Src), addr(frame.IPv6Dst)
	}
	switch {
	case c.Has(frame.TCPSyn):
		s.kind, ttl, ask, answer = "tcp", 7200e9, true, true
	case c.Has(frame.SrcPort):
		s.kind, ttl, ask, answer = "udp", 180e9, true, true
	case c.Has(frame.ICMPType):
		typ := k.Uint(frame.ICMPType)
		request, reply := uint64(8), uint64(0)
		if family(c) == family6 {
			request, reply = 128, 129
		}
		if typ != request && typ != reply {
			return s, 0, false, false
		}
		s.kind, ttl, ask, answer = "echo", 30e9, typ == request, typ == reply
	default:
		return s, 0, false, false
	}
	s.port, s.peer = k.Uint(frame.SrcPort), k.Uint(frame.DstPort)
	if m.Ingress {
		s.from, s.to, s.port, s.peer = s.to, s.from, s.peer, s.port
	}
	return s, ttl, ask, answer
}

// before reports whether the other side sent what s answers.
func (m *Memory) before(s sighting, ttl int64) bool {
	s.ingress = !s.ingress
	at, ok := m.seen[s]
	return ok && m.Now-at < ttl
}

func (m *Memory) established(k key) bool {
	s, ttl, _, answer := m.sight(k)
	return answer && (s.kind == "tcp" || s.kind == "udp" || s.kind == "echo") && m.before(s, ttl)
}

func (m *Memory) answered(k key) bool {
	s, ttl, _, answer := m.sight(k)
	return answer && (s.kind == "arp" || s.kind == "router" || s.kind == "neighbor") && m.before(s, ttl)
}

// Passed notes a frame that goes on.
func (m *Memory) Passed(k key) {
	if s, ttl, ask, _ := m.sight(k); ttl > 0 && ask {
		if m.seen == nil {
			m.seen = make(map[sighting]int64)
		}
		m.seen[s] = m.Now
	}
	m.dhcp(k)
}

// leased reports whether v is the address that a server gave.
func (m *Memory) leased(six bool, v u128) bool {
	h := m.granted[b2i(six)]
	return h.until > m.Now && h.addr == v
}

// dhcp follows the talk of client and server.
func (m *Memory) dhcp(k key) {
	c, i, about := k.Class(), 0, frame.DHCPRequested4
	switch c {
	case frame.ClassIPv4DHCP:
	case frame.ClassIPv6DHCP:
		i, about = 1, frame.DHCPRequested6
		if k.Uint(frame.DHCPRelayed) != 0 {
			return
		}
	default:
		return
	}
	names := [2]map[uint64]string{
		{1: "ask", 3: "ask", 4: "end", 5: "give", 6: "take", 7: "end"},
		{1: "ask", 3: "ask", 5: "ask", 6: "ask", 7: "give", 8: "end", 9: "end"},
	}
	t := begun{int64(k.Uint(frame.DHCPTransaction)), int64(k.Uint(frame.DHCPClientMAC)), m.Now}
	what := names[i][k.Uint(frame.DHCPType)]
	if !m.Ingress && k.Uint(frame.DHCPOp) == 1 {
		switch what {
		case "ask":
			m.pending[i] = t
		case "end":
			m.granted[i] = held{}
		}
		return
	}
	b := &m.pending[i]
	if !m.Ingress || k.Uint(frame.DHCPOp) != 2 || b.at == 0 || b.xid != t.xid || b.mac != t.mac || m.Now-b.at > 64e9 {
		return
	}
	addr, seconds := keyField(k, about), int64(k.Uint(frame.DHCPLeaseTime))
	a := addrOf(addr, i == 0)
	group := a.IsMulticast() || a.Is4() && a.As4()[0] >= 240
	switch {
	case what == "take":
		m.granted[i], b.at = held{}, 0
	case what != "give":
	case addr == u128{} || group || seconds == 0:
		if i == 1 && m.granted[i].addr == addr {
			m.granted[i] = held{}
		}
	default:
		m.granted[i], b.at = held{addr, m.Now + seconds*1e9}, 0
		if seconds == 1<<32-1 {
			m.granted[i].until = 1<<63 - 1
		}
	}
}
