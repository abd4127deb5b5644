package frames

import (
	"encoding/binary"
	"net/netip"

	"go.starlark.net/starlark"

	"sekimori/nicshadow/frame"
	"sekimori/starlark/args"
)

// Ports, operations and message types of DHCP.
const (
	dhcpServer, dhcpClient   = 67, 68
	dhcp6Server, dhcp6Client = 547, 546

	bootRequest, bootReply = 1, 2

	dhcpDiscover, dhcpOffer, dhcpACK, dhcpNAK, dhcpRelease, dhcpInform = 1, 2, 5, 6, 7, 8

	dhcp6Advertise, dhcp6Reply, dhcp6Reconfigure = 2, 7, 10
)

// allDHCPv6 are All_DHCP_Relay_Agents_and_Servers (RFC 8415, 7.1).
var allDHCPv6 = netip.MustParseAddr("ff02::1:2")

// A lease is what tests vary of a DHCP message.
type lease struct {
	network
	typ               uint8
	op                uint8 // of BOOTP; 0: by the type
	mac               *frame.MAC
	requested, server netip.Addr
	client, your      netip.Addr
	xid               uint32
	ports             [2]uint16 // source, destination; 0: by the type
	extra             []byte    // options as they are
}

// newDHCP is a DHCP message as clients and servers send it, over IPv4 or IPv6.
func newDHCP(c *args.Call) (starlark.Value, error) {
	l := lease{network: networkOf(c), requested: args.Get[netip.Addr](c, "requested_ip"), server: args.Get[netip.Addr](c, "server_ip"),
		client: args.Get[netip.Addr](c, "client_ip"), your: args.Get[netip.Addr](c, "your_ip"),
		op: uint8(args.Get[int64](c, "op")), xid: uint32(args.Or(c, "xid", int64(1))), extra: args.Get[[]byte](c, "options")}
	l.ports = [2]uint16{uint16(args.Get[int64](c, "src_port")), uint16(args.Get[int64](c, "dst_port"))}
	if m, ok := c.Vals["client_mac"].(frame.MAC); ok {
		l.mac = &m
	}
	l.version = int(args.Or(c, "version", int64(4)))
	if !c.Has("version") && (l.src.Is6() || l.dst.Is6() || l.requested.Is6() || l.server.Is6()) {
		l.version = 6
	}
	l.typ = uint8(args.Or(c, "message_type", int64(dhcpDiscover)))
	for _, a := range []struct {
		name string
		addr netip.Addr
	}{{"requested_ip", l.requested}, {"server_ip", l.server}, {"client_ip", l.client}, {"your_ip", l.your}} {
		fits := a.addr.Is4() && l.version == 4 || a.addr.Is6() && l.version == 6 && (a.name == "requested_ip" || a.name == "server_ip")
		if a.addr.IsValid() && !fits {
			return nil, c.Errorf(a.name, "", "%s: %s is no address of a DHCPv%d message", a.name, a.addr, l.version)
		}
	}
	if l.version == 6 {
		return newFrame(c, l.v6)
	}
	return newFrame(c, l.v4)
}

// v4 is RFC 2131: a client that has no address yet sends from 0.0.0.0 to
// everybody.
func (l lease) v4(s Sender) ([]byte, error) {
	fromServer := l.typ == dhcpOffer || l.typ == dhcpACK || l.typ == dhcpNAK
	if l.op != 0 {
		fromServer = l.op == bootReply
	}
	ports, op := [2]uint16{dhcpClient, dhcpServer}, uint8(bootRequest)
	if fromServer {
		ports, op = [2]uint16{dhcpServer, dhcpClient}, bootReply
	}
	l.settle(ports)
	if l.op == 0 {
		l.op = op
	}
	unicast := l.typ == dhcpRelease || l.typ == dhcpInform
	if !l.src.IsValid() && !fromServer && !unicast {
		l.src = netip.IPv4Unspecified()
	}
	if !l.dst.IsValid() && !unicast {
		l.dst = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	}
	return l.around(s, protoUDP, func(src, dst netip.Addr) []byte {
		return udpDatagram(l.ports[0], l.ports[1], src, dst, l.message4(s))
	})
}

func (l *lease) settle(ports [2]uint16) {
	for i, p := range ports {
		if l.ports[i] == 0 {
			l.ports[i] = p
		}
	}
}

