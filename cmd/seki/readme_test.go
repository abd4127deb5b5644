package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadme checks and tests the .star files that the README shows: they are
// the first thing that anybody copies.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(readme), "```python\n")[1:]
	names := []string{"web.star", "web_test.star"}
	if len(blocks) != len(names) {
		t.Fatalf("README.md has %d blocks of Starlark; want %d", len(blocks), len(names))
	}
	dir := t.TempDir()
	for i, b := range blocks {
		text, _, _ := strings.Cut(b, "```")
		if err := os.WriteFile(filepath.Join(dir, names[i]), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	capture, err := os.ReadFile("../../testdata/pcap/arpspoof.pcap")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "arpspoof.pcap"), capture, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"check", filepath.Join(dir, "web.star")}, {"test", dir}} {
		var out bytes.Buffer
		a := &app{stdout: &out, stderr: &out, env: func(string) string { return "" }}
		if code := a.run(args); code != exitFine {
			t.Errorf("seki %s: exit code %d:\n%s", args[0], code, &out)
		}
	}
}
