package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"sekimori/lifecycle"
	"sekimori/nicshadow"
	"sekimori/nicshadow/uplink"
	"sekimori/starlark"
	"sekimori/starlark/config"
	"sekimori/starlark/policy"
)

// A wire makes what package lifecycle runs out of what package starlark read:
// programs of policies, hooks of callbacks, and a data path whose drops become
// events. It is the only place where the five trees of packages meet.
type wire struct {
	log  *slog.Logger
	mode string    // of every policy; "" for what the file says
	pcap string    // file of the frames that drop; "" for none
	tell io.Writer // takes a line for each drop; nil for none
	// record keeps what happens for a test; nil for none.
	record *recording
	env    func(string) string

	// mu guards what follows: drops may come before the pod is known, and are
	// kept until then.
	mu      sync.Mutex
	running *lifecycle.Pod
	early   []nicshadow.Record
}

// maxEarly bounds the drops that are kept while the pod starts.
const maxEarly = 256

// Drops are told at most so often for each container; all are counted.
const (
	dropRate  = 5 // a second
	dropBurst = 20
)

// pod makes the configuration of a pod.
func (w *wire) pod(p *starlark.Pod) (lifecycle.PodConfig, error) {
	source, err := filepath.Abs(p.Path)
	if err != nil {
		return lifecycle.PodConfig{}, err
	}
	cfg := lifecycle.PodConfig{Name: p.Name, Source: source, Log: w.log}
	cards := map[string]policy.Identity{}
	for _, c := range p.Containers {
		if c.Spec.NIC != nil {
			cards[c.Spec.Name] = c.Identity()
		}
	}
	for _, c := range p.Containers {
		k, err := w.container(c, cards)
		if err != nil {
			return lifecycle.PodConfig{}, err
		}
		cfg.Containers = append(cfg.Containers, k)
	}
	if len(cards) > 0 || p.Uplink != nil {
		if cfg.Network, cfg.NetworkRecord, err = w.network(p); err != nil {
			return lifecycle.PodConfig{}, err
		}
	}
	return cfg, nil
}

// container makes the configuration of one container of a pod with these cards.
func (w *wire) container(c *starlark.Container, cards map[string]policy.Identity) (lifecycle.Config, error) {
	k := lifecycle.Config{Spec: c.Spec, StopTimeout: c.StopTimeout}
	if c.Program != nil {
		k.Program, k.Mode = c.Program.Bytes(), c.Policy.Mode()
	}
	if w.mode != "" {
		k.Mode = w.mode
	}
	if c.StopSignal != "" {
		sig, err := lifecycle.ParseSignal(c.StopSignal)
		if err != nil {
			return k, fmt.Errorf("container %q: stop_signal: %w", c.Spec.Name, err)
		}
		k.StopSignal = sig
	}
	if r := c.Ready; r != nil {
		k.Ready = &lifecycle.Probe{Interval: r.Interval, Timeout: r.Timeout}
		switch r.Kind {
		case config.ReadyTCP:
			k.Ready.TCP = r.Port
		case config.ReadyExec:
			k.Ready.Exec = r.Args
		}
	}
	for _, cb := range c.Callbacks {
		k.Hooks = append(k.Hooks, lifecycle.Hook{
			Point:    lifecycle.Point(cb.Point),
			Name:     cb.Name,
			Timeout:  cb.Timeout,
			FailOpen: cb.OnError == config.OnErrorWarn,
			Run: func(ctx context.Context, c *lifecycle.Container, e lifecycle.Event) error {
				h := host{c, e, cards, w.record}
				w.record.callback(h, string(e.Point), cb.Name)
				return cb.Call(ctx, h)
			},
		})
	}
	return k, nil
}

// network makes the data path of p, and what is needed to remove it if this
// process is killed.
func (w *wire) network(p *starlark.Pod) (_ *network, _ json.RawMessage, err error) {
	drops := nicshadow.NewDropLog(nicshadow.DropLogConfig{Rate: dropRate, Burst: dropBurst, Sink: w.dropped})
	sw := nicshadow.Config{Table: nicshadow.NewTable(), DropLog: drops, Log: w.log}
	end := []func() error{func() error { drops.Close(); return nil }}
	if w.pcap != "" {
		if sw.Capture, err = nicshadow.NewCapture(nicshadow.CaptureConfig{Path: w.pcap}); err != nil {
			drops.Close()
			return nil, nil, err
		}
		end = append(end, sw.Capture.Close)
	}
	if w.record != nil {
		sw.Record = w.record.frames
	}
	n, err := newNetwork(sw, w.mode, end)
	if err != nil {
		return nil, nil, err
	}
	n.log, n.env = w.log, w.env
	if inKernel(p) {
		if err := n.judgeInKernel(len(p.Containers)+1, w.log); err != nil {
			return nil, nil, errors.Join(err, n.Close())
		}
	}
	if p.Uplink == nil {
		return n, nil, nil
	}
	// Made with the first card: by then the pod has its name.
	table := uplink.NewTable(p.Name)
	n.uplink = func() error { return n.addUplink(p.Name, table, p.Uplink) }
	if os.Geteuid() != 0 {
		return n, nil, nil // a user's way out ends with its supervisor
	}
	record, err := json.Marshal(table)
	return n, record, err
}

// started lets go of the drops that came before the pod was known.
func (w *wire) started(p *lifecycle.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running = p
	for _, r := range w.early {
		w.report(r)
	}
	w.early = nil
}

// detach tells the process that started this one that the pod runs, and lets
// go of its terminal.
func (w *wire) detach(p *lifecycle.Pod, r *lifecycle.Reporter) {
	log, err := p.SupervisorLog()
	if err != nil {
		w.log.Warn("supervisor has no log", "err", err)
	} else {
		defer log.Close()
	}
	if err := r.Started(log); err != nil {
		w.log.Warn("foreground not told of the start", "err", err)
	}
}

// dropped takes a record of the drop log.
func (w *wire) dropped(r nicshadow.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running != nil {
		w.report(r)
	} else if len(w.early) < maxEarly {
		w.early = append(w.early, r)
	}
}

// report makes an event of a drop, and a line for people. w.mu is held.
func (w *wire) report(r nicshadow.Record) {
	raw, err := json.Marshal(r)
	if err != nil {
		w.log.Error("drop not recorded", "err", err)
		return
	}
	w.running.Violation(r.Container, raw)
	if w.tell != nil {
		fmt.Fprintln(w.tell, dropLine(r))
	}
}

// dropLine says in one line what dropped and why.
func dropLine(r nicshadow.Record) string {
	verb := "dropped"
	if r.Verdict != "drop" {
		verb = "would drop"
	}
	line := fmt.Sprintf("seki: %s: %s %s: %s", r.Container, verb, r.Summary, why(r))
	if r.Suppressed > 0 {
		line += fmt.Sprintf(" (%d more not shown)", r.Suppressed)
	}
	return line
}

// why says in words why a frame dropped, and where it was decided.
func why(r nicshadow.Record) string {
	switch {
	case r.Cause != "":
		return r.Reason + ": " + r.Cause
	case r.Kind == "":
		return r.Reason
	}
	return ruledBy(r.Reason) + because(r.Kind, r.Why) + " at " + r.Position()
}
