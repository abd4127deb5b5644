package introspect

import "sync/atomic"

// A Member is a container of the guest, as its agent registered it.
type Member struct {
	// Number is what the container is called elsewhere; not 0.
	Number uint32
	// NetNS is the inode of its network namespace and CgroupID the inode of its
	// cgroup's directory; 0 where it has none of its own. The process group is
	// no sign of anything: setsid() leaves it.
	NetNS, CgroupID uint64
}

// Members says whose namespaces and cgroups are whose. Any number of
// goroutines may ask while one changes it.
type Members struct {
	// now is never changed: Set stores a new one.
	now atomic.Pointer[index]
}

type index struct{ netNS, cgroup map[uint64]uint32 }

// NewMembers returns members: nobody.
func NewMembers() *Members {
	m := &Members{}
	m.Set(nil)
	return m
}

// Set replaces all members. What two of them claim is nobody's. A member is
// taken out before its namespace ends: the kernel gives inode numbers out again.
func (m *Members) Set(all []Member) {
	i := &index{make(map[uint64]uint32), make(map[uint64]uint32)}
	for _, c := range all {
		claim(i.netNS, c.NetNS, c.Number)
		claim(i.cgroup, c.CgroupID, c.Number)
	}
	delete(i.netNS, 0)
	delete(i.cgroup, 0)
	m.now.Store(i)
}

func claim(of map[uint64]uint32, id uint64, number uint32) {
	if other, taken := of[id]; taken && other != number {
		number = 0
	}
	of[id] = number
}

// no allocation, no lock, no log below this line

// OfTask is the member that a task belongs to; 0 for nobody. It is who sends
// only while the CPU is in process context. Namespace and cgroup must not
// contradict each other.
func (m *Members) OfTask(t *Task) uint32 {
	i := m.now.Load()
	n, c := i.netNS[t.NetNS], i.cgroup[t.CgroupID]
	switch {
	case t.Kernel || n != 0 && c != 0 && n != c:
		return 0
	case n != 0:
		return n
	}
	return c
}
