package config

import (
	"fmt"
	"net/netip"
	"strings"

	"go.starlark.net/starlark"

	"sekimori/lifecycle/bundle"
	"sekimori/nicshadow/frame"
	"sekimori/starlark/args"
	"sekimori/starlark/policy"
	"sekimori/starlark/value"
)

// DefaultMTU is the MTU of a card whose file says nothing, in bytes.
const DefaultMTU = 1500

// Limits of an MTU, in bytes: what IPv4 asks of every link (RFC 791, 3.2), and what
// a jumbo frame carries.
const (
	MinMTU = 68
	MaxMTU = 9000
)

func nicBuiltins() []*args.Builtin {
	return []*args.Builtin{{
		Name: "nic",
		Doc: `A container's network card. Every Ethernet frame the container sends is judged
by its policy before the pod's switch sees it; without a policy nothing passes.
The addresses are assigned here and by nobody else: guards hold the container to them.`,
		Params: []args.Param{
			{Name: "ip", Type: typeCardIP, Required: true, Doc: `the card's addresses, each with the prefix length of its subnet: "10.0.0.2/24", ["10.0.0.2/24", "fd00::2/64"]; or "dhcp" (IPv4) or "dhcp6" (IPv6) in the place of those of its version: the container asks for one itself, and the guards hold it to the address that a server leases to it, as long as it does`},
			{Name: "policy", Type: args.Of[*policy.Policy]("a policy()"), Default: "None", Doc: "which frames the container may send; None: none"},
			{Name: "mode", Type: args.OneOf("enforce", "audit"), Default: "that of the policy", Doc: `"audit": whatever policy is in force, what it drops is recorded and forwarded, until a callback says ctx.policy.mode("enforce")`},
			{Name: "gateway", Type: args.OneOrMore[netip.Addr](args.IP), Default: "None", Doc: "default route, at most one for each IP version, inside one of the card's subnets"},
			{Name: "mac", Type: args.MAC, Default: "derived from the names of pod and container", Doc: "hardware address, unicast"},
			{Name: "mtu", Type: args.Int(MinMTU, MaxMTU), Default: "1500", Doc: "largest packet, in bytes; at least 1280 with IPv6 (RFC 8200, 5)"},
			{Name: "name", Type: args.String, Default: `"eth0"`, Doc: "name of the interface inside the container, at most 15 bytes"},
			{Name: "datapath", Type: args.OneOf("user", "kernel"), Default: `"user"`, Doc: `where frames are judged: "user": by seki, which reads each; "kernel": by programs of the host's kernel (Linux 6.6, machine "host"), at the kernel's speed, under the same policy. All cards of a pod have the same`},
		},
		Positional: 1,
		Result:     "nic",
		Call:       with(newNIC),
	}, {
		Name: "uplink",
		Doc: `The pod's way out: a network interface of the host on the pod's switch, with the
addresses that containers use as gateways. A file calls it at most once; without it the
containers of the pod reach only each other. Whoever is not root has, with masquerade, connections
of their own in its place: TCP, UDP and ping, but not to the host's loopback and link-local
networks; port 53 of the address is the host's resolver.`,
		Params: []args.Param{
			{Name: "ip", Type: args.OneOrMore[netip.Prefix](args.Prefix), Required: true, Doc: "the host's addresses on the switch, each with its prefix length"},
			{Name: "masquerade", Type: args.Bool, Default: "False", Doc: "rewrite the source address of what goes on beyond the host to the host's own"},
			{Name: "mac", Type: args.MAC, Default: "derived from the name of the pod", Doc: "hardware address of the host's end"},
		},
		Positional: 1,
		Result:     "NoneType",
		Call:       with(newUplink),
	}}
}

// A cardIP is what ip says: addresses, and those that DHCP gives.
type cardIP struct {
	addrs        []netip.Prefix
	dhcp4, dhcp6 bool
}

// typeCardIP is one or more addresses, "dhcp" and "dhcp6" among them.
var typeCardIP = func() args.Type {
	addrs := args.OneOrMore[netip.Prefix](args.Prefix)
	return args.Type{Name: addrs.Name + `, "dhcp" and "dhcp6" among them`, Convert: func(v starlark.Value) (any, error) {
		var ip cardIP
		seq, ok := args.Sequence(v)
		if !ok {
			seq = []starlark.Value{v}
		}
		var rest []starlark.Value
		for _, v := range seq {
			switch s, _ := starlark.AsString(v); s {
			case "dhcp":
				ip.dhcp4 = true
			case "dhcp6":
				ip.dhcp6 = true
			default:
				rest = append(rest, v)
			}
		}
		if len(rest) == 0 && (ip.dhcp4 || ip.dhcp6) {
			return ip, nil
		}
		if len(rest) == len(seq) { // an error tells of what was written
			conv, err := addrs.Convert(v)
			if err != nil {
				return nil, err
			}
			ip.addrs = conv.([]netip.Prefix)
			return ip, nil
		}
		conv, err := addrs.Convert(starlark.Tuple(rest))
		if err != nil {
			return nil, err
		}
		ip.addrs = conv.([]netip.Prefix)
		return ip, nil
	}}
}()

