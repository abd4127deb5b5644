package frame

import "encoding/binary"

// Numbers of DHCP (RFC 2131, RFC 2132) and DHCPv6 (RFC 8415, 7.3 and 24).
const (
	dhcpFixed    = 240 // bytes of a message before its options, the cookie included
	dhcpCookie   = 0x63825363
	dhcpEthernet = 0x0106 // hardware type and length of the client's address

	optPad       = 0
	optRequested = 50
	optLease     = 51
	optOverload  = 52
	optType      = 53
	optServer    = 54
	optEnd       = 255

	dhcp6RelayForward = 12
	dhcp6RelayReply   = 13

	opt6IANA    = 3
	opt6IATA    = 4
	opt6Address = 5
	opt6Unicast = 12
)

// dhcpFromServer and dhcp6FromServer are the types of messages that servers
// send, one bit each; dhcpTypes and dhcp6Types all that there are to clients,
// servers and relays.
const (
	dhcpFromServer  = 1<<2 | 1<<5 | 1<<6 | 1<<9 // offer, ack, nak, forcerenew
	dhcpTypes       = 1<<10 - 2
	dhcp6FromServer = 1<<2 | 1<<7 | 1<<10 | 1<<13 // advertise, reply, reconfigure, relay-repl
	dhcp6Types      = 1<<14 - 2
)

// no allocation, no lock, no log below this line

// parseDHCP4 reads the DHCP message p, all of a datagram. It takes what RFC
// 2131 says of clients on Ethernet and no more: plain BOOTP, options that go
// on in the fields sname and file (option 52), an option said twice and a
// message in fragments have more than one reading, so they drop.
//
//	1 byte    operation, 1 of clients, 2 of servers
//	2 bytes   hardware type 1, address length 6
//	1 byte    hops
//	4 bytes   transaction
//	4 bytes   seconds, flags
//	4 * 4     ciaddr, yiaddr, siaddr, giaddr
//	16 bytes  chaddr
//	192 bytes sname, file
//	4 bytes   cookie
func parseDHCP4(p []byte, fragment bool, meta uint64, k *Key) Reason {
	if fragment || len(p) < dhcpFixed || binary.BigEndian.Uint32(p[236:]) != dhcpCookie {
		return MalformedDHCP
	}
	head := binary.BigEndian.Uint64(p)
	op := head >> 56
	if op-1 > 1 || head>>40&0xffff != dhcpEthernet {
		return MalformedDHCP
	}
	o, ok := dhcpOptions(p[dhcpFixed:])
	if !ok || dhcpTypes>>o.typ&1 == 0 || dhcpFromServer>>o.typ&1 != op-1 {
		return MalformedDHCP
	}
	about := uint64(o.requested)
	switch {
	case op == 2:
		about = uint64(binary.BigEndian.Uint32(p[16:]))
	case about == 0:
		about = uint64(binary.BigEndian.Uint32(p[12:]))
	}
	k.Words[wordTarget] = about<<32 | uint64(o.server)
	k.Words[wordMAC] = binary.BigEndian.Uint64(p[28:])&^0xffff | op<<shiftDHCPOp | uint64(o.typ)
	if binary.BigEndian.Uint32(p[24:]) != 0 {
		k.Words[wordMAC] |= 1 << shiftDHCPRelay
	}
	k.Words[wordLease] = head<<shiftDHCPXID | uint64(o.lease)
	return k.accept(ClassIPv4DHCP, meta)
}

// A dhcpOption is what options are looked at for.
type dhcpOption struct {
	typ                      uint8
	requested, server, lease uint32
}

// dhcpOptions walks the options of a message: code, length, value. False
// where they are cut short, do not end, or say a thing twice or in a wrong
// length. Nearly all begin with the type, which is read ahead of the walk.
func dhcpOptions(p []byte) (o dhcpOption, ok bool) {
	i, seen := 0, uint8(0) // by code, from optRequested on
	if len(p) > 3 && p[0] == optType && p[1] == 1 {
		o.typ, i, seen = p[2], 3, 1<<(optType-optRequested)
	}
	for i < len(p) { // each turn takes a byte or more
		code := p[i]
		if code == optEnd {
			return o, true
		}
		if code == optPad {
			i++
			continue
		}
		if len(p)-i < 2 || int(p[i+1]) > len(p)-i-2 {
			return o, false
		}
		v := p[i+2 : i+2+int(p[i+1])]
		i += 2 + len(v)
		if code-optRequested > optServer-optRequested {
			continue
		}
		bit, length := uint8(1)<<(code-optRequested), 4
		if code == optType {
			length = 1
		}
		if seen&bit != 0 || len(v) != length || code == optOverload {
			return o, false
		}
		seen |= bit
		switch code {
		case optType:
			o.typ = v[0]
		case optRequested:
			o.requested = binary.BigEndian.Uint32(v)
		case optLease:
			o.lease = binary.BigEndian.Uint32(v)
		case optServer:
			o.server = binary.BigEndian.Uint32(v)
		}
	}
	return o, false
}

