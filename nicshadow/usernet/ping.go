package usernet

import (
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// pingTimeout is how long an answer is waited for.
const pingTimeout = 10 * time.Second

// ping asks a host in the place of a container, and sends the answer as that
// host's. Of ICMP nothing else leaves: errors about the container's connections
// are those of the user's own sockets.
func (g *gateway) ping(b []byte, dst netip.Addr) {
	b = slices.Clone(b) // the caller's buffer takes the next frame
	request, ok := echo(b, dst)
	if !ok || refused(dst) {
		return
	}
	select {
	case g.pings <- struct{}{}:
	default:
		return
	}
	g.tasks.Go(func() {
		defer func() { <-g.pings }()
		if answer, err := g.ask(dst, request); err == nil {
			if f := reply(b, dst, answer, g.cfg.MTU); f != nil {
				g.write(f)
			}
		}
	})
}

// echo is the message of an echo request, from its type on, of a frame that
// parses and has no IPv6 extension header.
func echo(b []byte, dst netip.Addr) ([]byte, bool) {
	ip := b[header.EthernetMinimumSize:]
	var message []byte
	kind := byte(header.ICMPv4Echo)
	if dst.Is4() {
		h := header.IPv4(ip)
		if h.More() || h.FragmentOffset() != 0 {
			return nil, false // a ping of more than a frame
		}
		message = ip[h.HeaderLength():h.TotalLength()]
	} else {
		h := header.IPv6(ip)
		if h.NextHeader() != uint8(header.ICMPv6ProtocolNumber) {
			return nil, false
		}
		kind = byte(header.ICMPv6EchoRequest)
		message = ip[header.IPv6MinimumSize:][:h.PayloadLength()]
	}
	return message, len(message) >= header.ICMPv4MinimumSize && message[0] == kind && message[1] == 0
}

// ask sends an echo request by a ping socket, which has an identifier of its own
// and computes the checksum, and returns the answer's payload behind type, code,
// checksum and identifier: sequence number and data.
func ask(dst netip.Addr, request []byte) ([]byte, error) {
	family, protocol := unix.AF_INET, unix.IPPROTO_ICMP
	var to unix.Sockaddr = &unix.SockaddrInet4{}
	if dst.Is4() {
		to = &unix.SockaddrInet4{Addr: dst.As4()}
	} else {
		family, protocol, to = unix.AF_INET6, unix.IPPROTO_ICMPV6, &unix.SockaddrInet6{Addr: dst.As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, to); err != nil {
		unix.Close(fd)
		return nil, err
	}
	s := os.NewFile(uintptr(fd), "ping")
	defer s.Close()
	s.SetDeadline(time.Now().Add(pingTimeout))
	if _, err := s.Write(request); err != nil {
		return nil, err
	}
	buf := make([]byte, 65535)
	for {
		n, err := s.Read(buf)
		if err != nil {
			return nil, err
		}
		// Of the host's answers this socket gets its own; the sequence number says
		// which of them it is.
		if n >= 8 && (buf[0] == byte(header.ICMPv4EchoReply) || buf[0] == byte(header.ICMPv6EchoReply)) && slices.Equal(buf[6:8], request[6:8]) {
			return buf[6:n], nil
		}
	}
}

// reply makes the frame that answers the request in b.
func reply(b []byte, dst netip.Addr, answer []byte, mtu int) []byte {
	ip := b[header.EthernetMinimumSize:]
	request, _ := echo(b, dst)
	// Type, code and checksum to come; the container's identifier; the answer.
	message := slices.Concat(make([]byte, 4), request[4:6], answer)
	out := slices.Concat(b[6:12], b[0:6], b[12:14])
	if dst.Is4() {
		h := header.IPv4(make([]byte, header.IPv4MinimumSize))
		h.Encode(&header.IPv4Fields{
			TotalLength: uint16(len(h) + len(message)), TTL: 64, Protocol: uint8(header.ICMPv4ProtocolNumber),
			SrcAddr: header.IPv4(ip).DestinationAddress(), DstAddr: header.IPv4(ip).SourceAddress(),
		})
		h.SetChecksum(^h.CalculateChecksum())
		m := header.ICMPv4(message)
		m.SetType(header.ICMPv4EchoReply)
		m.SetChecksum(header.ICMPv4Checksum(m[:header.ICMPv4MinimumSize], checksum.Checksum(m[header.ICMPv4MinimumSize:], 0)))
		out = slices.Concat(out, h, message)
	} else {
		h := header.IPv6(make([]byte, header.IPv6MinimumSize))
		src, to := header.IPv6(ip).DestinationAddress(), header.IPv6(ip).SourceAddress()
		h.Encode(&header.IPv6Fields{
			PayloadLength: uint16(len(message)), TransportProtocol: header.ICMPv6ProtocolNumber, HopLimit: 64, SrcAddr: src, DstAddr: to,
		})
		m := header.ICMPv6(message)
		m.SetType(header.ICMPv6EchoReply)
		m.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: m, Src: src, Dst: to}))
		out = slices.Concat(out, h, message)
	}
	if len(out) > mtu+header.EthernetMinimumSize {
		return nil
	}
	return out
}
