package policytest

import (
	"slices"
	"sync"

	"sekimori/starlark"
	"sekimori/starlark/config"
)

// pods are the containers that a test file knows, by the module or the pod()
// that describes them.
type pods struct {
	// mu guards of: tests run in parallel, and pod() adds to it.
	mu sync.Mutex
	of [][]*config.Container
	// modules are the collectors of the files loaded; they grow until the test
	// file is evaluated, and not after that.
	modules []*config.Collector
}

// took takes in a pod that pod() loaded.
func (p *pods) took(pod *starlark.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of = append(p.of, pod.Containers)
}

// groups are the containers, those of one pod together.
func (p *pods) groups() [][]*config.Container {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := slices.Clone(p.of)
	for _, m := range p.modules {
		if len(m.Containers) > 0 {
			out = append(out, m.Containers)
		}
	}
	return out
}

// containers are all the containers that the test file knows.
func (s *suite) containers() []*config.Container { return slices.Concat(s.pods.groups()...) }

// siblings are the containers of c's pod; c alone, if a test made it.
func (s *suite) siblings(c *config.Container) []*config.Container {
	for _, g := range s.pods.groups() {
		if slices.Contains(g, c) {
			return g
		}
	}
	return []*config.Container{c}
}

// untested compiles the policies of containers that no test may have asked:
// what nobody tests is not covered.
func (s *suite) untested() {
	if s.judge.cov.lines == nil {
		return
	}
	for _, c := range s.containers() {
		if c.Policy != nil && c.Spec.NIC != nil {
			s.judge.compile(c.Policy, sender(c.Identity()))
		}
	}
}
