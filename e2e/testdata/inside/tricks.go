package main

import (
	"context"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// trick changes the container's own network as its root may, has the kernel
// send in the name that comes of it, and undoes the change: the name of the
// trick, the address and card of whom to speak as, and the address of whom to
// speak to.
func (c *card) trick(words []string) error {
	if len(words) != 4 {
		return fmt.Errorf("trick: %d words, want 4", len(words))
	}
	as, err := netlink.ParseAddr(words[1] + "/24")
	if err != nil {
		return err
	}
	mac, err := net.ParseMAC(words[2])
	if err != nil {
		return err
	}
	eth0 := c.link.Attrs()
	switch words[0] {
	case "mac":
		if err := netlink.LinkSetHardwareAddr(c.link, mac); err != nil {
			return err
		}
		defer netlink.LinkSetHardwareAddr(c.link, eth0.HardwareAddr)
		return speak("eth0", nil, words[3])
	case "ip":
		if err := netlink.AddrAdd(c.link, as); err != nil {
			return err
		}
		defer netlink.AddrDel(c.link, as)
		return speak("eth0", as.IP, words[3])
	case "promisc":
		return netlink.SetPromiscOn(c.link) // what is heard now is the test's to say
	case "vlan":
		return speakBy(&netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "trick", ParentIndex: eth0.Index}, VlanId: 0}, as, words[3])
	case "macvlan":
		return speakBy(&netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "trick", ParentIndex: eth0.Index, HardwareAddr: mac}, Mode: netlink.MACVLAN_MODE_BRIDGE}, as, words[3])
	case "bridge":
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "trick", HardwareAddr: mac}}
		if err := netlink.LinkAdd(br); err != nil {
			return err
		}
		defer netlink.LinkDel(br)
		if err := netlink.LinkSetMaster(c.link, br); err != nil {
			return err
		}
		if err := netlink.AddrAdd(br, as); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(br); err != nil {
			return err
		}
		return speak("trick", as.IP, words[3])
	}
	return fmt.Errorf("trick: %s: unknown", words[0])
}

// speakBy adds a link that has an address, and speaks through it.
func speakBy(l netlink.Link, as *netlink.Addr, to string) error {
	if err := netlink.LinkAdd(l); err != nil {
		return err
	}
	defer netlink.LinkDel(l)
	if err := netlink.AddrAdd(l, as); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return err
	}
	return speak(l.Attrs().Name, as.IP, to)
}

// speak has the kernel resolve an address and send a datagram there.
func speak(device string, from net.IP, to string) error {
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		cerr := raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), device) })
		if cerr != nil {
			return cerr
		}
		return err
	}}
	if from != nil {
		d.LocalAddr = &net.UDPAddr{IP: from}
	}
	conn, err := d.DialContext(context.Background(), "udp", net.JoinHostPort(to, "4001"))
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("in another's name")); err != nil {
		return err
	}
	time.Sleep(50 * time.Millisecond) // a bridge's port sends from a softirq
	return nil
}

// speakTo has the kernel send an honest datagram.
func speakTo(to []string) error { return speak("eth0", nil, to[0]) }
