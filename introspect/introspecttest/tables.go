package introspecttest

import "encoding/binary"

// Tables are page tables in RAM, built as a kernel does.
type Tables struct {
	RAM    []byte
	Root   uint64 // what CR3 holds
	Next   uint64 // a free page for a table, and those behind it
	Levels int    // 4, or 5
}

// Put maps va to pa with a page of 2^shift bytes, and flags beside "present".
func (p *Tables) Put(va, pa uint64, shift int, flags uint64) {
	table := p.Root
	for s := 12 + 9*(p.Levels-1); ; s -= 9 {
		at := table + 8*(va>>s&511)
		if s == shift {
			if s > 12 {
				flags |= 1 << 7
			}
			binary.LittleEndian.PutUint64(p.RAM[at:], pa|flags|1)
			return
		}
		entry := binary.LittleEndian.Uint64(p.RAM[at:])
		if entry == 0 {
			entry = p.Next | 0x67
			p.Next += 0x1000
			binary.LittleEndian.PutUint64(p.RAM[at:], entry)
		}
		table = entry & 0x000f_ffff_ffff_f000
	}
}
