package virtio

import (
	"sync"

	"sekimori/vmm/virtq"
)

// A ring is a device's hold on one of its queues.
type ring struct {
	index int

	// mu guards what follows. Kick holds it while the frame is on its way, so
	// nothing that a frame can reach may wait for it: it is taken by the queue's
	// own kick, and for a receive queue by whoever delivers.
	mu sync.Mutex
	q  *virtq.Queue // nil while stopped or broken
	t  Transport
}

func (r *ring) start(q *virtq.Queue, t Transport) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.q, r.t = q, t
}

func (r *ring) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.q, r.t = nil, nil
}

// broke forgets a queue that the driver broke, and tells the transport. It is
// called with mu held.
func (r *ring) broke(err error) {
	r.t.Broken(r.index, err)
	r.q, r.t = nil, nil
}

// interrupt interrupts the driver for what was pushed, if it wants that. It is
// called with mu held and the queue whole.
func (r *ring) interrupt() error {
	want, err := r.q.NeedInterrupt()
	if want {
		r.t.Interrupt(r.index)
	}
	return err
}

// readConfig fills b with the bytes of space from off on, and zeros.
func readConfig(space []byte, off uint32, b []byte) {
	clear(b)
	if uint64(off) < uint64(len(space)) {
		copy(b, space[off:])
	}
}
