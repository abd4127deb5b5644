package tap

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sekimori/nicshadow/frame"
)

// A Config says what the card is like from inside.
type Config struct {
	// Name is the interface's name; at most 15 bytes.
	Name string
	// MAC is its hardware address.
	MAC frame.MAC
	// MTU in bytes; 0 means 1500.
	MTU int
	// Addrs are its addresses with their prefix lengths. Unless one of them is
	// IPv6, IPv6 is switched off in the whole namespace: nobody asked for it,
	// and what nobody asked for nobody guards (CVE-2020-13401).
	Addrs []netip.Prefix
	// Gateways are the default routes, at most one for each IP version.
	Gateways []netip.Addr
	// Ping lets any group open ICMP sockets, so that ping needs no capability.
	Ping bool
	// EndsWithNetNS says that the card's namespace ends when its container does:
	// then [Device.Close] leaves the card to it. See there.
	EndsWithNetNS bool
	// KeepIPv6 leaves IPv6 of the namespace's other cards as it is: for a
	// namespace that is not the card's alone.
	KeepIPv6 bool
}

// Open creates the card in the network namespace netns (nil: the caller's),
// configures it, and sets it and lo up. On an error nothing is left behind.
func Open(netns *os.File, cfg Config) (*Device, error) {
	if cfg.MTU == 0 {
		cfg.MTU = 1500
	}
	var d *Device
	err := In(netns, func() (err error) {
		if d, err = create(cfg.Name); err != nil {
			return err
		}
		if err = configure(cfg); err == nil && cfg.EndsWithNetNS {
			err = d.persist() // last: until here, Close destroys it
		}
		if err != nil {
			return errors.Join(err, d.Close())
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("tap: %w", err)
	}
	return d, nil
}

// configure runs in the card's namespace.
func configure(cfg Config) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer h.Close()
	link, err := h.LinkByName(cfg.Name)
	if err != nil {
		return fmt.Errorf("find %s: %w", cfg.Name, err)
	}
	if err := sysctls(cfg); err != nil {
		return err
	}
	if err := h.LinkSetHardwareAddr(link, cfg.MAC[:]); err != nil {
		return fmt.Errorf("set mac %v of %s: %w", cfg.MAC, cfg.Name, err)
	}
	if cfg.MTU != link.Attrs().MTU {
		if err := h.LinkSetMTU(link, cfg.MTU); err != nil {
			return fmt.Errorf("set mtu %d of %s: %w", cfg.MTU, cfg.Name, err)
		}
	}
	if err := addresses(h, link, cfg); err != nil {
		return err
	}
	for _, l := range []netlink.Link{lo, link} {
		if err := h.LinkSetUp(l); err != nil {
			return fmt.Errorf("set %s up: %w", l.Attrs().Name, err)
		}
	}
	return routes(h, link, cfg)
}

// lo is the loopback device: it has index 1 in every network namespace.
var lo = &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: 1}}

func addresses(h *netlink.Handle, link netlink.Link, cfg Config) error {
	for _, a := range cfg.Addrs {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())}}
		if a.Addr().Is6() {
			// Addresses are assigned, so no other card has them: usable at
			// once instead of after a second of duplicate detection.
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := h.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("add %v to %s: %w", a, cfg.Name, err)
		}
	}
	return nil
}

func routes(h *netlink.Handle, link netlink.Link, cfg Config) error {
	for _, gw := range cfg.Gateways {
		r := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: gw.AsSlice()}
		if !onLink(cfg.Addrs, gw) {
			r.Flags = int(netlink.FLAG_ONLINK)
		}
		if err := h.RouteAdd(r); err != nil {
			return fmt.Errorf("route by %v on %s: %w", gw, cfg.Name, err)
		}
	}
	return nil
}

// onLink reports whether the gateway is inside one of the card's prefixes.
func onLink(addrs []netip.Prefix, gw netip.Addr) bool {
	for _, a := range addrs {
		if a.Contains(gw) {
			return true
		}
	}
	return false
}

// sysctls are set while the card is down: it must not send a word before.
func sysctls(cfg Config) error {
	var set [][2]string
	if cfg.Ping {
		set = append(set, [2]string{"ipv4/ping_group_range", "0 2147483647"})
	}
	own := "ipv6/conf/" + cfg.Name + "/"
	switch {
	case hasIPv6(cfg.Addrs):
		set = append(set,
			[2]string{own + "disable_ipv6", "0"},
			[2]string{own + "accept_ra", "0"}, // no router of the pod advertises
			[2]string{own + "autoconf", "0"},
			[2]string{own + "router_solicitations", "0"},
			[2]string{own + "addr_gen_mode", "0"}, // link-local from the MAC: RFC 4291, appendix A
			[2]string{own + "accept_dad", "0"},
		)
	case cfg.KeepIPv6:
		set = append(set, [2]string{own + "disable_ipv6", "1"})
	default:
		set = append(set, [2]string{"ipv6/conf/all/disable_ipv6", "1"})
	}
	for _, kv := range set {
		err := Sysctl(kv[0], kv[1])
		if kv[1] == "1" && errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6 has it off
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func hasIPv6(addrs []netip.Prefix) bool {
	for _, a := range addrs {
		if a.Addr().Is6() {
			return true
		}
	}
	return false
}

// Sysctl writes a value below /proc/sys/net of the thread's network namespace:
// see [In].
func Sysctl(name, value string) error {
	f, err := os.OpenFile("/proc/sys/net/"+name, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("sysctl: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteString(value); err != nil {
		return fmt.Errorf("sysctl: %w", err)
	}
	return nil
}
