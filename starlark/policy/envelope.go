package policy

import "sekimori/nicshadow/rule"

// Envelope makes the program that a guest's card is sealed in before the guest
// boots: what the guest itself puts in force, whoever owns its kernel, can only
// narrow it. It lets through what the policy's guards do, and all ARP and IP if
// mode is "audit": a file that asks to watch a liar, and not to stop it, must be
// able to. A guard that the policy switches off is not in the envelope either.
func (p *Policy) Envelope(id Identity, mode string) (*rule.Program, error) {
	e := &Policy{sources: p.sources, mode: "enforce", off: p.off, pos: p.pos, callPos: p.callPos}
	if mode == "audit" {
		e.off = allGuards
	}
	out := &e.ways[egress]
	for _, q := range []pred{allowARP, allowIPv4, allowIPv6} {
		out.preds[q] = predicate{constant: true}
		out.present |= 1 << q
	}
	return e.Compile(id)
}