// message4 is RFC 2131, 2: op, hardware type and length, hops; transaction;
// seconds, flags (broadcast); client, your, server and relay address; hardware
// address; server name, file; magic cookie and options (RFC 2132).
func (l *lease) message4(s Sender) []byte {
	mac := s.MAC
	if l.mac != nil {
		mac = *l.mac
	}
	b := []byte{l.op, 1, 6, 0}
	b = binary.BigEndian.AppendUint32(b, l.xid)
	b = append(b, 0, 0, 0x80, 0)
	for _, a := range []netip.Addr{l.client, l.your, {}, {}} {
		if !a.IsValid() {
			a = netip.IPv4Unspecified()
		}
		b = append(b, a.AsSlice()...)
	}
	b = append(append(b, mac[:]...), make([]byte, 10+64+128)...)
	b = append(b, 0x63, 0x82, 0x53, 0x63)
	b = append(b, 53, 1, l.typ)
	if l.requested.IsValid() {
		b = append(append(b, 50, 4), l.requested.AsSlice()...)
	}
	if l.server.IsValid() {
		b = append(append(b, 54, 4), l.server.AsSlice()...)
	}
	return append(append(b, l.extra...), 255)
}

// v6 is RFC 8415: clients send from their link-local address.
func (l lease) v6(s Sender) ([]byte, error) {
	fromServer := l.typ == dhcp6Advertise || l.typ == dhcp6Reply || l.typ == dhcp6Reconfigure
	ports := [2]uint16{dhcp6Client, dhcp6Server}
	if fromServer {
		ports = [2]uint16{dhcp6Server, dhcp6Client}
	}
	l.settle(ports)
	if !l.src.IsValid() {
		l.src = linkLocal(s.MAC)
	}
	if !l.dst.IsValid() && !fromServer {
		l.dst = allDHCPv6
	}
	return l.around(s, protoUDP, func(src, dst netip.Addr) []byte {
		return udpDatagram(l.ports[0], l.ports[1], src, dst, l.message6(s))
	})
}

// message6 is RFC 8415, 8: type and transaction, then options: the client's
// identifier, a DUID of its MAC (11.4), and what it asks for: an address (21.4,
// 21.6).
func (l *lease) message6(s Sender) []byte {
	mac := s.MAC
	if l.mac != nil {
		mac = *l.mac
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(l.typ)<<24|l.xid&0xffffff)
	b = append(append(b, 0, 1, 0, 10, 0, 3, 0, 1), mac[:]...)
	var want []byte
	if l.requested.IsValid() {
		want = append(append([]byte{0, 5, 0, 24}, l.requested.AsSlice()...), make([]byte, 8)...)
	}
	b = append(b, 0, 3)
	b = binary.BigEndian.AppendUint16(b, uint16(12+len(want)))
	b = append(append(b, 0, 0, 0, 1), make([]byte, 8)...)
	b = append(b, want...)
	if l.server.IsValid() { // server unicast, 21.12
		b = append(append(b, 0, 12, 0, 16), l.server.AsSlice()...)
	}
	return append(b, l.extra...)
}

// dhcpParams are the arguments of dhcp().
func dhcpParams() []args.Param {
	return []args.Param{
		{Name: "message_type", Type: args.Int(1, 255), Default: "1", Doc: "DHCPv4: 1 DISCOVER, 2 OFFER, 3 REQUEST, 4 DECLINE, 5 ACK, 6 NAK, 7 RELEASE, 8 INFORM; DHCPv6: 1 SOLICIT, 2 ADVERTISE, 3 REQUEST, ..."},
		{Name: "op", Type: args.Int(1, 255), Default: "by message_type", Doc: "DHCPv4: 1 from a client, 2 from a server"},
		{Name: "version", Type: args.Int(4, 6), Default: "4 unless an address says IPv6", Doc: "4 or 6"},
		{Name: "client_mac", Type: args.MAC, Default: "the sender's own", Doc: "client hardware address, or the one in the DUID"},
		{Name: "requested_ip", Type: args.IP, Default: "None", Doc: "the address that is asked for"},
		{Name: "server_ip", Type: args.IP, Default: "None", Doc: "DHCPv4: server identifier; DHCPv6: server unicast option"},
		{Name: "client_ip", Type: args.IP, Default: `"0.0.0.0"`, Doc: "DHCPv4: the address that the client has"},
		{Name: "your_ip", Type: args.IP, Default: `"0.0.0.0"`, Doc: "DHCPv4: the address that the server gives"},
		{Name: "xid", Type: args.Int(0, 1<<32-1), Default: "1", Doc: "transaction"},
		{Name: "src_port", Type: args.Int(0, 65535), Default: "by message_type", Doc: "UDP source port"},
		{Name: "dst_port", Type: args.Int(0, 65535), Default: "by message_type", Doc: "UDP destination port"},
		{Name: "options", Type: typeBytes, Default: `b""`, Doc: "further options, as they are on the wire"},
	}
}
