package lifecycle

import (
	"context"
	"errors"
	"fmt"
)

// maxPrograms bounds the programs of one reload, all together, in bytes. They
// come as a file, not in the message: a set of 100,000 addresses has a megabyte.
const maxPrograms = 128 << 20

// maxReloads bounds the containers of one reload.
const maxReloads = 4096

// A Policy is the program that judges a container's frames, and its mode. No
// program lets nothing pass.
type Policy struct {
	Container string `json:"container"`
	Mode      string `json:"mode"` // Enforce or Audit
	Program   []byte `json:"program,omitempty"`
}

// A policyRequest is a Policy whose program is the next Size bytes of the file.
type policyRequest struct {
	Container string `json:"container"`
	Mode      string `json:"mode"`
	Size      int64  `json:"size"`
}

func checkReload(rs []policyRequest) error {
	if len(rs) == 0 || len(rs) > maxReloads {
		return fmt.Errorf("reload: %d containers, want 1 to %d", len(rs), maxReloads)
	}
	total := int64(0)
	seen := map[string]bool{}
	for _, r := range rs {
		if err := checkMode(r.Mode); err != nil {
			return err
		}
		if r.Size < 0 || r.Size > maxPrograms-total {
			return fmt.Errorf("reload: programs of more than %d bytes", int64(maxPrograms))
		}
		if seen[r.Container] {
			return fmt.Errorf("reload: container %q is there twice", r.Container)
		}
		seen[r.Container], total = true, total+r.Size
	}
	return nil
}

// reload puts policies in force, each container's whole: a frame is judged by
// the old one or by the new one. If one is refused, those before it go back.
func (s *server) reload(ctx context.Context, w *wire, rs []policyRequest) error {
	containers, programs, err := s.programs(w, rs)
	if err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	var before []Policy
	for i, c := range containers {
		before = append(before, c.inForce())
		if err := c.LoadPolicy(ctx, programs[i], rs[i].Mode); err != nil {
			errs := []error{fmt.Errorf("container %q: %w", c.name, err)}
			for j, old := range before[:i] {
				errs = append(errs, containers[j].LoadPolicy(ctx, old.Program, old.Mode))
			}
			return errors.Join(errs...)
		}
	}
	for _, c := range containers {
		if c.hooked(Reload) {
			c.post(c.at(Reload))
		}
	}
	return nil
}

// policies are those in force for the containers of the pod.
func (p *Pod) policies() []Policy {
	var out []Policy
	for _, c := range p.containers {
		out = append(out, c.inForce())
	}
	return out
}

// inForce is the policy of the container.
func (c *Container) inForce() Policy {
	c.policyMu.Lock()
	defer c.policyMu.Unlock()
	return Policy{Container: c.name, Mode: c.mode, Program: c.program}
}

// Policies are those in force for the containers of the pod.
func (c *Client) Policies(ctx context.Context) ([]Policy, error) {
	r, err := c.ask(ctx, &request{Verb: ctlPolicies})
	if err != nil {
		return nil, err
	}
	return r.Policies, nil
}

// Reload puts policies in force. Each container's is swapped whole; if one is
// refused, those before it go back, and the error says why.
func (c *Client) Reload(ctx context.Context, ps []Policy) error {
	f, list, err := programFile(ps)
	if err != nil {
		return err
	}
	defer f.Close()
	w, _, stop, err := c.call(ctx, &request{Verb: ctlReload, Reload: list}, f)
	if err != nil {
		return err
	}
	stop()
	return w.close()
}
