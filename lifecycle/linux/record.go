package linux

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A Record is what must be known of a container to remove what is left of it
// when its supervisor has died. It encodes as JSON.
type Record struct {
	ID        string   `json:"id"`
	Pid       int      `json:"pid,omitempty"`        // 0: none is known
	StartTime uint64   `json:"start_time,omitempty"` // of Pid, clock ticks since boot: /proc/PID/stat field 22
	BootID    string   `json:"boot_id"`              // pids and ticks mean nothing after a reboot
	Cgroups   []string `json:"cgroups"`              // directories
}

// Plan returns the record of a container that [Create] is about to make. It
// names the cgroups, by which Reap finds processes whose ids nobody wrote down.
func Plan(cfg Config) (Record, error) {
	if err := cfg.check(); err != nil {
		return Record{}, err
	}
	c := &cgroup{path: cfg.cgroupPath()}
	c.findDirs(cfg.linux().Resources)
	return Record{ID: cfg.ID, BootID: bootID(), Cgroups: c.sortedDirs()}, nil
}

// Record returns what Reap needs.
func (c *Container) Record() Record {
	r := Record{ID: c.id, BootID: bootID(), Cgroups: c.cgroup.sortedDirs(), Pid: c.proc.pid}
	r.StartTime, _ = startTime(c.proc.pid)
	return r
}

// RecordOf is the record of processes that are known by their cgroups alone.
func RecordOf(id string, cgroups []string) Record {
	return Record{ID: id, BootID: bootID(), Cgroups: cgroups}
}

// bootID tells this run of the kernel from all others.
var bootID = sync.OnceValue(func() string {
	b, _ := readFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
})

// Reap removes what a dead supervisor left of a container: its processes, which
// the kernel has normally killed already, and its cgroups. It is idempotent,
// and tries every step. It must not be called while the supervisor lives.
func Reap(ctx context.Context, r Record) error {
	var errs []error
	if r.BootID == bootID() {
		errs = append(errs, killRecorded(ctx, r))
	}
	c := &cgroup{dirs: map[string]string{}}
	for _, d := range r.Cgroups {
		// The record is our own, but a directory to be removed deserves a look.
		if !strings.HasPrefix(filepath.Clean(d), cgroupRoot+"/") {
			errs = append(errs, fmt.Errorf("%s is not a cgroup", d))
			continue
		}
		c.dirs[d] = d
	}
	errs = append(errs, c.killEach(ctx), c.remove())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("reap container %s: %w", r.ID, err)
	}
	return nil
}

// killRecorded kills the recorded process, if it is still the one it was.
func killRecorded(ctx context.Context, r Record) error {
	if r.Pid <= 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(r.Pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// The pidfd is held, so the id cannot change hands between these two lines.
	if st, err := startTime(r.Pid); err != nil || st != r.StartTime {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return waitGone(ctx, fd)
}

// waitGone waits until the process of a pidfd, not our child, has ended.
func waitGone(ctx context.Context, fd int) error {
	deadline := time.Now().Add(5 * time.Second)
	for time.Now().Before(deadline) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
		if n > 0 || err != nil && !errors.Is(err, unix.EINTR) || ctx.Err() != nil {
			break
		}
	}
	return ctx.Err()
}

// killEach kills the processes of every directory: those of a half-made
// container may be in some of the hierarchies only.
func (c *cgroup) killEach(ctx context.Context) error {
	for _, d := range c.dirs {
		one := &cgroup{dirs: map[string]string{"": d}}
		if err := one.kill(); err != nil {
			return err
		}
	}
	return ctx.Err()
}
