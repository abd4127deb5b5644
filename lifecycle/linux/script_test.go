package linux

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A script that does not fit into its memory is an error, never one that is
// carried out in part.
func TestScriptFull(t *testing.T) {
	for name, fill := range map[string]func(*script){
		"calls": func(s *script) {
			for range maxOps + 1 {
				s.call(unix.SYS_GETPID)
			}
		},
		"closing": func(s *script) {
			for range maxOps {
				s.call(unix.SYS_GETPID)
			}
			s.fds[10] = true
			s.fillClose(0)
		},
		"one argument":   func(s *script) { s.call(unix.SYS_CHDIR, strings.Repeat("x", maxData)) },
		"many arguments": func(s *script) { _, _ = s.vector(strings.Split(strings.Repeat("xxxxxxx ", maxData/8), " ")) },
		"second process": func(s *script) {
			s.call(unix.SYS_CHDIR, strings.Repeat("x", maxData-8))
			s.forkSecond(0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := newScript()
			if err != nil {
				t.Fatal(err)
			}
			defer s.free()
			s.step("step")
			fill(s)
			if err := s.finish(); err == nil {
				t.Errorf("%d calls, %d bytes: no error", len(s.ops), s.used)
			}
		})
	}
}

// What fits is in the script's own memory: the child has no other.
func TestScriptMemory(t *testing.T) {
	s, err := newScript()
	if err != nil {
		t.Fatal(err)
	}
	defer s.free()
	s.step("step")
	for range maxOps {
		s.call(unix.SYS_CHDIR, "/somewhere")
	}
	if err := s.finish(); err != nil {
		t.Fatal(err)
	}
	last := s.ops[maxOps-1].args[0]
	if first := s.ops[0].args[0]; last <= first || last-first > maxData {
		t.Errorf("arguments from %#x to %#x: want them in one mapping of %d bytes", first, last, maxData)
	}
}
