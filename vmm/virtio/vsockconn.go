package virtio

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"sekimori/vmm/virtq"
)

// What a connection has to tell the guest besides its data.
const (
	sendRequest  = 1 << iota
	sendResponse // also says how much may be sent to us
	sendUpdate   // says that again
	sendAsk      // asks for it
)

// A vsockState is how far a connection is. Only what is asking or open is in
// the device's table.
type vsockState uint8

const (
	vsockAsking vsockState = iota + 1 // Dial waits for the guest's answer
	vsockOpen
	vsockGone
)

// vsockLinger is how long a closed connection waits for the guest to take its
// last bytes and to agree: VSOCK_CLOSE_TIMEOUT of net/vmw_vsock, v6.12.
const vsockLinger = 8 * time.Second

// A vsockConn is a connection.
//
// The credit of a direction is what the receiver has said it can hold, less
// what is under way: buf_alloc - (tx_cnt - peer_fwd_cnt), all modulo 2^32
// (virtio 1.2, 5.10.6.3). What the guest says of itself limits what it is sent
// and nothing else; what it may send us is what our own buffer has room for.
type vsockConn struct {
	v   *Vsock
	key vsockKey

	decided chan struct{} // closed when asking is over

	mu      sync.Mutex // guards what follows
	reader  sync.Cond  // with mu: in, peerShut, err, closed or readBy changed
	writer  sync.Cond  // with mu: out, peerShut, err, closed or writeBy changed
	state   vsockState
	sends   uint8
	in, out vsockRing
	readBy  vsockDeadline
	writeBy vsockDeadline
	linger  *time.Timer
	opened  bool  // the guest agreed once
	closed  bool  // by Close
	err     error // why the connection is gone; nil if it ended well

	shut, told uint8 // what we do not do any more, and what of it the guest knows
	peerShut   uint8 // what the guest does not do any more

	fwdCnt, fwdTold    uint32 // bytes read by our program, and what of them the guest knows
	txCnt              uint32 // bytes sent to the guest
	peerAlloc, peerFwd uint32 // what the guest last said of itself

	// In the ready list. Guarded by v.out.mu.
	listed     bool
	prev, next *vsockConn
}

func newVsockConn(v *Vsock, key vsockKey) *vsockConn {
	c := &vsockConn{v: v, key: key, decided: make(chan struct{}), state: vsockAsking}
	c.reader.L, c.writer.L = &c.mu, &c.mu
	c.in.limit, c.out.limit = v.cfg.Buffer, v.cfg.Buffer
	return c
}

// open ends asking. It is called with mu held.
func (c *vsockConn) open() {
	c.state, c.opened = vsockOpen, true
	close(c.decided)
}

// send notes what to tell the guest. It is called with mu held.
func (c *vsockConn) send(what uint8) {
	c.sends |= what
	c.ready()
}

// ready puts c in the ready list if it has something for the guest. It is
// called with mu held.
func (c *vsockConn) ready() {
	if c.pending() {
		c.v.out.push(c)
		c.v.signal()
	}
}

// pending tells whether there is something for the guest now.
func (c *vsockConn) pending() bool {
	switch {
	case c.state == vsockGone:
		return false
	case c.sends != 0:
		return true
	case c.state != vsockOpen:
		return false
	case c.out.n > 0:
		return c.credit() > 0
	}
	return c.shut != c.told
}

// credit is how much the guest can take. A guest that says it has read more
// than it was sent, or less than before, gets nothing until it says otherwise.
func (c *vsockConn) credit() uint32 {
	underWay := c.txCnt - c.peerFwd
	if underWay > c.peerAlloc {
		return 0
	}
	return c.peerAlloc - underWay
}

// fail ends c; nil is a good end. What was received can still be read. It is
// called with mu held, and the caller takes c out of the table.
func (c *vsockConn) fail(err error) {
	if c.state == vsockGone {
		return
	}
	if c.state == vsockAsking {
		close(c.decided)
	}
	c.state, c.err, c.sends = vsockGone, err, 0
	c.out = vsockRing{limit: c.out.limit}
	if c.linger != nil {
		c.linger.Stop()
	}
	c.v.out.remove(c)
	c.reader.Broadcast()
	c.writer.Broadcast()
}

// end ends c from our side: the guest is told by a reset.
func (c *vsockConn) end(err error) {
	c.mu.Lock()
	gone := c.state == vsockGone
	c.fail(err)
	c.mu.Unlock()
	if !gone {
		c.v.forget(c)
		c.v.answerReset(c.key)
	}
}

// abandon ends a Dial that nobody waits for any more.
func (c *vsockConn) abandon(err error) {
	c.end(err)
	c.Close()
}

// handle does what a packet of the guest says, whose payload is what chain has
// behind the header. It returns why the packet breaks the connection, or "".
// It is called with mu held.
func (c *vsockConn) handle(h *vsockHeader, chain *virtq.Chain) (why string) {
	if c.state == vsockGone {
		return ""
	}
	c.peerAlloc, c.peerFwd = h.bufAlloc, h.fwdCnt
	switch {
	case h.op == vsockReset:
	case h.op == vsockResponse && c.state == vsockAsking:
		c.open()
	case c.state == vsockAsking:
		return "not an answer to a request"
	case h.op == vsockRW:
		why = c.receive(h, chain)
	case h.op == vsockShutdown:
		c.peerShut |= uint8(h.flags & vsockNothing)
		if c.peerShut&vsockNoReceive != 0 {
			c.out = vsockRing{limit: c.out.limit}
		}
		c.reader.Broadcast()
		c.writer.Broadcast()
	case h.op == vsockCreditUpdate:
	case h.op == vsockCreditRequest:
		c.sends |= sendUpdate
	default:
		return "no such operation on an open connection"
	}
	c.ready()
	return why
}

