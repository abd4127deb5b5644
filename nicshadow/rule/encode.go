package rule

import (
	"cmp"
	"encoding/binary"
	"slices"

	"sekimori/nicshadow/frame"
)

// The encoding of a program. All numbers are little-endian; what is marked
// zero must be zero; nothing may follow the last section.
//
//	 0  4  magic "SKMR"
//	 4  2  version
//	 6  2  number of sections, 9
//	 8  8  length of the whole in bytes
//	16     the sections, each once, in this order:
//
//	        0  2  section number
//	        2  2  zero
//	        4  4  number of entries
//	        8  8  length of the entries in bytes
//	       16     the entries:
//
//	1 entries  4: pc; one for each class, that of class none 0; then the same
//	              for ingress, if that is judged
//	2 insns    8: op, a, off (2), k (4)
//	3 lines    8: file (2), column (2), line (4); one for each instruction
//	4 consts  16: low half (8), high half (8)
//	5 rows     4: number of matches (1), zero (3); then for each match
//	          40: field (1), zero (7), mask (16), value (16)
//	6 tables   8: kind (1), zero (3), number of entries (4); then
//	              exact, 64 bits:    8: value
//	              exact, 128 bits:  16: low half, high half
//	              prefix, 32 bits:   5: bits (1), value (4)
//	              prefix, 128 bits: 17: bits (1), low half, high half
//	7 whys    12: kind (1), zero (1), length of the name (2), position (8); then the name
//	8 files    2: length of the path (2); then the path
//	9 limits  16: period (8), burst (4), length of the name (2), zero (2); then the name
//
// A program has one encoding: sorted what is sorted, nothing optional. Who
// changes anything here raises the version.
const (
	magic   = "SKMR"
	version = 2

	headerSize  = 16
	sectionHead = 16
)

const (
	secEntries = iota + 1
	secInsns
	secLines
	secConsts
	secRows
	secTables
	secWhys
	secFiles
	secLimits
	numSections = iota
)

var sectionNames = [...]string{"", "entries", "insns", "lines", "consts", "rows", "tables", "whys", "files", "limits"}

// encode writes u into the memory of b. It relies on the limits that normalize
// checked, not on anything else: the verifier judges the rest.
func encode(u *Unit, b []byte) ([]byte, error) {
	le := binary.LittleEndian
	b = append(b[:0], magic...)
	b = le.AppendUint16(b, version)
	b = le.AppendUint16(b, numSections)
	b = le.AppendUint64(b, 0) // the length, below
	section := func(id, n int, body func()) {
		b = le.AppendUint16(b, uint16(id))
		b = le.AppendUint16(b, 0)
		b = le.AppendUint32(b, uint32(n))
		b = le.AppendUint64(b, 0)
		start := len(b)
		body()
		le.PutUint64(b[start-8:], uint64(len(b)-start))
	}
	section(secEntries, len(u.Entries)+len(u.Ingress), func() {
		for _, pc := range append(u.Entries[:], u.Ingress...) {
			b = le.AppendUint32(b, pc)
		}
	})
	section(secInsns, len(u.Insns), func() {
		for _, in := range u.Insns {
			b = append(b, byte(in.Op), in.A)
			b = le.AppendUint16(b, in.Off)
			b = le.AppendUint32(b, in.K)
		}
	})
	section(secLines, len(u.Lines), func() {
		for _, pos := range u.Lines {
			b = appendPos(b, pos)
		}
	})
	section(secConsts, len(u.Consts), func() {
		for _, c := range u.Consts {
			b = appendConst(b, c)
		}
	})
	section(secRows, len(u.Rows), func() {
		for _, r := range u.Rows {
			b = appendRow(b, r)
		}
	})
	section(secTables, len(u.Tables), func() {
		for _, t := range u.Tables {
			b = appendTable(b, t)
		}
	})
	section(secWhys, len(u.Whys), func() {
		for _, w := range u.Whys {
			b = append(b, byte(w.Kind), 0)
			b = le.AppendUint16(b, uint16(len(w.Name)))
			b = appendPos(b, w.Pos)
			b = append(b, w.Name...)
		}
	})
	section(secFiles, len(u.Files), func() {
		for _, f := range u.Files {
			b = le.AppendUint16(b, uint16(len(f)))
			b = append(b, f...)
		}
	})
	section(secLimits, len(u.Limits), func() {
		for _, l := range u.Limits {
			b = le.AppendUint64(b, l.Period)
			b = le.AppendUint32(b, l.Burst)
			b = le.AppendUint16(b, uint16(len(l.Name)))
			b = append(b, 0, 0)
			b = append(b, l.Name...)
		}
	})
	if len(b) > MaxEncoded {
		return nil, refuse("%d bytes encoded, at most %d", len(b), MaxEncoded)
	}
	le.PutUint64(b[8:], uint64(len(b)))
	return b, nil
}

func appendPos(b []byte, p Pos) []byte {
	b = binary.LittleEndian.AppendUint16(b, p.File)
	b = binary.LittleEndian.AppendUint16(b, p.Col)
	return binary.LittleEndian.AppendUint32(b, p.Line)
}

