package replay

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"
	"time"
)

// Block types and option codes of pcapng, draft-ietf-opsawg-pcapng.
const (
	blockSection   = 0x0A0D0D0A
	blockInterface = 1
	blockPacketOld = 2 // obsolete, still written by old tools
	blockSimple    = 3
	blockEnhanced  = 6

	optComment  = 1
	optIfName   = 2
	optTSResol  = 9
	optTSOffset = 14

	// maxInterfaces bounds those of one section.
	maxInterfaces = 1 << 16
)

// An ngReader walks the blocks of a pcapng file:
//
//	0      4        8                    length-4   length
//	| type | length | body ...           | length   |
type ngReader struct {
	order  binary.ByteOrder // of the section
	ifaces []ngInterface    // of the section
	frames []Frame
}

// An ngInterface is what a section says of an interface.
type ngInterface struct {
	name    string
	link    uint16
	snap    uint32
	perSec  uint64 // ticks of a time stamp in a second
	seconds int64  // added to time stamps
}

func readPcapng(b []byte) ([]Frame, error) {
	r := &ngReader{}
	for block := 1; len(b) > 0; block++ {
		body, typ, rest, err := r.block(b)
		if err == nil {
			err = r.take(typ, body)
		}
		if err != nil {
			return r.frames, fmt.Errorf("pcapng block %d: %w", block, err)
		}
		b = rest
	}
	return r.frames, nil
}

// block splits the first block off b. A section header sets the byte order of
// its own length, too.
func (r *ngReader) block(b []byte) (body []byte, typ uint32, rest []byte, err error) {
	if len(b) < 12 {
		return nil, 0, nil, ErrCut
	}
	if binary.LittleEndian.Uint32(b) == blockSection { // reads the same either way
		switch uint32(0x1A2B3C4D) {
		case binary.LittleEndian.Uint32(b[8:]):
			r.order = binary.LittleEndian
		case binary.BigEndian.Uint32(b[8:]):
			r.order = binary.BigEndian
		default:
			return nil, 0, nil, fmt.Errorf("%w: byte order mark", ErrFormat)
		}
	}
	n := uint64(r.order.Uint32(b[4:]))
	if n < 12 || n%4 != 0 {
		return nil, 0, nil, fmt.Errorf("%w: block of %d bytes", ErrFormat, n)
	}
	if n > uint64(len(b)) {
		return nil, 0, nil, ErrCut
	}
	return b[8 : n-4], r.order.Uint32(b), b[n:], nil
}

func (r *ngReader) take(typ uint32, body []byte) error {
	switch typ {
	case blockSection:
		if len(body) < 16 || r.order.Uint16(body[4:]) != 1 {
			return fmt.Errorf("%w: section header", ErrFormat)
		}
		r.ifaces = nil
		return nil
	case blockInterface:
		return r.iface(body)
	case blockEnhanced:
		if len(body) < 20 {
			return fmt.Errorf("%w: packet block", ErrFormat)
		}
		return r.packet(r.order.Uint32(body), body)
	case blockPacketOld: // the interface has 16 bits, then come those of drops
		if len(body) < 20 {
			return fmt.Errorf("%w: packet block", ErrFormat)
		}
		return r.packet(uint32(r.order.Uint16(body)), body)
	case blockSimple:
		return r.simple(body)
	}
	return nil // unknown blocks are for others
}

// iface takes an interface: link type 2, reserved 2, snap length 4, options.
func (r *ngReader) iface(body []byte) error {
	if len(body) < 8 || len(r.ifaces) == maxInterfaces {
		return fmt.Errorf("%w: interface block", ErrFormat)
	}
	i := ngInterface{link: r.order.Uint16(body), snap: r.order.Uint32(body[4:]), perSec: 1e6}
	err := r.options(body[8:], func(code uint16, v []byte) {
		switch {
		case code == optIfName:
			i.name = text(v)
		case code == optTSResol && len(v) == 1:
			i.perSec = ticks(v[0])
		case code == optTSOffset && len(v) == 8:
			i.seconds = int64(r.order.Uint64(v))
		}
	})
	if i.perSec == 0 {
		return fmt.Errorf("%w: time resolution", ErrFormat)
	}
	r.ifaces = append(r.ifaces, i)
	return err
}

