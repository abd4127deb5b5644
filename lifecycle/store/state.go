package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle/asjson"
)

// Version is the version of [State] that this package writes and reads.
const Version = 1

// A State is what state.json says of a pod.
type State struct {
	Version    int             `json:"version"`
	Name       string          `json:"name"`
	Source     string          `json:"source,omitempty"`  // the file the pod comes from
	Machine    string          `json:"machine,omitempty"` // kind of kernel it runs on; empty is the host's
	Supervisor int             `json:"supervisor"`        // its pid
	Created    time.Time       `json:"created"`
	Finished   time.Time       `json:"finished,omitzero"` // when all its containers had ended
	Keep       bool            `json:"keep,omitempty"`    // the records stay when it has ended
	ExitStatus *int            `json:"exit_status,omitempty"`
	Network    json.RawMessage `json:"network,omitempty"` // what the data path must remove if the supervisor dies
	// Held is a machine that was started before its containers, and ends with them;
	// nil if there is none.
	Held       *Container  `json:"held,omitempty"`
	Containers []Container `json:"containers"`
}

// A Container is what state.json says of a container.
type Container struct {
	Name       string          `json:"name"`
	Status     string          `json:"status"`
	Pid        int             `json:"pid,omitempty"`
	IDBase     uint32          `json:"id_base"` // host id of its user and group 0
	Created    time.Time       `json:"created,omitzero"`
	Started    time.Time       `json:"started,omitzero"`
	Finished   time.Time       `json:"finished,omitzero"`
	ExitStatus *int            `json:"exit_status,omitempty"` // 128+n if signal n killed it
	Gone       bool            `json:"gone,omitempty"`        // nothing is left to remove
	Record     json.RawMessage `json:"record,omitempty"`      // what the runtime must know to remove it
}

// encode is the state as JSON: what json.Marshal would return.
func (s *State) encode() ([]byte, error) {
	o := asjson.Begin(1024)
	o.Int("version", int64(s.Version))
	o.String("name", s.Name)
	o.StringOpt("source", s.Source)
	o.StringOpt("machine", s.Machine)
	o.Int("supervisor", int64(s.Supervisor))
	o.Time("created", s.Created)
	o.TimeOpt("finished", s.Finished)
	o.TrueOpt("keep", s.Keep)
	o.IntPtrOpt("exit_status", s.ExitStatus)
	o.RawOpt("network", s.Network)
	if s.Held != nil {
		held, err := s.Held.encode()
		if err != nil {
			return nil, err
		}
		o.RawOpt("held", held)
	}
	if s.Containers == nil {
		o.Raw("containers", nil)
	} else {
		o.Array("containers", len(s.Containers), func(i int) ([]byte, error) { return s.Containers[i].encode() })
	}
	return o.End()
}

func (c *Container) encode() ([]byte, error) {
	o := asjson.Begin(512)
	o.String("name", c.Name)
	o.String("status", c.Status)
	o.IntOpt("pid", int64(c.Pid))
	o.Uint("id_base", uint64(c.IDBase))
	o.TimeOpt("created", c.Created)
	o.TimeOpt("started", c.Started)
	o.TimeOpt("finished", c.Finished)
	o.IntPtrOpt("exit_status", c.ExitStatus)
	o.TrueOpt("gone", c.Gone)
	o.RawOpt("record", c.Record)
	return o.End()
}

// Ended reports whether nothing of the pod is left but its records.
func (s *State) Ended() bool {
	for _, c := range s.Containers {
		if !c.Gone {
			return false
		}
	}
	return !s.Finished.IsZero()
}

// A VersionError reports a state.json written by another version of seki.
type VersionError struct {
	Pod  string
	Have int
}

// Error names both versions.
func (e *VersionError) Error() string {
	return fmt.Sprintf("pod %q: state is of version %d, want %d: it belongs to another seki", e.Pod, e.Have, Version)
}

// maxState bounds what is read of a state.json.
const maxState = 8 << 20

const stateName = "state.json"

func readState(dir *os.File, pod string) (*State, error) {
	f, err := openat(dir, stateName, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxState+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxState {
		return nil, fmt.Errorf("pod %q: state is larger than %d bytes", pod, maxState)
	}
	return DecodeState(b, pod)
}

// DecodeState reads a state.json of the named pod.
func DecodeState(b []byte, pod string) (*State, error) {
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("pod %q: state: %w", pod, err)
	}
	if v.Version != Version {
		return nil, &VersionError{Pod: pod, Have: v.Version}
	}
	var s State
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&s); err != nil {
		return nil, fmt.Errorf("pod %q: state: %w", pod, err)
	}
	if s.Name != pod {
		return nil, fmt.Errorf("pod %q: state is of pod %q", pod, s.Name)
	}
	return &s, nil
}

// writeState replaces state.json: readers see the old one or the new one, and
// so does whoever comes after a supervisor that was killed.
//
// It does not wait for the disk. A state only matters as long as the kernel that
// runs the pod does, and the page cache lives as long; on a disk the two fsyncs
// took 2.5 ms a time, as much as creating a container. A state torn by a power
// cut is dealt with by [Store.Adopt].
func writeState(dir *os.File, s *State) error {
	s.Version = Version
	b, err := s.encode()
	if err != nil {
		return err
	}
	const tmp = stateName + ".new"
	if err := writeFile(dir, tmp, append(b, '\n')); err != nil {
		unlinkat(dir, tmp, 0)
		return err
	}
	d := int(dir.Fd())
	// Exchanged, not renamed over: ext4 begins to write out a file that replaces
	// another, and its removal, moments later in a short run, waits for that.
	err = unix.Renameat2(d, tmp, d, stateName, unix.RENAME_EXCHANGE)
	if err == nil {
		return unlinkat(dir, tmp, 0)
	}
	// There was none yet, or the file system knows no exchange.
	if err := unix.Renameat(d, tmp, d, stateName); err != nil {
		unlinkat(dir, tmp, 0)
		return fmt.Errorf("replace %s/%s: %w", dir.Name(), stateName, err)
	}
	return nil
}

func writeFile(dir *os.File, name string, b []byte) error {
	f, err := openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(b); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
