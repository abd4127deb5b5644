package lifecycle

import (
	"context"
	"encoding/json"
	"os"

	"sekimori/lifecycle/bundle"
)

// The modes of a policy.
const (
	Enforce = "enforce" // what the program does not allow is dropped
	Audit   = "audit"   // it is recorded, and goes on
)

// A Network is the data path of one pod: it makes network cards and judges what
// is sent through them. Its methods may be called from several goroutines.
//
// A program is opaque here. A nil or empty program stands for "nothing passes",
// and an implementation must take it as that, whatever the mode.
type Network interface {
	// Attach makes the card inside netns, with program in force before it
	// returns. If it fails no frame passes and nothing needs to be detached.
	// The netns stays the caller's.
	Attach(ctx context.Context, name string, nic *bundle.NIC, netns *os.File, program []byte, mode string) error
	// LoadPolicy replaces the program and its mode in one step: each frame is
	// judged by the old or by the new. On error the old stay in force.
	LoadPolicy(ctx context.Context, name string, program []byte, mode string) error
	// SetMode changes between [Enforce] and [Audit].
	SetMode(ctx context.Context, name, mode string) error
	// Stats returns the card's counters, as JSON; those of the pod as a whole, of what
	// belongs to none of its cards, for an empty name.
	Stats(ctx context.Context, name string) (json.RawMessage, error)
	// Detach removes the card. Frames it still sends are dropped.
	Detach(name string) error
	// Close ends the data path; all cards are detached by then.
	Close() error
}
