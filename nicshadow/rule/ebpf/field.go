package ebpf

import (
	"encoding/binary"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"

	"github.com/cilium/ebpf/asm"
)

// A part is up to 32 bits of a key, to be compared under a mask.
type part struct {
	off         int16
	size        asm.Size
	mask, value uint32
}

var bigEndian = binary.NativeEndian.Uint16([]byte{1, 0}) != 1

// offset is where in the key the bytes of a word lie that begin with bit
// shift, counted from the lowest.
func offset(word uint8, shift, bytes int) int16 {
	if bigEndian {
		return int16(word)*8 + int16(8-shift/8-bytes)
	}
	return int16(word)*8 + int16(shift/8)
}

// appendParts adds the comparison of a word under a mask: the narrowest
// aligned loads that cover the mask. Constants of 64 bits, which take an
// instruction of two slots each, are never needed.
func appendParts(ps []part, word uint8, mask, value uint64) []part {
	for half := 0; half < 64; half += 32 {
		m, v := uint32(mask>>half), uint32(value>>half)
		if m == 0 {
			continue
		}
		p := part{offset(word, half, 4), asm.Word, m, v}
		for _, s := range []struct {
			size asm.Size
			bits int
		}{{asm.Byte, 8}, {asm.Half, 16}} {
			for at := 0; at < 32 && p.size == asm.Word; at += s.bits {
				if all := uint32(1)<<s.bits - 1; m&^(all<<at) == 0 {
					p = part{offset(word, half+at, s.bits/8), s.size, m >> at, v >> at}
				}
			}
		}
		ps = append(ps, p)
	}
	return ps
}

// appendMatch adds the comparison of a field under a mask.
func appendMatch(ps []part, f frame.Field, mask, value rule.Const) []part {
	i := f.Info()
	if i.Width == 128 {
		ps = appendParts(ps, i.Word, mask.Hi, value.Hi)
		return appendParts(ps, i.Word+1, mask.Lo, value.Lo)
	}
	return appendParts(ps, i.Word, mask.Lo<<i.Shift, value.Lo<<i.Shift)
}

// full covers all bits of f.
func full(f frame.Field) rule.Const {
	switch w := f.Width(); {
	case w == 128:
		return rule.Const{Hi: ^uint64(0), Lo: ^uint64(0)}
	default:
		return rule.Const{Lo: ^uint64(0) >> (64 - w)}
	}
}

// whole says that the mask has all bits of the load.
func (p part) whole() bool { return uint64(p.mask) == 1<<(8*p.size.Sizeof())-1 }

// unless jumps to l unless all parts are equal. It does so once, however many
// parts there are: what the verifier's patience is measured in is jumps.
func (c *compiler) unless(ps []part, l label) {
	switch len(ps) {
	case 0:
		c.never(l)
		return
	case 1:
		c.load(asm.R0, ps[0])
		c.ifImm32(asm.R0, asm.JNE, ps[0].value, l)
		return
	}
	for i, p := range ps {
		r := asm.R1
		if i == 0 {
			r = asm.R0
		}
		c.load(r, p)
		if p.value != 0 {
			c.add(asm.Xor.Imm32(r, int32(p.value)))
		}
		if i > 0 {
			c.add(asm.Or.Reg32(asm.R0, r))
		}
	}
	c.ifImm32(asm.R0, asm.JNE, 0, l)
}

func (c *compiler) load(r asm.Register, p part) {
	c.add(asm.LoadMem(r, regKey, p.off, p.size))
	if !p.whole() {
		c.add(asm.And.Imm32(r, int32(p.mask)))
	}
}

// loadField puts a field of up to 64 bits into r.
func (c *compiler) loadField(r asm.Register, f frame.Field) {
	i := f.Info()
	width, shift := int(i.Width), int(i.Shift)
	if size, ok := map[int]asm.Size{8: asm.Byte, 16: asm.Half, 32: asm.Word}[width]; ok && shift%width == 0 {
		c.add(asm.LoadMem(r, regKey, offset(i.Word, shift, width/8), size))
		return
	}
	c.loadWord(r, i.Word)
	if up := 64 - shift - width; up > 0 {
		c.add(asm.LSh.Imm(r, int32(up)))
	}
	if down := 64 - width; down > 0 {
		c.add(asm.RSh.Imm(r, int32(down)))
	}
}

func (c *compiler) loadWord(r asm.Register, word uint8) {
	c.add(asm.LoadMem(r, regKey, int16(word)*8, asm.DWord))
}

// unlessPeer jumps to l unless both fields, of one width, are equal.
func (c *compiler) unlessPeer(f, g frame.Field, l label) {
	if f.Width() != 128 {
		c.loadField(asm.R1, f)
		c.loadField(asm.R2, g)
		c.ifReg(asm.R1, asm.JNE, asm.R2, l)
		return
	}
	a, b := f.Info().Word, g.Info().Word
	c.loadWord(asm.R1, a)
	c.loadWord(asm.R2, b)
	c.add(asm.Xor.Reg(asm.R1, asm.R2))
	c.loadWord(asm.R2, a+1)
	c.loadWord(asm.R3, b+1)
	c.add(asm.Xor.Reg(asm.R2, asm.R3), asm.Or.Reg(asm.R1, asm.R2))
	c.ifImm(asm.R1, asm.JNE, 0, l)
}