// ticks is how many time stamps there are in a second by if_tsresol: a
// negative power of 10, or with the high bit set of 2. 0 where it has no room.
func ticks(resol byte) uint64 {
	base, n := uint64(10), resol
	if resol&0x80 != 0 {
		base, n = 2, resol&0x7f
	}
	t := uint64(1)
	for range n {
		hi, lo := bits.Mul64(t, base)
		if hi != 0 {
			return 0
		}
		t = lo
	}
	return t
}

// packet takes a frame: interface 4, time 8 (high, low), captured length 4,
// length 4, data padded to 4, options.
func (r *ngReader) packet(id uint32, body []byte) error {
	n := uint64(r.order.Uint32(body[12:]))
	padded := (n + 3) &^ 3
	if n > maxFrame || padded > uint64(len(body)-20) {
		return fmt.Errorf("%w: frame of %d bytes in %d", ErrFormat, n, len(body)-20)
	}
	stamp := uint64(r.order.Uint32(body[4:]))<<32 | uint64(r.order.Uint32(body[8:]))
	f := Frame{Data: body[20 : 20+n : 20+n], Length: int(r.order.Uint32(body[16:]))}
	if err := r.options(body[20+padded:], func(code uint16, v []byte) {
		if code == optComment && f.Comment == "" {
			f.Comment = text(v)
		}
	}); err != nil {
		return err
	}
	return r.add(id, stamp, f)
}

// simple takes a frame of the first interface: length 4, data.
func (r *ngReader) simple(body []byte) error {
	if len(body) < 4 || len(r.ifaces) == 0 {
		return fmt.Errorf("%w: simple packet block", ErrFormat)
	}
	length := r.order.Uint32(body)
	n := min(uint64(length), uint64(len(body)-4))
	if snap := r.ifaces[0].snap; snap != 0 {
		n = min(n, uint64(snap))
	}
	if n > maxFrame {
		return fmt.Errorf("%w: frame of %d bytes", ErrFormat, n)
	}
	return r.add(0, 0, Frame{Data: body[4 : 4+n : 4+n], Length: int(length)})
}

func (r *ngReader) add(id uint32, stamp uint64, f Frame) error {
	if uint64(id) >= uint64(len(r.ifaces)) {
		return fmt.Errorf("%w: interface %d of %d", ErrFormat, id, len(r.ifaces))
	}
	i := &r.ifaces[id]
	if i.link != linkEthernet {
		return fmt.Errorf("%w: link type %d", ErrLinkType, i.link)
	}
	// The fraction times 1e9 needs 128 bits; the quotient is below 1e9.
	hi, lo := bits.Mul64(stamp%i.perSec, 1e9)
	ns, _ := bits.Div64(hi, lo, i.perSec)
	f.Number, f.Interface = len(r.frames)+1, i.name
	f.Time = time.Unix(int64(stamp/i.perSec)+i.seconds, int64(ns)).UTC()
	r.frames = append(r.frames, f)
	return nil
}

// options calls f for each option: code 2, length 2, value padded to 4. Code 0
// ends them.
func (r *ngReader) options(b []byte, f func(code uint16, value []byte)) error {
	for len(b) >= 4 {
		code, n := r.order.Uint16(b), int(r.order.Uint16(b[2:]))
		if code == 0 {
			return nil
		}
		padded := (n + 3) &^ 3
		if padded > len(b)-4 {
			return fmt.Errorf("%w: option %d of %d bytes", ErrFormat, code, n)
		}
		f(code, b[4:4+n])
		b = b[4+padded:]
	}
	return nil
}

// text is an option's value as text.
func text(v []byte) string { return strings.ToValidUTF8(strings.TrimRight(string(v), "\x00"), "?") }
