package lifecycle

import (
	"errors"
	"fmt"
	"time"
)

// A Probe finds out whether a container is ready: exactly one of TCP and Exec.
type Probe struct {
	// TCP is a port on which something in the container must listen. Nothing is
	// sent: the kernel's table of sockets is read. A listener on a loopback
	// address counts only in a container without a network card.
	TCP uint16
	// Exec is a command that must succeed in the container.
	Exec []string
	// Interval between two tries; 0 is 100 ms.
	Interval time.Duration
	// Timeout after which the container is not going to be ready; it is then
	// stopped. 0 is 30 s.
	Timeout time.Duration
}

// ErrNotReady is in the error of a pod that was stopped because a container's
// probe did not succeed in time.
var ErrNotReady = errors.New("not ready in time")

func (p *Probe) validate() error {
	if p == nil {
		return nil
	}
	if (p.TCP != 0) == (len(p.Exec) != 0) {
		return fmt.Errorf("ready probe: want either a port or a command")
	}
	if p.Interval <= 0 {
		p.Interval = 100 * time.Millisecond
	}
	if p.Timeout <= 0 {
		p.Timeout = 30 * time.Second
	}
	return nil
}
