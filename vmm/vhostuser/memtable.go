package vhostuser

import (
	"errors"
	"fmt"
	"slices"

	"sekimori/vmm/guestmem"
)

const (
	// maxRegions is how many regions a table has at most
	// (VHOST_USER_BASELINE_MEM_REGIONS).
	maxRegions = 8
	// maxTables bounds how often a peer can have its memory mapped anew. A guest
	// sends a table whenever a driver is bound; one that does so a thousand times
	// wants something else, such as all the mappings that a process may have.
	maxTables = 1000
)

// A memRegion translates what the peer calls an address of its own, in which
// it names rings, to the guest's. Under User-Mode Linux they are the same.
type memRegion struct {
	user uint64
	size uint64
	base guestmem.GPA
}

// gpa translates n bytes at an address of the peer's.
func (s *session) gpa(user, n uint64) (guestmem.GPA, error) {
	for _, r := range s.regions {
		// Below r.user this wraps, and is more than any size.
		if off := user - r.user; off < r.size && n <= r.size-off {
			return r.base + guestmem.GPA(off), nil
		}
	}
	return 0, fmt.Errorf("[%#x, +%d) is in no region of memory", user, n)
}

// A table is 4 bytes: number of regions, 4 bytes: padding, then for each region
// 8 bytes each: guest address, size, the peer's address, offset in its file.
const (
	tableHead = 8
	regionLen = 32
)

// setMemTable maps the guest's memory.
func (s *session) setMemTable(m *message) error {
	if s.running() {
		return errors.New("sent while a queue runs")
	}
	files, regions, err := s.table(m)
	if err != nil {
		return err
	}
	if s.tables++; s.tables > maxTables {
		return fmt.Errorf("more than %d tables", maxTables)
	}
	mem, err := guestmem.Map(files...)
	if err != nil {
		return err
	}
	if err := s.forget(); err != nil {
		return errors.Join(err, mem.Close())
	}
	s.mem, s.regions = mem, regions
	if s.cfg.Memory != nil {
		s.cfg.Memory(mem)
	}
	return nil
}

// table decodes a payload of SET_MEM_TABLE. Whether the files are what they
// should be, and the regions do not overlap, is guestmem's to check.
func (s *session) table(m *message) (files []guestmem.File, regions []memRegion, err error) {
	if len(m.payload) < tableHead {
		return nil, nil, fmt.Errorf("payload of %d bytes, want %d or more", len(m.payload), tableHead)
	}
	n := m.u32(0)
	switch {
	case n == 0 || n > maxRegions:
		return nil, nil, fmt.Errorf("%d regions, want 1 to %d", n, maxRegions)
	// Linux sends its whole structure, which has room for two regions.
	case uint64(len(m.payload)) < tableHead+regionLen*uint64(n):
		return nil, nil, fmt.Errorf("payload of %d bytes is too short for %d regions", len(m.payload), n)
	case len(m.fds) != int(n):
		return nil, nil, fmt.Errorf("%d descriptors for %d regions", len(m.fds), n)
	}
	room := s.cfg.MaxMemory
	for i := range int(n) {
		at := tableHead + regionLen*i
		size, user := m.u64(at+8), m.u64(at+16)
		switch {
		case size == 0 || size > room:
			return nil, nil, fmt.Errorf("region %d of %d bytes: more than the %d that are left of the machine's memory, or none", i, size, room)
		case size-1 > ^uint64(0)-user: // user+size may wrap
			return nil, nil, fmt.Errorf("region %d: [%#x, +%d) wraps", i, user, size)
		case slices.ContainsFunc(regions, func(r memRegion) bool { return user-r.user < r.size || r.user-user < size }):
			return nil, nil, fmt.Errorf("region %d: [%#x, +%d) overlaps another", i, user, size)
		}
		room -= size
		base := guestmem.GPA(m.u64(at))
		files = append(files, guestmem.File{Base: base, Size: size, FD: m.fds[i], Offset: m.u64(at + 24)})
		regions = append(regions, memRegion{user: user, size: size, base: base})
	}
	return files, regions, nil
}

// forget gives the guest's memory back. No queue runs in it any more.
func (s *session) forget() error {
	if s.mem == nil {
		return nil
	}
	if s.cfg.Memory != nil {
		s.cfg.Memory(nil)
	}
	err := s.mem.Close()
	s.mem, s.regions = nil, nil
	return err
}
