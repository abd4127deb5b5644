package uplink

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// NewTable is a name for a pod's nftables table, of family inet, that no other
// table has: who cleans up after a killed supervisor must not remove the table
// of a living pod of the same name, from another state directory.
func NewTable(pod string) string {
	var b [4]byte
	rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	return fmt.Sprintf("seki-%s-%x", pod, b)
}

// RemoveTable removes the table of that name from the network namespace netns
// (nil: the caller's), if it is there.
func RemoveTable(netns *os.File, name string) error {
	c, err := connect(netns)
	if err != nil {
		return err
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("list nftables tables: %w", err)
	}
	for _, t := range tables {
		if t.Name != name {
			continue
		}
		c.DelTable(t)
		if err := c.Flush(); err != nil {
			return fmt.Errorf("remove nftables table %s: %w", t.Name, err)
		}
	}
	return nil
}

// addTable adds the table, whole or not at all:
//
//	table inet seki-POD-1b2c3d4e {
//	  chain postrouting {
//	    type nat hook postrouting priority srcnat;
//	    ip saddr 10.0.0.0/24 oifname != "seki0" masquerade
//	  }
//	}
func addTable(cfg Config) error {
	c, err := connect(cfg.NetNS)
	if err != nil {
		return err
	}
	t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: cfg.Table})
	chain := c.AddChain(&nftables.Chain{
		Name: "postrouting", Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	for _, a := range cfg.Addrs {
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: masquerade(a.Masked(), cfg.Name)})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("add nftables table %s: %w", t.Name, err)
	}
	return nil
}

// masquerade is the rule for what comes from net and leaves by another
// interface than name.
func masquerade(src netip.Prefix, name string) []expr.Any {
	proto, offset, n := byte(unix.NFPROTO_IPV4), uint32(12), uint32(4)
	if src.Addr().Is6() {
		proto, offset, n = unix.NFPROTO_IPV6, 8, 16
	}
	ifname := make([]byte, unix.IFNAMSIZ)
	copy(ifname, name)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: n},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: n,
			Mask: net.CIDRMask(src.Bits(), src.Addr().BitLen()), Xor: make([]byte, n)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: src.Addr().AsSlice()},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: ifname},
		&expr.Masq{},
	}
}

func connect(netns *os.File) (*nftables.Conn, error) {
	var opts []nftables.ConnOption
	if netns != nil {
		opts = append(opts, nftables.WithNetNSFd(int(netns.Fd())))
	}
	c, err := nftables.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	return c, nil
}
