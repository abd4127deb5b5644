package ebpf

import (
	"errors"
	"fmt"

	"sekimori/nicshadow/rule"

	"github.com/cilium/ebpf"
)

// A memory is what the programs of a card remember, one after the other: as with
// [rule.Program.NewState], equal limits share a bucket, flows and a lease go on.
type memory struct {
	maps    map[string]*ebpf.Map
	buckets map[rule.Limit]int // places
}

// maxBuckets is how many limits are remembered: those of the program in force,
// of the one that takes its place, and of earlier ones.
const maxBuckets = 4 * rule.MaxLimits

func newMemory() *memory {
	return &memory{maps: map[string]*ebpf.Map{}, buckets: map[rule.Limit]int{}}
}

// bucket is the place of a program's limit. A program that is no card's has its
// own buckets, in order.
func (m *memory) bucket(u *rule.Unit, limit int) int {
	if m == nil {
		return limit
	}
	return m.buckets[u.Limits[limit]]
}

// admit makes what p remembers in, where it is not there, and adds all there is
// to shared.
func (m *memory) admit(p *rule.Program, shared map[string]*ebpf.Map) error {
	n := needsOf(p.Unit())
	for name, def := range map[string]struct {
		need bool
		make func() mapDef
	}{
		sharedBuckets: {n.rates, func() mapDef { return bucketMap(maxBuckets) }},
		sharedFlows:   {n.flows, flowMap},
		sharedSeeds:   {n.flows, seedMap},
		sharedLease:   {n.lease, leaseMap},
	} {
		if !def.need || m.maps[name] != nil {
			continue
		}
		d := def.make()
		made, err := d.make()
		if err != nil {
			return fmt.Errorf("ebpf: map %s: %w", d.name, err)
		}
		m.maps[name] = made
	}
	for name, made := range m.maps {
		shared[name] = made
	}
	if !n.rates {
		return nil // it has limits, perhaps, and asks for none
	}
	return m.place(p.Limits())
}

// place gives each limit a bucket, a new one a full one. Where there are too
// many, one that neither this program nor the one before has is forgotten.
func (m *memory) place(limits []rule.Limit) error {
	taken := map[int]bool{}
	for _, at := range m.buckets {
		taken[at] = true
	}
	at := 0
	for _, l := range limits {
		if _, ok := m.buckets[l]; ok {
			continue
		}
		for taken[at] {
			at++
		}
		var full struct {
			Lock, _ uint32
			Words   [2]uint64
		}
		if err := m.maps[sharedBuckets].Put(uint32(at), full); err != nil {
			return fmt.Errorf("ebpf: bucket: %w", err)
		}
		m.buckets[l], taken[at] = at, true
	}
	return nil
}

// forget makes room for the limits of another program, behind p.
func (m *memory) forget(p *rule.Program) {
	if p == nil {
		return
	}
	keep := map[rule.Limit]bool{}
	for _, l := range p.Limits() {
		keep[l] = true
	}
	for l := range m.buckets {
		if len(m.buckets) <= maxBuckets-rule.MaxLimits {
			return
		}
		if !keep[l] {
			delete(m.buckets, l)
		}
	}
}

func (m *memory) close() error {
	var errs []error
	for _, made := range m.maps {
		errs = append(errs, made.Close())
	}
	return errors.Join(errs...)
}
