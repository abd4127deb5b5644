package virtio

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"sekimori/vmm/virtq"
)

// Queues of a socket device (virtio 1.2, 5.10.2).
const (
	vsockReceive  = 0
	vsockTransmit = 1
	vsockEvent    = 2
)

const vsockQueueSize = 256

// What a guest can have at most of the host's memory.
const (
	// vsockResets is how many answers to packets of no connection may wait for
	// a buffer of the guest's. Beyond it they are dropped: a guest that gives
	// no buffers gets no answers.
	vsockResets = 256
	// vsockBacklog is how many connections wait for Accept, on each port.
	vsockBacklog = 64
)

// A VsockConfig configures a socket device. The zero value of a limit means
// the default.
type VsockConfig struct {
	// CID is the guest's address, 3 or more.
	CID uint32
	// Buffer is how many bytes a connection holds in each direction, 256 KiB by
	// default. The guest is told of it, and a connection on which it sends more
	// is reset.
	Buffer int
	// MaxConns is how many connections there may be, 256 by default; of both
	// directions together. 2 * MaxConns * Buffer bounds the memory.
	MaxConns int
}

// A VsockAddr is the address of one end of a connection.
type VsockAddr struct{ CID, Port uint32 }

// Network implements [net.Addr].
func (VsockAddr) Network() string { return "vsock" }

func (a VsockAddr) String() string {
	return strconv.FormatUint(uint64(a.CID), 10) + ":" + strconv.FormatUint(uint64(a.Port), 10)
}

// A VsockStats counts what a guest did that an honest one does not, or hardly.
type VsockStats struct {
	// BadChains are chains that are too short, not readable, or not in RAM.
	BadChains uint64
	// Foreign are packets from or to somebody else, or of an unknown type.
	Foreign uint64
	// Refused are packets of no connection, and requests that nobody listens
	// for or that there is no room for. An honest guest has a few of them: what
	// crosses the end of a connection on its way.
	Refused uint64
	// Violations are packets that broke a connection: against its state, or
	// beyond its credit.
	Violations uint64
}

// A Vsock is a virtio socket device: streams between programs of the guest and
// the host's process. Only ports that the process listens on are there for the
// guest.
//
//	guest ── transmit queue ── Kick: copy into the connection's buffer ──▶ Read
//	      ◀── receive queue ── pump: one goroutine, as credit and buffers allow ── Write
//
// Kick never waits for anybody: what the guest sends beyond the credit it was
// given is a violation, not a reason to wait. The locks are taken in the order
// of the queue's, the table's, a connection's, the ready list's.
type Vsock struct {
	cfg   VsockConfig
	space [8]byte
	tx    ring
	event ring

	rx      ring
	rxChain virtq.Chain // guarded by rx.mu, like the next two
	rxHeld  bool        // rxChain was taken and is not used yet
	rxQuiet bool        // the driver was told not to kick the receive queue

	txChain virtq.Chain // guarded by tx.mu

	mu        sync.Mutex // guards the table
	conns     map[vsockKey]*vsockConn
	listeners map[uint32]*vsockListener
	nextPort  uint32
	started   uint32 // queues, as bits
	closed    bool

	out    vsockOut
	wake   chan struct{} // of the pump
	done   chan struct{} // closed by Close
	pumped chan struct{} // closed by the pump

	badChains, foreign, refused, violations atomic.Uint64
}

// A vsockKey names a connection by the ports of its two ends.
type vsockKey struct{ guest, host uint32 }

// NewVsock returns a socket device whose queues are not started. Close it.
func NewVsock(cfg VsockConfig) (*Vsock, error) {
	if cfg.Buffer == 0 {
		cfg.Buffer = 256 << 10
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = 256
	}
	switch {
	case cfg.CID < 3 || cfg.CID == 0xffffffff: // virtio 1.2, 5.10.4
		return nil, fmt.Errorf("virtio vsock: cid %d is reserved", cfg.CID)
	case cfg.Buffer < vsockRingMin || cfg.Buffer > 1<<30:
		return nil, fmt.Errorf("virtio vsock: buffer of %d bytes is out of range", cfg.Buffer)
	case cfg.MaxConns < 1:
		return nil, fmt.Errorf("virtio vsock: %d connections", cfg.MaxConns)
	}
	v := &Vsock{
		cfg:       cfg,
		conns:     map[vsockKey]*vsockConn{},
		listeners: map[uint32]*vsockListener{},
		nextPort:  vsockFirstPort,
		wake:      make(chan struct{}, 1),
		done:      make(chan struct{}),
		pumped:    make(chan struct{}),
	}
	v.rx.index, v.tx.index, v.event.index = vsockReceive, vsockTransmit, vsockEvent
	binary.LittleEndian.PutUint64(v.space[:], uint64(cfg.CID))
	go v.pump() // until Close
	return v, nil
}

// Close ends all connections and listeners, and waits for what works for the
// device. Its queues are to be stopped by then, or it goes on to ignore them.
func (v *Vsock) Close() error {
	v.mu.Lock()
	if v.closed {
		v.mu.Unlock()
		return nil
	}
	v.closed = true
	listeners := v.listeners
	v.listeners = nil
	v.mu.Unlock()
	for _, l := range listeners {
		l.shut()
	}
	v.reset(net.ErrClosed)
	close(v.done)
	<-v.pumped
	return nil
}

// Stats returns the counters.
func (v *Vsock) Stats() VsockStats {
	return VsockStats{v.badChains.Load(), v.foreign.Load(), v.refused.Load(), v.violations.Load()}
}

// Type implements [Device].
func (v *Vsock) Type() uint32 { return TypeVsock }