// A nicValue is what nic() returns. Its MAC is unset until container() knows
// the name it derives from.
type nicValue struct {
	nic    bundle.NIC
	policy *policy.Policy
}

func (n *nicValue) String() string {
	var ip []string
	for _, a := range n.nic.Addrs {
		ip = append(ip, fmt.Sprintf("%q", a))
	}
	if n.nic.DHCP {
		ip = append(ip, `"dhcp"`)
	}
	if n.nic.DHCP6 {
		ip = append(ip, `"dhcp6"`)
	}
	if len(ip) == 1 {
		return "nic(ip = " + ip[0] + ")"
	}
	return "nic(ip = [" + strings.Join(ip, ", ") + "])"
}
func (n *nicValue) Type() string          { return "nic" }
func (n *nicValue) Freeze()               {}
func (n *nicValue) Truth() starlark.Bool  { return true }
func (n *nicValue) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable type: nic") }

// Attr gives ip (the first address; None where DHCP gives all), ips, policy, gateway and mtu, so that one
// card can be described by another.
func (n *nicValue) Attr(name string) (starlark.Value, error) {
	switch name {
	case "ip":
		if len(n.nic.Addrs) == 0 {
			return starlark.None, nil
		}
		return value.IP{Addr: n.nic.Addrs[0].Addr()}, nil
	case "ips":
		var out starlark.Tuple
		for _, a := range n.nic.Addrs {
			out = append(out, value.IP{Addr: a.Addr()})
		}
		return out, nil
	case "mac":
		if n.nic.MAC == "" {
			return starlark.None, nil
		}
		m, err := frame.ParseMAC(n.nic.MAC)
		return value.MAC{MAC: m}, err
	case "policy":
		if n.policy == nil {
			return starlark.None, nil
		}
		return n.policy, nil
	case "gateway":
		if len(n.nic.Gateways) == 0 {
			return starlark.None, nil
		}
		return value.IP{Addr: n.nic.Gateways[0]}, nil
	case "mtu":
		return starlark.MakeInt(n.nic.MTU), nil
	case "name":
		return starlark.String(n.nic.Name), nil
	case "datapath":
		return starlark.String(datapath(&n.nic)), nil
	}
	return nil, nil
}

func (n *nicValue) AttrNames() []string {
	return []string{"datapath", "gateway", "ip", "ips", "mac", "mtu", "name", "policy"}
}

// datapath is the word of a file for where a card's frames are judged.
func datapath(n *bundle.NIC) string {
	if n.Datapath == "" {
		return "user"
	}
	return string(n.Datapath)
}

func newNIC(c call) (starlark.Value, error) {
	n := &nicValue{policy: args.Get[*policy.Policy](c.Call, "policy")}
	n.nic.Name = args.Or(c.Call, "name", "eth0")
	if !isInterface(n.nic.Name) {
		return nil, c.Errorf("name", "a letter, then at most 14 letters, digits, - and _; not lo", "name %q is no interface name", n.nic.Name)
	}
	n.nic.Gateways = args.Get[[]netip.Addr](c.Call, "gateway")
	if args.Or(c.Call, "datapath", "user") == "kernel" {
		n.nic.Datapath = bundle.DatapathKernel
	}
	n.nic.Audit = args.Or(c.Call, "mode", "enforce") == "audit"
	ip := args.Get[cardIP](c.Call, "ip")
	n.nic.Addrs, n.nic.DHCP, n.nic.DHCP6 = ip.addrs, ip.dhcp4, ip.dhcp6
	if err := c.checkDHCP(&n.nic); err != nil {
		return nil, err
	}
	if len(n.nic.Addrs) > 0 || !ip.dhcp4 && !ip.dhcp6 {
		if err := c.checkAddrs("ip", n.nic.Addrs); err != nil {
			return nil, err
		}
	}
	if err := c.checkGateways(n.nic.Gateways, n.nic.Addrs); err != nil {
		return nil, err
	}
	n.nic.MTU = int(args.Or(c.Call, "mtu", int64(DefaultMTU)))
	for _, a := range n.nic.Addrs {
		if a.Addr().Is6() && n.nic.MTU < 1280 {
			return nil, c.Errorf("mtu", "IPv6 needs 1280 (RFC 8200, 5)", "mtu %d is too small for %s", n.nic.MTU, a)
		}
	}
	if n.nic.DHCP6 && n.nic.MTU < 1280 {
		return nil, c.Errorf("mtu", "IPv6 needs 1280 (RFC 8200, 5)", "mtu %d is too small for \"dhcp6\"", n.nic.MTU)
	}
	if c.Has("mac") {
		m := args.Get[frame.MAC](c.Call, "mac")
		if err := c.checkMAC(m); err != nil {
			return nil, err
		}
		n.nic.MAC = m.String()
	}
	return n, nil
}

