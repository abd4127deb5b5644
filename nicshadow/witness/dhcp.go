package witness

import (
	"encoding/binary"

	"sekimori/nicshadow/frame"
)

// Ports of DHCP: what goes there is read as DHCP.
var (
	dhcpPorts  = points(67, 68)
	dhcp6Ports = points(546, 547)
	// Types of messages that servers send (RFC 2132, 9.6; RFC 8415, 7.3).
	dhcpServers  = points(2, 5, 6, 9)
	dhcp6Servers = points(2, 7, 10)
)

// dhcpVariants are messages of clients and of servers.
func dhcpVariants() []variant {
	of := func(op uint64, types Set) variant {
		return variant{
			frame.IPProtocol: points(protoUDP), frame.IPFragment: points(0), frame.DstPort: dhcpPorts,
			frame.DHCPOp: points(op), frame.DHCPType: types,
		}
	}
	return []variant{of(1, between(1, 9).Without(dhcpServers)), of(2, dhcpServers)}
}

// dhcp6Variants are messages with and without an address, and relays', which
// are not looked into.
func dhcp6Variants() []variant {
	none := point(value{})
	of := func(op uint64, types, relay Set, more variant) variant {
		v := variant{
			frame.IPProtocol: points(protoUDP), frame.IPFragment: points(0), frame.DstPort: dhcp6Ports,
			frame.DHCPOp: points(op), frame.DHCPType: types, frame.DHCPRelayed: relay, frame.DHCPTransaction: between(0, 1<<24-1),
		}
		for f, s := range more {
			v[f] = s
		}
		return v
	}
	bare := variant{frame.DHCPRequested6: none, frame.DHCPLeaseTime: none}
	addressed := variant{frame.DHCPRequested6: nonZero6}
	relayed := variant{frame.DHCPRequested6: none, frame.DHCPLeaseTime: none, frame.DHCPServer6: none, frame.DHCPTransaction: none}
	clients := between(1, 11).Without(dhcp6Servers)
	return []variant{
		of(1, clients, points(0), bare), of(1, clients, points(0), addressed),
		of(2, dhcp6Servers, points(0), bare), of(2, dhcp6Servers, points(0), addressed),
		of(1, points(12), points(1), relayed), of(2, points(13), points(1), relayed),
	}
}

// dhcp4 is a message of RFC 2131.
func dhcp4(k *frame.Key) []byte {
	op, addr := k.Uint(frame.DHCPOp), uint32(k.Uint(frame.DHCPRequested4))
	b := binary.BigEndian.AppendUint32([]byte{byte(op), 1, 6, 0}, uint32(k.Uint(frame.DHCPTransaction)))
	b = append(b, make([]byte, 236-8)...)
	if op == 2 {
		binary.BigEndian.PutUint32(b[16:], addr)
	}
	if k.Uint(frame.DHCPRelayed) != 0 {
		b[27] = 1 // giaddr 0.0.0.1
	}
	copy(b[28:], append48(nil, k.Uint(frame.DHCPClientMAC)))
	b = append(b, 0x63, 0x82, 0x53, 0x63, 53, 1, byte(k.Uint(frame.DHCPType)))
	option := func(code byte, v uint32) {
		if v != 0 {
			b = binary.BigEndian.AppendUint32(append(b, code, 4), v)
		}
	}
	if op == 1 {
		option(50, addr)
	}
	option(51, uint32(k.Uint(frame.DHCPLeaseTime)))
	option(54, uint32(k.Uint(frame.DHCPServer4)))
	return append(b, 255)
}

// dhcp6 is a message of RFC 8415, 8 or 9.
func dhcp6(k *frame.Key) []byte {
	typ := byte(k.Uint(frame.DHCPType))
	if k.Uint(frame.DHCPRelayed) != 0 {
		return append([]byte{typ, 0}, make([]byte, 32)...)
	}
	xid := k.Uint(frame.DHCPTransaction)
	b := []byte{typ, byte(xid >> 16), byte(xid >> 8), byte(xid)}
	if hi, lo := k.Wide(frame.DHCPRequested6); hi|lo != 0 {
		b = append(b, 0, 3, 0, 40, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 24)
		b = append(append128(b, k, frame.DHCPRequested6), 0, 0, 0, 0)
		b = binary.BigEndian.AppendUint32(b, uint32(k.Uint(frame.DHCPLeaseTime)))
	}
	if hi, lo := k.Wide(frame.DHCPServer6); hi|lo != 0 {
		b = append128(append(b, 0, 12, 0, 16), k, frame.DHCPServer6)
	}
	return b
}
