package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestGuestArchive: it is made once, is never one that another could have made,
// and old ones go.
func TestGuestArchive(t *testing.T) {
	if ok, err := condition("uml"); err != nil {
		t.Fatal(err)
	} else if !ok {
		t.Skip("needs uml: a kernel, and a test binary that is linked statically (CGO_ENABLED=0)")
	}
	cache := filepath.Join(t.TempDir(), "cache")
	archive := func() string {
		t.Helper()
		f, path, err := guestArchive(cache)
		if err != nil {
			t.Fatal(err)
		}
		if f != nil {
			f.Close()
		}
		return path
	}
	first := archive()
	made, err := os.Stat(first)
	if err != nil {
		t.Fatal(err)
	}
	if again := archive(); again != first {
		t.Errorf("again: %s; want %s", again, first)
	} else if st, err := os.Stat(again); err != nil || !os.SameFile(st, made) {
		t.Errorf("it was made again: %v", err)
	}

	// One that can be written to, and one in a directory that others can write
	// to, might be anybody's.
	if err := os.Chmod(first, 0o644); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(archive()); err != nil || os.SameFile(st, made) {
		t.Errorf("an archive that can be written to was used: %v", err)
	}
	if err := os.Chmod(cache, 0o777); err != nil {
		t.Fatal(err)
	}
	if path := archive(); path != "" {
		t.Errorf("%s, in a directory of everybody's, was used", path)
	}
	if err := os.Chmod(cache, 0o755); err != nil {
		t.Fatal(err)
	}

	old := time.Now().Add(-time.Hour)
	for i := range archivesKept + 2 {
		name := filepath.Join(cache, fmt.Sprint(archivePrefix, "of-another-build-", i))
		if err := os.WriteFile(name, nil, 0o444); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(first); err != nil {
		t.Fatal(err)
	}
	archive()
	left, err := os.ReadDir(cache)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != archivesKept {
		t.Errorf("%d files are kept; want %d", len(left), archivesKept)
	}
	if _, err := os.Stat(first); err != nil {
		t.Errorf("the newest went: %v", err)
	}
}
