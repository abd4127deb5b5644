package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestRotated(t *testing.T) {
	s := open(t)
	p := claim(t, s, state("web", 1))
	defer p.Remove()
	r, err := p.Append("events.jsonl", 100)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				if n, err := r.Write([]byte("0123456789\n")); n != 11 || err != nil {
					t.Errorf("Write() = %d, %v", n, err)
				}
			}
		})
	}
	wg.Wait()
	dir := filepath.Join(s.Path(), "pods/web")
	for _, name := range []string{"events.jsonl", "events.jsonl.1"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || len(b) > 100 || len(b)%11 != 0 {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
	if _, err := r.Write(make([]byte, 500)); err != nil { // longer than the bound: alone in its file
		t.Error(err)
	}
	r.Close()
	if _, err := r.Write([]byte("x")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write() after Close() = %v", err)
	}
	if f, err := s.OpenFile("web", "events.jsonl"); err != nil {
		t.Error(err)
	} else {
		f.Close()
	}
}
