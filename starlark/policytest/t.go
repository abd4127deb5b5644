package policytest

import (
	"context"
	"fmt"
	"strings"
	"time"

	gostarlark "go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"sekimori/starlark"
	"sekimori/starlark/args"
	"sekimori/starlark/config"
	"sekimori/starlark/frames"
	"sekimori/starlark/policy"
	"sekimori/starlark/value"
)

// maxFailures bounds what one test reports; the rest is counted.
const maxFailures = 20

// A suite is one evaluated test file.
type suite struct {
	session *starlark.Session
	judge   *judge
	opts    Options
	dir     string // of the test file, that of golden files
	pods    *pods
}

// run runs one test function.
func (s *suite) run(ctx context.Context, name string, fn *gostarlark.Function) *TestReport {
	began := time.Now()
	t := newTest(s, ctx, name, fn.Position().String())
	th := s.session.Thread(name)
	th.Print = func(_ *gostarlark.Thread, msg string) { t.report.Output = append(t.report.Output, msg) }
	config.Attach(th, s.session.Collector(name))
	stop := context.AfterFunc(ctx, func() { th.Cancel(context.Cause(ctx).Error()) })
	defer stop()
	if _, err := gostarlark.Call(th, fn, gostarlark.Tuple{t}, nil); err != nil {
		t.broken(err)
	}
	t.end(began)
	return t.report
}

// A test is the argument t of a test function. It belongs to one thread.
type test struct {
	suite  *suite
	ctx    context.Context
	sender card
	report *TestReport

	// The test's own world: see [life].
	now        time.Duration
	lives      map[*config.Container]*life
	order      []*life
	counted    map[*config.Container]counts
	actions    []string
	execResult starlark.ExecResult
	memories   map[any]*memory // by policy, or container
}

// counts are the frames of a container that the test judged; noes are those that
// each predicate said no to.
type counts struct {
	frames, bytes, forwarded, delivered, refused uint64
	noes                                         map[string]uint64
}

func newTest(s *suite, ctx context.Context, name, pos string) *test {
	return &test{
		suite: s, ctx: ctx, sender: card{Sender: frames.DefaultSender()}, report: &TestReport{Name: name, Pos: pos},
		lives: map[*config.Container]*life{}, counted: map[*config.Container]counts{}, memories: map[any]*memory{},
	}
}

// end closes the report.
func (t *test) end(began time.Time) {
	t.report.Duration = time.Since(began)
	t.report.Passed = len(t.report.Failures) == 0
}

// did notes what a callback did.
func (t *test) did(l *life, what string, words ...string) {
	t.actions = append(t.actions, strings.TrimSpace(l.Name()+": "+what+" "+strings.Join(words, " ")))
}

func (t *test) String() string         { return "t" }
func (t *test) Type() string           { return "t" }
func (t *test) Freeze()                {}
func (t *test) Truth() gostarlark.Bool { return true }
func (t *test) Hash() (uint32, error)  { return 0, fmt.Errorf("unhashable type: t") }
func (t *test) AttrNames() []string    { return methodNames() }
func (t *test) Attr(name string) (gostarlark.Value, error) {
	for _, m := range methods(t) {
		if m.Name == "t."+name {
			return m.Value(), nil
		}
	}
	return nil, nil
}

var typeAny = args.Type{Name: "a value", TakesNone: true, Convert: func(v gostarlark.Value) (any, error) { return v, nil }}

var typeOwnIP = args.Type{Name: "an address", Convert: func(v gostarlark.Value) (any, error) {
	if s, ok := gostarlark.AsString(v); ok && strings.Contains(s, "/") {
		p, err := args.AsPrefix(v)
		return p.Addr(), err
	}
	return args.AsAddr(v)
}}

var typeTarget = args.Type{Name: "a policy or a container", Convert: func(v gostarlark.Value) (any, error) {
	if p, ok := v.(*policy.Policy); ok {
		return p, nil
	}
	if c, ok := config.AsContainer(v); ok {
		return c, nil
	}
	return nil, args.Want("a policy or a container", v)
}}

func (t *test) equal(c *args.Call) (gostarlark.Value, error) {
	got, want := args.Get[gostarlark.Value](c, "got"), args.Get[gostarlark.Value](c, "want")
	same, err := value.Compare(syntax.EQL, got, want)
	if err == nil && !same {
		t.failed(c, fmt.Sprintf("got %s, want %s", cut(got.String()), cut(want.String())), "")
	}
	return gostarlark.None, err
}

func (t *test) nic(c *args.Call) (gostarlark.Value, error) {
	d := frames.DefaultSender()
	t.sender = card{Sender: frames.Sender{MAC: args.Or(c, "mac", d.MAC), Addrs: args.Or(c, "ip", d.Addrs)}}
	t.sender.dhcp4, t.sender.dhcp6 = args.Get[bool](c, "dhcp"), args.Get[bool](c, "dhcp6")
	if t.sender.dhcp4 || t.sender.dhcp6 {
		if c.Has("ip") {
			return nil, c.Errorf("dhcp", "", "a card has ip, or gets it by DHCP")
		}
		t.sender.Addrs = nil
	}
	return gostarlark.None, nil
}

// failed records a failure at the call.
func (t *test) failed(c *args.Call, msg, details string) {
	f := Failure{Pos: c.Pos.String(), Message: msg, Details: details}
	// The assertion may stand in a helper: then the way there matters.
	stack := c.Thread.CallStack()
	for _, fr := range stack[:max(0, len(stack)-1)] {
		if fr.Pos.Line > 0 {
			f.Stack = append(f.Stack, fmt.Sprintf("%s: in %s", fr.Pos, fr.Name))
		}
	}
	t.add(f)
}

// broken records that the test function itself failed.
func (t *test) broken(err error) {
	for _, e := range starlark.Errors(t.suite.session.Explain(err)) {
		f := Failure{Message: e.Msg, Details: e.Hint}
		if e.Pos.Line > 0 {
			f.Pos = e.Pos.String()
		}
		for _, line := range strings.Split(strings.TrimSpace(e.Backtrace), "\n")[1:] {
			f.Stack = append(f.Stack, strings.TrimSpace(line))
		}
		t.add(f)
	}
}

func (t *test) add(f Failure) {
	if len(f.Stack) < 2 {
		f.Stack = nil
	}
	if len(t.report.Failures) >= maxFailures {
		t.report.More++
		return
	}
	t.report.Failures = append(t.report.Failures, f)
}

func cut(s string) string {
	if len(s) > 400 {
		return s[:400] + "..."
	}
	return s
}
