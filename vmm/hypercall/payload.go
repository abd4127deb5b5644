package hypercall

import (
	"encoding/binary"
	"unicode/utf8"
)

// loadHead is the length of what precedes the program in a load.
const loadHead = 8

// A hello opens the channel, 40 bytes:
//
//	0      2      4          8             40
//	| min  | max  | zero     | secret      |
//
// min and max are the versions the caller speaks. The answer, 8 bytes:
//
//	0      2      4          8
//	| ver  | zero | max req  |
//
// ver is the version of every later call, max req the longest request in
// bytes that the server takes.
type hello struct {
	min, max uint16
	secret   [SecretSize]byte
}

func (h hello) encode() []byte {
	le := binary.LittleEndian
	b := le.AppendUint16(nil, h.min)
	b = le.AppendUint16(b, h.max)
	b = le.AppendUint32(b, 0)
	return append(b, h.secret[:]...)
}

func decodeHello(b []byte) (h hello, err error) {
	r := reader{b: b}
	h.min, h.max = r.u16(), r.u16()
	zero := r.zero(4)
	copy(h.secret[:], r.bytes(SecretSize))
	if !r.done() || !zero || h.min == 0 || h.min > h.max {
		return hello{}, malformed("hello of %d bytes, versions %d to %d", len(b), h.min, h.max)
	}
	return h, nil
}

// A Registration names a sender and says how to recognise it. On the wire:
//
//	0        4      10     12       16       24       32       40     42
//	| sender | mac  | zero | pgid   | cgroup | netns  | pidns  | nlen | name ...
type Registration struct {
	// Sender is the number that later calls use.
	Sender uint32
	// Name is the container's, 1 to MaxName bytes of printable ASCII.
	Name string
	// MAC is the hardware address assigned to its card.
	MAC [6]byte
	// ProcessGroup, Cgroup (id), NetNS and PIDNS (inodes) are for machines
	// that introspect; 0 where unknown.
	ProcessGroup         uint32
	Cgroup, NetNS, PIDNS uint64
}

func (g Registration) encode() []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, g.Sender)
	b = append(b, g.MAC[:]...)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint32(b, g.ProcessGroup)
	b = le.AppendUint64(b, g.Cgroup)
	b = le.AppendUint64(b, g.NetNS)
	b = le.AppendUint64(b, g.PIDNS)
	return appendText(b, g.Name)
}

func decodeRegistration(b []byte) (g Registration, err error) {
	r := reader{b: b}
	g.Sender = r.u32()
	copy(g.MAC[:], r.bytes(6))
	zero := r.zero(2)
	g.ProcessGroup = r.u32()
	g.Cgroup, g.NetNS, g.PIDNS = r.u64(), r.u64(), r.u64()
	g.Name, _ = r.text(MaxName)
	if !r.done() || !zero || !printable(g.Name) {
		return Registration{}, malformed("registration of %d bytes, name %.64q", len(b), g.Name)
	}
	return g, nil
}

// printable reports whether s is not empty and is safe to log: a name from a
// guest must not steer a terminal.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != ""
}

// encodeSender writes the payload of stats and unregister, 8 bytes, and the
// beginning of load (program follows), swap (hash and mode follow) and mode:
//
//	0        4      8
//	| sender | zero | ...
func encodeSender(sender uint32, rest []byte) []byte {
	b := make([]byte, 0, loadHead+len(rest))
	b = binary.LittleEndian.AppendUint32(b, sender)
	b = binary.LittleEndian.AppendUint32(b, 0)
	return append(b, rest...)
}

// decodeSender returns the sender and what follows it, which must be from lo
// to hi bytes long.
func decodeSender(b []byte, lo, hi int) (uint32, []byte, error) {
	r := reader{b: b}
	sender := r.u32()
	if zero := r.zero(4); !zero || r.short || len(r.b) < lo || len(r.b) > hi {
		return 0, nil, malformed("payload of %d bytes", len(b))
	}
	return sender, r.b, nil
}

func appendText(b []byte, s string) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// cut shortens s to at most n bytes without splitting a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// decodeMode reads the byte of a mode.
func decodeMode(b byte) (Mode, error) {
	if m := Mode(b); m == ModeEnforce || m == ModeAudit {
		return m, nil
	}
	return ModeInvalid, malformed("mode %d", b)
}
