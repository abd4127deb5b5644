package policytest

import (
	"net/netip"
	"slices"
	"strings"

	gostarlark "go.starlark.net/starlark"

	"sekimori/starlark"
	"sekimori/starlark/args"
	"sekimori/starlark/config"
	"sekimori/starlark/frames"
)

// Methods documents what the argument t of a test function can do.
func Methods() []*args.Builtin { return methods(nil) }

// methodNames are the names behind "t.", sorted.
func methodNames() []string {
	var names []string
	for _, m := range methods(nil) {
		names = append(names, strings.TrimPrefix(m.Name, "t."))
	}
	slices.Sort(names)
	return names
}

// methods is the table of what t can do.
func methods(t *test) []*args.Builtin {
	return slices.Concat(verdictMethods(t), lifeMethods(t), testMethods(t))
}

// verdictMethods say of frames what becomes of them.
func verdictMethods(t *test) []*args.Builtin {
	target := args.Param{Name: "policy", Type: typeTarget, Required: true, Doc: "a policy, judged for the test's card, or a container with its own card and the policy in force there"}
	sent := args.Param{Name: "frame", Type: args.OneOrMore[*frames.Frame](args.Of[*frames.Frame]("a frame")), Required: true, Doc: "a frame, or a list of frames of which each is judged"}
	return []*args.Builtin{
		{Name: "t.drops", Doc: "The frame drops, and for the reason named if one is.", Params: []args.Param{target, sent,
			{Name: "line", Type: args.String, Default: "None", Doc: "part of the text of the deciding source line"},
			{Name: "why", Type: args.String, Default: "None", Doc: `what decides: "predicate", "guard", "unspoken" or "fragment"; the name of a predicate or guard; or the reason a frame does not parse, as "malformed arp"`},
			{Name: "guard", Type: args.String, Default: "None", Doc: `the guard that decides: "mac", "ip", "arp", ...`},
		}, Positional: 2, Result: "NoneType", Call: t.drops},
		{Name: "t.forwards", Doc: "The frame is forwarded.", Params: []args.Param{target, sent,
			{Name: "line", Type: args.String, Default: "None", Doc: "part of the text of the deciding source line"},
			{Name: "why", Type: args.String, Default: "None", Doc: "the name of the predicate that decides"},
		}, Positional: 2, Result: "NoneType", Call: t.forwards},
		{Name: "t.receives", Doc: "The frame reaches the container, from a peer at 10.0.0.1 and fd00::1 unless it says otherwise: its ingress policy lets it in, and what established() and answered() ask about it holds from then on.", Params: []args.Param{target, sent,
			{Name: "line", Type: args.String, Default: "None", Doc: "part of the text of the deciding source line"},
			{Name: "why", Type: args.String, Default: "None", Doc: "the name of the predicate that decides"},
		}, Positional: 2, Result: "NoneType", Call: t.receives},
		{Name: "t.refuses", Doc: "The frame does not reach the container: its ingress policy drops it, and for the reason named if one is.", Params: []args.Param{target, sent,
			{Name: "line", Type: args.String, Default: "None", Doc: "part of the text of the deciding source line"},
			{Name: "why", Type: args.String, Default: "None", Doc: `what decides: "predicate", "unspoken" or "fragment"; the name of a predicate; or the reason a frame does not parse`},
		}, Positional: 2, Result: "NoneType", Call: t.refuses},
		{Name: "t.golden", Doc: "The verdicts, with what decided and its source line, are those that a file holds. seki test --update writes the file.", Params: []args.Param{target, sent,
			{Name: "file", Type: args.String, Required: true, Doc: "the file, relative to the directory of the test file"},
		}, Positional: 3, Result: "NoneType", Call: t.golden},
		{Name: "t.nic", Doc: "The card that sends from here on in this test, where the policy is not a container's.", Params: []args.Param{
			{Name: "ip", Type: args.OneOrMore[netip.Addr](typeOwnIP), Default: `["10.0.0.2", "fd00::2"]`, Doc: "its addresses, with or without prefix length"},
			{Name: "mac", Type: args.MAC, Default: `"02:00:00:00:00:02"`, Doc: "its MAC address"},
			{Name: "dhcp", Type: args.Bool, Default: "False", Doc: "it has no address but the one that DHCP leases to it"},
			{Name: "dhcp6", Type: args.Bool, Default: "False", Doc: "the same, of IPv6"},
		}, Positional: 2, Result: "NoneType", Call: t.nic},
	}
}

