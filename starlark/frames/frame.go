package frames

import (
	"encoding/hex"
	"fmt"
	"net/netip"

	"go.starlark.net/starlark"

	"sekimori/nicshadow/frame"
)

// A Sender is the card a frame is to come from.
type Sender struct {
	MAC   frame.MAC
	Addrs []netip.Addr
}

// DefaultSender is the card of tests that name none.
func DefaultSender() Sender {
	return Sender{
		MAC:   frame.MAC{0x02, 0, 0, 0, 0, 0x02},
		Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")},
	}
}

// Peer is the card that a frame comes from which a container receives, where a
// test names none.
func Peer() Sender { return Sender{MAC: peerMAC, Addrs: []netip.Addr{peerIPv4, peerIPv6}} }

// The peer that a builder's frame goes to where the test names none.
var (
	peerMAC  = frame.MAC{0x02, 0, 0, 0, 0, 0x01}
	peerIPv4 = netip.MustParseAddr("10.0.0.1")
	peerIPv6 = netip.MustParseAddr("fd00::1")
)

// A Frame is an Ethernet frame or the recipe for one, as a Starlark value. It
// is immutable.
type Frame struct {
	text  string // the call that made it, or the recording it is from
	build func(Sender) ([]byte, error)
}

// Raw is a frame of fixed bytes, without FCS; text says where it is from.
func Raw(data []byte, text string) *Frame {
	return &Frame{text: text, build: func(Sender) ([]byte, error) { return data, nil }}
}

// Bytes is the frame as s would send it, without FCS.
func (f *Frame) Bytes(s Sender) ([]byte, error) { return f.build(s) }

// String says how the frame was made.
func (f *Frame) String() string { return f.text }

// Type is "frame".
func (f *Frame) Type() string { return "frame" }

// Freeze does nothing: frames do not change.
func (f *Frame) Freeze() {}

// Truth is True.
func (f *Frame) Truth() starlark.Bool { return true }

// Hash fails: a recipe has no bytes to hash.
func (f *Frame) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable type: frame") }

// Attr gives bytes and length, of the frame as the default sender sends it.
func (f *Frame) Attr(name string) (starlark.Value, error) {
	if name != "bytes" && name != "length" {
		return nil, nil
	}
	data, err := f.build(DefaultSender())
	if err != nil {
		return nil, err
	}
	if name == "length" {
		return starlark.MakeInt(len(data)), nil
	}
	return starlark.Bytes(data), nil
}

// AttrNames are bytes and length.
func (f *Frame) AttrNames() []string { return []string{"bytes", "length"} }

// Dump is the frame's bytes in hex, at most the first n.
func Dump(data []byte, n int) string {
	if len(data) <= n {
		return hex.EncodeToString(data)
	}
	return hex.EncodeToString(data[:n]) + "..."
}
