package usernet

import (
	"context"
	"io"
	"net"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// dialTimeout is for the host's connections.
const dialTimeout = 10 * time.Second

// connecting is how many connections may be under way at once.
const connecting = 256

// udpIdle is how long a flow may be silent (RFC 4787, REQ-5: two minutes at
// least, but for well-known ports).
const (
	udpIdle = 2 * time.Minute
	dnsIdle = 15 * time.Second
)

// forward has the stack hand over what it is sent, whatever the address.
func (g *gateway) forward(ctx context.Context) {
	t := tcp.NewForwarder(g.stack, 0, connecting, func(r *tcp.ForwarderRequest) { g.tcp(ctx, r) })
	g.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, t.HandlePacket)
	u := udp.NewForwarder(g.stack, func(r *udp.ForwarderRequest) bool { return g.udp(ctx, r) })
	g.stack.SetTransportProtocolHandler(udp.ProtocolNumber, u.HandlePacket)
}

// target is where a connection to an address of the stack really goes.
func (g *gateway) target(id stack.TransportEndpointID) (netip.AddrPort, bool) {
	a, ok := netip.AddrFromSlice(id.LocalAddress.AsSlice())
	switch {
	case !ok || id.LocalPort == 0:
		return netip.AddrPort{}, false
	case g.own(a):
		return g.cfg.Resolver, id.LocalPort == dnsPort && g.cfg.Resolver.IsValid()
	}
	return netip.AddrPortFrom(a, id.LocalPort), !refused(a)
}

// begin takes a place for a connection, if there is one.
func (g *gateway) begin() bool {
	select {
	case g.conns <- struct{}{}:
		return true
	default:
		g.cfg.Log.Warn("too many connections: one more refused", "limit", maxConns)
		return false
	}
}

func (g *gateway) end() { <-g.conns }

// tcp makes a connection to the host's end before it takes the container's: who
// is refused there is refused here. It runs on a goroutine of its own.
func (g *gateway) tcp(ctx context.Context, r *tcp.ForwarderRequest) {
	to, ok := g.target(r.ID())
	if !ok || !g.begin() {
		r.Complete(true)
		return
	}
	g.tasks.Go(func() {
		defer g.end()
		conn, err := g.dial(ctx, "tcp", to.String())
		if err != nil {
			r.Complete(true)
			return
		}
		far := conn.(halfCloser)
		var wq waiter.Queue
		ep, terr := r.CreateEndpoint(&wq)
		if terr != nil {
			far.Close()
			r.Complete(true)
			return
		}
		r.Complete(false)
		join(ctx, gonet.NewTCPConn(&wq, ep), far)
	})
}

// A halfCloser is a TCP connection of either side.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// join copies both ways until both are over; the end of one way is passed on.
func join(ctx context.Context, near, far halfCloser) {
	stop := context.AfterFunc(ctx, func() { near.Close(); far.Close() })
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		pipe(far, near)
	}()
	pipe(near, far)
	<-done
	near.Close()
	far.Close()
}

func pipe(to, from halfCloser) {
	if _, err := io.Copy(to, from); err != nil {
		// The one that broke: the other side shall see it, too.
		to.Close()
		from.Close()
		return
	}
	to.CloseWrite()
}

// udp makes a flow: a socket of the host for what one port of a container says to
// one address.
func (g *gateway) udp(ctx context.Context, r *udp.ForwarderRequest) bool {
	to, ok := g.target(r.ID())
	if !ok || !g.begin() {
		return true // in silence, as a firewall would
	}
	var wq waiter.Queue
	ep, terr := r.CreateEndpoint(&wq)
	if terr != nil {
		g.end()
		return true
	}
	near := gonet.NewUDPConn(&wq, ep)
	idle := udpIdle
	if r.ID().LocalPort == dnsPort {
		idle = dnsIdle
	}
	g.tasks.Go(func() {
		defer g.end()
		defer near.Close()
		far, err := g.dial(ctx, "udp", to.String())
		if err != nil {
			return
		}
		defer far.Close()
		stop := context.AfterFunc(ctx, func() { near.Close(); far.Close() })
		defer stop()
		go func() {
			relay(far, near, idle)
			far.Close()
		}()
		relay(near, far, idle)
	})
	return true
}

// relay copies datagrams until none comes for a while.
func relay(to, from net.Conn, idle time.Duration) {
	buf := make([]byte, 65535)
	for {
		from.SetReadDeadline(time.Now().Add(idle))
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		// An error is of the datagram before: nobody listens there (yet).
		_, _ = to.Write(buf[:n])
	}
}
