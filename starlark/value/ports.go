package value

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// Ports is a set of TCP or UDP ports: the value of ports("80,443,8000-8999").
// Its ranges are sorted, disjoint and not adjacent.
type Ports struct{ ranges []PortRange }

// A PortRange is the ports from First to Last, both included.
type PortRange struct{ First, Last uint16 }

var (
	_ starlark.Comparable = Ports{}
	_ starlark.Container  = Ports{}
	_ starlark.HasBinary  = Ports{}
)

// ParsePorts parses ports and ranges of ports between commas.
func ParsePorts(s string) (Ports, error) {
	var rs []PortRange
	for part := range strings.SplitSeq(s, ",") {
		lo, hi, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			hi = lo
		}
		first, err1 := strconv.ParseUint(strings.TrimSpace(lo), 10, 16)
		last, err2 := strconv.ParseUint(strings.TrimSpace(hi), 10, 16)
		if err1 != nil || err2 != nil {
			return Ports{}, fmt.Errorf("ports %q: %q is neither a port such as 443 nor a range such as 8000-8999", s, part)
		}
		if first > last {
			return Ports{}, fmt.Errorf("ports %q: %d-%d is the wrong way round", s, first, last)
		}
		rs = append(rs, PortRange{uint16(first), uint16(last)})
	}
	return makePorts(rs), nil
}

// makePorts sorts and merges ranges.
func makePorts(rs []PortRange) Ports {
	slices.SortFunc(rs, func(a, b PortRange) int { return int(a.First) - int(b.First) })
	out := rs[:0]
	for _, r := range rs {
		if n := len(out); n > 0 && int(r.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return Ports{out}
}

// Ranges are the ranges of the set, sorted, disjoint and not adjacent.
func (x Ports) Ranges() []PortRange { return slices.Clone(x.ranges) }

// String is the set in its shortest form, 80,443,8000-8999.
func (x Ports) String() string {
	var b strings.Builder
	for i, r := range x.ranges {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(int(r.First)))
		if r.Last != r.First {
			fmt.Fprintf(&b, "-%d", r.Last)
		}
	}
	return b.String()
}

// Type is "ports".
func (Ports) Type() string { return "ports" }

// Freeze does nothing: a set of ports never changes.
func (Ports) Freeze() {}

// Truth is False for the empty set.
func (x Ports) Truth() starlark.Bool { return len(x.ranges) > 0 }

// Hash is equal for equal sets.
func (x Ports) Hash() (uint32, error) {
	h := uint32(2166136261)
	for _, r := range x.ranges {
		h = (h ^ (uint32(r.First)<<16 | uint32(r.Last))) * 16777619
	}
	return h, nil
}

// CompareSameType knows == and !=.
func (x Ports) CompareSameType(op syntax.Token, y starlark.Value, _ int) (bool, error) {
	equal := slices.Equal(x.ranges, y.(Ports).ranges)
	switch op {
	case syntax.EQL:
		return equal, nil
	case syntax.NEQ:
		return !equal, nil
	}
	return false, fmt.Errorf("ports %s ports: sets of ports are not ordered", op)
}

// Has reports whether the set holds a port, an int.
func (x Ports) Has(y starlark.Value) (bool, error) {
	n, ok := y.(starlark.Int)
	if !ok {
		return false, fmt.Errorf("%s in ports: want an int", y.Type())
	}
	p, ok := n.Int64()
	for _, r := range x.ranges {
		if ok && int64(r.First) <= p && p <= int64(r.Last) {
			return true, nil
		}
	}
	return false, nil
}

// Binary is the union of two sets, a | b.
func (x Ports) Binary(op syntax.Token, y starlark.Value, side starlark.Side) (starlark.Value, error) {
	z, ok := y.(Ports)
	if !ok || op != syntax.PIPE {
		return nil, nil
	}
	return makePorts(slices.Concat(x.ranges, z.ranges)), nil
}
