package policytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"strings"

	gostarlark "go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"sekimori/nicshadow/replay"
	"sekimori/nicshadow/rule"
	"sekimori/starlark"
	"sekimori/starlark/args"
	"sekimori/starlark/config"
	"sekimori/starlark/frames"
	"sekimori/starlark/policy"
)

// A Repl is an interactive session: what test files see, and explain() and
// verdict() besides.
type Repl struct {
	session *starlark.Session
	globals gostarlark.StringDict
	suite   *suite
	out     io.Writer
	chunks  int
}

// NewRepl begins a session in the directory of file, whose globals it has; file
// may be empty.
func NewRepl(ctx context.Context, file string, out io.Writer) (*Repl, error) {
	root, name := ".", ""
	if file != "" {
		root, name = filepath.Dir(file), filepath.Base(file)
	}
	r := &Repl{globals: gostarlark.StringDict{}, out: out}
	var s *starlark.Session
	known := &pods{}
	opts := starlark.Options{
		ModuleRoot: root, Predeclared: predeclared(ctx, root, func(p *starlark.Pod) { s.Know(p); known.took(p) }),
		Print: func(msg string) { fmt.Fprintln(out, msg) },
	}
	s, err := starlark.NewSession(opts, func(string) *config.Collector {
		c := s.Collector(starlark.PodName(file))
		known.modules = append(known.modules, c)
		return c
	})
	if err != nil {
		return nil, err
	}
	r.session, r.suite = s, &suite{session: s, judge: newJudge(newCoverage(false)), pods: known, dir: root}
	maps.Copy(r.globals, s.Predeclared())
	for _, b := range r.builtins() {
		r.globals[b.Name] = b.Value()
	}
	if name != "" {
		g, err := s.Exec(ctx, name)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		maps.Copy(r.globals, g)
	}
	return r, nil
}

// Close ends the session.
func (r *Repl) Close() error { return r.session.Close() }

// Names are the names that the session knows.
func (r *Repl) Names() []string { return r.globals.Keys() }

// builtins are those of the session alone.
func (r *Repl) builtins() []*args.Builtin {
	params := []args.Param{
		{Name: "policy", Type: typeTarget, Required: true, Doc: "a policy, or a container with its own card"},
		{Name: "frame", Type: args.Of[*frames.Frame]("a frame"), Required: true, Doc: "the frame"},
	}
	return []*args.Builtin{
		{Name: "explain", Doc: "Prints what becomes of a frame, and why.", Params: params, Positional: 2, Result: "NoneType",
			Call: func(c *args.Call) (gostarlark.Value, error) {
				prog, res, err := r.judge(c)
				if err != nil {
					return nil, err
				}
				return gostarlark.None, replay.NewExplainer(prog.program, r.session.Line).Result(res).WriteText(r.out)
			}},
		{Name: "verdict", Doc: `What becomes of a frame: "forward", "drop" or "audit".`, Params: params, Positional: 2, Result: "string",
			Call: func(c *args.Call) (gostarlark.Value, error) {
				_, res, err := r.judge(c)
				if err != nil {
					return nil, err
				}
				return gostarlark.String(res.Verdict().String()), nil
			}},
	}
}

// judge has a policy judge a frame, as the first that it sees.
func (r *Repl) judge(c *args.Call) (*compiled, *replay.Result, error) {
	own := card{Sender: frames.DefaultSender()}
	p, _ := c.Vals["policy"].(*policy.Policy)
	if ctr, ok := c.Vals["policy"].(*config.Container); ok {
		if p, own = ctr.Policy, sender(ctr.Identity()); p == nil {
			return nil, nil, c.Errorf("policy", "", "container %q has no policy: nothing passes", ctr.Spec.Name)
		}
	}
	prog := r.suite.judge.compile(p, own)
	if prog.err != nil {
		return nil, nil, prog.err
	}
	data, err := args.Get[*frames.Frame](c, "frame").Bytes(own.Sender)
	if err != nil {
		return nil, nil, err
	}
	return prog, r.suite.judge.judge(prog, data, rule.Moment{State: prog.program.NewState(nil), Now: 1}), nil
}

// Step reads one statement by readLine, runs it, and prints its value if it is
// an expression that has one. The error is io.EOF at the end of the input, or
// what is wrong with the statement; the session goes on after it. While ctx is
// not done, the statement may run.
func (r *Repl) Step(ctx context.Context, readLine func() ([]byte, error)) error {
	r.chunks++
	name := fmt.Sprintf("<%d>", r.chunks)
	var text bytes.Buffer
	var end error
	f, err := policy.Options.ParseCompoundStmt(name, func() ([]byte, error) {
		line, err := readLine()
		text.Write(line)
		end = err
		return line, err
	})
	if end != nil && strings.TrimSpace(text.String()) == "" {
		return end
	}
	if err != nil {
		return r.session.Explain(err)
	}
	f.Path = name
	value := soleExpression(f)
	th := r.session.Thread("repl")
	config.Attach(th, r.session.Collector("repl"))
	th.Load = func(_ *gostarlark.Thread, module string) (gostarlark.StringDict, error) {
		return r.session.Exec(ctx, module)
	}
	stop := context.AfterFunc(ctx, func() { th.Cancel("interrupted") })
	defer stop()
	if err := r.session.ExecChunk(th, f, text.Bytes(), r.globals); err != nil {
		return err
	}
	if v := r.globals["_"]; value && v != gostarlark.None {
		fmt.Fprintln(r.out, v)
	}
	return nil
}

// soleExpression makes a statement that is one expression assign its value to
// _, and reports whether it is one.
func soleExpression(f *syntax.File) bool {
	if len(f.Stmts) != 1 {
		return false
	}
	s, ok := f.Stmts[0].(*syntax.ExprStmt)
	if !ok {
		return false
	}
	start, _ := s.Span()
	f.Stmts[0] = &syntax.AssignStmt{OpPos: start, Op: syntax.EQ, LHS: &syntax.Ident{NamePos: start, Name: "_"}, RHS: s.X}
	return true
}