// parseDHCP6 reads the DHCPv6 message p, all of a datagram. What a relay
// message carries inside is not looked at: the message is the relay's.
//
//	1 byte   type
//	3 bytes  transaction; in relay messages hops and two addresses instead
func parseDHCP6(p []byte, fragment bool, meta uint64, k *Key) Reason {
	if fragment || len(p) < 4 || p[0] > 63 || dhcp6Types>>p[0]&1 == 0 {
		return MalformedDHCP
	}
	typ := uint64(p[0])
	word := typ | 1<<shiftDHCPOp
	if dhcp6FromServer>>typ&1 != 0 {
		word = typ | 2<<shiftDHCPOp
	}
	xid, options, relay := uint64(binary.BigEndian.Uint32(p)&0xffffff), p[4:], false
	if typ == dhcp6RelayForward || typ == dhcp6RelayReply {
		if len(p) < 34 {
			return MalformedDHCP
		}
		xid, options, relay = 0, p[34:], true
		word |= 1 << shiftDHCPRelay
	}
	for i := range 4 {
		k.Words[wordTarget+i] = 0
	}
	k.Words[wordLease] = xid << shiftDHCPXID
	if !dhcp6Options(options, relay, k) {
		return MalformedDHCP
	}
	k.Words[wordMAC] = word
	return k.accept(ClassIPv6DHCP, meta)
}

// dhcp6Options walks the options of a message: code (2), length (2), value.
// False where one is cut short. The first address of the first identity
// association that has one is what the message is about.
func dhcp6Options(p []byte, relay bool, k *Key) bool {
	for len(p) > 0 { // each turn takes 4 bytes or more
		code, v, rest, ok := dhcp6Option(p)
		if !ok {
			return false
		}
		p = rest
		switch {
		case relay:
		case code == opt6Unicast:
			if len(v) != 16 {
				return false
			}
			k.Words[wordServer] = binary.BigEndian.Uint64(v)
			k.Words[wordServer+1] = binary.BigEndian.Uint64(v[8:])
		case code == opt6IANA || code == opt6IATA:
			fixed := 12 // IAID, T1, T2
			if code == opt6IATA {
				fixed = 4
			}
			if len(v) < fixed || !dhcp6Addresses(v[fixed:], k) {
				return false
			}
		}
	}
	return true
}

// dhcp6Addresses walks the options inside an identity association: an address
// is 16 bytes, preferred and valid lifetime (4, 4), and options of its own.
func dhcp6Addresses(p []byte, k *Key) bool {
	for len(p) > 0 { // each turn takes 4 bytes or more
		code, v, rest, ok := dhcp6Option(p)
		if !ok {
			return false
		}
		p = rest
		if code != opt6Address {
			continue
		}
		if len(v) < 24 {
			return false
		}
		if k.Words[wordTarget]|k.Words[wordTarget+1] == 0 {
			k.Words[wordTarget] = binary.BigEndian.Uint64(v)
			k.Words[wordTarget+1] = binary.BigEndian.Uint64(v[8:])
			k.Words[wordLease] |= uint64(binary.BigEndian.Uint32(v[20:]))
		}
	}
	return true
}

// dhcp6Option cuts the first option off p.
func dhcp6Option(p []byte) (code uint16, v, rest []byte, ok bool) {
	if len(p) < 4 {
		return 0, nil, nil, false
	}
	n := int(binary.BigEndian.Uint16(p[2:]))
	if n > len(p)-4 {
		return 0, nil, nil, false
	}
	return binary.BigEndian.Uint16(p), p[4 : 4+n], p[4+n:], true
}
