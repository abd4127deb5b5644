package e2e_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A lan is the three stations, joined by whatever is tested.
type lan struct {
	alice, bob, mallory *station
	// where says at whose port the switch believes bob to be.
	where func() (string, error)
}

func (l *lan) stations() []*station { return []*station{l.alice, l.bob, l.mallory} }

// sinks lets every station take markers.
func (l *lan) sinks(t *testing.T) {
	t.Helper()
	for _, s := range l.stations() {
		s.sink(t)
	}
}

// known is the truth: the card of each address.
var known = func() map[netip.Addr]mac {
	m := map[netip.Addr]mac{}
	for _, h := range []host{alice, bob, mallory} {
		m[h.ip4], m[h.ip6], m[h.local6] = h.mac, h.mac, h.mac
	}
	return m
}()

// reset makes the neighbour tables of alice and bob true and complete, and
// has the switch hear from bob.
func (l *lan) reset() error {
	m := l.bob.marker(l.alice)
	if err := l.bob.send(m); err != nil {
		return err
	}
	if _, err := l.alice.until(m); err != nil {
		return err
	}
	for _, s := range []*station{l.alice, l.bob} {
		if err := s.resetNeighbours(); err != nil {
			return err
		}
	}
	// A kernel takes the first of several answers within one tick of its clock.
	time.Sleep(12 * time.Millisecond)
	return l.alice.resetRoutes()
}

func (s *station) resetNeighbours() error {
	entries, err := s.nl.NeighList(s.index, unix.AF_UNSPEC)
	if err != nil {
		return err
	}
	for _, e := range entries {
		a, _ := netip.AddrFromSlice(e.IP)
		if _, ok := known[a.Unmap()]; (!ok || s.has(a.Unmap())) && !e.IP.IsMulticast() && e.State&unix.NUD_NOARP == 0 {
			if err := s.nl.NeighDel(&e); err != nil && err != unix.ENOENT {
				return fmt.Errorf("delete neighbour %v: %w", e.IP, err)
			}
		}
	}
	for a, m := range known {
		if s.has(a) {
			continue
		}
		e := &netlink.Neigh{LinkIndex: s.index, State: unix.NUD_STALE, IP: a.AsSlice(), HardwareAddr: m[:]}
		if err := s.nl.NeighSet(e); err != nil {
			return fmt.Errorf("set neighbour %v: %w", a, err)
		}
	}
	return nil
}

func (h host) has(a netip.Addr) bool { return a == h.ip4 || a == h.ip6 || a == h.local6 }

// poisoned lists the entries of the neighbour table that are not true.
func (s *station) poisoned() ([]string, error) {
	entries, err := s.nl.NeighList(s.index, unix.AF_UNSPEC)
	if err != nil {
		return nil, err
	}
	var lies []string
	for _, e := range entries {
		a, _ := netip.AddrFromSlice(e.IP)
		a = a.Unmap()
		if a.IsMulticast() || s.has(a) || a == netip4(255, 255, 255, 255) || len(e.HardwareAddr) != 6 || e.State&unix.NUD_NOARP != 0 {
			continue
		}
		if m, ok := known[a]; !ok || mac(e.HardwareAddr) != m {
			lies = append(lies, fmt.Sprintf("%s believes %v is at %v", s.name, a, e.HardwareAddr))
		}
	}
	return lies, nil
}

// learned lists the routes that an advertisement put into the table.
func (s *station) learned() ([]netlink.Route, error) {
	return s.nl.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Protocol: unix.RTPROT_RA}, netlink.RT_FILTER_PROTOCOL)
}

// resetRoutes forgets what router advertisements brought.
func (s *station) resetRoutes() error {
	routes, err := s.learned()
	if err != nil {
		return err
	}
	for _, r := range routes {
		if err := s.nl.RouteDel(&r); err != nil {
			return fmt.Errorf("delete route %v: %w", r, err)
		}
	}
	return nil
}

// An outcome is what a frame was seen to do.
type outcome struct {
	effect effect
	heard  [][]byte // what alice heard because of it
	detail string
}

// try sends one variant from mallory and looks at what it did.
func (l *lan) try(v variant) (o outcome, err error) {
	if err := l.reset(); err != nil {
		return o, err
	}
	m := l.mallory.marker(l.alice)
	if err := l.mallory.send(v.frame, m); err != nil {
		return o, err
	}
	if o.heard, err = l.alice.until(m); err != nil {
		return o, err
	}
	if len(o.heard) > 0 {
		o.effect = arrives
	}
	if port, err := l.where(); err != nil {
		return o, err
	} else if port != "bob" {
		o.effect, o.detail = moves, "bob is at the port of "+port
	}
	if routes, err := l.alice.learned(); err != nil {
		return o, err
	} else if len(routes) > 0 {
		o.effect, o.detail = reroutes, fmt.Sprint("alice has the route ", routes[0])
	}
	for _, s := range []*station{l.alice, l.bob} {
		if lies, err := s.poisoned(); err != nil {
			return o, err
		} else if len(lies) > 0 {
			o.effect, o.detail = poisons, lies[0]
		}
	}
	return o, nil
}
