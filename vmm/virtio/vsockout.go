package virtio

import "sync"

// A vsockOut is what waits for buffers of the guest: connections that have
// something to send, in turn, and resets of what is no connection.
type vsockOut struct {
	mu          sync.Mutex // guards what follows, and the list's fields in a vsockConn
	first, last *vsockConn
	resets      [vsockResets]vsockHeader // a ring
	r, n        int
}

func (o *vsockOut) any() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.first != nil || o.n > 0
}

// push puts c at the end of the list, if it is not in it.
func (o *vsockOut) push(c *vsockConn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c.listed {
		return
	}
	c.listed, c.prev = true, o.last
	if o.last != nil {
		o.last.next = c
	} else {
		o.first = c
	}
	o.last = c
}

// remove takes c out of the list, if it is in it.
func (o *vsockOut) remove(c *vsockConn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.unlink(c)
}

// pop takes the first connection out of the list.
func (o *vsockOut) pop() *vsockConn {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.first
	if c != nil {
		o.unlink(c)
	}
	return c
}

func (o *vsockOut) unlink(c *vsockConn) {
	if !c.listed {
		return
	}
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		o.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		o.last = c.prev
	}
	c.listed, c.prev, c.next = false, nil, nil
}

// reset queues a reset, or drops it where too many wait.
func (o *vsockOut) reset(h vsockHeader) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.n < len(o.resets) {
		o.resets[(o.r+o.n)%len(o.resets)] = h
		o.n++
	}
}

func (o *vsockOut) takeReset() (h vsockHeader, some bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.n == 0 {
		return h, false
	}
	h = o.resets[o.r]
	o.r = (o.r + 1) % len(o.resets)
	o.n--
	return h, true
}

// clear drops the resets: they are for a driver that is gone.
func (o *vsockOut) clear() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.r, o.n = 0, 0
}
