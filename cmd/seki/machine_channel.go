package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"sekimori/lifecycle/agent"
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/hostlink"
	"sekimori/nicshadow/tap"
	"sekimori/vmm/virtio"
)

// agentPort is the port of the host that a guest's agent calls.
const agentPort = 1024

// guestCID is the guest's address on its vsock device, which is its own.
const guestCID = 3

// A container has three streams, and so does each exec; 2 * vsockConns *
// vsockBuffer bounds what a guest can make the host hold, 256 MiB.
const (
	vsockBuffer = 128 << 10
	vsockConns  = 1024
)

// The transports of the conversation between a machine's agent and its host.
const (
	overVsock = "vsock"
	overTCP   = "tcp"
)

// tcpArg is the agent's argument for the second.
const tcpArg = "transport=" + overTCP

var transports = []string{overVsock, overTCP}

// A channel carries that conversation: a device of the guest, and a listener
// that only the guest reaches.
type channel interface {
	device() virtio.Device
	// listen is called once, before the guest runs.
	listen(context.Context) (net.Listener, error)
	// args tell the agent what to dial.
	args() []string
	close() error
}

func newChannel(transport string, log *slog.Logger) (channel, error) {
	if transport == overTCP {
		return newTCPChannel(log)
	}
	v, err := virtio.NewVsock(virtio.VsockConfig{CID: guestCID, Buffer: vsockBuffer, MaxConns: vsockConns})
	return vsockChannel{v}, err
}

// A vsockChannel is a virtio socket device.
type vsockChannel struct{ *virtio.Vsock }

func (c vsockChannel) device() virtio.Device                        { return c.Vsock }
func (c vsockChannel) listen(context.Context) (net.Listener, error) { return c.Listen(agentPort) }
func (c vsockChannel) args() []string                               { return nil }
func (c vsockChannel) close() error                                 { return c.Close() }

// link is the network of an agent that speaks TCP: 169.254.0.0/16 is for links
// without a router (RFC 3927), and a guest's own network namespace has no other
// card that is up.
var link = hostlink.Config{
	Host:  hostlink.Side{MAC: frame.MAC{0x02, 0x5e, 0x6b, 0x69, 0xff, 1}, Addr: netip.AddrFrom4([4]byte{169, 254, 201, 1})},
	Guest: hostlink.Side{MAC: frame.MAC{0x02, 0x5e, 0x6b, 0x69, 0xff, 2}, Addr: netip.AddrFrom4([4]byte{169, 254, 201, 2})},
	Port:  agentPort,
	MTU:   9000, // a kick costs the same whatever it carries
}

// A tcpChannel is a network card of the guest's own namespace, no container's.
type tcpChannel struct {
	card *virtio.Net
	link *hostlink.Link
	log  *slog.Logger
	done chan struct{} // closed when nothing is received any more
}

func newTCPChannel(log *slog.Logger) (*tcpChannel, error) {
	c := &tcpChannel{log: log, done: make(chan struct{})}
	var err error
	c.card, err = virtio.NewNet(virtio.NetConfig{MAC: link.Guest.MAC, MTU: link.MTU, Backend: c})
	return c, err
}

func (c *tcpChannel) device() virtio.Device { return c.card }
func (c *tcpChannel) args() []string        { return []string{tcpArg} }

func (c *tcpChannel) listen(ctx context.Context) (net.Listener, error) {
	var err error
	if c.link, err = hostlink.Open(ctx, link); err != nil {
		return nil, err
	}
	go func() {
		defer close(c.done)
		// What finds no buffer is lost, and sent again.
		if err := c.link.Receive(func(b []byte) { _ = c.card.Deliver(b) }); err != nil {
			c.log.Error("the agent hears nothing more", "err", err)
		}
	}()
	return c.link.Listener(), nil
}

// Transmit implements [virtio.NetBackend].
func (c *tcpChannel) Transmit(b []byte, _ uint16) { c.link.Transmit(b) }

// Refuse implements [virtio.NetBackend]: what is no frame is not the agent's.
func (c *tcpChannel) Refuse([]byte, uint16, virtio.NetFault) {}

func (c *tcpChannel) close() error {
	if c.link == nil {
		return nil
	}
	err := c.link.Close()
	<-c.done
	if n := c.link.Refused(); n > 0 {
		c.log.Warn("frames on the agent's card that are not its own were refused", "frames", n)
	}
	return err
}

// dialer is the guest's side: it makes the agent's connections to the host. Of
// the agent's arguments it takes its own; a User-Mode Linux kernel adds more.
func dialer(args []string) (func(context.Context) (net.Conn, error), error) {
	if !slices.Contains(args, tcpArg) {
		return func(context.Context) (net.Conn, error) { return agent.DialVsock(agentPort) }, nil
	}
	prefix := netip.PrefixFrom(link.Guest.Addr, 30)
	cfg := tap.Config{Name: "agent", MAC: link.Guest.MAC, MTU: link.MTU, Addrs: []netip.Prefix{prefix}, KeepIPv6: true}
	if err := tap.Adopt(nil, cfg.MAC, cfg); err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: dialTimeout}
	host := netip.AddrPortFrom(link.Host.Addr, link.Port).String()
	return func(ctx context.Context) (net.Conn, error) {
		c, err := d.DialContext(ctx, "tcp4", host)
		if err != nil {
			return nil, errors.Join(errors.New("over the agent's card"), err)
		}
		return c, nil
	}, nil
}

// dialTimeout is for a host that is stopped while the guest runs.
const dialTimeout = 30 * time.Second
