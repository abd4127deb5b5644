package rule

import "sekimori/nicshadow/frame"

// Run judges the frame that k was parsed from. It allocates nothing. A key of
// no class drops.
func (p *Program) Run(k *frame.Key) Outcome {
	return p.Trace(k, func(int, bool) {})
}
