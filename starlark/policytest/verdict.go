package policytest

import (
	"fmt"
	"slices"
	"strings"

	gostarlark "go.starlark.net/starlark"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/replay"
	"sekimori/nicshadow/rule"
	"sekimori/starlark/args"
	"sekimori/starlark/config"
	"sekimori/starlark/frames"
	"sekimori/starlark/policy"
)

// target is the policy to ask and the card to send from. Of a container it is
// the policy that its callbacks have put in force.
func (t *test) target(c *args.Call) (*policy.Policy, card) {
	if ctr, ok := c.Vals["policy"].(*config.Container); ok {
		p := ctr.Policy
		if l := t.lives[ctr]; l != nil {
			p = l.policy
		}
		return p, sender(ctr.Identity())
	}
	return args.Get[*policy.Policy](c, "policy"), t.sender
}

// sender is a container's card as builders need it.
func sender(id policy.Identity) card {
	return card{frames.Sender{MAC: id.MAC, Addrs: id.Addrs}, id.DHCP4, id.DHCP6}
}

// count adds to what a container's callbacks read by ctx.policy.stats().
func (t *test) count(c *args.Call, ingress bool, data []byte, r *replay.Result) {
	ctr, ok := c.Vals["policy"].(*config.Container)
	if !ok {
		return
	}
	n := t.counted[ctr]
	passes := r != nil && r.Verdict().Passes()
	if !ingress {
		n.frames, n.bytes = n.frames+1, n.bytes+uint64(len(data))
	}
	switch {
	case passes && ingress:
		n.delivered++
	case passes:
		n.forwarded++
	case ingress:
		n.refused++
	}
	if r != nil && r.Verdict() != rule.Forward && r.Why().Kind == rule.WhyPredicate {
		if n.noes == nil {
			n.noes = map[string]uint64{}
		}
		n.noes[r.Why().Name]++
	}
	t.counted[ctr] = n
}

// verdicts judges the frames of an assertion. A container without policy has
// no program, and nothing of it passes: the result is nil.
func (t *test) verdicts(c *args.Call, ingress bool, check func(f *frames.Frame, data []byte, prog *compiled, r *replay.Result)) error {
	p, own := t.target(c)
	sender := own.Sender
	if ingress {
		sender = frames.Peer()
	}
	var prog *compiled
	if p != nil {
		// The report names programs by what a machine would report.
		if prog = t.suite.judge.compile(p, own); prog.err != nil {
			return prog.err
		}
		if !slices.Contains(t.report.Programs, prog.hash) {
			t.report.Programs = append(t.report.Programs, prog.hash)
		}
	}
	for _, f := range args.Get[[]*frames.Frame](c, "frame") {
		data, err := f.Bytes(sender)
		if err != nil {
			return c.Errorf("frame", "", "%s: %v", f, err)
		}
		t.report.Frames++
		var r *replay.Result
		if prog != nil {
			r = t.suite.judge.judge(prog, data, rule.Moment{State: t.memory(c, prog), Now: int64(t.now) + 1, Ingress: ingress})
			t.bench(prog, data)
		}
		t.count(c, ingress, data, r)
		check(f, data, prog, r)
	}
	return nil
}

func (t *test) drops(c *args.Call) (gostarlark.Value, error)    { return t.no(c, false) }
func (t *test) refuses(c *args.Call) (gostarlark.Value, error)  { return t.no(c, true) }
func (t *test) forwards(c *args.Call) (gostarlark.Value, error) { return t.yes(c, false) }
func (t *test) receives(c *args.Call) (gostarlark.Value, error) { return t.yes(c, true) }

// no asserts that frames do not pass.
func (t *test) no(c *args.Call, ingress bool) (gostarlark.Value, error) {
	err := t.verdicts(c, ingress, func(f *frames.Frame, data []byte, prog *compiled, r *replay.Result) {
		switch {
		case r == nil:
			if c.Has("line") || c.Has("why") || c.Has("guard") {
				t.failed(c, fmt.Sprintf("%s: got drop because there is no policy, want another reason", f), "")
			}
		case r.Verdict() == rule.Forward:
			t.wrong(c, f, data, prog, r, "got forward, want drop")
		default:
			if problem := t.reason(c, r); problem != "" {
				t.wrong(c, f, data, prog, r, problem)
			}
		}
	})
	return gostarlark.None, err
}

// yes asserts that frames pass.
func (t *test) yes(c *args.Call, ingress bool) (gostarlark.Value, error) {
	err := t.verdicts(c, ingress, func(f *frames.Frame, data []byte, prog *compiled, r *replay.Result) {
		switch {
		case r == nil:
			t.failed(c, fmt.Sprintf("%s: got drop because there is no policy, want forward", f), "")
		case r.Verdict() != rule.Forward:
			t.wrong(c, f, data, prog, r, "got drop, want forward")
		default:
			if problem := t.reason(c, r); problem != "" {
				t.wrong(c, f, data, prog, r, problem)
			}
		}
	})
	return gostarlark.None, err
}

// reason is what is wrong with the reason of a verdict, empty if nothing is.
func (t *test) reason(c *args.Call, r *replay.Result) string {
	verdict, why := r.Verdict().String(), r.Why()
	if want, ok := c.Vals["guard"].(string); ok && (why.Kind != rule.WhyGuard || why.Name != want) {
		return fmt.Sprintf("got %s by %s, want the guard %q", verdict, whyText(r), want)
	}
	if want, ok := c.Vals["why"].(string); ok && !isWhy(r, want) {
		return fmt.Sprintf("got %s by %s, want %q", verdict, whyText(r), want)
	}
	if want, ok := c.Vals["line"].(string); ok {
		file, line, _ := r.Position()
		got := t.suite.session.Line(file, line)
		if !strings.Contains(got, want) {
			return fmt.Sprintf("got %s by the line %q, want one with %q", verdict, got, want)
		}
	}
	return ""
}

// isWhy reports whether want names the kind or the name of the reason.
func isWhy(r *replay.Result, want string) bool {
	if r.Reason != frame.OK {
		return r.Reason.String() == want
	}
	why := r.Why()
	return why.Name == want || why.Kind.String() == want
}

func whyText(r *replay.Result) string {
	if r.Reason != frame.OK {
		return fmt.Sprintf("the parser (%s)", r.Reason)
	}
	why := r.Why()
	return fmt.Sprintf("%s %s", why.Kind, why.Name)
}

// wrong records a verdict that is not the wanted one, with the road to it.
func (t *test) wrong(c *args.Call, f *frames.Frame, data []byte, prog *compiled, r *replay.Result, problem string) {
	decided := ""
	if file, line, col := r.Position(); file != "" {
		decided = fmt.Sprintf(", decided at %s:%d:%d", file, line, col)
	}
	x := replay.NewExplainer(prog.program, func(file string, line int) string { return t.suite.session.Line(file, line) }).Result(r)
	var b strings.Builder
	if err := x.WriteText(&b); err != nil {
		fmt.Fprintf(&b, "explain: %v\n", err)
	}
	fmt.Fprintf(&b, "  program %s\n  bytes %s\n", prog.hash, frames.Dump(data, 128))
	t.failed(c, fmt.Sprintf("%s: %s%s", f, problem, decided), b.String())
}
