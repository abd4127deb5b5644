package linux

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// cgroupRoot is where the hierarchies are. Tests look elsewhere.
var cgroupRoot = "/sys/fs/cgroup"

// A cgroup is the container's control group in every hierarchy of the host: one
// on v2, one for each controller on v1.
type cgroup struct {
	path string            // below each hierarchy's root
	dirs map[string]string // directory by controller; "" on v2
}

// controllers are the v1 controllers that the host has, found once.
var controllers = sync.OnceValue(func() []string {
	var names []string
	for _, n := range []string{"devices", "pids", "memory", "cpu", "cpuacct", "cpuset", "blkio"} {
		if _, err := os.Stat(filepath.Join(cgroupRoot, n, "cgroup.procs")); err == nil {
			names = append(names, n)
		}
	}
	return names
})

// unified says whether the host has cgroup v2 alone.
var unified = sync.OnceValue(func() bool {
	var st unix.Statfs_t
	return unix.Statfs(cgroupRoot, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
})

// hierarchy lists the v1 subsystems that r needs. cpuset and blkio are left out
// unless they are limited: a container in their root group is not limited
// either, and each hierarchy costs 40 us of the start.
func hierarchy(r *specs.LinuxResources) cgroup1.Hierarchy {
	return func() ([]cgroup1.Subsystem, error) {
		var subs []cgroup1.Subsystem
		for _, n := range controllers() {
			switch n {
			case "devices":
				subs = append(subs, cgroup1.NewDevices(cgroupRoot))
			case "pids":
				subs = append(subs, cgroup1.NewPids(cgroupRoot))
			case "memory":
				subs = append(subs, cgroup1.NewMemory(cgroupRoot))
			case "cpu":
				subs = append(subs, cgroup1.NewCpu(cgroupRoot))
			case "cpuacct":
				subs = append(subs, cgroup1.NewCpuacct(cgroupRoot))
			case "cpuset":
				if r != nil && r.CPU != nil && (r.CPU.Cpus != "" || r.CPU.Mems != "") {
					subs = append(subs, cgroup1.NewCpuset(cgroupRoot))
				}
			case "blkio":
				if r != nil && r.BlockIO != nil {
					subs = append(subs, cgroup1.NewBlkio(cgroupRoot))
				}
			}
		}
		return subs, nil
	}
}

// newCgroup makes the control group at path and sets its limits. A group that
// is there already must be empty: it is another container's otherwise.
func newCgroup(path string, r *specs.LinuxResources) (*cgroup, error) {
	c := &cgroup{path: path}
	c.findDirs(r)
	if err := c.refuseMissing(r); err != nil {
		return nil, err
	}
	if err := c.refuseUsed(); err != nil {
		return nil, err
	}
	if err := c.make(r); err != nil {
		return nil, errors.Join(fmt.Errorf("cgroup %s: %w", path, err), c.remove())
	}
	return c, nil
}

// make makes the directories, denies devices and sets limits. Limits are the
// library's job, but for the usual ones on v1; directories there and device rules
// are ours, for it opens devices.allow once for each of 12 rules: 0.35 ms of the
// start, measured.
func (c *cgroup) make(r *specs.LinuxResources) error {
	if unified() {
		limits := r
		if limits == nil {
			limits = &specs.LinuxResources{}
		}
		if _, err := cgroup2.NewManager(cgroupRoot, c.path, cgroup2.ToResources(limits)); err != nil {
			return err
		}
		// ToResources leaves devices out.
		return filterDevices(filepath.Join(cgroupRoot, c.path), withDevices(r).Devices)
	}
	for _, d := range c.dirs {
		if err := mkdirAll(d); err != nil {
			return err
		}
	}
	if d, ok := c.dirs["devices"]; ok {
		if err := allowOnly(d, withDevices(r).Devices); err != nil {
			return err
		}
	}
	if r == nil || (r.Memory == nil && r.CPU == nil && r.Pids == nil && r.BlockIO == nil) {
		return nil
	}
	if done, err := c.setUsual(r); done {
		return err
	}
	limits := *r
	limits.Devices = nil
	_, err := cgroup1.New(cgroup1.StaticPath(c.path), &limits, cgroup1.WithHierarchy(hierarchy(r)))
	return err
}

// setUsual sets the limits of a v1 group if they are those that nearly every
// container has, of its processes and its memory; else done is false. The
// library does it through the runtime's poller, which for two writes wakes
// another thread twice.
func (c *cgroup) setUsual(r *specs.LinuxResources) (done bool, err error) {
	if r.CPU != nil || r.BlockIO != nil {
		return false, nil
	}
	if r.Memory != nil {
		rest := *r.Memory
		if rest.Limit = nil; rest != (specs.LinuxMemory{}) {
			return false, nil
		}
	}
	set := func(controller, file string, n *int64) {
		if d, ok := c.dirs[controller]; ok && n != nil && err == nil {
			err = writeFile(filepath.Join(d, file), strconv.FormatInt(*n, 10))
		}
	}
	if r.Pids != nil && r.Pids.Limit != nil && *r.Pids.Limit > 0 {
		set("pids", "pids.max", r.Pids.Limit)
	}
	if r.Memory != nil {
		set("memory", "memory.limit_in_bytes", r.Memory.Limit)
	}
	return true, err
}

// mkdirAll makes dir, and the directories above it if need be.
func mkdirAll(dir string) error {
	switch err := unix.Mkdir(dir, 0o755); err {
	case nil, unix.EEXIST:
		return nil
	case unix.ENOENT:
		// Another container's end may remove the parent again in between.
		for range 10 {
			if err := mkdirAll(filepath.Dir(dir)); err != nil {
				return err
			}
			if err = unix.Mkdir(dir, 0o755); err == nil || err == unix.EEXIST {
				return nil
			}
		}
		return &os.PathError{Op: "mkdir", Path: dir, Err: err}
	default:
		return &os.PathError{Op: "mkdir", Path: dir, Err: err}
	}
}

// allowOnly writes device rules, in order, to the v1 group at dir.
func allowOnly(dir string, rules []specs.LinuxDeviceCgroup) error {
	files := map[bool]int{}
	for allow, name := range map[bool]string{true: "devices.allow", false: "devices.deny"} {
		fd, err := unix.Open(filepath.Join(dir, name), unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: filepath.Join(dir, name), Err: err}
		}
		defer unix.Close(fd)
		files[allow] = fd
	}
	for _, d := range rules {
		line := deviceRule(d)
		if _, err := unix.Write(files[d.Allow], []byte(line)); err != nil {
			return fmt.Errorf("device rule %q: %w", line, err)
		}
	}
	return nil
}

