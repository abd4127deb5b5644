package nicshadow

import "sekimori/nicshadow/frame"

// A Reason says what became of a frame: that it was allowed, or the one named
// reason why it did not go on. Each is counted. The zero Reason is that of a
// frame nobody judged: it is not Allowed.
type Reason uint8

// The reasons of this package. Those of the parser follow from
// [frameReasons] on: see [FromFrame].
const (
	Unjudged         Reason = iota
	Allowed                 // the program forwards it
	Policy                  // the program drops it; its why says which line
	Unattributed            // nobody knows the sender
	NoProgram               // the sender has no program in force
	IdentityMismatch        // the source address is a container's that did not send the frame
	Envelope                // the sender's program forwards it, the envelope drops it
	BadOffloadHeader        // its virtio_net_hdr asks for what was not offered
	BadDescriptor           // a guest handed it over in buffers that are none

	// Delivery of frames that were forwarded: once for a frame that nobody is
	// there to take, once for each receiver that it did not reach.
	UnknownDestination // no port owns the destination address
	ReceiverClosed     // the receiver has no program in force
	ReceiverFull       // the receiver's queue is full
	ReceiverDown       // the receiver's device is down or gone
	ReceiverShort      // longer than the receiver's card takes
	ReceiverRefuses    // the receiver's ingress policy drops it

	// Counted for the receiver, besides ReceiverRefuses for the sender.
	Ingress

	numReasons
)

// frameReasons is where the parser's reasons begin.
const frameReasons Reason = 64

// Both sets fit into a byte, so that a counter indexed by a Reason needs no
// bounds check.
var _ = [1]struct{}{}[int(numReasons)/int(frameReasons)]
var _ = [256 - int(frameReasons) - int(frame.NumReasons)]struct{}{}

var reasonNames = [numReasons]string{
	Unjudged:           "unjudged",
	Allowed:            "allowed",
	Policy:             "policy",
	Unattributed:       "unattributed",
	NoProgram:          "no program",
	UnknownDestination: "unknown destination",
	IdentityMismatch:   "identity mismatch",
	Envelope:           "envelope",
	BadOffloadHeader:   "bad offload header",
	BadDescriptor:      "bad descriptor",
	ReceiverClosed:     "receiver closed",
	ReceiverFull:       "receiver queue full",
	ReceiverDown:       "receiver down",
	ReceiverShort:      "longer than receiver's mtu",
	ReceiverRefuses:    "receiver refuses",
	Ingress:            "ingress policy",
}

// FromFrame is the reason for a frame that the parser refused.
func FromFrame(r frame.Reason) Reason { return frameReasons + Reason(r) }

// String is the reason's name, as in counters, logs and captures.
func (r Reason) String() string {
	switch {
	case r < numReasons:
		return reasonNames[r]
	case r >= frameReasons:
		return frame.Reason(r - frameReasons).String()
	}
	return "invalid reason"
}

// delivery reports whether the reason is about a frame that was judged to go
// on.
func (r Reason) delivery() bool {
	return r >= UnknownDestination && r <= ReceiverRefuses
}

// A Mode says whether a sender's verdicts are enforced. The zero Mode is
// Enforce, the safe one.
type Mode uint8

// The modes.
const (
	Enforce Mode = iota // what the program drops, drops
	Audit               // what the program drops is recorded and goes on
)

// String is the mode's name in a policy: "enforce" or "audit".
func (m Mode) String() string {
	if m == Audit {
		return "audit"
	}
	return "enforce"
}