// receive takes the payload of a packet in.
func (c *vsockConn) receive(h *vsockHeader, chain *virtq.Chain) (why string) {
	switch {
	case c.peerShut&vsockNoSend != 0:
		return "data behind the end"
	case uint64(h.n) > chain.Readable()-vsockHeaderLen:
		return "shorter than its header says"
	case uint64(h.n) > uint64(c.in.free()):
		return "more than the credit"
	case c.closed: // it was under way when we closed
		c.fwdCnt += h.n
		return ""
	}
	one, two := c.in.room(int(h.n))
	off := uint64(vsockHeaderLen)
	for _, part := range [...][]byte{one, two} {
		if n, err := chain.CopyOut(part, off); err != nil || n != len(part) {
			return "payload is not in ram"
		}
		off += uint64(len(part))
	}
	c.in.add(int(h.n))
	c.reader.Signal()
	return ""
}

func (c *vsockConn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "vsock", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// Read implements [net.Conn].
func (c *vsockConn) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, c.opError("read", net.ErrClosed)
		case c.readBy.expired:
			return 0, c.opError("read", os.ErrDeadlineExceeded)
		case len(b) == 0:
			return 0, nil
		case c.in.n > 0:
			return c.take(b), nil
		case c.peerShut&vsockNoSend != 0, c.state == vsockGone && c.err == nil:
			return 0, io.EOF
		case c.err != nil:
			return 0, c.opError("read", c.err)
		}
		c.reader.Wait()
	}
}

// take moves what was received to b, and lets the guest know when that is half
// of the buffer: by then it has used at most the other half.
func (c *vsockConn) take(b []byte) int {
	n := min(len(b), c.in.n)
	one, two := c.in.data(n)
	copy(b[copy(b, one):], two)
	c.in.take(n)
	c.fwdCnt += uint32(n)
	if c.fwdCnt-c.fwdTold >= uint32(c.in.limit/2) {
		c.send(sendUpdate)
	}
	if c.in.n > 0 {
		c.reader.Signal() // whoever else reads
	}
	return n
}

// Write implements [net.Conn]. It returns when the bytes are on their way; that
// the guest's program has got them only its answer shows.
func (c *vsockConn) Write(b []byte) (done int, err error) {
	for {
		n, err := c.put(b[done:])
		if n > 0 {
			c.v.hurry()
		}
		done += n
		if err != nil || done == len(b) {
			return done, err
		}
	}
}

// put takes some of b, if there is anything, and waits until it can.
func (c *vsockConn) put(b []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, c.opError("write", net.ErrClosed)
		case c.writeBy.expired:
			return 0, c.opError("write", os.ErrDeadlineExceeded)
		case c.err != nil:
			return 0, c.opError("write", c.err)
		case c.shut&vsockNoSend != 0, c.peerShut&vsockNoReceive != 0, c.state == vsockGone:
			return 0, c.opError("write", syscall.EPIPE)
		case len(b) == 0:
			return 0, nil
		}
		if n := min(len(b), c.out.free()); n > 0 {
			one, two := c.out.room(n)
			copy(two, b[copy(one, b):n])
			c.out.add(n)
			if c.pending() {
				c.v.out.push(c)
			}
			return n, nil
		}
		c.writer.Wait()
	}
}

// CloseWrite ends what we send: the guest reads the end of the stream behind
// it. Reading goes on.
func (c *vsockConn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return c.opError("close", net.ErrClosed)
	case c.state == vsockGone:
		return c.opError("close", syscall.ENOTCONN)
	}
	c.shut |= vsockNoSend
	c.writer.Broadcast()
	c.ready()
	return nil
}

// Close implements [net.Conn]. It does not wait: what was written is still
// sent, for as long as the guest takes it within 8 seconds.
func (c *vsockConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.closed, c.shut = true, vsockNothing
	c.readBy.stop()
	c.writeBy.stop()
	c.fwdCnt += uint32(c.in.n) // as far as the guest is concerned it was read
	c.in = vsockRing{limit: c.in.limit}
	c.reader.Broadcast()
	c.writer.Broadcast()
	if c.state != vsockGone {
		c.linger = time.AfterFunc(vsockLinger, func() { c.end(net.ErrClosed) })
		c.ready()
	}
	return nil
}

// LocalAddr implements [net.Conn].
func (c *vsockConn) LocalAddr() net.Addr { return VsockAddr{HostCID, c.key.host} }

// RemoteAddr implements [net.Conn].
func (c *vsockConn) RemoteAddr() net.Addr { return VsockAddr{c.v.cfg.CID, c.key.guest} }

// A vsockDeadline wakes those who wait when its time has come.
type vsockDeadline struct {
	timer   *time.Timer
	expired bool
}

func (d *vsockDeadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
	}
	d.timer, d.expired = nil, false
}

// SetDeadline implements [net.Conn].
func (c *vsockConn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements [net.Conn].
func (c *vsockConn) SetReadDeadline(t time.Time) error {
	return c.setDeadline(&c.readBy, &c.reader, t)
}

// SetWriteDeadline implements [net.Conn].
func (c *vsockConn) SetWriteDeadline(t time.Time) error {
	return c.setDeadline(&c.writeBy, &c.writer, t)
}

func (c *vsockConn) setDeadline(d *vsockDeadline, cond *sync.Cond, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	d.stop()
	if t.IsZero() {
		return nil
	}
	left := time.Until(t)
	if left <= 0 {
		d.expired = true
		cond.Broadcast()
		return nil
	}
	var timer *time.Timer
	timer = time.AfterFunc(left, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if d.timer == timer { // not one that was set again meanwhile
			d.expired = true
			cond.Broadcast()
		}
	})
	d.timer = timer
	return nil
}