// deviceRule is `TYPE MAJOR:MINOR ACCESS`, with * for any number.
func deviceRule(d specs.LinuxDeviceCgroup) string {
	if d.Type == "" || d.Type == "a" {
		return "a"
	}
	num := func(n *int64) string {
		if n == nil || *n < 0 {
			return "*"
		}
		return strconv.FormatInt(*n, 10)
	}
	return d.Type + " " + num(d.Major) + ":" + num(d.Minor) + " " + d.Access
}

// findDirs says where the group's directories are.
func (c *cgroup) findDirs(r *specs.LinuxResources) {
	c.dirs = map[string]string{}
	if unified() {
		c.dirs[""] = filepath.Join(cgroupRoot, c.path)
		return
	}
	subs, _ := hierarchy(r)()
	for _, s := range subs {
		c.dirs[string(s.Name())] = filepath.Join(cgroupRoot, string(s.Name()), c.path)
	}
}

// refuseMissing is an error if a limit is asked for that nobody here would hold.
// Version 2 says so itself. The number of processes is not asked for but limited
// by default, and does not keep a container from running; Create warns.
func (c *cgroup) refuseMissing(r *specs.LinuxResources) error {
	if unified() || r == nil {
		return nil
	}
	for _, want := range []struct {
		limit, controller string
		asked             bool
	}{
		{"memory", "memory", r.Memory != nil},
		{"cpu", "cpu", r.CPU != nil},
		{"cpuset", "cpuset", r.CPU != nil && (r.CPU.Cpus != "" || r.CPU.Mems != "")},
		{"block device", "blkio", r.BlockIO != nil},
	} {
		if want.asked && c.missing(want.controller) {
			return fmt.Errorf("%s limit: no %s controller below %s (seki doctor; `ip netns exec` hides it, `nsenter --net` does not)", want.limit, want.controller, cgroupRoot)
		}
	}
	return nil
}

// missing says whether the host's cgroups are v1 and lack the controller.
func (c *cgroup) missing(controller string) bool {
	_, ok := c.dirs[controller]
	return !unified() && !ok
}

// refuseUsed is an error if processes are in the group already.
func (c *cgroup) refuseUsed() error {
	for _, d := range c.dirs {
		if pids, err := readPids(d); err == nil && len(pids) > 0 {
			return fmt.Errorf("cgroup %s is in use by process %d", c.path, pids[0])
		}
	}
	return nil
}

// allowedDevices may be used, besides what the specification allows: the
// default nodes, terminals, and the making of any node (which in a user
// namespace the kernel refuses all the same).
var allowedDevices = []specs.LinuxDeviceCgroup{
	device("c", -1, -1, "m"), device("b", -1, -1, "m"),
	device("c", 1, 3, "rwm"), device("c", 1, 5, "rwm"), device("c", 1, 7, "rwm"), device("c", 1, 8, "rwm"), device("c", 1, 9, "rwm"),
	device("c", 5, 0, "rwm"), device("c", 5, 1, "rwm"), device("c", 5, 2, "rwm"), device("c", 136, -1, "rwm"),
}

func device(typ string, major, minor int64, access string) specs.LinuxDeviceCgroup {
	return specs.LinuxDeviceCgroup{Allow: true, Type: typ, Major: &major, Minor: &minor, Access: access}
}

