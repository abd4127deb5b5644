package rule

import (
	"encoding/binary"
	"slices"
	"unicode"
	"unicode/utf8"

	"sekimori/nicshadow/frame"
)

// Limits of the sections that have none in unit.go.
const (
	maxName   = 255
	maxPath   = 4096
	maxConsts = 1 << 20
	maxRows   = 1 << 16
	maxTables = 1 << 12
	maxWhys   = 1 << 16
	maxFiles  = 1 << 12
)

// Decode reads and verifies an encoded program. It keeps no part of b, which
// may be written to as soon as Decode has returned; the verdict about the
// bytes is about a copy. The error is a *[VerifyError].
func Decode(b []byte) (*Program, error) {
	if len(b) > MaxEncoded {
		return nil, refuse("%d bytes, at most %d", len(b), MaxEncoded)
	}
	b = slices.Clone(b)
	u, err := parse(b)
	if err != nil {
		return nil, err
	}
	steps, err := verify(u)
	if err != nil {
		return nil, err
	}
	return build(u, b, steps), nil
}

// parse reads the sections. Each count is checked against the bytes that are
// there before anything is allocated for it, and all sums are in 64 bits.
func parse(b []byte) (*Unit, error) {
	le := binary.LittleEndian
	if len(b) < headerSize || string(b[:4]) != magic {
		return nil, refuse("not a rule program")
	}
	if v := le.Uint16(b[4:]); v != version {
		return nil, refuse("version %d, want %d", v, version)
	}
	if n := le.Uint16(b[6:]); n != numSections {
		return nil, refuse("%d sections, want %d", n, numSections)
	}
	if n := le.Uint64(b[8:]); n != uint64(len(b)) {
		return nil, refuse("length %d in a header of %d bytes", n, len(b))
	}
	u := new(Unit)
	b = b[headerSize:]
	for id := secEntries; id <= numSections; id++ {
		name := sectionNames[id]
		if len(b) < sectionHead {
			return nil, refuse("section %s: truncated", name)
		}
		if got := int(le.Uint16(b)); got != id {
			return nil, refuse("section %s: found number %d, want %d", name, got, id)
		}
		if le.Uint16(b[2:]) != 0 {
			return nil, refuse("section %s: padding is not zero", name)
		}
		count, length := uint64(le.Uint32(b[4:])), le.Uint64(b[8:])
		b = b[sectionHead:]
		if length > uint64(len(b)) {
			return nil, refuse("section %s: %d bytes, %d are left", name, length, len(b))
		}
		r := reader{section: name, b: b[:length]}
		u.read(id, count, &r)
		if r.err != nil {
			return nil, r.err
		}
		if r.left() != 0 {
			return nil, refuse("section %s: %d bytes too many", name, r.left())
		}
		b = b[length:]
	}
	if len(b) != 0 {
		return nil, refuse("%d bytes behind the last section", len(b))
	}
	return u, nil
}

// read reads count entries of section id.
func (u *Unit) read(id int, count uint64, r *reader) {
	switch id {
	case secEntries:
		if count != uint64(frame.NumClasses) && count != 2*uint64(frame.NumClasses) {
			r.fail("%d entries, want %d, or twice as many", count, frame.NumClasses)
			return
		}
		for i := range u.Entries {
			u.Entries[i] = r.u32()
		}
		if count > uint64(frame.NumClasses) {
			u.Ingress = list(r, uint64(frame.NumClasses), uint64(frame.NumClasses), 4, r.u32)
		}
	case secInsns:
		u.Insns = list(r, count, MaxInsns, 8, r.insn)
	case secLines:
		u.Lines = list(r, count, MaxInsns, 8, r.pos)
	case secConsts:
		u.Consts = list(r, count, maxConsts, 16, r.constant)
	case secRows:
		u.Rows = list(r, count, maxRows, 4+40, r.row)
	case secTables:
		u.Tables = list(r, count, maxTables, 8, r.table)
	case secWhys:
		u.Whys = list(r, count, maxWhys, 12, func() Why {
			w := Why{Kind: WhyKind(r.u8())}
			r.zero(1)
			n := int(r.u16())
			w.Pos = r.pos()
			w.Name = r.text(n, maxName)
			return w
		})
	case secFiles:
		u.Files = list(r, count, maxFiles, 2, func() string {
			return r.text(int(r.u16()), maxPath)
		})
	case secLimits:
		u.Limits = list(r, count, MaxLimits, 16, func() Limit {
			l := Limit{Period: r.u64(), Burst: r.u32()}
			n := int(r.u16())
			r.zero(2)
			l.Name = r.text(n, maxName)
			return l
		})
	}
}

