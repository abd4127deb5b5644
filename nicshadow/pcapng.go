package nicshadow

import (
	"encoding/binary"
	"io"
	"time"
)

// Block types and option codes of pcapng, draft-ietf-opsawg-pcapng, sections
// 3 and 4. gopacket's NgWriter (v1.1.19) writes no comments on packets, and a
// capture of drops without the reasons would say little.
const (
	blockSection   uint32 = 0x0A0D0D0A
	blockInterface uint32 = 1
	blockPacket    uint32 = 6 // enhanced packet block

	optEnd      uint16 = 0
	optComment  uint16 = 1
	optIfName   uint16 = 2
	optTSResol  uint16 = 9
	optUserAppl uint16 = 4

	linkEthernet = 1
)

// A pcapngWriter writes blocks to w and counts bytes. It keeps one buffer, so
// that a packet is one Write. The first error stays.
type pcapngWriter struct {
	w     io.Writer
	buf   []byte
	bytes int64
	err   error
}

// section writes the section header, which opens a file.
//
//	type, length, 0x1A2B3C4D, version 1.0, section length unknown, options
func (p *pcapngWriter) section() {
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
func (p *pcapngWriter) iface(name string) {
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
func (p *pcapngWriter) packet(iface uint32, at time.Time, b []byte, length int, comment string) {
	p.begin(blockPacket)
	p.u32(iface)
	ns := uint64(at.UnixNano())
	p.u32(uint32(ns >> 32))
	p.u32(uint32(ns))
	p.u32(uint32(len(b)))
	p.u32(uint32(length))
	p.padded(b)
	p.option(optComment, comment)
	p.end()
}

func (p *pcapngWriter) begin(typ uint32) {
	p.buf = p.buf[:0]
	p.u32(typ)
	p.u32(0) // the length, by end
}

// end closes the options and the block, and writes it.
func (p *pcapngWriter) end() {
	p.u32(uint32(optEnd))
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
func (p *pcapngWriter) option(code uint16, value string) {
	value = value[:min(len(value), 1<<16-4)]
	p.u16(code)
	p.u16(uint16(len(value)))
	p.padded([]byte(value))
}

// padded writes b and zeros up to a multiple of 4 bytes.
func (p *pcapngWriter) padded(b []byte) {
	p.buf = append(p.buf, b...)
	p.buf = append(p.buf, make([]byte, -len(b)&3)...)
}

func (p *pcapngWriter) u16(v uint16) { p.buf = binary.LittleEndian.AppendUint16(p.buf, v) }
func (p *pcapngWriter) u32(v uint32) { p.buf = binary.LittleEndian.AppendUint32(p.buf, v) }