// withDevices returns r with its device list turned into an allow-list: all is
// denied first (GHSA-g54h-m393-cpwq: an empty list allowed everything).
func withDevices(r *specs.LinuxResources) *specs.LinuxResources {
	out := specs.LinuxResources{}
	if r != nil {
		out = *r
	}
	all := specs.LinuxDeviceCgroup{Allow: false, Type: "a", Access: "rwm"}
	out.Devices = append(append([]specs.LinuxDeviceCgroup{all}, out.Devices...), allowedDevices...)
	return &out
}

// entrances opens what a child needs to enter the group by itself. On v1 these
// are the tasks files, into which it writes "0": a thread that moves itself needs
// no write lock on all thread groups of the machine, which costs an RCU grace
// period (0.13 ms against 6.5 ms for a pid in cgroup.procs, measured). On v2 the
// child is cloned into the directory.
func (c *cgroup) entrances() (fds []int, err error) {
	for _, d := range c.dirs {
		name, flags := filepath.Join(d, "tasks"), unix.O_WRONLY|unix.O_CLOEXEC
		if unified() {
			name, flags = d, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC
		}
		fd, err := unix.Open(name, flags, 0)
		if err != nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// enter appends the child's own moves into a v1 group.
func (s *script) enter(fds []int) {
	if unified() {
		return
	}
	s.step("enter the cgroup")
	for _, fd := range fds {
		s.call(unix.SYS_WRITE, hostFD(fd), []byte("0"), 1)
	}
}

// cloneInto has a clone put its child into a v2 group.
func (a *cloneArgs) cloneInto(fds []int) {
	if unified() && len(fds) == 1 {
		a.flags |= unix.CLONE_INTO_CGROUP
		a.cgroup = uint64(fds[0])
	}
}

// kill kills every process in the group, until none is left or a second is over.
func (c *cgroup) kill() error {
	if c == nil {
		return nil
	}
	for range 100 {
		n := 0
		for _, d := range c.killDirs() {
			if unified() && writeFile(filepath.Join(d, "cgroup.kill"), "1") == nil {
				return nil
			}
			pids, _ := readPids(d)
			for _, pid := range pids {
				n++
				unix.Kill(pid, unix.SIGKILL)
			}
		}
		if n == 0 {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return nil // remove says what is left
}

// killDirs are where to look for processes: one hierarchy has them all.
func (c *cgroup) killDirs() []string {
	for _, n := range []string{"", "pids", "memory", "devices"} {
		if d, ok := c.dirs[n]; ok {
			return []string{d}
		}
	}
	return nil
}

// readPids reads the processes of a group, and of groups below it.
func readPids(dir string) ([]int, error) {
	data, err := readFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, f := range strings.Fields(string(data)) {
		if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	for _, sub := range subgroups(dir) {
		more, _ := readPids(sub)
		pids = append(pids, more...)
	}
	return pids, nil
}

// subgroups are the directories directly below dir.
func subgroups(dir string) []string {
	entries, _ := os.ReadDir(dir)
	var subs []string
	for _, e := range entries {
		if e.IsDir() {
			subs = append(subs, filepath.Join(dir, e.Name()))
		}
	}
	return subs
}

// remove removes the group's directories, with what the container made below
// them. A group whose last process has just ended is busy for a moment more.
func (c *cgroup) remove() error {
	if c == nil {
		return nil
	}
	var errs []error
	for _, d := range c.dirs {
		if err := removeGroup(d); err != nil {
			errs = append(errs, err)
			continue
		}
		// The pod's directory goes with its last container, and ours with the
		// last pod.
		for parent := filepath.Dir(d); strings.Contains(parent+"/", "/seki/"); parent = filepath.Dir(parent) {
			if unix.Rmdir(parent) != nil {
				break
			}
		}
	}
	return errors.Join(errs...)
}

// removeGroup tries for a second and a half.
func removeGroup(dir string) error {
	delay := 100 * time.Microsecond
	for {
		err := unix.Rmdir(dir)
		switch {
		case err == nil || err == unix.ENOENT:
			return nil
		case delay > time.Second:
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
		for _, sub := range subgroups(dir) {
			removeGroup(sub)
		}
		time.Sleep(delay)
		delay *= 2
	}
}

// sortedDirs are the directories in a fixed order, for records.
func (c *cgroup) sortedDirs() []string {
	var ds []string
	for _, d := range c.dirs {
		ds = append(ds, d)
	}
	slices.Sort(ds)
	return ds
}

// CgroupID is the kernel's number of the container's group on cgroup v2, by
// which a process, and a socket, of it is known (Documentation/admin-guide/
// cgroup-v2.rst); 0 on a host without.
func (c *Container) CgroupID() uint64 {
	var st unix.Stat_t
	if d, ok := c.cgroup.dirs[""]; !ok || unix.Stat(d, &st) != nil {
		return 0
	}
	return st.Ino
}