// A reader takes numbers off the front of a section. The first failure stays;
// after it every read yields zero.
type reader struct {
	section string
	b       []byte
	off     int // of b, that was read: moving b itself wakes the write barrier
	err     error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		e := refuse(format, args...)
		e.Reason = "section " + r.section + ": " + e.Reason
		r.err = e
	}
	r.off = len(r.b)
}

// left is the number of bytes to read.
func (r *reader) left() int { return len(r.b) - r.off }

func (r *reader) take(n int) []byte {
	if r.err != nil || n > r.left() {
		r.fail("truncated")
		return nil
	}
	b := r.b[r.off : r.off+n]
	r.off += n
	return b
}

func (r *reader) u8() uint8 {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *reader) zero(n int) {
	for _, c := range r.take(n) {
		if c != 0 {
			r.fail("padding is not zero")
			return
		}
	}
}

func (r *reader) insn() (in Insn) {
	if b := r.take(8); b != nil {
		in = Insn{
			Op: Op(b[0]), A: b[1],
			Off: binary.LittleEndian.Uint16(b[2:]), K: binary.LittleEndian.Uint32(b[4:]),
		}
	}
	return in
}

func (r *reader) pos() (p Pos) {
	if b := r.take(8); b != nil {
		p = Pos{
			File: binary.LittleEndian.Uint16(b), Col: binary.LittleEndian.Uint16(b[2:]),
			Line: binary.LittleEndian.Uint32(b[4:]),
		}
	}
	return p
}

func (r *reader) constant() Const {
	lo := r.u64()
	return Const{Hi: r.u64(), Lo: lo}
}

func (r *reader) row() Row {
	n := uint64(r.u8())
	r.zero(3)
	return list(r, n, MaxRow, 40, func() Match {
		m := Match{Field: frame.Field(r.u8())}
		r.zero(7)
		m.Mask, m.Value = r.constant(), r.constant()
		return m
	})
}

func (r *reader) table() Table {
	t := Table{Kind: TableKind(r.u8())}
	r.zero(3)
	n := uint64(r.u32())
	switch t.Kind {
	case TableExact64:
		t.Values = list(r, n, MaxTable, 8, func() Const { return Const{Lo: r.u64()} })
	case TableExact128:
		t.Values = list(r, n, MaxTable, 16, r.constant)
	case TablePrefix32:
		t.Prefixes = list(r, n, MaxTable, 5, func() Prefix {
			return Prefix{Bits: r.u8(), Value: Const{Lo: uint64(r.u32())}}
		})
	case TablePrefix128:
		t.Prefixes = list(r, n, MaxTable, 17, func() Prefix {
			return Prefix{Bits: r.u8(), Value: r.constant()}
		})
	default:
		r.fail("unknown kind of table %d", t.Kind)
	}
	return t
}

// text reads a name of n bytes: it goes into logs and onto terminals.
func (r *reader) text(n, limit int) string {
	if n > limit {
		r.fail("a name of %d bytes, at most %d", n, limit)
	}
	s := string(r.take(n))
	if !utf8.ValidString(s) {
		r.fail("a name that is not UTF-8")
	}
	for _, c := range s {
		if !unicode.IsPrint(c) {
			r.fail("a name with unprintable characters")
			break
		}
	}
	return s
}

// list reads n entries of at least size bytes each, at most limit of them.
func list[T any](r *reader, n, limit, size uint64, one func() T) []T {
	if n > limit {
		r.fail("%d entries, at most %d", n, limit)
	}
	if r.err == nil && n > uint64(r.left())/size {
		r.fail("%d entries in %d bytes", n, r.left())
	}
	if r.err != nil || n == 0 {
		return nil
	}
	out := make([]T, 0, n)
	for range n {
		out = append(out, one())
		if r.err != nil {
			return nil
		}
	}
	return out
}
