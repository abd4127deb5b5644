package replay

import "sekimori/nicshadow/rule"

// maxGuardHops is how far from a test its guard's drop can be. Farther away it
// may be the next guard's: better no name than a wrong one.
const maxGuardHops = 3

// guardOf names the guard that the test at pc belongs to; "" for a test of a
// predicate. Guards have no position of their own, so it is the drop that is
// fewest jumps away: a guard's tests stand right before it.
func guardOf(p *rule.Program, pc uint32) string {
	if u, line, _ := p.Position(pc); u != "" && line != 0 {
		return ""
	}
	near, seen := []uint32{pc}, map[uint32]bool{}
	for range maxGuardHops {
		var next []uint32
		for _, at := range near {
			if seen[at] {
				continue
			}
			seen[at] = true
			in := p.Insn(at)
			if in.Op == rule.OpRet {
				if w := p.Why(at); w.Kind == rule.WhyGuard {
					return w.Name
				}
				continue
			}
			if in.Op != rule.OpJmp {
				next = append(next, at+1)
			}
			if in.Op == rule.OpJmp || in.Op.IsTest() {
				next = append(next, at+1+uint32(in.Off))
			}
		}
		near = next
	}
	return ""
}
