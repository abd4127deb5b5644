package linux

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Stats are a container's figures at one moment.
type Stats struct {
	MemoryBytes uint64 // charged to its cgroup
	MemoryPeak  uint64 // the most that ever was
	MemoryLimit uint64 // 0 for none
	CPUNanos    uint64 // processor time used
	Pids        uint64 // processes and threads
	OOMKills    uint64 // processes the kernel killed for want of memory
}

// Stats reads the container's figures. They are six small files; the library's
// Stat reads thirty, into protocol buffers, in a goroutine each.
func (c *Container) Stats() (Stats, error) {
	s, err := c.cgroup.stats()
	if err != nil {
		return Stats{}, fmt.Errorf("stats of container %s: %w", c.id, err)
	}
	return s, nil
}

func (c *cgroup) stats() (s Stats, err error) {
	var r reader
	if unified() {
		s = c.statsV2(&r)
	} else {
		s = c.statsV1(&r)
	}
	s.OOMKills = c.oomKills(&r)
	return s, r.err
}

func (c *cgroup) statsV1(r *reader) (s Stats) {
	if d, ok := c.dirs["memory"]; ok {
		s.MemoryBytes = r.number(d, "memory.usage_in_bytes")
		s.MemoryPeak = r.number(d, "memory.max_usage_in_bytes")
		if s.MemoryLimit = r.number(d, "memory.limit_in_bytes"); s.MemoryLimit >= math.MaxInt64&^0xffff {
			s.MemoryLimit = 0 // the kernel's way of saying none
		}
	}
	if d, ok := c.dirs["cpuacct"]; ok {
		s.CPUNanos = r.number(d, "cpuacct.usage")
	}
	if d, ok := c.dirs["pids"]; ok {
		s.Pids = r.number(d, "pids.current")
	}
	return s
}

func (c *cgroup) statsV2(r *reader) (s Stats) {
	d := c.dirs[""]
	s.MemoryBytes = r.number(d, "memory.current")
	s.MemoryPeak = r.number(d, "memory.peak")
	s.MemoryLimit = r.number(d, "memory.max")
	s.CPUNanos = r.field(d, "cpu.stat", "usage_usec") * 1000
	if s.Pids = r.number(d, "pids.current"); s.Pids == 0 {
		// The controller is there where a limit was asked for.
		s.Pids = uint64(len(strings.Fields(r.read(d, "cgroup.threads"))))
	}
	return s
}

func (c *cgroup) oomKills(r *reader) uint64 {
	if unified() {
		return r.field(c.dirs[""], "memory.events", "oom_kill")
	}
	if d, ok := c.dirs["memory"]; ok {
		return r.field(d, "memory.oom_control", "oom_kill")
	}
	return 0
}

// reader reads small files and keeps the first error. A file that is missing is
// of a controller that is not there: zero.
type reader struct{ err error }

func (r *reader) read(dir, name string) string {
	b, err := readFile(filepath.Join(dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) && r.err == nil {
		r.err = err
	}
	return strings.TrimSpace(string(b))
}

// number reads one number; "max" is 0.
func (r *reader) number(dir, name string) uint64 {
	n, _ := strconv.ParseUint(r.read(dir, name), 10, 64)
	return n
}

// field reads the number after key in a file of `key number` lines.
func (r *reader) field(dir, name, key string) uint64 {
	for line := range strings.Lines(r.read(dir, name)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok && k == key {
			n, _ := strconv.ParseUint(v, 10, 64)
			return n
		}
	}
	return 0
}

// OOMKills is how many of the container's processes the kernel has killed for
// want of memory.
func (c *Container) OOMKills() (uint64, error) {
	var r reader
	n := c.cgroup.oomKills(&r)
	if r.err != nil {
		return 0, fmt.Errorf("out-of-memory kills of container %s: %w", c.id, r.err)
	}
	return n, nil
}

// OOMEvents returns a channel that receives after the container has run out of
// memory, and is closed when ctx is done or the container is destroyed. Several
// events may be one receive. On cgroup v1 the kernel speaks up before it kills,
// so [Container.OOMKills] may count the victim a moment later only.
func (c *Container) OOMEvents(ctx context.Context) (<-chan struct{}, error) {
	f, err := c.cgroup.oomEvents()
	if err != nil {
		return nil, fmt.Errorf("oom events of container %s: %w", c.id, err)
	}
	events := make(chan struct{}, 1)
	stop := context.AfterFunc(ctx, func() { f.Close() })
	go func() { // ends when f is closed, or the cgroup is removed
		defer close(events)
		defer stop()
		defer f.Close()
		buf := make([]byte, 4096)
		for over := c.cgroup.over(); !over; {
			n, err := f.Read(buf)
			if err != nil {
				return
			}
			over = c.cgroup.over()
			// An eventfd also speaks up when the group goes.
			if f.memory >= 0 && watched(buf[:n], f.memory) || f.memory < 0 && !over {
				select {
				case events <- struct{}{}:
				default:
				}
			}
		}
	}()
	return events, nil
}

// over says that the group is gone, or, on v2, has no process any more.
func (c *cgroup) over() bool {
	if _, err := os.Stat(c.killDirs()[0]); err != nil {
		return true
	}
	var r reader
	return unified() && r.field(c.dirs[""], "cgroup.events", "populated") == 0
}

// An oomFile is readable after a group ran out of memory: an eventfd on v1, an
// inotify descriptor on v2.
type oomFile struct {
	*os.File
	memory int32 // the watch of memory.events; -1 on v1
}

// watched says whether one of the inotify events in b is of the watch wd.
func watched(b []byte, wd int32) bool {
	for len(b) >= unix.SizeofInotifyEvent {
		// struct inotify_event: wd, mask, cookie, len; a name of len bytes.
		if int32(binary.NativeEndian.Uint32(b)) == wd {
			return true
		}
		b = b[min(len(b), unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(b[12:]))):]
	}
	return false
}

// oomEvents opens a file that is readable after the group ran out of memory: an
// eventfd on v1 (Documentation/admin-guide/cgroup-v1/memory.rst, 10), inotify
// watches on v2: of memory.events, and of cgroup.events, whose "populated" tells
// of the end (removing a group tells nobody).
func (c *cgroup) oomEvents() (oomFile, error) {
	if unified() {
		return c.watchEvents()
	}
	dir, ok := c.dirs["memory"]
	if !ok {
		return oomFile{}, errors.New("this host has no memory controller")
	}
	oom, err := unix.Open(filepath.Join(dir, "memory.oom_control"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return oomFile{}, err
	}
	defer unix.Close(oom)
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return oomFile{}, err
	}
	if err := writeFile(filepath.Join(dir, "cgroup.event_control"), fmt.Sprintf("%d %d", fd, oom)); err != nil {
		unix.Close(fd)
		return oomFile{}, err
	}
	return oomFile{os.NewFile(uintptr(fd), "oom eventfd"), -1}, nil
}

func (c *cgroup) watchEvents() (oomFile, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return oomFile{}, err
	}
	var watches [2]int
	for i, name := range []string{"memory.events", "cgroup.events"} {
		if watches[i], err = unix.InotifyAddWatch(fd, filepath.Join(c.dirs[""], name), unix.IN_MODIFY); err != nil {
			unix.Close(fd)
			return oomFile{}, err
		}
	}
	return oomFile{os.NewFile(uintptr(fd), "memory.events"), int32(watches[0])}, nil
}
