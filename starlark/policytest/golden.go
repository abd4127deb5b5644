package policytest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	gostarlark "go.starlark.net/starlark"

	"sekimori/nicshadow/replay"
	"sekimori/starlark/args"
	"sekimori/starlark/frames"
)

// goldenHead begins each golden file: whoever meets it in a review knows what
// it is.
const goldenHead = "# Verdicts, written by seki test --update: number, verdict, what decided, its line, the frame.\n"

// golden is t.golden(): one line for each frame. Lines of the source are
// quoted, not numbered: what is written above them does not matter.
func (t *test) golden(c *args.Call) (gostarlark.Value, error) {
	given := filepath.FromSlash(args.Get[string](c, "file"))
	if !filepath.IsLocal(given) {
		return nil, c.Errorf("file", "", "file: %q leaves the directory of the test file", given)
	}
	path := filepath.Join(t.suite.dir, given)
	var b strings.Builder
	b.WriteString(goldenHead)
	n := 0
	err := t.verdicts(c, false, func(_ *frames.Frame, data []byte, _ *compiled, r *replay.Result) {
		n++
		b.WriteString(t.goldenLine(n, data, r))
	})
	if err != nil {
		return nil, err
	}
	got := b.String()
	want, err := os.ReadFile(path)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, c.Errorf("file", "", "%v", err)
	case err == nil && string(want) == got:
	case t.suite.opts.Update:
		return gostarlark.None, writeGolden(path, got)
	case err != nil:
		t.failed(c, fmt.Sprintf("%s: not there: seki test --update writes it", path), "")
	default:
		t.failed(c, fmt.Sprintf("%s: %s", path, firstDifference(got, string(want))), "")
	}
	return gostarlark.None, nil
}

func (t *test) goldenLine(n int, data []byte, r *replay.Result) string {
	summary := replay.Summary(data)
	if r == nil {
		return fmt.Sprintf("%d drop | no policy | | %s\n", n, summary)
	}
	why := whyText(r)
	file, line, _ := r.Position()
	source := ""
	if file != "" {
		source = t.suite.session.Line(file, line)
	}
	return fmt.Sprintf("%d %s | %s | %s | %s\n", n, r.Verdict(), why, source, summary)
}

// writeGolden writes a file beside its place first: a test run that is killed
// leaves the old one.
func writeGolden(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// firstDifference says where two golden files part.
func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		var a, b string
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a != b {
			return fmt.Sprintf("line %d differs (seki test --update writes it anew)\n    got  %s\n    want %s", i+1, orNothing(a), orNothing(b))
		}
	}
	return "differs"
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}
