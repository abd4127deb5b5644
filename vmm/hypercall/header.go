package hypercall

import (
	"encoding/binary"
	"fmt"
)

// Limits and constants of the ABI.
const (
	// Magic opens every message: "SEKI" read as bytes.
	Magic uint32 = 0x494B4553
	// Version is the newest version of the ABI spoken here.
	Version uint16 = 1
	// HeaderSize is the length of a header in bytes.
	HeaderSize = 24
	// SecretSize is the length of the secret of hello in bytes.
	SecretSize = 32
	// HashSize is the length of a program's hash in bytes.
	HashSize = 32
	// MaxProgram is the longest program in bytes that a load may carry.
	MaxProgram = 64 << 20
	// MaxRequest is the longest request in bytes, header included.
	MaxRequest = HeaderSize + loadHead + MaxProgram
	// MaxName is the longest name of a sender in bytes.
	MaxName = 63
	// MaxMessage is the longest reason of a refusal in bytes.
	MaxMessage = 4 << 10
	// MaxAnswer is the longest answer in bytes that a client accepts.
	MaxAnswer = 4 << 20
)

// A Header opens every message; doc.go draws it.
type Header struct {
	Version uint16
	Call    Call
	Seq     uint64
	Status  Status // 0 in a request
}

// encode writes a message of header and payload.
func (h Header) encode(payload []byte) []byte {
	b := make([]byte, 0, HeaderSize+len(payload))
	le := binary.LittleEndian
	b = le.AppendUint32(b, Magic)
	b = le.AppendUint16(b, h.Version)
	b = le.AppendUint16(b, uint16(h.Call))
	b = le.AppendUint64(b, h.Seq)
	b = le.AppendUint32(b, uint32(len(payload)))
	b = le.AppendUint32(b, uint32(h.Status))
	return append(b, payload...)
}

// DecodeHeader splits a message into its header and its payload, which
// aliases b. The error is an [Error] of status [StatusMalformed].
func DecodeHeader(b []byte) (Header, []byte, error) {
	if len(b) < HeaderSize {
		return Header{}, nil, malformed("%d bytes, header is %d", len(b), HeaderSize)
	}
	le := binary.LittleEndian
	if m := le.Uint32(b); m != Magic {
		return Header{}, nil, malformed("magic %#x", m)
	}
	h := Header{
		Version: le.Uint16(b[4:]),
		Call:    Call(le.Uint16(b[6:])),
		Seq:     le.Uint64(b[8:]),
		Status:  Status(le.Uint32(b[20:])),
	}
	// Compared in 64 bits: a length near 2^32 must not wrap on any platform.
	if n := uint64(le.Uint32(b[16:])); n != uint64(len(b)-HeaderSize) {
		return Header{}, nil, malformed("length %d, payload is %d bytes", n, len(b)-HeaderSize)
	}
	return h, b[HeaderSize:], nil
}

func malformed(format string, args ...any) *Error {
	return &Error{Status: StatusMalformed, Msg: fmt.Sprintf(format, args...)}
}

// A reader takes fixed fields off the front of a payload. After the first
// field that is not there it stays short, and done reports it.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) bytes(n int) []byte {
	if r.short || n > len(r.b) {
		r.short = true
		return make([]byte, min(n, 64))
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) u8() uint8   { return r.bytes(1)[0] }
func (r *reader) u16() uint16 { return binary.LittleEndian.Uint16(r.bytes(2)) }
func (r *reader) u32() uint32 { return binary.LittleEndian.Uint32(r.bytes(4)) }
func (r *reader) u64() uint64 { return binary.LittleEndian.Uint64(r.bytes(8)) }

// zero takes n reserved bytes, which must be 0 so that a later version can
// give them a meaning.
func (r *reader) zero(n int) bool {
	for _, b := range r.bytes(n) {
		if b != 0 {
			return false
		}
	}
	return true
}

// text takes a length of 16 bits and that many bytes.
func (r *reader) text(limit int) (string, bool) {
	n := int(r.u16())
	if n > limit || r.short || n > len(r.b) {
		r.short = true
		return "", false
	}
	return string(r.bytes(n)), true
}

// done reports whether every field was there and nothing is left.
func (r *reader) done() bool { return !r.short && len(r.b) == 0 }
