package usernet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"sekimori/nicshadow/frame"
)

// A Config says what the gateway is like.
type Config struct {
	MAC   frame.MAC
	Addrs []netip.Prefix // the containers' gateways, and their networks
	MTU   int            // in bytes; 0 means 1500
	// Resolver takes what is sent to port 53 of the gateway; none if invalid.
	Resolver netip.AddrPort
	Log      *slog.Logger
}

// Limits: what a container can make the user's process hold.
const (
	maxConns = 1024 // TCP connections and UDP flows, together
	maxPings = 64
	outQueue = 1024 // frames
)

// nic is the number of the stack's one card.
const nic = 1

// A gateway is one that serves.
type gateway struct {
	cfg   Config
	stack *stack.Stack
	link  *channel.Endpoint
	out   io.Writer
	conns chan struct{} // one for each connection or flow
	pings chan struct{} // one for each ping under way
	tasks sync.WaitGroup

	// The host's network; tests have another.
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
	ask  func(dst netip.Addr, request []byte) ([]byte, error)
}

// Serve is the gateway until frames ends, or ctx does. Each Read of frames is one
// frame of the pod's switch, each Write one to it.
func Serve(ctx context.Context, frames io.ReadWriter, cfg Config) error {
	d := net.Dialer{Timeout: dialTimeout}
	return (&gateway{cfg: cfg, dial: d.DialContext, ask: ask}).serve(ctx, frames)
}

func (g *gateway) serve(ctx context.Context, frames io.ReadWriter) error {
	if g.cfg.MTU == 0 {
		g.cfg.MTU = 1500
	}
	g.out, g.conns, g.pings = frames, make(chan struct{}, maxConns), make(chan struct{}, maxPings)
	if err := g.build(); err != nil {
		return fmt.Errorf("usernet: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	g.tasks.Go(func() { g.send(ctx) })
	g.forward(ctx)
	err := g.receive(frames)
	cancel()
	g.stack.Destroy()
	g.tasks.Wait()
	return err
}

// build makes the stack. To it every address is its own, so that it ends the
// connections to all of them.
func (g *gateway) build() error {
	g.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	g.link = channel.New(outQueue, uint32(g.cfg.MTU)+header.EthernetMinimumSize, tcpip.LinkAddress(g.cfg.MAC[:]))
	sack, autotune := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true)
	errs := []tcpip.Error{
		g.stack.CreateNIC(nic, ethernet.New(g.link)),
		g.stack.SetPromiscuousMode(nic, true), g.stack.SetSpoofing(nic, true),
		g.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sack), g.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &autotune),
	}
	for _, p := range g.cfg.Addrs {
		a := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(p.Addr().AsSlice()), PrefixLen: p.Bits()}}
		if p.Addr().Is6() {
			a.Protocol = ipv6.ProtocolNumber
		}
		errs = append(errs, g.stack.AddProtocolAddress(nic, a, stack.AddressProperties{}))
	}
	g.stack.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}, {Destination: header.IPv6EmptySubnet, NIC: nic}})
	for _, err := range errs {
		if err != nil {
			return errors.New(err.String())
		}
	}
	return nil
}

// receive takes the switch's frames.
func (g *gateway) receive(frames io.Reader) error {
	buf := make([]byte, g.cfg.MTU+header.EthernetMinimumSize+1)
	var k frame.Key
	for {
		n, err := frames.Read(buf)
		if errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("usernet: %w", err)
		}
		if n == 0 {
			return nil // the other end of a socket pair is gone
		}
		g.take(buf[:n], &k)
	}
}

// take passes a frame on to the stack, or to whoever else is to have it. What is
// for nobody here is forgotten: it was counted where it was judged.
func (g *gateway) take(b []byte, k *frame.Key) {
	if frame.Parse(b, k) != frame.OK || k.Uint(frame.VLANTags) != 0 {
		return
	}
	switch k.Class() {
	case frame.ClassARP:
		// The stack would answer for every address, and take them all.
		if k.Uint(frame.ARPOp) == 1 && !g.own(addr4(k.Uint(frame.ARPTargetIP))) {
			return
		}
	case frame.ClassIPv6NDP:
		if t := addr6(k.Wide(frame.NDPTarget)); k.Uint(frame.ICMPType) != nsType && k.Uint(frame.ICMPType) != naType || k.Uint(frame.ICMPType) == nsType && !g.own(t) {
			return
		}
	case frame.ClassIPv4ICMP, frame.ClassIPv6ICMP:
		if dst := destination(k); !g.own(dst) {
			g.ping(b, dst)
			return
		}
	case frame.ClassIPv4TCP, frame.ClassIPv4UDP, frame.ClassIPv6TCP, frame.ClassIPv6UDP:
		if dst := destination(k); refused(dst) || g.own(dst) && k.Uint(frame.DstPort) != dnsPort {
			if k.Class() != frame.ClassIPv4TCP && k.Class() != frame.ClassIPv6TCP {
				return
			} // the forwarder resets it
		}
	case frame.ClassIPv4Fragment, frame.ClassIPv6Fragment:
	default:
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(slices.Clone(b))})
	g.link.InjectInbound(0, pkt)
	pkt.DecRef()
}

// Of neighbour discovery (RFC 4861): solicitation and advertisement.
const (
	nsType = 135
	naType = 136
)

const dnsPort = 53

// own says that an address is the gateway's; the link-local one is not ours to
// have: nobody was told of it.
func (g *gateway) own(a netip.Addr) bool {
	return slices.ContainsFunc(g.cfg.Addrs, func(p netip.Prefix) bool { return p.Addr() == a })
}

// refused says that no container reaches an address from here.
func refused(a netip.Addr) bool {
	a = a.Unmap()
	if a.Is4() {
		// "This network" and what is reserved, broadcast among it (RFC 1122, 3.2.1.3).
		if first := a.As4()[0]; first == 0 || first >= 240 {
			return true
		}
	}
	return !a.IsValid() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast()
}

func addr4(v uint64) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

func addr6(hi, lo uint64) netip.Addr {
	var b [16]byte
	for i := range 8 {
		b[i], b[8+i] = byte(hi>>(56-8*i)), byte(lo>>(56-8*i))
	}
	return netip.AddrFrom16(b)
}

// destination is where an IP frame goes.
func destination(k *frame.Key) netip.Addr {
	if k.Class() >= frame.ClassIPv6TCP && k.Class() <= frame.ClassIPv6Fragment || k.Class() == frame.ClassIPv6DHCP {
		return addr6(k.Wide(frame.IPv6Dst))
	}
	return addr4(k.Uint(frame.IPv4Dst))
}

// send writes the stack's frames to the switch.
func (g *gateway) send(ctx context.Context) {
	for {
		pkt := g.link.ReadContext(ctx)
		if pkt == nil {
			return
		}
		v := pkt.ToView()
		g.write(v.AsSlice())
		v.Release()
		pkt.DecRef()
	}
}

// write sends a frame. What the switch has no room for is lost, as on a wire.
func (g *gateway) write(b []byte) { _, _ = g.out.Write(b) }
