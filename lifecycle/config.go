package lifecycle

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"syscall"
	"time"

	"sekimori/lifecycle/bundle"
	"sekimori/lifecycle/store"
)

// DefaultRoot is the state directory that is used where none is named.
const DefaultRoot = "/run/seki"

// DefaultStopTimeout is how long a container may take to end after its stop
// signal before it is killed.
const DefaultStopTimeout = 10 * time.Second

// A Config describes one container of a pod.
type Config struct {
	Spec    *bundle.Spec // never written to
	Program []byte       // judges its frames; nil: nothing passes
	Mode    string       // Enforce or Audit; empty is Enforce
	Hooks   []Hook
	Ready   *Probe // nil: ready as soon as it runs
	// StopSignal asks it to end; 0 is SIGTERM.
	StopSignal syscall.Signal
	// StopTimeout is how long it may take then; 0 is DefaultStopTimeout.
	StopTimeout time.Duration
}

// Stdio is the caller's standard input, output and error.
type Stdio struct{ In, Out, Err *os.File }

// A PodConfig describes a pod.
type PodConfig struct {
	Name       string // [a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}
	Source     string // the file it comes from, for people
	Machine    string // kind of kernel that Runtime makes containers on, for people; empty is the host's
	Containers []Config
	Root       string  // state directory; empty is DefaultRoot
	Network    Network // nil if no container has a card; closed at the end
	// NetworkRecord is kept with the state and handed to CleanUpConfig.Network
	// if this supervisor dies.
	NetworkRecord json.RawMessage
	Runtime       Runtime      // nil is Host
	Reserved      *Reservation // what has the name and the machine; nil if Start is to take them
	// Signals are for [Run], besides those that this process gets. Nil for none.
	Signals <-chan os.Signal
	Log     *slog.Logger // nil discards
	// Stdio is where the containers' output goes besides their logs. A single
	// container gets In as its own input and, where Out and Err are terminals,
	// those too (they are then not logged); of several containers each line is
	// marked with its container's name, and they read nothing.
	Stdio Stdio
	// Detached leaves Stdio alone: output goes to the logs only.
	Detached bool
	// Keep leaves the state directory, with events and logs, when the pod has
	// ended, until the next pod of that name starts.
	Keep bool
}

// hasTerminal reports whether one of the containers has a terminal of its own.
func (c *PodConfig) hasTerminal() bool {
	return slices.ContainsFunc(c.Containers, func(k Config) bool {
		return k.Spec != nil && k.Spec.OCI.Process != nil && k.Spec.OCI.Process.Terminal
	})
}

func (c *PodConfig) validate() error {
	if !store.ValidName(c.Name) {
		return fmt.Errorf("pod name %q: want %s", c.Name, store.NameRule)
	}
	if len(c.Containers) == 0 {
		return fmt.Errorf("pod %q: has no containers", c.Name)
	}
	seen := make(map[string]bool)
	for i := range c.Containers {
		k := &c.Containers[i]
		if k.Spec == nil || !store.ValidName(k.Spec.Name) {
			return fmt.Errorf("pod %q: container %d: no valid name", c.Name, i)
		}
		name := k.Spec.Name
		if seen[name] {
			return fmt.Errorf("pod %q: container %q: name used twice", c.Name, name)
		}
		seen[name] = true
		if err := k.validate(); err != nil {
			return fmt.Errorf("container %q: %w", name, err)
		}
		if k.Spec.NIC != nil && c.Network == nil {
			return fmt.Errorf("container %q: has a network card, but the pod no network", name)
		}
	}
	return nil
}

func (c *Config) validate() error {
	switch c.Mode {
	case "":
		c.Mode = Enforce
	case Enforce, Audit:
	default:
		return fmt.Errorf("policy mode %q: want %s or %s", c.Mode, Enforce, Audit)
	}
	if c.StopSignal == 0 {
		c.StopSignal = syscall.SIGTERM
	}
	if c.StopTimeout <= 0 {
		c.StopTimeout = DefaultStopTimeout
	}
	for i := range c.Hooks {
		h := &c.Hooks[i]
		p, err := ParsePoint(string(h.Point))
		if err != nil {
			return err
		}
		if h.Run == nil {
			return fmt.Errorf("hook %q at %s: does nothing", h.Name, p)
		}
		h.Point = p
		if h.Timeout <= 0 {
			h.Timeout = DefaultHookTimeout
		}
	}
	return c.Ready.validate()
}
