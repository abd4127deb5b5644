package console_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"sekimori/vmm/console"
)

// TestKeeps: everything goes to the writer, and the end of it stays.
func TestKeeps(t *testing.T) {
	var all bytes.Buffer
	l := console.New(&all)
	line := strings.Repeat("x", 99) + "\n"
	for range 1000 {
		l.Write([]byte(line))
	}
	l.Write([]byte("the end\r\n\r\n"))
	if n := all.Len(); n != 100*1000+11 {
		t.Errorf("%d bytes passed on", n)
	}
	if s := l.String(); len(s) != 64<<10 || !strings.HasSuffix(s, "the end\r\n\r\n") {
		t.Errorf("%d bytes kept, ending in %q", len(s), s[max(0, len(s)-20):])
	}
	if got := l.Last(); got != "the end" {
		t.Errorf("Last = %q", got)
	}
	l.Write(bytes.Repeat([]byte("y"), 1<<20)) // more at once than is kept
	if s := l.String(); len(s) != 64<<10 || strings.Trim(s, "y") != "" {
		t.Errorf("%d bytes kept of a long write", len(s))
	}
	if got := l.Last(); len(got) != 160 {
		t.Errorf("Last = %d bytes", len(got))
	}
}

type broken struct{ n int }

func (b *broken) Write([]byte) (int, error) { b.n++; return 0, errors.New("full") }

// TestWriterGone: who does not take it is not asked again, and the guest hears
// nothing of it.
func TestWriterGone(t *testing.T) {
	w := &broken{}
	l := console.New(w)
	for range 3 {
		if n, err := l.Write([]byte("hello\n")); n != 6 || err != nil {
			t.Errorf("Write = %d, %v", n, err)
		}
	}
	if w.n != 1 || l.Last() != "hello" {
		t.Errorf("asked %d times, kept %q", w.n, l.Last())
	}
}
