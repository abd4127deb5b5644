package nicshadow

import "sync/atomic"

// A gate lets one caller at a time in, until it is shut. It does not make
// anybody wait but who shuts it.
type gate struct {
	state   atomic.Int32
	drained chan struct{} // closed by who leaves a gate that was shut meanwhile
}

const (
	gateFree int32 = iota
	gateBusy
	gateShut
)

func newGate() gate { return gate{drained: make(chan struct{})} }

// shut lets nobody in any more, and returns when nobody is inside. It is
// called once.
func (g *gate) shut() {
	if g.state.Swap(gateShut) == gateBusy {
		<-g.drained
	}
}

// no allocation, no lock, no log below this line

// enter reports whether the caller may go in; then it must leave.
func (g *gate) enter() bool { return g.state.CompareAndSwap(gateFree, gateBusy) }

func (g *gate) leave() {
	if !g.state.CompareAndSwap(gateBusy, gateFree) {
		close(g.drained)
	}
}

// busy reports whether somebody is inside: a second caller at once.
func (g *gate) busy() bool { return g.state.Load() == gateBusy }
