package starlark_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sekimori/starlark"
)

// FuzzLoad: whatever a file holds, loading it ends within its budget with an
// error or a pod, never both, and a pod has a plan, the same each time.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/errors/*.star", "testdata/*.star", "../examples/*.star", "std/*.star"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			for chunk := range bytes.SplitSeq(data, []byte("\n---\n")) {
				f.Add(chunk)
			}
		}
	}
	// Past bugs: .load before the end of the file, an attribute of a number.
	f.Add([]byte("x.load"))
	f.Add([]byte("x.load\x80("))
	f.Add([]byte("x = 1 .join"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, src []byte) {
		path := filepath.Join(dir, "fuzz.star")
		if err := os.WriteFile(path, src, 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		pod, err := starlark.Load(ctx, path, starlark.Options{MaxSteps: 100_000, MaxMemory: 64 << 20})
		if ctx.Err() != nil {
			t.Fatal("the budget did not end it")
		}
		if (err == nil) != (pod != nil) {
			t.Fatalf("Load = %v, %v", pod, err)
		}
		if err != nil {
			if es := starlark.Errors(err); len(es) == 0 || es[0].Msg == "" {
				t.Fatalf("error without message: %#v", err)
			}
			return
		}
		a, err := pod.Plan()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := pod.Plan(); err != nil || !bytes.Equal(a, b) {
			t.Fatalf("second Plan differs, %v", err)
		}
		for _, c := range pod.Containers {
			if err := c.Spec.Validate(); err != nil {
				t.Fatalf("%s: %v", c.Spec.Name, err)
			}
		}
	})
}
