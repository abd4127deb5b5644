package lint

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
	"sekimori/nicshadow/witness"
	"sekimori/starlark"
)

// A resolver is how one IP version finds who has an address on the link.
type resolver struct {
	classes   []frame.Class // of packets
	dst       frame.Field
	class     frame.Class // of its requests
	target    frame.Field
	only      map[frame.Field]witness.Set // what makes it a request
	name      string                      // of the predicate
	ip        string
	multicast netip.Prefix
}

var resolvers = []resolver{
	{
		classes: []frame.Class{frame.ClassIPv4TCP, frame.ClassIPv4UDP, frame.ClassIPv4ICMP, frame.ClassIPv4Other},
		dst:     frame.IPv4Dst, class: frame.ClassARP, target: frame.ARPTargetIP,
		only: map[frame.Field]witness.Set{frame.ARPOp: witness.Point(rule.Const{Lo: 1})},
		name: "allow_arp", ip: "IPv4", multicast: netip.MustParsePrefix("224.0.0.0/3"),
	},
	{
		classes: []frame.Class{frame.ClassIPv6TCP, frame.ClassIPv6UDP, frame.ClassIPv6ICMP, frame.ClassIPv6Other},
		dst:     frame.IPv6Dst, class: frame.ClassIPv6NDP, target: frame.NDPTarget,
		only: map[frame.Field]witness.Set{frame.ICMPType: witness.Point(rule.Const{Lo: 135})},
		name: "allow_ndp", ip: "IPv6", multicast: netip.MustParsePrefix("ff00::/8"),
	},
}

// reaches compares, for each container with a card, where its packets may go
// with whom it may ask for by ARP or neighbour discovery.
func reaches(ctx context.Context, p *starlark.Pod) []Finding {
	var out []Finding
	for _, c := range p.Containers {
		if c.Program == nil || ctx.Err() != nil {
			continue
		}
		for i := range resolvers {
			if f := resolvers[i].look(p, c); f != nil {
				f.File, f.Line, f.Col = c.Policy.Pos().Filename(), int(c.Policy.Pos().Line), int(c.Policy.Pos().Col)
				if !isStd(f.File) {
					out = append(out, *f)
				}
			}
		}
	}
	return out
}

// look says what is odd about one container and one IP version; nil for
// nothing, and where the search was not whole.
func (r *resolver) look(p *starlark.Pod, c *starlark.Container) *Finding {
	link, others := r.link(p, c)
	if link.Empty() {
		return nil
	}
	var packets witness.Set
	for _, class := range r.classes {
		s, whole := witness.Forwarded(c.Program, class, r.dst, nil, witness.Limits{})
		if !whole {
			return nil
		}
		packets = packets.Or(s)
	}
	asked, whole := witness.Forwarded(c.Program, r.class, r.target, r.only, witness.Limits{})
	if !whole || packets.Empty() {
		return nil
	}
	near, asked := packets.And(link), asked.And(link)
	if asked.Empty() {
		return &Finding{
			Rule: "unresolvable", Hint: "add " + r.name + " = True, or what it is to resolve",
			Message: fmt.Sprintf("container %q may send %s, but not the requests of %s without which it finds nobody", c.Spec.Name, r.ip, r.name),
		}
	}
	// Who lets packets go to the whole subnet leaves it to ARP to say whom they
	// reach; who lists addresses for both means the same ones.
	if s := near.Without(asked); !s.Empty() && !link.Without(near).Empty() {
		return &Finding{
			Rule: "narrow-resolution", Hint: "let " + r.name + " ask for whom packets may go to",
			Message: fmt.Sprintf("container %q may send %s to %s, but not ask for it: %s is narrower", c.Spec.Name, r.ip, r.text(s), r.name),
		}
	}
	if far := packets.Without(link.Or(others)).Without(r.group()); !far.Empty() {
		for _, g := range c.Spec.NIC.Gateways {
			if g.BitLen() == r.dst.Width() && !asked.Contains(constOf(g)) {
				return &Finding{
					Rule: "unresolvable", Hint: "let " + r.name + " ask for the gateway",
					Message: fmt.Sprintf("container %q may send %s beyond its subnet, but not ask for its gateway %s", c.Spec.Name, r.ip, g),
				}
			}
		}
	}
	// A gateway is asked for, and no packet's destination.
	if s := asked.Without(near.Or(others)); !s.Empty() {
		return &Finding{
			Rule: "wide-resolution", Hint: "let " + r.name + " ask for whom packets may go to, and for the gateway",
			Message: fmt.Sprintf("container %q may ask for %s, but send it nothing: %s is wider than what %s may reach", c.Spec.Name, r.text(s), r.name, r.ip),
		}
	}
	return nil
}

// group is the addresses of multicast and broadcast.
func (r *resolver) group() witness.Set {
	return witness.Prefix(constOf(r.multicast.Addr()), r.multicast.Bits(), r.dst.Width())
}

// link is the addresses of the card's subnets that are one neighbour's, without
// its own; others are those that are asked for by themselves: gateways.
func (r *resolver) link(pod *starlark.Pod, c *starlark.Container) (link, others witness.Set) {
	width := r.dst.Width()
	for _, p := range c.Spec.NIC.Addrs {
		if p.Addr().BitLen() != width || p.IsSingleIP() {
			continue
		}
		link = link.Or(witness.Prefix(constOf(p.Masked().Addr()), p.Bits(), width))
		own := witness.Point(constOf(p.Addr()))
		if p.Addr().Is4() && p.Bits() < 31 { // its first and its last are nobody's
			own = own.Or(witness.Point(constOf(p.Masked().Addr()))).Or(witness.Point(lastOf(p)))
		}
		others = others.Or(own)
	}
	link = link.Without(others).Without(r.group())
	gateways := slices.Clone(c.Spec.NIC.Gateways)
	if pod.Uplink != nil {
		for _, p := range pod.Uplink.Addrs {
			gateways = append(gateways, p.Addr())
		}
	}
	for _, g := range gateways {
		if g.BitLen() == width {
			others = others.Or(witness.Point(constOf(g)))
		}
	}
	return link, others
}

func constOf(a netip.Addr) rule.Const {
	var c rule.Const
	for _, b := range a.AsSlice() {
		c.Hi, c.Lo = c.Hi<<8|c.Lo>>56, c.Lo<<8|uint64(b)
	}
	return c
}

// lastOf is the broadcast address of an IPv4 subnet.
func lastOf(p netip.Prefix) rule.Const {
	c := constOf(p.Masked().Addr())
	c.Lo |= 1<<(32-p.Bits()) - 1
	return c
}

// text writes the first ranges of a set.
func (r *resolver) text(s witness.Set) string {
	var words []string
	s.Spans(func(lo, hi rule.Const) bool {
		if len(words) == 3 {
			words = append(words, "...")
			return false
		}
		a, b := r.addr(lo), r.addr(hi)
		if a == b {
			words = append(words, a)
		} else {
			words = append(words, a+"-"+b)
		}
		return true
	})
	return strings.Join(words, ", ")
}

func (r *resolver) addr(c rule.Const) string {
	if r.dst.Width() == 32 {
		return netip.AddrFrom4([4]byte{byte(c.Lo >> 24), byte(c.Lo >> 16), byte(c.Lo >> 8), byte(c.Lo)}).String()
	}
	var b [16]byte
	for i := range 8 {
		b[i], b[8+i] = byte(c.Hi>>(56-8*i)), byte(c.Lo>>(56-8*i))
	}
	return netip.AddrFrom16(b).String()
}
