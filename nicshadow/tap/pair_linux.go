package tap

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A Pair is a card whose other end is a device, too (veth), in a namespace where
// programs of the kernel judge its frames.
type Pair struct {
	netns *os.File
	cfg   Config
	far   string
}

// OpenPair makes the card in the network namespace netns (nil: the caller's) and
// its other end, of the name far, in the namespace yard. Both are down. The card
// offers no offload: its kernel cuts its frames up and fills in their checksums
// before they leave it. On an error nothing is left behind.
func OpenPair(netns, yard *os.File, far string, cfg Config) (*Pair, error) {
	if cfg.MTU == 0 {
		cfg.MTU = tapMTU
	}
	p := &Pair{netns: netns, cfg: cfg, far: far}
	err := In(netns, func() error {
		if err := addPair(yard, far, cfg); err != nil {
			return fmt.Errorf("create %s: %w", cfg.Name, err)
		}
		if err := noOffloads(cfg.Name); err != nil {
			return errors.Join(fmt.Errorf("offloads of %s: %w", cfg.Name, err), remove(cfg.Name))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("pair: %w", err)
	}
	return p, nil
}

// addPair asks for both ends at once. The far end takes frames of any length:
// what is too long is not lost there, where nobody counts it.
func addPair(yard *os.File, far string, cfg Config) error {
	n, err := openRTNL()
	if err != nil {
		return err
	}
	defer n.close()
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	peer := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
	peer.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(far))
	peer.AddRtAttr(unix.IFLA_MTU, nl.Uint32Attr(farMTU))
	peer.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(yard.Fd())))
	err = n.do(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, msg,
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(cfg.Name)),
		nl.NewRtAttr(unix.IFLA_ADDRESS, cfg.MAC[:]),
		nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(cfg.MTU))),
		info)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: load the kernel module veth", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w (%v): run as root", ErrPermission, err)
	}
	return err
}

// farMTU is the longest there is (ETH_MAX_MTU, include/uapi/linux/if_ether.h
// v6.18).
const farMTU = 65535

// Far is the name of the other end.
func (p *Pair) Far() string { return p.far }

// Up configures the card and sets it up. Its other end is to be up before.
func (p *Pair) Up() error {
	if err := In(p.netns, func() error { return configure(p.cfg) }); err != nil {
		return fmt.Errorf("pair: %w", err)
	}
	return nil
}

// Remove destroys both ends: see [Device.Close] for what that takes.
func (p *Pair) Remove() error {
	if err := In(p.netns, func() error { return remove(p.cfg.Name) }); err != nil {
		return fmt.Errorf("pair: %w", err)
	}
	return nil
}

func remove(name string) error {
	n, err := openRTNL()
	if err != nil {
		return err
	}
	defer n.close()
	card, err := n.index(name)
	if errors.Is(err, unix.ENODEV) {
		return nil // its container removed it
	}
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(card)
	return n.do(unix.RTM_DELLINK, 0, msg)
}

// FarUp sets the other end of a pair up, in the namespace of the calling thread.
// before is called before that, with its index.
func FarUp(name string, before func(index int) error) error {
	n, err := openRTNL()
	if err != nil {
		return err
	}
	defer n.close()
	card, err := n.index(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	if err := before(card); err != nil {
		return err
	}
	if err := n.up(card); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// Numbers of ethtool over netlink (include/uapi/linux/ethtool_netlink.h v6.18).
const (
	ethtoolFeaturesSet = 12
	ethtoolHeader      = 1
	ethtoolDevName     = 2
	ethtoolFlags       = 3
	ethtoolOmitReply   = 2
	ethtoolWanted      = 3
	ethtoolBits        = 3
	ethtoolBit         = 1
	ethtoolBitName     = 2
)

// noOffloads switches off what the card would leave to be done behind it. With
// its checksums, the kernel gives up to cut frames up late as well.
func noOffloads(name string) error {
	family, err := netlink.GenlFamilyGet("ethtool")
	if err != nil {
		return fmt.Errorf("ethtool: %w", err)
	}
	req := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_ACK)
	req.AddData(&nl.Genlmsg{Command: ethtoolFeaturesSet, Version: 1})
	header := nl.NewRtAttr(ethtoolHeader|unix.NLA_F_NESTED, nil)
	header.AddRtAttr(ethtoolDevName, nl.ZeroTerminated(name))
	header.AddRtAttr(ethtoolFlags, nl.Uint32Attr(ethtoolOmitReply))
	req.AddData(header)
	wanted := nl.NewRtAttr(ethtoolWanted|unix.NLA_F_NESTED, nil)
	bits := wanted.AddRtAttr(ethtoolBits|unix.NLA_F_NESTED, nil)
	for _, feature := range []string{"tx-checksum-ip-generic", "tx-checksum-sctp"} {
		bits.AddRtAttr(ethtoolBit|unix.NLA_F_NESTED, nil).AddRtAttr(ethtoolBitName, nl.ZeroTerminated(feature))
	}
	req.AddData(wanted)
	_, err = req.Execute(unix.NETLINK_GENERIC, 0)
	return err
}
