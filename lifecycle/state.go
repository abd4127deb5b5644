package lifecycle

import (
	"fmt"
	"time"

	"sekimori/lifecycle/store"
)

// claim takes the pod's name in the state directory.
func (p *Pod) claim() error {
	s, err := store.Open(rootOr(p.cfg.Root))
	if err != nil {
		return err
	}
	defer s.Close()
	if p.place, err = s.Place(); err != nil {
		return err
	}
	p.state = store.State{Name: p.cfg.Name, Source: p.cfg.Source, Machine: p.cfg.Machine, Keep: p.cfg.Keep, Network: p.cfg.NetworkRecord}
	plan := p.plan
	if p.reserved != nil {
		p.state.Held, plan = &store.Container{Name: MachineName}, p.planMachine
	}
	p.name(&p.state)
	p.dir, err = s.Claim(&p.state, plan)
	return err
}

// name puts the containers into the state.
func (p *Pod) name(st *store.State) {
	for _, c := range p.cfg.Containers {
		st.Containers = append(st.Containers, store.Container{Name: c.Spec.Name, Status: string(Creating)})
	}
}

// planMachine is plan for a machine that has no containers yet.
func (p *Pod) planMachine(st *store.State) (err error) {
	st.Held.Record, err = p.runtime.Plan(p.machineConfig(st.Held.IDBase))
	return err
}

// plan puts into the state what a clean-up must know of each container. So it is
// on disk before any of them is made: killed anywhere, the supervisor leaves
// nothing that a clean-up would not find.
func (p *Pod) plan(st *store.State) error {
	for i := range p.cfg.Containers {
		c := newContainer(p, &p.cfg.Containers[i], st.Containers[i].IDBase)
		record, err := p.runtime.Plan(c.runtimeConfig())
		if err != nil {
			return fmt.Errorf("container %q: %w", c.name, err)
		}
		c.record, st.Containers[i].Record = record, record
		p.containers = append(p.containers, c)
	}
	return nil
}

func rootOr(root string) string {
	if root == "" {
		return DefaultRoot
	}
	return root
}

// leave gives the name back.
func (p *Pod) leave(code int) {
	gone := true
	for _, c := range p.containers {
		gone = gone && c.isRemoved()
	}
	p.saveMu.Lock()
	p.state.ExitStatus = &code
	if gone {
		p.state.Finished = time.Now()
	}
	p.saveMu.Unlock()
	if !gone || p.cfg.Keep {
		p.saveOrWarn()
	}
	var err error
	switch {
	case !gone: // the record says what a later clean-up must remove
		err = p.dir.Release()
	case p.cfg.Keep:
		err = p.dir.Keep()
	default:
		err = p.dir.Remove()
	}
	if err != nil {
		p.fail(err)
	}
}

// save writes the state.
func (p *Pod) save() error {
	p.saveMu.Lock()
	defer p.saveMu.Unlock()
	for i, c := range p.containers {
		c.describe(&p.state.Containers[i])
	}
	return p.dir.Save(&p.state)
}

// saveOrWarn writes the state where nothing can be done if that fails: the one
// on disk stays, and what it says is enough for a clean-up.
func (p *Pod) saveOrWarn() {
	if err := p.save(); err != nil {
		p.log.Warn("state is out of date", "pod", p.cfg.Name, "err", err)
	}
}

// saveUnlessLast writes the state, unless all workloads have ended: then its end
// is near, and what is on disk is enough for a clean-up.
func (p *Pod) saveUnlessLast() {
	for _, c := range p.containers {
		if c.Status() != Stopped {
			p.saveOrWarn()
			return
		}
	}
}
