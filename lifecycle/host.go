package lifecycle

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

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
	return json.Marshal(r)
}

func (host) Create(ctx context.Context, c RuntimeConfig) (Instance, error) {
	k, err := linux.Create(ctx, hostConfig(c))
	if err != nil {
		return nil, err
	}
	return &hostInstance{Container: k, first: firstOfPIDNamespace(c)}, nil
}

func (host) Reap(ctx context.Context, record json.RawMessage) error {
	var r linux.Record
	if err := json.Unmarshal(record, &r); err != nil {
		return fmt.Errorf("record of a container: %w", err)
	}
	return linux.Reap(ctx, r)
}

// firstOfPIDNamespace reports whether the workload itself is process 1.
func firstOfPIDNamespace(c RuntimeConfig) bool {
	if c.Spec.Reaper || c.Spec.OCI.Linux == nil {
		return false
	}
	for _, ns := range c.Spec.OCI.Linux.Namespaces {
		if ns.Type == specs.PIDNamespace {
			return ns.Path == ""
		}
	}
	return false
}

// A hostInstance is a container of package linux in the words of this one.
type hostInstance struct {
	*linux.Container
	first bool // the workload is process 1 of its pid namespace
}

func (i *hostInstance) Record() (json.RawMessage, error) { return json.Marshal(i.Container.Record()) }

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

// Ignores reports whether the kernel would throw sig away: process 1 of a pid
// namespace gets only the signals that it handles (include/linux/sched/signal.h,
// SIGNAL_UNKILLABLE), or blocks to take later.
func (i *hostInstance) Ignores(sig syscall.Signal) bool {
	if !i.first {
		return false
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(i.Pid()) + "/status")
	if err != nil {
		return false
	}
	return !hasSignal(string(b), "SigCgt:", sig) && !hasSignal(string(b), "SigBlk:", sig)
}

// hasSignal looks sig up in a mask of /proc/PID/status, 64 bits in hexadecimal,
// signal 1 lowest.
func hasSignal(status, mask string, sig syscall.Signal) bool {
	_, rest, ok := strings.Cut(status, "\n"+mask)
	if !ok {
		return true // unknown: let it be tried
	}
	line, _, _ := strings.Cut(rest, "\n")
	m, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	return err != nil || m>>(sig-1)&1 == 1
}
