package policy_test

import (
	"strings"
	"testing"
	"time"
)

// TestBudget: loops that users might write compile to little; what grows
// without end is refused, at its line and before anybody wonders.
func TestBudget(t *testing.T) {
	const limit = 20 * time.Second // of a second and a half, on a busy machine
	for _, tt := range []struct {
		name, src string
		insns     int // at most; 0 where it is refused
	}{
		{"a sum", "n = 0\n    for i in range(60000):\n        n += i\n    return dst_port == n", 115},
		{"a table written as a loop", "for i in range(20000):\n        if dst_port == i * 3: return True\n    return False", 115},
		{"a table written as all()", "return all([dst_port != i for i in range(0, 60000, 2)])", 115},
		{"counting bits", "n = 0\n    for i in range(12):\n        if (dst_port >> i) & 1: n += 1\n        if (src_port >> i) & 1: n += 2\n    return n % 5 == 1", 2000},
		{"pairs", "return (dst_port, src_port) in [(p, p + 1) for p in range(1000)]", 8000},
		{"a counter for each port", "n = 0\n    for i in range(1000):\n        if dst_port == i: n += 1\n    return n == 1", 0},
		{"values that double", "n = 0\n    for i in range(16):\n        if (dst_port >> i) & 1: n = n * 2 + 1\n        if (src_port >> i) & 1: n = n * 3\n    return n % 5 == 1", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := load(t, "def allow_tcp(dst_port, src_port):\n    "+tt.src+"\nP = policy(allow_tcp)\n")
			start := time.Now()
			prog, err := p.Compile(identity)
			if d := time.Since(start); d > limit {
				t.Errorf("took %v", d)
			}
			switch {
			case tt.insns == 0 && (err == nil || !strings.Contains(err.Error(), "too large to compile") || !strings.HasPrefix(err.Error(), "p.star:")):
				t.Errorf("Compile error = %v; want too large to compile, with a position", err)
			case tt.insns > 0 && err != nil:
				t.Errorf("Compile error = %v", err)
			case tt.insns > 0 && prog.Len() > tt.insns:
				t.Errorf("%d instructions; want at most %d", prog.Len(), tt.insns)
			}
		})
	}
}
