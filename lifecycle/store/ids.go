package store

import (
	"fmt"
	"hash/crc32"
)

// The host ids that containers are given: of the 32-bit ids, the stretch that
// neither distributions' /etc/subuid (from 100000) nor systemd-nspawn (524288 to
// 1878982656) hands out, ending below systemd's foreign ids (2147352576). Source:
// systemd, docs/UIDS-GIDS.md.
const (
	firstID  = 0x7000_0000 // 1879048192
	IDRange  = 1 << 16     // ids of one container
	idRanges = 4094        // the last ends at 2147352575
)

// allocate gives each container of st a range of its own, and the machine that is
// held for them, unless it has one. Every pod on disk counts, also a dead one: its
// processes may still run under those ids. The caller has the lock of the state
// directory.
func (s *Store) allocate(st *State) error {
	list, err := s.List()
	if err != nil {
		return err
	}
	used := make(map[uint32]bool)
	for _, e := range list {
		if e.State == nil || e.Name == st.Name {
			continue
		}
		for _, c := range e.State.owners() {
			if !c.Gone {
				used[c.IDBase] = true
			}
		}
	}
	first, err := s.firstRange()
	if err != nil {
		return err
	}
	if st.Held != nil {
		used[st.Held.IDBase] = true
	}
	n := uint32(0) // ranges looked at
	for _, c := range st.owners() {
		if c == st.Held && c.IDBase != 0 {
			continue
		}
		for ; ; n++ {
			if n == idRanges {
				return fmt.Errorf("pod %q: all %d ranges of host ids are in use", st.Name, idRanges)
			}
			if base := firstID + (first+n)%idRanges*IDRange; !used[base] {
				c.IDBase = base
				n++
				break
			}
		}
	}
	return nil
}

// owners are those of the pod that have a range.
func (s *State) owners() []*Container {
	var all []*Container
	if s.Held != nil {
		all = append(all, s.Held)
	}
	for i := range s.Containers {
		all = append(all, &s.Containers[i])
	}
	return all
}

// firstRange is where the search for a free range begins: in another place for
// each state directory, for none knows what the others have given. Containers
// that share ids share the host's limits of a user.
func (s *Store) firstRange() (uint32, error) {
	place, err := s.Place()
	return crc32.ChecksumIEEE([]byte(place)) % idRanges, err
}