func appendConst(b []byte, c Const) []byte {
	b = binary.LittleEndian.AppendUint64(b, c.Lo)
	return binary.LittleEndian.AppendUint64(b, c.Hi)
}

func appendRow(b []byte, r Row) []byte {
	b = append(b, byte(len(r)), 0, 0, 0)
	for _, m := range r {
		b = append(b, byte(m.Field), 0, 0, 0, 0, 0, 0, 0)
		b = appendConst(b, m.Mask)
		b = appendConst(b, m.Value)
	}
	return b
}

func appendTable(b []byte, t Table) []byte {
	b = append(b, byte(t.Kind), 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(t.Len()))
	for _, v := range t.Values {
		if t.Kind == TableExact64 {
			b = binary.LittleEndian.AppendUint64(b, v.Lo)
		} else {
			b = appendConst(b, v)
		}
	}
	for _, p := range t.Prefixes {
		b = append(b, p.Bits)
		if t.Kind == TablePrefix32 {
			b = binary.LittleEndian.AppendUint32(b, uint32(p.Value.Lo))
		} else {
			b = appendConst(b, p.Value)
		}
	}
	return b
}

// Len is the number of entries.
func (t *Table) Len() int { return len(t.Values) + len(t.Prefixes) }

// normalize is a copy of u in the one form that has an encoding. It refuses
// what the encoding would cut short.
func normalize(u *Unit) (*Unit, error) {
	c := u.clone()
	c.Entries[0] = 0
	if n := len(c.Ingress); n != 0 && n != int(frame.NumClasses) {
		return nil, refuse("%d entries for ingress, want %d", n, frame.NumClasses)
	}
	if len(c.Ingress) == 0 {
		c.Ingress = nil
	}
	if len(c.Lines) > len(c.Insns) {
		return nil, refuse("%d lines for %d instructions", len(c.Lines), len(c.Insns))
	}
	c.Lines = append(c.Lines, make([]Pos, len(c.Insns)-len(c.Lines))...)
	for i, r := range c.Rows {
		if len(r) > MaxRow {
			return nil, refuse("row %d: %d matches, at most %d", i, len(r), MaxRow)
		}
	}
	for i := range c.Tables {
		if err := c.Tables[i].normalize(); err != nil {
			return nil, refuse("table %d: %v", i, err)
		}
	}
	for i, w := range c.Whys {
		if len(w.Name) > maxName {
			return nil, refuse("why %d: a name of %d bytes, at most %d", i, len(w.Name), maxName)
		}
	}
	for i, f := range c.Files {
		if len(f) > maxPath {
			return nil, refuse("file %d: a path of %d bytes, at most %d", i, len(f), maxPath)
		}
	}
	for i, l := range c.Limits {
		if len(l.Name) > maxName {
			return nil, refuse("limit %d: a name of %d bytes, at most %d", i, len(l.Name), maxName)
		}
	}
	return c, nil
}

func (t *Table) normalize() error {
	switch t.Kind {
	case TableExact64, TableExact128:
		if len(t.Prefixes) != 0 {
			return errString("prefixes in an exact table")
		}
		for _, v := range t.Values {
			if t.Kind == TableExact64 && v.Hi != 0 {
				return errString("a value wider than 64 bits")
			}
		}
		slices.SortFunc(t.Values, Const.compare)
		t.Values = slices.Compact(t.Values)
	case TablePrefix32, TablePrefix128:
		if len(t.Values) != 0 {
			return errString("single values in a prefix table")
		}
		for i, p := range t.Prefixes {
			if p.Bits > t.Kind.width() || !p.Value.fits(int(t.Kind.width())) {
				return errString("a prefix wider than its table")
			}
			t.Prefixes[i].Value = p.Value.and(prefixMask(p.Bits, t.Kind.width()))
		}
		slices.SortFunc(t.Prefixes, Prefix.compare)
		t.Prefixes = slices.Compact(t.Prefixes)
	default:
		return errString("unknown kind")
	}
	return nil
}

// width is the number of bits of a value of the table.
func (k TableKind) width() uint8 {
	switch k {
	case TablePrefix32:
		return 32
	case TableExact64:
		return 64
	}
	return 128
}

func (c Const) compare(d Const) int {
	if c.Hi != d.Hi {
		return cmp.Compare(c.Hi, d.Hi)
	}
	return cmp.Compare(c.Lo, d.Lo)
}

func (c Const) and(d Const) Const { return Const{c.Hi & d.Hi, c.Lo & d.Lo} }

func (p Prefix) compare(q Prefix) int {
	return cmp.Or(p.Value.compare(q.Value), cmp.Compare(p.Bits, q.Bits))
}

// prefixMask has the bits high bits of a value of width bits set.
func prefixMask(bits, width uint8) Const {
	if width <= 64 {
		return Const{Lo: ^uint64(0) << (width - bits) & (^uint64(0) >> (64 - width))}
	}
	if bits <= 64 {
		return Const{Hi: ^uint64(0) << (64 - bits)}
	}
	return Const{Hi: ^uint64(0), Lo: ^uint64(0) << (128 - bits)}
}
