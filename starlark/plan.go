package starlark

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"

	"sekimori/lifecycle/bundle"
)

// The types below are the JSON of Plan.
type (
	podPlan struct {
		Pod        string          `json:"pod"`
		Source     string          `json:"source"`
		Digest     string          `json:"digest"`
		Params     []Param         `json:"params,omitempty"`
		Machine    *bundle.Machine `json:"machine,omitempty"`
		Uplink     *bundle.Uplink  `json:"uplink,omitempty"`
		Containers []containerPlan `json:"containers"`
	}
	containerPlan struct {
		Name        string         `json:"name"`
		Pos         string         `json:"pos"`
		Policy      *policyPlan    `json:"policy"`
		Ready       *readyPlan     `json:"ready,omitempty"`
		Callbacks   []callbackPlan `json:"callbacks,omitempty"`
		StopSignal  string         `json:"stop_signal"`
		StopTimeout string         `json:"stop_timeout"`
		Spec        *bundle.Spec   `json:"spec"`
	}
	policyPlan struct {
		Pos        string       `json:"pos"`
		Mode       string       `json:"mode"`
		Predicates []string     `json:"predicates"`
		GuardsOff  []string     `json:"guards_off,omitempty"`
		Program    *programPlan `json:"program"`
	}
	programPlan struct {
		SHA256       string `json:"sha256"`
		Bytes        int    `json:"bytes"`
		Instructions int    `json:"instructions"`
		MaxSteps     int    `json:"max_steps"`
	}
	readyPlan struct {
		Kind     string   `json:"kind"`
		Port     uint16   `json:"port,omitempty"`
		Args     []string `json:"args,omitempty"`
		Timeout  string   `json:"timeout"`
		Interval string   `json:"interval"`
	}
	callbackPlan struct {
		Point      string `json:"point"`
		Function   string `json:"function"`
		Pos        string `json:"pos,omitempty"`
		Timeout    string `json:"timeout"`
		OnError    string `json:"on_error"`
		OnlyFailed bool   `json:"only_failed,omitempty"`
	}
)

// Plan is what running the pod would do, as indented JSON: the containers with
// their whole specifications, their policies and the programs these became,
// their callbacks. The same files and parameters make the same bytes.
func (p *Pod) Plan() ([]byte, error) {
	plan := podPlan{Pod: p.Name, Source: filepath.Base(p.Path), Digest: p.Digest, Params: p.Params,
		Machine: p.Machine, Uplink: p.Uplink, Containers: []containerPlan{}}
	for _, c := range p.Containers {
		plan.Containers = append(plan.Containers, planOf(c))
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(plan); err != nil {
		return nil, fmt.Errorf("plan of pod %q: %w", p.Name, err)
	}
	return b.Bytes(), nil
}

func planOf(c *Container) containerPlan {
	out := containerPlan{Name: c.Spec.Name, Pos: c.Pos.String(), Spec: c.Spec,
		StopSignal: c.StopSignal, StopTimeout: c.StopTimeout.String()}
	if c.Policy != nil {
		out.Policy = &policyPlan{Pos: c.Policy.Pos().String(), Mode: c.Policy.Mode(),
			Predicates: c.Policy.Predicates(), GuardsOff: c.Policy.GuardsOff()}
		if c.Program != nil {
			hash := c.Program.Hash()
			out.Policy.Program = &programPlan{SHA256: hex.EncodeToString(hash[:]), Bytes: len(c.Program.Bytes()),
				Instructions: c.Program.Len(), MaxSteps: c.Program.MaxSteps()}
		}
	}
	if r := c.Ready; r != nil {
		out.Ready = &readyPlan{Kind: string(r.Kind), Port: r.Port, Args: r.Args, Timeout: r.Timeout.String(), Interval: r.Interval.String()}
	}
	for _, cb := range c.Callbacks {
		cp := callbackPlan{Point: cb.Point, Function: cb.Name, Timeout: cb.Timeout.String(), OnError: cb.OnError, OnlyFailed: cb.OnlyFailed}
		if cb.Pos.Line > 0 {
			cp.Pos = cb.Pos.String()
		}
		out.Callbacks = append(out.Callbacks, cp)
	}
	return out
}
