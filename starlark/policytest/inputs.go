package policytest

import (
	"context"
	"path/filepath"
	"strings"

	gostarlark "go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"

	"sekimori/starlark"
	"sekimori/starlark/args"
	"sekimori/starlark/frames"
)

// Inputs documents what tests read.
func Inputs() []*args.Builtin { return inputBuiltins(context.Background(), "", nil) }

// inputBuiltins are what tests read: recordings and pods.
func inputBuiltins(ctx context.Context, root string, loaded func(*starlark.Pod)) []*args.Builtin {
	return []*args.Builtin{{
		Name: "pcap",
		Doc:  "The frames of a recording, pcap or pcapng, packed by gzip or not, as a list.",
		Params: []args.Param{
			{Name: "path", Type: args.String, Required: true, Doc: "the file, relative to the directory of the test file"},
		},
		Positional: 1,
		Result:     "list of frame",
		Call: func(c *args.Call) (gostarlark.Value, error) {
			path := args.Get[string](c, "path")
			if !filepath.IsAbs(path) {
				path = filepath.Join(filepath.Dir(c.Pos.Filename()), path)
			}
			l, err := frames.Open(path)
			if err != nil {
				return nil, c.Errorf("path", "", "%v", err)
			}
			return l, nil
		},
	}, {
		Name: "pod",
		Doc:  "The pod a file describes, loaded as seki run would, with its containers by name: pod(\"web.star\").containers[\"a1\"].",
		Params: []args.Param{
			{Name: "path", Type: args.String, Required: true, Doc: "the file, relative to the directory of the test file"},
			{Name: "params", Type: args.DictOf[string](args.String), Default: "{}", Doc: "parameters, as --set gives them"},
		},
		Positional: 1,
		Result:     "struct with name and containers",
		Call: func(c *args.Call) (gostarlark.Value, error) {
			return loadPod(ctx, c, root, loaded)
		},
	}}
}

func loadPod(ctx context.Context, c *args.Call, root string, loaded func(*starlark.Pod)) (gostarlark.Value, error) {
	given := args.Get[string](c, "path")
	path := filepath.Join(filepath.Dir(c.Pos.Filename()), given)
	if rel, err := filepath.Rel(root, path); filepath.IsAbs(given) || err != nil || !filepath.IsLocal(rel) {
		return nil, c.Errorf("path", "", "path: %q leaves the module root %s", given, root)
	}
	params := map[string]string{}
	for _, p := range args.Get[[]args.Pair[string]](c, "params") {
		params[p.Key] = p.Val
	}
	p, err := starlark.Load(ctx, path, starlark.Options{ModuleRoot: root, Params: params})
	if err != nil {
		return nil, err
	}
	loaded(p)
	d := gostarlark.NewDict(len(p.Containers))
	for _, ctr := range p.Containers {
		if err := d.SetKey(gostarlark.String(ctr.Spec.Name), ctr.Value()); err != nil {
			return nil, err
		}
	}
	d.Freeze()
	return starlarkstruct.FromStringDict(gostarlark.String("pod"), gostarlark.StringDict{
		"name": gostarlark.String(p.Name), "containers": d,
	}), nil
}

// indent puts text under a line of a report.
func indent(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n"+by)
}
