package e2e_test

import (
	"net"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// newBridge joins the stations by a Linux bridge that protects nobody.
func newBridge(t *testing.T) *lan {
	t.Helper()
	sw := newSpace(t)
	sw.sysctl(t, "ipv6/conf/default/disable_ipv6", "1")
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
	snooping := false // else a group's members are asked for in frames of their own
	br.MulticastSnooping = &snooping
	if err := sw.nl.LinkAdd(br); err != nil {
		t.Fatal("bridge:", err)
	}
	if err := sw.nl.LinkSetUp(br); err != nil {
		t.Fatal("bridge up:", err)
	}
	join := func(h host) *station {
		return newStation(t, h, func(s *space) {
			veth := &netlink.Veth{
				LinkAttrs:        netlink.LinkAttrs{Name: "eth0", HardwareAddr: h.mac[:], MTU: 1500},
				PeerName:         h.name,
				PeerNamespace:    netlink.NsFd(sw.ns),
				PeerHardwareAddr: net.HardwareAddr{2, 0, 0, 1, 0, h.mac[5]},
			}
			if err := s.nl.LinkAdd(veth); err != nil {
				t.Fatal("veth:", err)
			}
			port, err := sw.nl.LinkByName(h.name)
			if err == nil {
				err = sw.nl.LinkSetMaster(port, br)
			}
			if err == nil {
				err = sw.nl.LinkSetUp(port)
			}
			if err != nil {
				t.Fatal("bridge port:", err)
			}
		})
	}
	l := &lan{alice: join(alice), bob: join(bob), mallory: join(mallory), where: func() (string, error) { return learnedPort(sw, bob.mac) }}
	for _, s := range l.stations() {
		s.configure(t)
		s.listen(t)
	}
	l.sinks(t)
	return l
}

// learnedPort is the port where the bridge of sw has learned m.
func learnedPort(sw *space, m mac) (string, error) {
	entries, err := sw.nl.NeighList(0, unix.AF_BRIDGE)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if len(e.HardwareAddr) == 6 && mac(e.HardwareAddr) == m {
			link, err := sw.nl.LinkByIndex(e.LinkIndex)
			if err != nil {
				return "", err
			}
			return link.Attrs().Name, nil
		}
	}
	return "nobody", nil
}
