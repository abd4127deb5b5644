package lifecycle

import (
	"context"
	"time"
)

// oomPoll is how often the counter of out-of-memory kills is read where the
// runtime cannot say when it changes, and only if a hook wants to know.
const oomPoll = time.Second

// watchOOM looks out for out-of-memory kills as long as a hook wants to know.
// The function it returns ends that, and waits. Without a hook, kills are found
// when the container exits.
func (c *Container) watchOOM(ctx context.Context) (stop func()) {
	if !c.hooked(OOM) {
		return func() {}
	}
	inst, err := c.instance(VerbStats)
	if err != nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(oomPoll)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				c.checkOOM(inst)
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

// checkOOM reports the kills since it was last called.
func (c *Container) checkOOM(inst Instance) {
	st, err := inst.Stats()
	if err != nil {
		return // the cgroup is gone, or was never there
	}
	c.mu.Lock()
	n := st.OOMKills - c.oomSeen
	c.oomSeen = st.OOMKills
	c.mu.Unlock()
	if n == 0 {
		return
	}
	c.pod.journal.emit(Event{Type: EventOOM, Container: c.name, Count: n})
	e := c.at(OOM)
	e.Count = n
	c.post(e)
}
