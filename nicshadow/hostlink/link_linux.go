package hostlink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/nicshadow/frame"
)

// A Side is one end of the cable.
type Side struct {
	MAC  frame.MAC
	Addr netip.Addr // IPv4
}

// A Config says what the link is like. Both addresses are of one /30.
type Config struct {
	Host, Guest Side
	Port        uint16 // of the listener
	MTU         int    // in bytes
}

// A Link is the host's end.
type Link struct {
	cfg      Config
	listener net.Listener
	cable    *os.File // packet socket with virtio_net_hdr, see [vnetHeader]
	closed   atomic.Bool
	refused  atomic.Uint64

	// mu guards what follows.
	mu  sync.Mutex
	key frame.Key
	out []byte
}

// startTimeout is how long the stage may take, on the busiest host.
const startTimeout = 10 * time.Second

// Open makes the namespace and what is in it.
func Open(ctx context.Context, cfg Config) (*Link, error) {
	if !cfg.Host.Addr.Is4() || !cfg.Guest.Addr.Is4() || netip.PrefixFrom(cfg.Host.Addr, bits).Masked() != netip.PrefixFrom(cfg.Guest.Addr, bits).Masked() {
		return nil, fmt.Errorf("hostlink: %v and %v: want two IPv4 addresses of one /%d", cfg.Host.Addr, cfg.Guest.Addr, bits)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	files, err := runStage(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("hostlink: %w", err)
	}
	l := &Link{cfg: cfg, cable: files[1], out: make([]byte, vnetHeader, vnetHeader+maxFrame)}
	l.listener, err = net.FileListener(files[0])
	files[0].Close()
	if err != nil {
		l.cable.Close()
		return nil, fmt.Errorf("hostlink: %w", err)
	}
	return l, nil
}

// Listener takes the guest's connections. Close closes it.
func (l *Link) Listener() net.Listener { return l.listener }

// Refused counts the frames of the guest that did not pass.
func (l *Link) Refused() uint64 { return l.refused.Load() }

// Close ends the link, and with it the namespace.
func (l *Link) Close() error {
	l.closed.Store(true)
	err := l.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil // whom the listener was given to has closed it
	}
	return errors.Join(err, l.cable.Close())
}

// Transmit takes a frame of the guest. What is not its card's word for the
// listener is counted and goes nowhere.
func (l *Link) Transmit(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(b) > maxFrame || !l.cfg.passes(b, &l.key) {
		l.refused.Add(1)
		return
	}
	// A zero header: nothing is left to the kernel, which sees what was judged.
	// The guest sends what is lost again: TCP.
	_, _ = l.cable.Write(append(l.out[:vnetHeader], b...))
}

// passes holds a frame of the guest against its card.
func (c *Config) passes(b []byte, k *frame.Key) bool {
	if frame.Parse(b, k) != frame.OK || k.Uint(frame.VLANTags) != 0 || k.Uint(frame.EthSrc) != c.Guest.MAC.Uint64() {
		return false
	}
	guest, host := number(c.Guest.Addr), number(c.Host.Addr)
	switch k.Class() {
	case frame.ClassARP:
		return k.Uint(frame.ARPSenderMAC) == c.Guest.MAC.Uint64() && k.Uint(frame.ARPSenderIP) == guest && k.Uint(frame.ARPTargetIP) == host
	case frame.ClassIPv4TCP:
		return k.Uint(frame.IPv4Src) == guest && k.Uint(frame.IPv4Dst) == host && k.Uint(frame.DstPort) == uint64(c.Port) && k.Uint(frame.IPFragment) == 0
	}
	return false
}

// number is an address as frames' fields have it.
func number(a netip.Addr) (n uint64) {
	for _, b := range a.As4() {
		n = n<<8 | uint64(b)
	}
	return n
}

// Receive waits for frames of the host and calls deliver with each, until the
// link is closed. The frame is deliver's only until it returns.
func (l *Link) Receive(deliver func([]byte)) error {
	buf := make([]byte, vnetHeader+maxFrame)
	for {
		n, err := l.cable.Read(buf)
		switch {
		case l.closed.Load():
			return nil
		case errors.Is(err, unix.ENETDOWN): // the cable is being removed
			return nil
		case err != nil:
			return fmt.Errorf("hostlink: %w", err)
		}
		if b, ok := finish(buf[:n]); ok {
			deliver(b)
		}
	}
}
