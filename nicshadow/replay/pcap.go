package replay

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Constants of pcap files, draft-ietf-opsawg-pcap.
const (
	magicMicro = 0xA1B2C3D4
	magicNano  = 0xA1B23C4D

	pcapHeader   = 24
	recordHeader = 16
	linkEthernet = 1
)

// readPcap reads a header of 24 bytes, then records:
//
//	0       4       8       12      16      20      24
//	| magic | ver   | zone  | sigfig| snap  | link  |
//	| sec   | frac  | caplen| len   | caplen bytes ...
func readPcap(b []byte, order binary.ByteOrder, nano bool) ([]Frame, error) {
	if len(b) < pcapHeader {
		return nil, ErrCut
	}
	// The high half of link says whether there is an FCS.
	if link := order.Uint32(b[20:]) & 0xffff; link != linkEthernet {
		return nil, fmt.Errorf("%w: link type %d", ErrLinkType, link)
	}
	unit := time.Microsecond
	if nano {
		unit = time.Nanosecond
	}
	var frames []Frame
	for rest := b[pcapHeader:]; len(rest) > 0; {
		if len(rest) < recordHeader {
			return frames, ErrCut
		}
		n := uint64(order.Uint32(rest[8:]))
		if n > maxFrame {
			return frames, fmt.Errorf("%w: record %d of %d bytes", ErrFormat, len(frames)+1, n)
		}
		if n > uint64(len(rest)-recordHeader) {
			return frames, ErrCut
		}
		frames = append(frames, Frame{
			Number: len(frames) + 1,
			Time:   time.Unix(int64(order.Uint32(rest)), int64(order.Uint32(rest[4:]))*int64(unit)).UTC(),
			Data:   rest[recordHeader : recordHeader+n : recordHeader+n],
			Length: int(order.Uint32(rest[12:])),
		})
		rest = rest[recordHeader+n:]
	}
	return frames, nil
}
