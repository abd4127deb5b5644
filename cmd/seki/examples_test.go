package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestExamples checks, plans and tests each example: what users copy must work,
// and show how to test it whole.
func TestExamples(t *testing.T) {
	dir := filepath.Join("..", "..", "examples")
	files, err := filepath.Glob(filepath.Join(dir, "*.star"))
	if err != nil || len(files) == 0 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	seki := func(args ...string) {
		t.Helper()
		var stdout, stderr strings.Builder
		a := app{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, env: func(string) string { return "" }}
		if code := a.run(args); code != exitFine {
			t.Errorf("seki %s: exit code %d\n%s%s", strings.Join(args, " "), code, stdout.String(), stderr.String())
		}
	}
	for _, f := range files {
		if !strings.HasSuffix(f, "_test.star") {
			seki("check", f)
			seki("plan", f)
		}
	}
	seki("test", "--coverage-min", "100", dir)
	seki("test", "--coverage-min", "100", filepath.Join("..", "..", "starlark", "std"))
	seki("lint", dir)
	seki("fmt", "--check", dir)
}
