package lifecycle

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
)

// A sink takes the output of one stream besides the log.
type sink interface {
	io.Writer
	flush() error // the stream has ended
}

// rawSink passes everything on as it is.
type rawSink struct{ io.Writer }

func (rawSink) flush() error { return nil }

// sink returns where output for std goes besides the log; nil for nowhere.
func (p *Pod) sink(std *os.File, name string, alone bool) sink {
	switch {
	case std == nil || p.cfg.Detached:
		return nil
	case alone:
		return rawSink{std}
	}
	width := 0
	for _, c := range p.cfg.Containers {
		width = max(width, len(c.Spec.Name))
	}
	return &prefixSink{w: std, mu: &p.outMu, prefix: fmt.Sprintf("%-*s | ", width, name)}
}

// A prefixSink marks each line with the name of its container. Lines are passed
// on whole, so that those of several containers do not mix.
type prefixSink struct {
	w      io.Writer
	mu     *sync.Mutex // of all that write to w
	prefix string
	line   []byte
}

func (s *prefixSink) Write(b []byte) (int, error) {
	var out []byte
	for rest := b; len(rest) > 0; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			s.line = append(s.line, rest...)
			if len(s.line) > maxLine {
				out = s.emit(out)
			}
			break
		}
		s.line = append(s.line, rest[:i]...)
		out, rest = s.emit(out), rest[i+1:]
	}
	return len(b), s.put(out)
}

func (s *prefixSink) emit(out []byte) []byte {
	out = append(append(append(out, s.prefix...), s.line...), '\n')
	s.line = s.line[:0]
	return out
}

func (s *prefixSink) put(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.w.Write(b)
	return err
}

func (s *prefixSink) flush() error {
	if len(s.line) == 0 {
		return nil
	}
	return s.put(s.emit(nil))
}
