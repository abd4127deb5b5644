package uplink

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// TableName is the name of a pod's nftables table, of family inet.
func TableName(pod string) string { return "seki-" + pod }

// RemoveTable removes a pod's table from the network namespace netns (nil: the
// caller's), if it is there.
func RemoveTable(netns *os.File, pod string) error {
	c, err := connect(netns)
	if err != nil {
		return err
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("list nftables tables: %w", err)
	}
	for _, t := range tables {
		if t.Name != TableName(pod) {
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
//	table inet seki-POD {
//	  chain postrouting {
//	    type nat hook postrouting priority srcnat;
//	    ip saddr 10.0.0.0/24 oifname != "seki0" masquerade
//	  }
//	}
func addTable(cfg Config) error {
	// What a dead supervisor of this pod left would add up.
	if err := RemoveTable(cfg.NetNS, cfg.Pod); err != nil {
		return err
	}
	c, err := connect(cfg.NetNS)
	if err != nil {
		return err
	}
	t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: TableName(cfg.Pod)})
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
