package tap

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sekimori/nicshadow/frame"
)

// Adopt makes a card of the machine, found by its address in the caller's network
// namespace, that of the namespace netns (nil: it stays): it is moved there, given
// the address cfg.MAC and its name, configured and set up, and lo with it. A guest's
// cards are so given to its containers; when netns ends, the kernel takes the card
// back.
func Adopt(netns *os.File, card frame.MAC, cfg Config) error {
	if cfg.MTU == 0 {
		cfg.MTU = 1500
	}
	if netns != nil {
		if err := move(netns, card); err != nil {
			return fmt.Errorf("card %v: %w", card, err)
		}
	}
	if err := In(netns, func() error { return settle(card, cfg) }); err != nil {
		return fmt.Errorf("card %v: %w", card, err)
	}
	return nil
}

// settle names and configures the card, in its new namespace.
func settle(card frame.MAC, cfg Config) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer h.Close()
	link, err := byMAC(h, card)
	if err != nil {
		return err
	}
	if card != cfg.MAC {
		if err := h.LinkSetHardwareAddr(link, cfg.MAC[:]); err != nil {
			return fmt.Errorf("give it the address %v: %w", cfg.MAC, err)
		}
	}
	if link.Attrs().Name != cfg.Name {
		if err := h.LinkSetName(link, cfg.Name); err != nil {
			return fmt.Errorf("name it %s: %w", cfg.Name, err)
		}
	}
	return configure(cfg)
}

// move moves the card to the namespace netns, down: it must not send a word
// before it is configured.
func move(netns *os.File, card frame.MAC) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer h.Close()
	link, err := byMAC(h, card)
	if err != nil {
		return err
	}
	if err := h.LinkSetDown(link); err != nil {
		return fmt.Errorf("set it down: %w", err)
	}
	if err := h.LinkSetNsFd(link, int(netns.Fd())); err != nil {
		return fmt.Errorf("move it to the container: %w", err)
	}
	return nil
}

// Link makes a link with the address cfg.MAC on the machine's card that has the
// address card, and gives it to the namespace netns as Adopt does. Links of one
// card hand each other nothing (VEPA, IEEE 802.1Qbg): all they send leaves by
// the card, where it is judged.
func Link(netns *os.File, card frame.MAC, cfg Config) error {
	if cfg.MTU == 0 {
		cfg.MTU = 1500
	}
	err := link(netns, card, cfg)
	if err == nil {
		err = In(netns, func() error { return settle(cfg.MAC, cfg) })
	}
	if err != nil {
		return fmt.Errorf("link of card %v: %w", card, err)
	}
	return nil
}

func link(netns *os.File, card frame.MAC, cfg Config) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer h.Close()
	parent, err := byMAC(h, card)
	if err != nil {
		return err
	}
	// The card itself says nothing: it is nobody's.
	name := parent.Attrs().Name
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := h.LinkSetUp(parent); err != nil {
		return fmt.Errorf("set it up: %w", err)
	}
	attrs := netlink.NewLinkAttrs()
	// The kernel looks the name up here, too, where the card may have it.
	attrs.Name = fmt.Sprintf("l%x", cfg.MAC[:])
	attrs.ParentIndex, attrs.HardwareAddr, attrs.MTU = parent.Attrs().Index, cfg.MAC[:], cfg.MTU
	attrs.Namespace = netlink.NsFd(netns.Fd())
	return h.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_VEPA})
}

// byMAC finds the card with that address.
func byMAC(h *netlink.Handle, card frame.MAC) (netlink.Link, error) {
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list of cards: %w", err)
	}
	for _, l := range links {
		if bytes.Equal(l.Attrs().HardwareAddr, card[:]) {
			return l, nil
		}
	}
	return nil, fmt.Errorf("there is none of that address")
}

// SetLoopbackUp sets lo of the caller's network namespace up.
func SetLoopbackUp() error {
	n, err := openRTNL()
	if err != nil {
		return err
	}
	defer n.close()
	return n.up(loopback)
}
