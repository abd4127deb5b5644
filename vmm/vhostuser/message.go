package vhostuser

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// A message is a header of 12 bytes and a payload, in the host's byte order,
// which is little-endian on both sides:
//
//	0         4         8         12
//	| request | flags   | size    | payload of size bytes ...
//
// flags has the protocol's version in its lowest two bits.
const (
	headerLen = 12

	version       = 1
	flagVersion   = 0x3
	flagReply     = 0x4
	flagNeedReply = 0x8

	// maxPayload is more than any request served here has. The largest is
	// GET_CONFIG with 256 bytes, then SET_MEM_TABLE with eight regions.
	maxPayload = 12 + maxConfig
	// maxFDs is how many descriptors a message can carry: one a region of memory.
	maxFDs = maxRegions
)

// A message is a request as it came in. Its payload and descriptors are the
// connection's, until the next one.
type message struct {
	request   uint32
	needReply bool
	payload   []byte
	fds       []int
}

func (m *message) u32(at int) uint32 { return binary.LittleEndian.Uint32(m.payload[at:]) }
func (m *message) u64(at int) uint64 { return binary.LittleEndian.Uint64(m.payload[at:]) }

// take makes descriptor i the caller's to close.
func (m *message) take(i int) int {
	fd := m.fds[i]
	m.fds[i] = -1
	return fd
}

// A wire is the socket of one connection. It blocks: the thread that waits in
// it is woken by the kernel without a detour through the poller, which for a
// guest that stands still meanwhile is worth it.
type wire struct {
	fd  int
	msg message

	// Buffers that are used again, so that a kick allocates nothing.
	header  [headerLen]byte
	payload [maxPayload]byte
	out     [headerLen + maxPayload]byte
	oob     []byte
	fds     [maxFDs]int
}

func newWire(fd int) *wire {
	return &wire{fd: fd, oob: make([]byte, unix.CmsgSpace(4*maxFDs))}
}

// next reads the next message. io.EOF is a peer that hung up between messages.
// The descriptors that came are in it also when there is an error.
//
// With plain no descriptors are taken: the kernel closes those that come. No
// message of a device that runs has any, and x/sys allocates in a recvmsg.
func (w *wire) next(plain bool) (*message, error) {
	m := &w.msg
	*m = message{fds: w.fds[:0]}
	if err := w.read(w.header[:], plain); err != nil {
		return m, err
	}
	m.request = binary.LittleEndian.Uint32(w.header[0:])
	flags := binary.LittleEndian.Uint32(w.header[4:])
	size := binary.LittleEndian.Uint32(w.header[8:])
	switch {
	case flags&flagVersion != version || flags&^(flagVersion|flagNeedReply) != 0:
		return m, fmt.Errorf("flags %#x: not a request of version %d", flags, version)
	case size > maxPayload:
		return m, fmt.Errorf("payload of %d bytes is longer than %d", size, maxPayload)
	}
	m.needReply = flags&flagNeedReply != 0
	m.payload = w.payload[:size]
	if err := w.read(m.payload, plain); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return m, err
	}
	return m, nil
}

// read fills b.
func (w *wire) read(b []byte, plain bool) error {
	for done := 0; done < len(b); {
		var n int
		var err error
		if plain {
			n, err = unix.Read(w.fd, b[done:])
		} else {
			n, err = w.receive(b[done:])
		}
		if err == unix.EINTR {
			continue
		}
		switch {
		case err == unix.ECONNRESET:
			return io.EOF // it left answers unread
		case err != nil:
			return fmt.Errorf("receive: %w", err)
		case n == 0 && done == 0:
			return io.EOF
		case n == 0:
			return io.ErrUnexpectedEOF
		}
		done += n
	}
	return nil
}

// receive reads into b, and collects what descriptors come with it.
func (w *wire) receive(b []byte) (int, error) {
	n, oobn, flags, _, err := unix.Recvmsg(w.fd, b, w.oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, err
	}
	if oobn > 0 {
		err = w.rights(w.oob[:oobn])
	}
	if flags&unix.MSG_CTRUNC != 0 {
		err = errors.Join(err, errors.New("more descriptors than a message may carry"))
	}
	return n, err
}

// rights adds the descriptors of a control message to those of this message.
func (w *wire) rights(oob []byte) error {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return fmt.Errorf("control message: %w", err)
	}
	tooMany := false
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return fmt.Errorf("control message: %w", err)
		}
		for _, fd := range fds {
			if len(w.msg.fds) == maxFDs {
				tooMany = true
				discard(fd)
				continue
			}
			w.msg.fds = append(w.msg.fds, fd)
		}
	}
	if tooMany {
		return fmt.Errorf("more than %d descriptors with one message", maxFDs)
	}
	return nil
}

// drop closes the descriptors of the last message that nobody took.
func (w *wire) drop() {
	for _, fd := range w.msg.fds {
		if fd >= 0 {
			discard(fd)
		}
	}
	w.msg.fds = w.fds[:0]
}

// discard closes a descriptor that the peer sent and nobody wants. It can be of
// any kind, also of those whose close waits for somebody (FUSE, a socket that
// lingers), so it is nobody's thread that does it. There is nobody to tell of
// an error, either.
func discard(fd int) {
	go func() { _ = unix.Close(fd) }()
}

// reply answers the last message with the payload of n bytes that the caller
// has put behind the header's place in out. io.EOF is a peer that hung up.
func (w *wire) reply(n int) error {
	binary.LittleEndian.PutUint32(w.out[0:], w.msg.request)
	binary.LittleEndian.PutUint32(w.out[4:], version|flagReply)
	binary.LittleEndian.PutUint32(w.out[8:], uint32(n))
	for b := w.out[:headerLen+n]; len(b) > 0; {
		done, err := unix.SendmsgN(w.fd, b, nil, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		switch {
		case err == unix.EPIPE || err == unix.ECONNRESET:
			return io.EOF
		case err != nil:
			return fmt.Errorf("send: %w", err)
		}
		b = b[done:]
	}
	return nil
}

// replyU64 answers with a number: features, or 0 for done and 1 for refused.
func (w *wire) replyU64(v uint64) error {
	binary.LittleEndian.PutUint64(w.out[headerLen:], v)
	return w.reply(8)
}
