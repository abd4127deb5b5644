package introspect

import (
	"cmp"
	"slices"

	"sekimori/introspect/layout"
)

// A span is the part of a struct that is read at once.
type span struct{ from, to layout.Offset }

// newSpan is the span over the ends of fields.
func newSpan(ends ...layout.Offset) (span, bool) {
	s := span{from: ends[0], to: ends[0]}
	for _, e := range ends {
		s.from, s.to = min(s.from, e), max(s.to, e)
	}
	return s, s.to-s.from <= maxSpan
}

// near is how far apart fields may lie that are read at once: two cache lines.
// Over a task_struct they are scattered, 3.5 KB of it or 55 cache lines.
const near = 128

// taskFields are what is read of a task: pieces, one behind the other, and where
// in that each field begins.
type taskFields struct {
	pieces                                []span
	pid, tgid, comm, flags                int
	leader, signal, threadPID, ns, cgroup int
}

func newTaskFields(l *layout.Layout) (f taskFields) {
	o := &l.Task
	type field struct {
		at    layout.Offset
		size  layout.Offset
		place *int
	}
	all := []field{
		{o.PID, 4, &f.pid}, {o.TGID, 4, &f.tgid}, {o.Comm, 16, &f.comm}, {o.Flags, 4, &f.flags}, {o.GroupLeader, 8, &f.leader},
		{o.Signal, 8, &f.signal}, {o.ThreadPID, 8, &f.threadPID}, {o.NSProxy, 8, &f.ns}, {o.Cgroups, 8, &f.cgroup},
	}
	slices.SortFunc(all, func(a, b field) int { return cmp.Compare(a.at, b.at) })
	n := 0 // bytes of the pieces before
	for _, x := range all {
		last := len(f.pieces) - 1
		if last < 0 || x.at-f.pieces[last].to > near {
			if last >= 0 {
				n += int(f.pieces[last].to - f.pieces[last].from)
			}
			f.pieces = append(f.pieces, span{x.at, x.at + x.size})
			last++
		}
		p := &f.pieces[last]
		p.to = max(p.to, x.at+x.size)
		*x.place = n + int(x.at-p.from)
	}
	return f
}

// no allocation, no lock, no log below this line

// A part is what was read of a struct. It is valid until the next read.
type part struct {
	b    []byte
	from layout.Offset
}

// read reads a span of the struct at va.
func (g *Guest) read(va uint64, s span) (part, error) {
	p := part{g.buf[:s.to-s.from], s.from}
	return p, g.mem.Read(va+uint64(s.from), p.b)
}

func (p part) byte(o layout.Offset) byte     { return p.b[o-p.from] }
func (p part) uint32(o layout.Offset) uint32 { return le.Uint32(p.b[o-p.from:]) }
func (p part) uint64(o layout.Offset) uint64 { return le.Uint64(p.b[o-p.from:]) }

// gather reads the fields of the task at va. They are valid until the next read.
func (g *Guest) gather(va uint64) ([]byte, error) {
	n := 0
	for _, s := range g.fields.pieces {
		end := n + int(s.to-s.from)
		if err := g.mem.Read(va+uint64(s.from), g.buf[n:end]); err != nil {
			return nil, err
		}
		n = end
	}
	return g.buf[:n], nil
}
