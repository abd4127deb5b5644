package vhostuser

import (
	"errors"
	"fmt"
	"sync/atomic"

	"sekimori/vmm/virtq"
)

// A vring is one queue as the peer describes it, message by message. Its
// description is complete, and changes no more, from SET_VRING_ENABLE on: a
// guest that changed a queue's size while it ran had Firecracker write out of
// bounds (CVE-2026-5747).
type vring struct {
	max  uint16 // largest size
	size uint16 // 0 until it was set
	base uint16

	// As the peer names them; they are looked up when the queue starts, because
	// the memory may change until then.
	desc, avail, used uint64
	placed            bool

	q      *virtq.Queue // the device's while it runs, else nil
	broken atomic.Bool  // set from any goroutine
}

// ring finds the queue that a message is about.
func (s *session) ring(index uint32) (*vring, error) {
	if uint64(index) >= uint64(len(s.rings)) {
		return nil, fmt.Errorf("the device has no queue %d", index)
	}
	return &s.rings[index], nil
}

// idle finds the queue that a message describes, which must not run.
func (s *session) idle(index uint32) (*vring, error) {
	r, err := s.ring(index)
	if err == nil && r.q != nil {
		err = fmt.Errorf("queue %d runs", index)
	}
	return r, err
}

func (s *session) running() bool {
	for i := range s.rings {
		if s.rings[i].q != nil {
			return true
		}
	}
	return false
}

func (s *session) setVringNum(m *message) error {
	r, err := s.idle(m.u32(0))
	if err != nil {
		return err
	}
	n := m.u32(4)
	if n == 0 || n > uint32(r.max) || n&(n-1) != 0 {
		return fmt.Errorf("size %d is not a power of two up to %d", n, r.max)
	}
	r.size = uint16(n)
	return nil
}

func (s *session) setVringBase(m *message) error {
	r, err := s.idle(m.u32(0))
	if err != nil {
		return err
	}
	if m.u32(4) > 0xffff {
		return fmt.Errorf("index %d has more than 16 bits", m.u32(4))
	}
	r.base = uint16(m.u32(4))
	return nil
}

// setVringAddr takes where a queue lies: 4 bytes index, 4 bytes flags, of which
// the only one is about a log of dirty pages, which is not offered, then the
// addresses of the descriptor table, the used and the available ring, and of
// that log.
func (s *session) setVringAddr(m *message) error {
	r, err := s.idle(m.u32(0))
	switch {
	case err != nil:
		return err
	case m.u32(4) != 0:
		return fmt.Errorf("flags %#x", m.u32(4))
	}
	r.desc, r.used, r.avail = m.u64(8), m.u64(16), m.u64(24)
	r.placed = true
	return nil
}

func (s *session) setVringEnable(m *message) error {
	i, on := m.u32(0), m.u32(4)
	r, err := s.ring(i)
	switch {
	case err != nil:
		return err
	case on > 1:
		return fmt.Errorf("neither on nor off: %d", on)
	case on == 1 && r.q == nil:
		return s.start(int(i))
	case on == 0:
		s.stop(int(i))
	}
	return nil
}

// getVringBase stops a queue, and answers where it would go on.
func (s *session) getVringBase(m *message) error {
	i := m.u32(0)
	r, err := s.ring(i)
	if err != nil {
		return err
	}
	s.stop(int(i))
	s.answered = true
	out := s.wire.out[headerLen:]
	put32(out, i)
	put32(out[4:], uint32(r.base))
	return s.wire.reply(8)
}

// start makes queue i of what the peer said of it, and hands it to the device.
func (s *session) start(i int) error {
	r := &s.rings[i]
	switch {
	case s.features&featureProtocol == 0 || s.protocol == 0:
		return errors.New("sent before the features were negotiated: kicks have to be answered, and who sent a frame could not be told")
	case !s.call.ready():
		return errors.New("sent before SET_SLAVE_REQ_FD: there is no way to interrupt the guest")
	case s.mem == nil:
		return errors.New("sent before SET_MEM_TABLE")
	case r.size == 0 || !r.placed:
		return fmt.Errorf("queue %d was not described", i)
	}
	cfg := virtq.Config{Name: fmt.Sprint(i), Size: r.size, Next: r.base}
	var descErr, availErr, usedErr error
	n := uint64(r.size)
	cfg.Desc, descErr = s.gpa(r.desc, 16*n)
	cfg.Avail, availErr = s.gpa(r.avail, 6+2*n)
	cfg.Used, usedErr = s.gpa(r.used, 6+8*n)
	if err := errors.Join(descErr, availErr, usedErr); err != nil {
		return fmt.Errorf("queue %d: %w", i, err)
	}
	q, err := virtq.New(s.mem, cfg)
	if err != nil {
		return err
	}
	r.q = q
	r.broken.Store(false)
	s.cfg.Device.Start(i, q, s)
	return nil
}

// stop takes queue i back from the device, and keeps where it was.
func (s *session) stop(i int) {
	r := &s.rings[i]
	if r.q == nil {
		return
	}
	s.cfg.Device.Stop(i)
	r.base = r.q.Next()
	r.q = nil
}

// refuseEvent refuses an eventfd for kicks, calls or errors.
func (s *session) refuseEvent(*message) error {
	return errors.New("in-band notifications are required: with an eventfd the guest runs on, and who sent a frame cannot be told")
}

// kick is the guest's notification of a queue, while it stands still. Who
// breaks his queue is told by the answer: Linux then marks it broken, as it
// would for DEVICE_NEEDS_RESET, which this protocol has no place for.
func (s *session) kick(m *message) error {
	i := m.u32(0)
	r, err := s.ring(i)
	switch {
	case err != nil:
		return err
	case !m.needReply:
		return errors.New("the guest does not wait for the answer: who sent a frame cannot be told")
	case r.q == nil:
		return nil // "The device MUST handle spurious notifications from the driver" (virtio 1.2, 2.7.10.2)
	}
	s.call.hold()
	s.cfg.Device.Kick(int(i))
	if r.broken.Load() {
		s.status = 1
	}
	s.answered = true
	err = s.wire.replyU64(s.status)
	s.call.release()
	return err
}

// Interrupt implements [virtio.Transport].
func (s *session) Interrupt(i int) { s.call.call(i) }

// maxBreaks is how many broken queues of a connection are logged: a guest can
// break one as often as it likes.
const maxBreaks = 10

// Broken implements [virtio.Transport].
func (s *session) Broken(i int, err error) {
	s.rings[i].broken.Store(true)
	if s.breaks.Add(1) <= maxBreaks {
		s.cfg.Log.Warn("queue broken", "queue", i, "err", err)
	}
}
