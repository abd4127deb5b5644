package lifecycle

import (
	"context"
	"time"
)

// oomPoll is how often the counter of out-of-memory kills is read, and only if a
// hook wants to know: cgroup v1 tells of the want of memory before it kills, so
// that whoever looks at once sees the counter as it was.
const oomPoll = time.Second

// An oomTeller is an Instance that can say when a process may have been killed
// for want of memory, and how many were, without its other figures. The channel
// is closed at the end of ctx or the container.
type oomTeller interface {
	OOMEvents(ctx context.Context) (<-chan struct{}, error)
	OOMKills() (uint64, error)
}

func oomKills(inst Instance) (uint64, error) {
	if t, ok := inst.(oomTeller); ok {
		return t.OOMKills()
	}
	st, err := inst.Stats()
	return st.OOMKills, err
}

// watchOOM looks out for out-of-memory kills. The function it returns ends that,
// and waits. A container that has neither a limit nor a hook for it is not
// watched.
func (c *Container) watchOOM(ctx context.Context) (stop func()) {
	c.mu.Lock()
	inst := c.inst
	c.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	var events <-chan struct{}
	var tick <-chan time.Time
	if t, ok := inst.(oomTeller); ok && (c.hooked(OOM) || c.limited()) {
		var err error
		if events, err = t.OOMEvents(ctx); err != nil {
			c.pod.log.Debug("no out-of-memory events", "container", c.name, "err", err)
		}
	}
	if c.hooked(OOM) {
		ticker := time.NewTicker(oomPoll)
		context.AfterFunc(ctx, ticker.Stop)
		tick = ticker.C
	}
	if events == nil && tick == nil {
		return cancel
	}
	done := make(chan struct{})
	go func() { // ends with ctx
		defer close(done)
		for {
			select {
			case _, ok := <-events:
				if !ok {
					return
				}
				c.checkOOM(inst)
			case <-tick:
				c.checkOOM(inst)
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

// limited reports whether the container's memory has a bound of its own.
func (c *Container) limited() bool {
	l := c.cfg.Spec.OCI.Linux
	return l != nil && l.Resources != nil && l.Resources.Memory != nil && l.Resources.Memory.Limit != nil
}

// checkOOM reports the kills since it was last called.
func (c *Container) checkOOM(inst Instance) {
	kills, err := oomKills(inst)
	if err != nil {
		return // the cgroup is gone, or was never there
	}
	c.mu.Lock()
	n := kills - min(kills, c.oomSeen) // a group that is being removed counts from 0 again
	c.oomSeen = max(kills, c.oomSeen)
	c.mu.Unlock()
	if n == 0 {
		return
	}
	c.pod.journal.emit(Event{Type: EventOOM, Container: c.name, Count: n})
	e := c.at(OOM)
	e.Count = n
	c.post(e)
}
