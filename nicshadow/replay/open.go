package replay

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// MaxCapture is the longest capture in bytes, unpacked, that is read.
const MaxCapture = 256 << 20

// maxFrame is the longest frame in bytes that a capture may hold; libpcap's
// own limit (MAXIMUM_SNAPLEN).
const maxFrame = 256 << 10

// Errors of a capture, to compare with by errors.Is.
var (
	ErrFormat   = errors.New("not a pcap or pcapng file")
	ErrTooLarge = errors.New("larger than 256 MiB")
	// ErrCut says that the file ends in the middle of a record: whoever wrote
	// it was killed, most likely. The frames before are returned with it.
	ErrCut      = errors.New("file is cut short")
	ErrLinkType = errors.New("not an Ethernet capture")
)

// A Frame is one recorded frame.
type Frame struct {
	// Number counts from 1, as Wireshark does.
	Number int
	Time   time.Time
	// Data is what was captured. Length is what was on the wire: a capture
	// with a snap length may hold less.
	Data   []byte
	Length int
	// Interface and Comment are of pcapng files; empty where there is none.
	Interface string
	Comment   string
}

// Open reads a capture file: pcap (micro- or nanoseconds, either byte order)
// or pcapng, packed by gzip or not.
func Open(path string) ([]Frame, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	frames, err := Read(f)
	if err != nil {
		return frames, fmt.Errorf("%s: %w", path, err)
	}
	return frames, nil
}

// Read reads a capture to its end. See [Open].
func Read(r io.Reader) ([]Frame, error) {
	b, err := slurp(r)
	if err != nil {
		return nil, err
	}
	if len(b) >= 2 && b[0] == 0x1f && b[1] == 0x8b {
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		if b, err = slurp(z); err != nil {
			return nil, err
		}
	}
	if len(b) < 4 {
		return nil, ErrFormat
	}
	switch m := binary.LittleEndian.Uint32(b); m {
	case blockSection:
		return readPcapng(b)
	case magicMicro, magicNano:
		return readPcap(b, binary.LittleEndian, m == magicNano)
	}
	if m := binary.BigEndian.Uint32(b); m == magicMicro || m == magicNano {
		return readPcap(b, binary.BigEndian, m == magicNano)
	}
	return nil, ErrFormat
}

// slurp reads all of r, but not more than a capture may have: a small gzip
// file can hold a thousand times its size.
func slurp(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxCapture+1))
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF): // of gzip: what there is may do
	case err != nil:
		return nil, err
	case len(b) > MaxCapture:
		return nil, ErrTooLarge
	}
	return b, nil
}
