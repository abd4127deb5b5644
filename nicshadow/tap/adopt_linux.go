package tap

import (
	"bytes"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Adopt makes a card of the machine, found by its address (cfg.MAC) in the
// caller's network namespace, that of the namespace netns: it is moved there,
// named, configured and set up, and lo with it. A guest's cards are so given to
// its containers; when netns ends, the kernel takes the card back.
func Adopt(netns *os.File, cfg Config) error {
	if cfg.MTU == 0 {
		cfg.MTU = 1500
	}
	if err := move(netns, cfg); err != nil {
		return fmt.Errorf("card %v: %w", cfg.MAC, err)
	}
	err := In(netns, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("netlink: %w", err)
		}
		defer h.Close()
		link, err := byMAC(h, cfg)
		if err != nil {
			return err
		}
		if link.Attrs().Name != cfg.Name {
			if err := h.LinkSetName(link, cfg.Name); err != nil {
				return fmt.Errorf("name it %s: %w", cfg.Name, err)
			}
		}
		return configure(cfg)
	})
	if err != nil {
		return fmt.Errorf("card %v: %w", cfg.MAC, err)
	}
	return nil
}

// move moves the card to the namespace netns, down: it must not send a word
// before it is configured.
func move(netns *os.File, cfg Config) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer h.Close()
	link, err := byMAC(h, cfg)
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

// byMAC finds the card with the configuration's address.
func byMAC(h *netlink.Handle, cfg Config) (netlink.Link, error) {
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list of cards: %w", err)
	}
	for _, l := range links {
		if bytes.Equal(l.Attrs().HardwareAddr, cfg.MAC[:]) {
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