// checkDHCP refuses addresses and gateways of a version whose addresses DHCP gives.
func (c call) checkDHCP(n *bundle.NIC) error {
	given := func(a netip.Addr) (string, bool) {
		if a.Is4() {
			return "dhcp", n.DHCP
		}
		return "dhcp6", n.DHCP6
	}
	for _, p := range n.Addrs {
		if word, ok := given(p.Addr()); ok {
			return c.Errorf("ip", "leave one of them out", "ip: %s beside %q, which gives the address of that version", p, word)
		}
	}
	for _, g := range n.Gateways {
		if word, ok := given(g); ok {
			return c.Errorf("gateway", "", "gateway: a card with ip = %q is told its routes by the server", word)
		}
	}
	return nil
}

// checkAddrs refuses what cannot be an interface's own address.
func (c call) checkAddrs(name string, addrs []netip.Prefix) error {
	if len(addrs) == 0 {
		return c.Errorf(name, "", "%s: no address", name)
	}
	for i, p := range addrs {
		a := p.Addr()
		switch {
		case a.Is4In6():
			return c.Errorf(name, fmt.Sprintf("write %q", a.Unmap()), "%s: %s is an IPv4 address in IPv6 clothing", name, a)
		case a.IsUnspecified(), a.IsMulticast(), a.IsLoopback(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			return c.Errorf(name, "", "%s: %s cannot be an interface's own address", name, a)
		case p.Bits() == 0:
			return c.Errorf(name, "", "%s: %s: a prefix length of 0 leaves no other network", name, p)
		case a.Is4() && p.Bits() < 31 && (a == p.Masked().Addr() || a == lastAddr(p)):
			return c.Errorf(name, "", "%s: %s is the network or the broadcast address of its subnet", name, p)
		}
		for _, q := range addrs[:i] {
			if q.Addr() == a {
				return c.Errorf(name, "", "%s: address %s given twice", name, a)
			}
		}
	}
	return nil
}

// lastAddr is the highest address of an IPv4 prefix: its broadcast address.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

func (c call) checkGateways(gws []netip.Addr, addrs []netip.Prefix) error {
	for i, g := range gws {
		for _, h := range gws[:i] {
			if h.Is4() == g.Is4() {
				return c.Errorf("gateway", "", "gateway: %s and %s are of one IP version", h, g)
			}
		}
		inside := false
		for _, p := range addrs {
			if p.Addr() == g {
				return c.Errorf("gateway", "", "gateway: %s is the card's own address", g)
			}
			inside = inside || p.Contains(g)
		}
		if !inside {
			return c.Errorf("gateway", "a gateway is reached without a gateway: it must lie in one of the card's subnets",
				"gateway: %s is in none of %v", g, addrs)
		}
	}
	return nil
}

// checkMAC refuses group and zero addresses: no frame may come from them
// (IEEE 802.3, 3.2.3).
func (c call) checkMAC(m frame.MAC) error {
	if m[0]&1 != 0 {
		return c.Errorf("mac", "the lowest bit of the first octet must be 0: 02:...", "mac: %s is a group address", m)
	}
	if m == (frame.MAC{}) {
		return c.Errorf("mac", "", "mac: %s is no address", m)
	}
	return nil
}

func newUplink(c call) (starlark.Value, error) {
	col, err := c.collector()
	if err != nil {
		return nil, err
	}
	if col.Uplink != nil {
		return nil, c.Errorf("", "a pod has one uplink; give it several addresses: ip = [...]", "called twice (first at %s)", col.uplinkPos)
	}
	u := &bundle.Uplink{MAC: deriveMAC(col.Pod, "/uplink"), Addrs: args.Get[[]netip.Prefix](c.Call, "ip"), Masquerade: args.Get[bool](c.Call, "masquerade")}
	if err := c.checkAddrs("ip", u.Addrs); err != nil {
		return nil, err
	}
	if c.Has("mac") {
		m := args.Get[frame.MAC](c.Call, "mac")
		if err := c.checkMAC(m); err != nil {
			return nil, err
		}
		u.MAC = m.String()
	}
	col.Uplink, col.uplinkPos = u, c.Pos
	return starlark.None, nil
}

// identity is what guards hold a sender with this card to.
func (n *nicValue) identity() policy.Identity {
	m, err := frame.ParseMAC(n.nic.MAC)
	if err != nil {
		// A card's MAC was checked or derived; the zero identity owns nothing.
		return policy.Identity{}
	}
	id := policy.Identity{MAC: m, DHCP4: n.nic.DHCP, DHCP6: n.nic.DHCP6}
	for _, p := range n.nic.Addrs {
		id.Addrs = append(id.Addrs, p.Addr())
	}
	return id
}
