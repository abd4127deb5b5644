package lifecycle

import (
	"context"
	"time"
)

// oomPoll is how often the counter of out-of-memory kills is read, and only if a
// hook wants to know: cgroup v1 tells of the want of memory before it kills, so
// that whoever looks at once sees the counter as it was.
const oomPoll = time.Second

// oomLater is how long a container without a hook that wants to know runs before
// its memory is watched: to be told of kills costs 0.2 ms of processor time, and
// whoever ends sooner is looked at when it ends.
const oomLater = 100 * time.Millisecond

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
	done := make(chan struct{})
	switch {
	case c.hooked(OOM):
		go func() { // ends with ctx
			defer close(done)
			c.tellOOM(ctx, inst)
		}()
		return func() { cancel(); <-done }
	case c.limited():
		later := time.AfterFunc(oomLater, func() {
			defer close(done)
			c.tellOOM(ctx, inst)
		})
		return func() {
			cancel()
			if !later.Stop() {
				<-done
			}
		}
	}
	return cancel
}

// tellOOM reports out-of-memory kills, those before it is called included, until
// ctx ends.
func (c *Container) tellOOM(ctx context.Context, inst Instance) {
	var events <-chan struct{}
	var tick <-chan time.Time
	if t, ok := inst.(oomTeller); ok {
		var err error
		if events, err = t.OOMEvents(ctx); err != nil {
			c.pod.log.Debug("no out-of-memory events", "container", c.name, "err", err)
		}
	}
	if c.hooked(OOM) {
		ticker := time.NewTicker(oomPoll)
		defer ticker.Stop()
		tick = ticker.C
	}
	if events == nil && tick == nil {
		return
	}
	c.checkOOM(inst)
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