// Features implements [Device]. Without a bit of its own a device has streams
// (virtio 1.2, 5.10.3).
func (v *Vsock) Features() uint64 { return FeatureVersion1 }

// Queues implements [Device].
func (v *Vsock) Queues() []uint16 { return []uint16{vsockQueueSize, vsockQueueSize, vsockQueueSize} }

// ReadConfig implements [Device].
func (v *Vsock) ReadConfig(off uint32, b []byte) { readConfig(v.space[:], off, b) }

// WriteConfig implements [Device]: the guest's address is not its own to set.
func (v *Vsock) WriteConfig(uint32, []byte) {}

// Start implements [Device].
func (v *Vsock) Start(i int, q *virtq.Queue, t Transport) {
	switch i {
	case vsockReceive:
		v.rx.mu.Lock()
		v.rx.q, v.rx.t, v.rxHeld, v.rxQuiet = q, t, false, false
		v.rx.mu.Unlock()
	case vsockTransmit:
		v.tx.start(q, t)
	case vsockEvent:
		// The one event there is tells of a migration, which there is none of
		// (virtio 1.2, 5.10.6.7).
		v.event.start(q, t)
	default:
		return
	}
	v.mu.Lock()
	v.started |= 1 << i
	v.mu.Unlock()
	v.signal()
}

// Stop implements [Device]. A guest that stops a queue has shut its driver
// down, or starts anew: no connection outlives that.
func (v *Vsock) Stop(i int) {
	switch i {
	case vsockReceive:
		v.rx.mu.Lock()
		if v.rx.q != nil && v.rxHeld {
			_ = v.rx.q.Push(v.rxChain.Head, 0) // if it is broken now, nobody needs to know any more
		}
		v.rx.q, v.rx.t, v.rxHeld = nil, nil, false
		v.rx.mu.Unlock()
	case vsockTransmit:
		v.tx.stop()
	case vsockEvent:
		v.event.stop()
		return
	default:
		return
	}
	v.down(i)
}

// down notes that queue i is gone, and all connections with it.
func (v *Vsock) down(i int) {
	v.mu.Lock()
	was := v.started&(1<<i) != 0
	v.started &^= 1 << i
	v.mu.Unlock()
	if was {
		v.reset(syscall.ECONNRESET)
	}
}

// Kick implements [Device].
func (v *Vsock) Kick(i int) {
	switch i {
	case vsockReceive:
		v.signal()
	case vsockTransmit:
		v.tx.mu.Lock()
		var err error
		if v.tx.q != nil {
			if err = v.transmit(v.tx.q); err != nil {
				v.tx.broke(err)
			}
		}
		v.tx.mu.Unlock()
		if err != nil {
			v.down(vsockTransmit)
		}
	}
}

// up tells whether the guest's driver has both queues. It is called with mu
// held.
func (v *Vsock) up() bool { return v.started&3 == 3 && !v.closed }

// reset fails all connections with err. Listeners stay: the guest comes back.
func (v *Vsock) reset(err error) {
	v.mu.Lock()
	conns := v.conns
	v.conns = map[vsockKey]*vsockConn{}
	v.mu.Unlock()
	for _, c := range conns {
		c.mu.Lock()
		c.fail(err)
		c.mu.Unlock()
	}
	v.out.clear()
}

// Listen returns a listener for the connections that the guest makes to port
// of the host. Its connections are [net.Conn]s with CloseWrite, and survive
// neither a reset of the guest nor the device's Close; the listener survives
// the former.
func (v *Vsock) Listen(port uint32) (net.Listener, error) {
	addr := VsockAddr{HostCID, port}
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.closed:
		return nil, &net.OpError{Op: "listen", Net: "vsock", Addr: addr, Err: net.ErrClosed}
	case v.listeners[port] != nil:
		return nil, &net.OpError{Op: "listen", Net: "vsock", Addr: addr, Err: syscall.EADDRINUSE}
	}
	l := &vsockListener{v: v, addr: addr, conns: make(chan *vsockConn, vsockBacklog), done: make(chan struct{})}
	v.listeners[port] = l
	return l, nil
}

// vsockFirstPort is where the ports begin that Dial takes for its own end.
const vsockFirstPort = 1 << 30

// Dial connects to port of the guest. While the guest's driver is not up it
// returns [ErrDown] at once, and ECONNREFUSED while nobody listens there.
func (v *Vsock) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "vsock", Addr: VsockAddr{v.cfg.CID, port}, Err: err}
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	c, err := v.request(port)
	if err != nil {
		return fail(err)
	}
	select {
	case <-c.decided:
	case <-ctx.Done():
		c.abandon(ctx.Err())
		return fail(ctx.Err())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.opened {
		return fail(c.err)
	}
	return c, nil
}

// request makes a connection that asks for port.
func (v *Vsock) request(port uint32) (*vsockConn, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.closed:
		return nil, net.ErrClosed
	case !v.up():
		return nil, ErrDown
	case len(v.conns) >= v.cfg.MaxConns:
		return nil, syscall.EMFILE
	}
	key := vsockKey{guest: port, host: v.nextPort}
	for v.conns[key] != nil || v.listeners[key.host] != nil { // there are fewer connections than ports
		key.host = max(key.host+1, vsockFirstPort)
	}
	v.nextPort = max(key.host+1, vsockFirstPort)
	c := newVsockConn(v, key)
	v.conns[key] = c
	c.mu.Lock()
	c.send(sendRequest)
	c.mu.Unlock()
	return c, nil
}

// forget takes c out of the table.
func (v *Vsock) forget(c *vsockConn) {
	v.mu.Lock()
	if v.conns[c.key] == c {
		delete(v.conns, c.key)
	}
	v.mu.Unlock()
}
