package tap

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink/nl"
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
	// IPv6, or IPv6 is set, IPv6 is switched off in the whole namespace: nobody asked for it,
	// and what nobody asked for nobody guards (CVE-2020-13401).
	Addrs []netip.Prefix
	// IPv6 keeps IPv6 on where none of Addrs is IPv6: DHCP gives the address.
	IPv6 bool
	// Gateways are the default routes, at most one for each IP version.
	Gateways []netip.Addr
	// Ping lets any group open ICMP sockets, so that ping needs no capability.
	Ping bool
	// EndsWithNetNS says that the card's namespace ends when its container does:
	// then [Device.Close] leaves the card to it. See there.
	EndsWithNetNS bool
	// LeaveLoopback leaves lo to whoever made the namespace. Each change of an
	// interface waits for the lock of the kernel's network configuration, which
	// namespaces that end hold for milliseconds.
	LeaveLoopback bool
	// KeepIPv6 leaves IPv6 of the namespace's other cards as it is: for a
	// namespace that is not the card's alone.
	KeepIPv6 bool
}

// Open creates the card in the network namespace netns (nil: the caller's),
// configures it, and sets it up, and lo unless told not to. On an error nothing is left behind.
func Open(netns *os.File, cfg Config) (*Device, error) {
	if cfg.MTU == 0 {
		cfg.MTU = tapMTU
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
	n, err := openRTNL()
	if err != nil {
		return err
	}
	defer n.close()
	card, err := n.index(cfg.Name)
	if err != nil {
		return fmt.Errorf("find %s: %w", cfg.Name, err)
	}
	if err := sysctls(cfg); err != nil {
		return err
	}
	for _, a := range cfg.Addrs {
		if err := n.addAddr(card, a); err != nil {
			return fmt.Errorf("add %v to %s: %w", a, cfg.Name, err)
		}
	}
	if !cfg.LeaveLoopback {
		if err := n.up(loopback); err != nil {
			return fmt.Errorf("set lo up: %w", err)
		}
	}
	if err := n.bringUp(card, cfg); err != nil {
		return err
	}
	for _, gw := range cfg.Gateways {
		if err := n.addDefault(card, gw, !onLink(cfg.Addrs, gw)); err != nil {
			return fmt.Errorf("route by %v on %s: %w", gw, cfg.Name, err)
		}
	}
	return nil
}

// bringUp gives the card its address and MTU and sets it up, in one request:
// see Config.LeaveLoopback. The kernel does them in this order, and says of the
// three only that one failed; then they are made one by one.
func (n *rtnl) bringUp(card int, cfg Config) error {
	mac := nl.NewRtAttr(unix.IFLA_ADDRESS, cfg.MAC[:])
	mtu := nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(cfg.MTU)))
	all := []nl.NetlinkRequestData{mac}
	if cfg.MTU != tapMTU {
		all = append(all, mtu)
	}
	err := n.up(card, all...)
	if err == nil {
		return nil
	}
	if err := n.setLink(card, mac); err != nil {
		return fmt.Errorf("set mac %v of %s: %w", cfg.MAC, cfg.Name, err)
	}
	if err := n.setLink(card, mtu); err != nil {
		return fmt.Errorf("set mtu %d of %s: %w", cfg.MTU, cfg.Name, err)
	}
	return fmt.Errorf("set %s up: %w", cfg.Name, err)
}

const (
	loopback = 1    // index of lo in every network namespace
	tapMTU   = 1500 // of a TAP device at its creation
)

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
	case cfg.IPv6 || hasIPv6(cfg.Addrs):
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
	path := "/proc/sys/net/" + name
	// Not os.OpenFile: it would make the file one of the runtime's poller, six
	// calls for a write that waits for nobody.
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("sysctl: %w", &os.PathError{Op: "open", Path: path, Err: err})
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return fmt.Errorf("sysctl: %w", &os.PathError{Op: "write", Path: path, Err: err})
	}
	return nil
}
