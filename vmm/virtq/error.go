package virtq

import "fmt"

// A ChainError reports a descriptor chain that the driver built wrongly. The
// queue is broken and the device asks for a reset (virtio 1.2, 2.1.2,
// DEVICE_NEEDS_RESET); the machine goes on.
type ChainError struct {
	Queue string
	Head  uint16 // the chain's first descriptor, as the available ring names it
	Desc  uint16 // where the rule was broken
	Why   string
}

func (e *ChainError) Error() string {
	return fmt.Sprintf("virtq %s: chain %d at descriptor %d: %s", e.Queue, e.Head, e.Desc, e.Why)
}

// A RingError reports a ring that is not one. The queue is broken, as with a
// [ChainError].
type RingError struct {
	Queue string
	Why   string
	Err   error // nil, or what the memory said
}

func (e *RingError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("virtq %s: %s: %v", e.Queue, e.Why, e.Err)
	}
	return fmt.Sprintf("virtq %s: %s", e.Queue, e.Why)
}

func (e *RingError) Unwrap() error { return e.Err }
