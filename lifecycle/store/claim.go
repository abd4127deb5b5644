package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const lockName = "lock"

// A NameError reports that a pod of that name runs.
type NameError struct {
	Name  string
	Pid   int       // its supervisor; 0 if it has not said yet
	Since time.Time // when it was started; zero if Pid is
}

// Error says who has the name and since when.
func (e *NameError) Error() string {
	if e.Pid == 0 {
		return fmt.Sprintf("pod %q: name in use by a pod that is being started", e.Name)
	}
	return fmt.Sprintf("pod %q: name in use by process %d since %s", e.Name, e.Pid, e.Since.Format(time.RFC3339))
}

// A DeadError reports that a pod of that name has lost its supervisor and has
// not been cleaned up.
type DeadError struct{ Name string }

// Error says so.
func (e *DeadError) Error() string {
	return fmt.Sprintf("pod %q: its supervisor died and what it left has not been removed", e.Name)
}

// Claim takes the name of a new pod, gives each of its containers a range of
// host ids that no other pod has, and writes the state. It sets st.Version,
// st.Supervisor, st.Created and the IDBase of each container, and has plan, if
// not nil, fill in what depends on them. The error is a [*NameError] if a
// supervisor has the name and a [*DeadError] if a dead one left something; the
// records of a pod that ended are removed.
//
// On error nothing is left.
func (s *Store) Claim(st *State, plan func(*State) error) (*Pod, error) {
	unlock, err := s.exclusive()
	if err != nil {
		return nil, err
	}
	defer unlock()
	p, err := s.take(st.Name)
	if err != nil {
		return nil, err
	}
	if err := p.vacant(); err != nil {
		return nil, errors.Join(err, p.Release())
	}
	if err := p.begin(s, st, plan); err != nil {
		return nil, errors.Join(err, p.Remove())
	}
	return p, nil
}

// Fill writes the state of a pod that has got its containers after [Store.Claim],
// which gave st.Held its range; plan is as there.
func (s *Store) Fill(p *Pod, st *State, plan func(*State) error) error {
	unlock, err := s.exclusive()
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.allocate(st); err != nil {
		return err
	}
	if err := plan(st); err != nil {
		return err
	}
	return p.Save(st)
}

// Adopt takes a pod whose supervisor died, so that nobody else cleans it up at
// the same time. The state is nil if there is none: then nothing had been made
// yet, or all has been removed. So it is if a power cut tore it: the pod did not
// survive that either. The error is a [*NameError] if the supervisor lives and
// fs.ErrNotExist if there is no such pod.
func (s *Store) Adopt(name string) (*Pod, *State, error) {
	// Without this lock a directory could be adopted that Claim has just made
	// and not locked yet, and the new pod would find its own name in use.
	unlock, err := s.exclusive()
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	dir, err := s.podDir(name)
	if err != nil {
		return nil, nil, err
	}
	p, err := s.lockPod(name, dir)
	if err != nil {
		dir.Close()
		return nil, nil, err
	}
	st, err := readState(dir, name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !beforeBoot(dir, err) {
		p.Release()
		return nil, nil, err
	}
	return p, st, nil
}

// beforeBoot reports whether a state that cannot be read, because of err, was
// written before the machine was last started: then nothing is left of the pod
// but its directory, and whether the state is whole does not matter.
func beforeBoot(dir *os.File, err error) bool {
	var version *VersionError
	if errors.As(err, &version) {
		return false
	}
	var st unix.Stat_t
	var up unix.Sysinfo_t
	if unix.Fstatat(int(dir.Fd()), stateName, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || unix.Sysinfo(&up) != nil {
		return false
	}
	booted := time.Now().Add(-time.Duration(up.Uptime) * time.Second)
	return time.Unix(st.Mtim.Unix()).Before(booted.Add(-time.Second)) // Uptime is rounded
}

// exclusive takes the lock of the whole state directory, for moments only.
func (s *Store) exclusive() (unlock func(), err error) {
	f, err := openat(s.dir, lockName, unix.O_RDWR|unix.O_CREAT, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := lock(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("state directory: lock: %w", err)
	}
	return func() { f.Close() }, nil
}

// lockPod takes the lock of the pod in dir, which becomes the Pod's.
func (s *Store) lockPod(name string, dir *os.File) (*Pod, error) {
	pods, err := openat(s.pods, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0) // outlives s
	if err != nil {
		return nil, err
	}
	p := &Pod{name: name, pods: pods, dir: dir}
	if err := p.acquire(); err != nil {
		pods.Close()
		return nil, err
	}
	return p, nil
}

// take makes the directory of a pod and locks it. Whoever removes a pod removes
// its lock and then its directory, so either may vanish on the way; then try
// again.
func (s *Store) take(name string) (*Pod, error) {
	if !ValidName(name) {
		return nil, fmt.Errorf("pod name %q: want %s", name, NameRule)
	}
	const tries = 100
	var err error
	for range tries {
		var dir *os.File
		if dir, err = subdir(s.pods, name); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			return nil, fmt.Errorf("state directory: %w", err)
		}
		var p *Pod
		if p, err = s.lockPod(name, dir); err == nil {
			return p, nil
		}
		var used *NameError
		if !errors.Is(err, fs.ErrNotExist) {
			if !errors.As(err, &used) {
				unlinkat(s.pods, name, unix.AT_REMOVEDIR) // if it is empty
				err = fmt.Errorf("state directory: %w", err)
			}
			dir.Close()
			return nil, err
		}
		dir.Close()
	}
	return nil, fmt.Errorf("state directory: %w", err)
}

// vacant reports why a new pod may not move in: what a dead one left must be
// removed by somebody who knows how, not just forgotten.
func (p *Pod) vacant() error {
	old, err := readState(p.dir, p.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !old.Ended():
		return &DeadError{p.name}
	}
	return nil
}

// begin replaces the records of an earlier pod by the state of the new one.
func (p *Pod) begin(s *Store, st *State, plan func(*State) error) error {
	if err := removeAll(p.dir, 0, lockName); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if err := s.allocate(st); err != nil {
		return err
	}
	st.Supervisor, st.Created = os.Getpid(), time.Now()
	if plan != nil {
		if err := plan(st); err != nil {
			return err
		}
	}
	return p.Save(st)
}
