package hypercall

import "encoding/binary"

// Limits of the answer to stats. A server sends the first so many.
const (
	MaxReasons = 256
	MaxLines   = 1024
	maxText    = 512
)

// Stats are a sender's counters. On the wire:
//
//	0      1        4         36       44      52          60        68           76           84        88
//	| mode | zero   | program | frames | bytes | forwarded | dropped | would drop | delivered  | reasons | lines | ...
//
// then the reasons, each a count of 8 bytes, 1 byte for would drop, and a text,
// then the lines, each a count of 8 bytes, 1 byte for would drop, line and col
// of 4 bytes, and three texts: file, kind and name. A text is a length of 16
// bits and that many bytes.
type Stats struct {
	Mode Mode `json:"-"`
	// Program is the hash of the program in force; all 0 for none.
	Program [HashSize]byte `json:"-"`
	// Frames and Bytes are what the sender sent; Forwarded, Dropped and
	// WouldDrop (audit) what became of the frames; Delivered what it was sent.
	Frames    uint64        `json:"frames"`
	Bytes     uint64        `json:"bytes"`
	Forwarded uint64        `json:"forwarded"`
	Dropped   uint64        `json:"dropped"`
	WouldDrop uint64        `json:"would_drop"`
	Delivered uint64        `json:"delivered"`
	Reasons   []ReasonCount `json:"reasons,omitempty"`
	Lines     []LineCount   `json:"lines,omitempty"`
}

// A ReasonCount counts the frames that dropped for one named reason.
type ReasonCount struct {
	Reason string `json:"reason"`
	// WouldDrop marks frames that audit mode forwarded.
	WouldDrop bool   `json:"would_drop,omitempty"`
	Frames    uint64 `json:"frames"`
}

// EnvelopeLine begins the kind of a line that is the envelope's, not the
// policy's.
const EnvelopeLine = "envelope "

// A LineCount counts the frames that one source line dropped.
type LineCount struct {
	File string `json:"file,omitempty"`
	Line uint32 `json:"line,omitempty"`
	Col  uint32 `json:"col,omitempty"`
	// Kind is "predicate", "guard", "unspoken" or "fragment", behind EnvelopeLine
	// where it is a line of the envelope; Name which.
	Kind      string `json:"kind"`
	Name      string `json:"why"`
	WouldDrop bool   `json:"would_drop,omitempty"`
	Frames    uint64 `json:"frames"`
}

func (s Stats) encode() []byte {
	le := binary.LittleEndian
	reasons, lines := s.Reasons[:min(len(s.Reasons), MaxReasons)], s.Lines[:min(len(s.Lines), MaxLines)]
	b := append([]byte{byte(s.Mode), 0, 0, 0}, s.Program[:]...)
	for _, n := range []uint64{s.Frames, s.Bytes, s.Forwarded, s.Dropped, s.WouldDrop, s.Delivered} {
		b = le.AppendUint64(b, n)
	}
	b = le.AppendUint32(b, uint32(len(reasons)))
	b = le.AppendUint32(b, uint32(len(lines)))
	for _, r := range reasons {
		b = append(le.AppendUint64(b, r.Frames), flag(r.WouldDrop))
		b = appendText(b, cut(r.Reason, maxText))
	}
	for _, l := range lines {
		b = append(le.AppendUint64(b, l.Frames), flag(l.WouldDrop))
		b = le.AppendUint32(b, l.Line)
		b = le.AppendUint32(b, l.Col)
		for _, s := range []string{l.File, l.Kind, l.Name} {
			b = appendText(b, cut(s, maxText))
		}
	}
	return b
}

func decodeStats(b []byte) (s Stats, err error) {
	r := reader{b: b}
	s.Mode = Mode(r.u8())
	zero := r.zero(3)
	copy(s.Program[:], r.bytes(HashSize))
	for _, n := range []*uint64{&s.Frames, &s.Bytes, &s.Forwarded, &s.Dropped, &s.WouldDrop, &s.Delivered} {
		*n = r.u64()
	}
	reasons, lines := r.u32(), r.u32()
	if !zero || r.short || reasons > MaxReasons || lines > MaxLines {
		return Stats{}, malformed("stats of %d bytes, %d reasons, %d lines", len(b), reasons, lines)
	}
	for range reasons {
		c := ReasonCount{Frames: r.u64(), WouldDrop: r.u8() != 0}
		c.Reason, _ = r.text(maxText)
		s.Reasons = append(s.Reasons, c)
	}
	for range lines {
		c := LineCount{Frames: r.u64(), WouldDrop: r.u8() != 0, Line: r.u32(), Col: r.u32()}
		c.File, _ = r.text(maxText)
		c.Kind, _ = r.text(maxText)
		c.Name, _ = r.text(maxText)
		s.Lines = append(s.Lines, c)
	}
	if !r.done() {
		return Stats{}, malformed("stats of %d bytes", len(b))
	}
	return s, nil
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}
