package virtio

import (
	"syscall"

	"sekimori/vmm/virtq"
)

// transmit takes the packets that are available on the transmit queue. What is
// made available meanwhile has a kick of its own.
func (v *Vsock) transmit(q *virtq.Queue) error {
	taken := false
	for range q.Size() {
		ok, err := q.Pop(&v.txChain)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		v.packet(&v.txChain)
		if err := q.Push(v.txChain.Head, 0); err != nil {
			return err
		}
		taken = true
	}
	if !taken {
		return nil
	}
	return v.tx.interrupt()
}

// packet takes one packet of the guest.
func (v *Vsock) packet(chain *virtq.Chain) {
	var b [vsockHeaderLen]byte
	if n, err := chain.CopyOut(b[:], 0); err != nil || n != len(b) || chain.Writable() > 0 {
		v.badChains.Add(1)
		return
	}
	var h vsockHeader
	h.decode(&b)
	switch {
	case h.srcCID != uint64(v.cfg.CID) || h.dstCID != HostCID:
		// "The driver MUST use the guest_cid configuration field as the source
		// CID when sending outgoing packets" (virtio 1.2, 5.10.6.2). There is
		// nobody to tell otherwise.
		v.foreign.Add(1)
		return
	case h.kind != vsockStream:
		// "A VIRTIO_VSOCK_OP_RST reply MUST be sent if a packet is received with
		// an unknown type value" (virtio 1.2, 5.10.6.2).
		v.foreign.Add(1)
		v.refuse(&h)
		return
	}
	key := vsockKey{guest: h.srcPort, host: h.dstPort}
	v.mu.Lock()
	c := v.conns[key]
	if c == nil {
		ok := h.op == vsockRequest && v.accept(key, &h)
		v.mu.Unlock()
		if !ok {
			v.refused.Add(1)
			v.refuse(&h)
		}
		return
	}
	v.mu.Unlock()

	c.mu.Lock()
	why := c.handle(&h, chain)
	over := why == "" && (h.op == vsockReset || c.peerShut == vsockNothing)
	if over {
		c.fail(c.farewell(h.op))
	}
	c.mu.Unlock()
	switch {
	case why != "":
		v.violations.Add(1)
		c.end(syscall.ECONNRESET)
	case over:
		v.forget(c)
		if h.op != vsockReset {
			// The guest waits for it before it lets the port go.
			v.answerReset(key)
		}
	}
}

// farewell is how c ends when the guest says so with op. It is called with mu
// held.
func (c *vsockConn) farewell(op uint16) error {
	switch {
	case c.state == vsockAsking:
		return syscall.ECONNREFUSED
	case op == vsockShutdown, c.peerShut&vsockNoSend != 0, c.closed:
		return nil
	}
	return syscall.ECONNRESET
}

// accept makes a connection that the guest asks for, if somebody listens and
// there is room. It is called with mu held.
func (v *Vsock) accept(key vsockKey, h *vsockHeader) bool {
	l := v.listeners[key.host]
	if l == nil || !v.up() || len(v.conns) >= v.cfg.MaxConns {
		return false
	}
	c := newVsockConn(v, key)
	c.peerAlloc, c.peerFwd = h.bufAlloc, h.fwdCnt
	c.open()
	select {
	case l.conns <- c:
	default:
		return false
	}
	v.conns[key] = c
	c.mu.Lock()
	c.send(sendResponse)
	c.mu.Unlock()
	return true
}

// refuse answers a packet with a reset, unless it is one.
func (v *Vsock) refuse(h *vsockHeader) {
	if h.op == vsockReset {
		return
	}
	v.out.reset(vsockHeader{srcCID: HostCID, dstCID: uint64(v.cfg.CID), srcPort: h.dstPort, dstPort: h.srcPort, kind: h.kind, op: vsockReset})
	v.signal()
}

// answerReset resets a connection.
func (v *Vsock) answerReset(key vsockKey) {
	v.refuse(&vsockHeader{srcPort: key.guest, dstPort: key.host, kind: vsockStream})
}

