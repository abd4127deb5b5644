//go:build !race

package guestmem

import "sync/atomic"

// The atomic accesses of [Memory]: atomic_race.go says why they stand apart.

func load32(_ *Memory, p *uint32) uint32     { return atomic.LoadUint32(p) }
func load64(_ *Memory, p *uint64) uint64     { return atomic.LoadUint64(p) }
func store32(_ *Memory, p *uint32, v uint32) { atomic.StoreUint32(p, v) }
func store64(_ *Memory, p *uint64, v uint64) { atomic.StoreUint64(p, v) }
