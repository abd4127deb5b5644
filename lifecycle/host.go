package lifecycle

import (
	"context"
	"encoding/json"
	"fmt"

	"sekimori/lifecycle/asjson"
	"sekimori/lifecycle/linux"
)

// Host is the runtime of containers on the kernel seki itself runs on.
func Host() Runtime { return host{} }

type host struct{}

func hostConfig(c RuntimeConfig) linux.Config {
	return linux.Config{ID: c.ID, Place: c.Place, Spec: c.Spec, Stdio: c.Stdio, IDBase: c.IDBase, Log: c.Log}
}

func (host) Plan(c RuntimeConfig) (json.RawMessage, error) {
	r, err := linux.Plan(hostConfig(c))
	if err != nil {
		return nil, err
	}
	return recordJSON(&r)
}

// recordJSON is the record as json.Marshal would return it.
func recordJSON(r *linux.Record) (json.RawMessage, error) {
	o := asjson.Begin(512)
	o.String("id", r.ID)
	o.IntOpt("pid", int64(r.Pid))
	o.UintOpt("start_time", r.StartTime)
	o.String("boot_id", r.BootID)
	o.Strings("cgroups", r.Cgroups)
	return o.End()
}

func (host) Create(ctx context.Context, c RuntimeConfig) (Instance, error) {
	k, err := linux.Create(ctx, hostConfig(c))
	if err != nil {
		return nil, err
	}
	return &hostInstance{k}, nil
}

func (host) Reap(ctx context.Context, record json.RawMessage) error {
	var r linux.Record
	if err := json.Unmarshal(record, &r); err != nil {
		return fmt.Errorf("record of a container: %w", err)
	}
	return linux.Reap(ctx, r)
}

// A hostInstance is a container of package linux in the words of this one.
type hostInstance struct{ *linux.Container }

func (i *hostInstance) Record() (json.RawMessage, error) {
	r := i.Container.Record()
	return recordJSON(&r)
}

func (i *hostInstance) Wait() (ExitStatus, error) {
	st, err := i.Container.Wait()
	return ExitStatus(st), err
}

func (i *hostInstance) Exec(ctx context.Context, c ExecConfig) (Process, error) {
	p, err := i.Container.Exec(ctx, linux.ExecConfig(c))
	if err != nil {
		return nil, err
	}
	return hostProcess{p}, nil
}

func (i *hostInstance) Stats() (Stats, error) {
	s, err := i.Container.Stats()
	return Stats(s), err
}

type hostProcess struct{ *linux.Process }

func (p hostProcess) Wait() (ExitStatus, error) {
	st, err := p.Process.Wait()
	return ExitStatus(st), err
}