// signal wakes the pump.
func (v *Vsock) signal() {
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// pump moves what there is for the guest to the buffers that it gave. It is the
// device's own goroutine and ends with Close.
func (v *Vsock) pump() {
	defer close(v.pumped)
	for {
		select {
		case <-v.wake:
		case <-v.done:
			return
		}
		for v.deliver() {
		}
	}
}

// deliver fills buffers of the receive queue, at most as many as it has, and
// interrupts the guest for all of them at once. It tells whether there may be
// more to do; if there is not, a new packet or a kick of the queue wakes the
// pump.
func (v *Vsock) deliver() (more bool) {
	v.rx.mu.Lock()
	defer v.rx.mu.Unlock()
	return v.deliverLocked()
}

// hurry delivers on the caller's goroutine, if nobody is at it: to wake the
// pump costs a switch of goroutines.
func (v *Vsock) hurry() {
	if v.rx.mu.TryLock() {
		more := v.deliverLocked()
		v.rx.mu.Unlock()
		if !more {
			return
		}
	}
	// Whoever is at it may have looked already: the pump looks again.
	v.signal()
}

func (v *Vsock) deliverLocked() (more bool) {
	q := v.rx.q
	if q == nil {
		return false
	}
	more, err := v.fillAll(q)
	if err != nil {
		v.rx.broke(err)
		v.rxHeld = false
		v.down(vsockReceive)
	}
	return more && err == nil
}

func (v *Vsock) fillAll(q *virtq.Queue) (more bool, err error) {
	pushed, more := false, true
	for range q.Size() {
		if more = v.out.any(); !more {
			break
		}
		if !v.rxHeld {
			if v.rxHeld, err = v.buffer(q); err != nil {
				return false, err
			}
			if more = v.rxHeld; !more {
				break
			}
		}
		n, ok := v.next(&v.rxChain)
		if n == 0 && ok {
			continue // nothing after all; the buffer is for the next one
		}
		v.rxHeld, pushed = false, true
		if !ok {
			v.badChains.Add(1)
		}
		if err := q.Push(v.rxChain.Head, n); err != nil {
			return false, err
		}
	}
	if !pushed {
		return more, nil
	}
	return more, v.rx.interrupt()
}

// buffer takes a buffer of the guest's. A kick for new ones is only asked for
// when there are none: each costs the guest a stop.
func (v *Vsock) buffer(q *virtq.Queue) (ok bool, err error) {
	ok, err = q.Pop(&v.rxChain)
	if err != nil || ok == v.rxQuiet {
		return ok, err
	}
	if err := q.SetNotify(!ok); err != nil {
		return false, err
	}
	v.rxQuiet = ok
	if !ok {
		// What came before the driver saw that it is to kick has no kick.
		ok, err = q.Pop(&v.rxChain)
	}
	return ok, err
}

// next writes the next packet for the guest to a buffer, and returns its
// length; 0 if there is none. It is not ok if the buffer cannot take it.
func (v *Vsock) next(chain *virtq.Chain) (n uint32, ok bool) {
	if chain.Readable() > 0 || chain.Writable() < vsockHeaderLen {
		return 0, false
	}
	if h, some := v.out.takeReset(); some {
		return h.write(chain, nil, nil)
	}
	for c := v.out.pop(); c != nil; c = v.out.pop() {
		c.mu.Lock()
		n, ok := c.fill(chain)
		c.ready()
		c.mu.Unlock()
		if n > 0 || !ok {
			return n, ok
		}
	}
	return 0, true
}

// write writes a packet to a buffer.
func (h *vsockHeader) write(chain *virtq.Chain, one, two []byte) (n uint32, ok bool) {
	var b [vsockHeaderLen]byte
	h.n = uint32(len(one) + len(two))
	h.encode(&b)
	off := uint64(0)
	for _, part := range [...][]byte{b[:], one, two} {
		if k, err := chain.CopyIn(part, off); err != nil || k != len(part) {
			return 0, false
		}
		off += uint64(len(part))
	}
	return uint32(off), true
}

// fill writes the next packet of c, if there is one. It is called with mu held.
func (c *vsockConn) fill(chain *virtq.Chain) (n uint32, ok bool) {
	if !c.pending() {
		return 0, true
	}
	h := vsockHeader{
		srcCID: HostCID, dstCID: uint64(c.v.cfg.CID), srcPort: c.key.host, dstPort: c.key.guest,
		kind: vsockStream, bufAlloc: uint32(c.in.limit), fwdCnt: c.fwdCnt,
	}
	var one, two []byte
	done := uint8(sendUpdate) // every packet says that
	switch credit := c.credit(); {
	case c.sends&sendRequest != 0:
		h.op, done = vsockRequest, done|sendRequest
	case c.sends&sendResponse != 0:
		h.op, done = vsockResponse, done|sendResponse
	case c.state == vsockOpen && c.out.n > 0 && credit > 0:
		room := chain.Writable() - vsockHeaderLen
		if room == 0 {
			return 0, false
		}
		h.op = vsockRW
		one, two = c.out.data(int(min(room, uint64(credit), uint64(c.out.n))))
	case c.sends&sendAsk != 0:
		h.op, done = vsockCreditRequest, done|sendAsk
	case c.sends&sendUpdate != 0:
		h.op = vsockCreditUpdate
	default:
		h.op, h.flags = vsockShutdown, uint32(c.shut)
	}
	if n, ok = h.write(chain, one, two); !ok {
		return 0, false
	}
	c.sends &^= done
	c.fwdTold = c.fwdCnt
	switch h.op {
	case vsockRW:
		c.sent(int(h.n))
	case vsockShutdown:
		c.told = c.shut
	}
	return n, true
}

// sent counts n bytes as sent. With the credit used up the guest is asked for
// more, once: it may have read without saying so.
func (c *vsockConn) sent(n int) {
	c.out.take(n)
	c.txCnt += uint32(n)
	if c.out.n > 0 && c.credit() == 0 {
		c.sends |= sendAsk
	}
	c.writer.Signal()
}
