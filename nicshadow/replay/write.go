package replay

import (
	"encoding/binary"
	"io"
	"time"
)

// Options that only the writer knows, draft-ietf-opsawg-pcapng, 3.5 and 4.1.
const (
	optEnd      = 0
	optUserAppl = 4
)

// A Writer writes a pcapng file to w. It keeps one buffer, so that a packet is
// one Write. gopacket's NgWriter (v1.1.19) writes no comments on packets, and a
// capture of drops without the reasons would say little.
type Writer struct {
	w      io.Writer
	buf    []byte
	ifaces map[string]uint32
	bytes  int64
	err    error
}

// NewWriter begins a file.
func NewWriter(w io.Writer) *Writer {
	p := &Writer{w: w, ifaces: map[string]uint32{}}
	p.section()
	return p
}

// Bytes is how long the file is.
func (p *Writer) Bytes() int64 { return p.bytes }

// Err is the first error of writing.
func (p *Writer) Err() error { return p.err }

// Packet writes a frame of length bytes, of which b was captured, with a
// comment. iface names where it was seen.
func (p *Writer) Packet(iface string, at time.Time, b []byte, length int, comment string) {
	id, ok := p.ifaces[iface]
	if !ok {
		id = uint32(len(p.ifaces))
		p.ifaces[iface] = id
		p.iface(iface)
	}
	p.packet(id, at, b, length, comment)
}

// WritePcapng writes recorded frames as a pcapng file.
func WritePcapng(w io.Writer, frames []Frame) error {
	p := NewWriter(w)
	for i := range frames {
		f := &frames[i]
		p.Packet(f.Interface, f.Time, f.Data, max(f.Length, len(f.Data)), f.Comment)
	}
	return p.Err()
}

// section writes the section header, which opens a file.
//
//	type, length, 0x1A2B3C4D, version 1.0, section length unknown, options
func (p *Writer) section() {
	p.begin(blockSection)
	p.u32(0x1A2B3C4D)
	p.u16(1)
	p.u16(0)
	p.buf = binary.LittleEndian.AppendUint64(p.buf, 1<<64-1)
	p.option(optUserAppl, "sekimori")
	p.end()
}

// iface writes an interface description. Interfaces are numbered from 0 in
// the order they are written; times are in nanoseconds.
//
//	link type, reserved, snap length (0: no limit), options
func (p *Writer) iface(name string) {
	p.begin(blockInterface)
	p.u16(linkEthernet)
	p.u16(0)
	p.u32(0)
	p.option(optIfName, name)
	p.option(optTSResol, "\x09")
	p.end()
}

// packet writes a frame of length bytes, of which b was captured.
//
//	interface, time (high, low), captured length, length, b padded, options
func (p *Writer) packet(iface uint32, at time.Time, b []byte, length int, comment string) {
	p.begin(blockEnhanced)
	p.u32(iface)
	ns := uint64(at.UnixNano())
	p.u32(uint32(ns >> 32))
	p.u32(uint32(ns))
	p.u32(uint32(len(b)))
	p.u32(uint32(length))
	p.padded(b)
	if comment != "" {
		p.option(optComment, comment)
	}
	p.end()
}

func (p *Writer) begin(typ uint32) {
	p.buf = p.buf[:0]
	p.u32(typ)
	p.u32(0) // the length, by end
}

// end closes the options and the block, and writes it.
func (p *Writer) end() {
	p.u32(optEnd)
	n := uint32(len(p.buf)) + 4
	p.u32(n)
	binary.LittleEndian.PutUint32(p.buf[4:], n)
	if p.err != nil {
		return
	}
	m, err := p.w.Write(p.buf)
	p.bytes, p.err = p.bytes+int64(m), err
}

// option writes a code, a length and a padded value of at most 64 KiB.
func (p *Writer) option(code uint16, value string) {
	value = value[:min(len(value), 1<<16-4)]
	p.u16(code)
	p.u16(uint16(len(value)))
	p.padded([]byte(value))
}

// padded writes b and zeros up to a multiple of 4 bytes.
func (p *Writer) padded(b []byte) {
	p.buf = append(p.buf, b...)
	p.buf = append(p.buf, make([]byte, -len(b)&3)...)
}

func (p *Writer) u16(v uint16) { p.buf = binary.LittleEndian.AppendUint16(p.buf, v) }
func (p *Writer) u32(v uint32) { p.buf = binary.LittleEndian.AppendUint32(p.buf, v) }