// lifeMethods take a container through its life.
func lifeMethods(t *test) []*args.Builtin {
	whose := args.Param{Name: "container", Type: typeContainer, Default: "the only one", Doc: "the container"}
	return []*args.Builtin{
		{Name: "t.start", Doc: "The container starts: its callbacks from create_runtime to ready run, and after: and every: count from here. From then on t.drops and t.forwards judge by the policy that its callbacks have put in force.",
			Params: []args.Param{whose}, Positional: 1, Result: "NoneType", Call: t.start},
		{Name: "t.emit", Doc: "The container reaches a point of its life, and its callbacks there run. One that fails is a failure of the test, unless fails= says how; it leaves in force what it would leave: nothing, if it touched a policy.", Params: []args.Param{
			{Name: "point", Type: args.String, Required: true, Doc: `the point: "ready", "signal:USR1", "violation", ...`},
			whose,
			{Name: "event", Type: args.String, Default: `""`, Doc: "what ctx.event says"},
			{Name: "exit_status", Type: args.Int(0, 255), Default: "0", Doc: "at poststop, what ctx.exit_status says"},
			{Name: "fails", Type: args.String, Default: "None", Doc: "part of the error that a callback must fail with"},
		}, Positional: 2, Result: "NoneType", Call: t.emit},
		{Name: "t.advance", Doc: "The clock of the test goes on by that much, and the callbacks of after: and every: run that are due, in order. Nothing waits.", Params: []args.Param{
			{Name: "duration", Type: args.Duration, Required: true, Doc: `as "10s"`},
			whose,
		}, Positional: 1, Result: "NoneType", Call: t.advance},
		{Name: "t.in_force", Doc: "The policy in force for a container; None where nothing passes.",
			Params: []args.Param{whose}, Positional: 1, Result: "policy", Call: t.inForce},
		{Name: "t.mode", Doc: `The mode in force for a container: "enforce" or "audit".`,
			Params: []args.Param{whose}, Positional: 1, Result: "string", Call: t.modeOf},
		{Name: "t.actions", Doc: "What callbacks have done in this test, in order: strings such as \"web: exec ip neigh\", \"web: policy.load policy(allow_arp)\", \"web: kill TERM\", \"web: log stopped status=0\".",
			Result: "list of string", Call: func(*args.Call) (gostarlark.Value, error) {
				var all []gostarlark.Value
				for _, a := range t.actions {
					all = append(all, gostarlark.String(a))
				}
				return gostarlark.NewList(all), nil
			}},
		{Name: "t.exec_returns", Doc: "What ctx.exec() of callbacks returns from here on; without it, status 0 and no output.", Params: []args.Param{
			{Name: "status", Type: args.Int(0, 255), Default: "0", Doc: "exit status"},
			{Name: "stdout", Type: args.String, Default: `""`, Doc: "standard output"},
			{Name: "stderr", Type: args.String, Default: `""`, Doc: "standard error"},
		}, Positional: 3, Result: "NoneType", Call: func(c *args.Call) (gostarlark.Value, error) {
			t.execResult = starlark.ExecResult{Status: int(args.Get[int64](c, "status")), Stdout: args.Get[string](c, "stdout"), Stderr: args.Get[string](c, "stderr")}
			return gostarlark.None, nil
		}},
	}
}

// testMethods are about the test itself.
func testMethods(t *test) []*args.Builtin {
	return []*args.Builtin{
		{Name: "t.equal", Doc: "Two values are equal.", Params: []args.Param{
			{Name: "got", Type: typeAny, Required: true, Doc: "what came out"},
			{Name: "want", Type: typeAny, Required: true, Doc: "what should have"},
		}, Positional: 2, Result: "NoneType", Call: t.equal},
		{Name: "t.fail", Doc: "The test fails, and goes on.", Params: []args.Param{
			{Name: "message", Type: args.String, Required: true, Doc: "why"},
		}, Positional: 1, Result: "NoneType", Call: func(c *args.Call) (gostarlark.Value, error) {
			t.failed(c, args.Get[string](c, "message"), "")
			return gostarlark.None, nil
		}},
		{Name: "t.run", Doc: "A test inside this one, named test/name: fn(t), with a t of its own that begins with the card of this one. --run test/name selects it.", Params: []args.Param{
			{Name: "name", Type: args.String, Required: true, Doc: "its name"},
			{Name: "fn", Type: args.Function, Required: true, Doc: "the function"},
		}, Positional: 2, Result: "NoneType", Call: t.sub},
		{Name: "t.cases", Doc: "A table of cases: fn(t, ...) for each, as a test inside this one. A case that is a dict gives arguments by name, a tuple or list gives them in order, all else is the one argument.", Params: []args.Param{
			{Name: "fn", Type: args.Function, Required: true, Doc: "the function; its first argument is t"},
			{Name: "table", Type: typeCases, Required: true, Doc: "a dict from the name of each case to the case, or a list of cases, which are named by number"},
		}, Positional: 2, Result: "NoneType", Call: t.cases},
		{Name: "t.name", Doc: "The name of the test.", Result: "string", Call: func(*args.Call) (gostarlark.Value, error) {
			return gostarlark.String(t.report.Name), nil
		}},
	}
}

func (t *test) inForce(c *args.Call) (gostarlark.Value, error) {
	l, err := t.subject(c)
	if err != nil || l.policy == nil {
		return gostarlark.None, err
	}
	return l.policy, nil
}

func (t *test) modeOf(c *args.Call) (gostarlark.Value, error) {
	l, err := t.subject(c)
	if err != nil {
		return nil, err
	}
	return gostarlark.String(l.mode), nil
}

var typeContainer = args.Type{Name: "a container", Convert: func(v gostarlark.Value) (any, error) {
	if c, ok := config.AsContainer(v); ok {
		return c, nil
	}
	return nil, args.Want("a container", v)
}}
