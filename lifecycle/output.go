package lifecycle

import (
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"sekimori/lifecycle/store"
)

// maxLog is how long a container's log may grow; the generation before is kept,
// so a log takes twice that.
const maxLog = 10 << 20

// An output is where a container's standard streams lead.
//
// Reading waits for the caller's terminal, file or pipe to take what was read:
// a container that writes faster than its reader reads is slowed down, as it
// would be without us. A log that cannot be written (the disk is full) slows
// nothing: lines are then lost to the log.
type output struct {
	log    *store.Rotated
	child  []*os.File // the container's ends, closed once it has them
	pipes  []*os.File // our ends
	pumps  int        // goroutines that read
	ended  chan struct{}
	failed sync.Once
	tty    *tty
}

// maxPumps is how many streams are read at most: standard output and error.
const maxPumps = 2

func newOutput() *output { return &output{ended: make(chan struct{}, maxPumps)} }

// open returns the files that become the container's standard streams.
func (o *output) open(c *Container) ([3]*os.File, error) {
	var stdio [3]*os.File
	p := c.pod
	alone := len(p.cfg.Containers) == 1 && !p.cfg.Detached
	log, err := p.dir.Log(c.name, maxLog)
	if err != nil {
		return stdio, err
	}
	o.log = log
	if proc := c.cfg.Spec.OCI.Process; proc != nil && proc.Terminal {
		return o.openTTY(c, alone)
	}
	if alone {
		stdio[0] = p.cfg.Stdio.In
	}
	for i, std := range []*os.File{p.cfg.Stdio.Out, p.cfg.Stdio.Err} {
		if alone && std != nil && term.IsTerminal(int(std.Fd())) {
			stdio[i+1] = std
			continue
		}
		w, err := o.pipe(c, []string{"stdout", "stderr"}[i], p.sink(std, c.name, alone))
		if err != nil {
			return stdio, err
		}
		stdio[i+1] = w
	}
	return stdio, nil
}

// pipe returns the end for the container of a pipe that leads to the log and to
// the sink, which may be nil.
func (o *output) pipe(c *Container, stream string, to sink) (*os.File, error) {
	// Not os.Pipe: our end alone is to be waited for by the runtime's poller,
	// and the container does not expect a descriptor that does not block.
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	err := unix.SetNonblock(fds[0], true)
	r, w := os.NewFile(uintptr(fds[0]), stream), os.NewFile(uintptr(fds[1]), stream)
	o.child, o.pipes = append(o.child, w), append(o.pipes, r)
	if err != nil {
		return nil, err
	}
	o.read(c, r, stream, to)
	return w, nil
}

// read starts a goroutine that reads r until it ends; close waits for it.
func (o *output) read(c *Container, r io.ReadCloser, stream string, to sink) {
	o.pumps++
	go func() {
		o.pump(c, r, stream, to)
		o.ended <- struct{}{} // there is room for all
	}()
}

// started lets go of what is the container's now.
func (o *output) started() {
	for _, f := range o.child {
		f.Close()
	}
	o.child = nil
}

// close ends the streams. The processes are gone by now, so that what remains
// in the pipes is all there will ever be. A reader of ours that takes its time
// is waited for, until the pod is killed.
func (o *output) close(killed <-chan struct{}) {
	o.started()
	for _, r := range o.pipes {
		r.SetReadDeadline(time.Now().Add(outputGrace))
	}
	o.wait(killed)
	for _, r := range o.pipes {
		r.Close()
	}
	if o.tty != nil {
		o.tty.close()
	}
	if o.log != nil {
		o.log.Close()
	}
}

// wait waits for all that read, and only for so long once the pod was killed.
func (o *output) wait(killed <-chan struct{}) {
	var late <-chan time.Time
	for o.pumps > 0 {
		select {
		case <-o.ended:
			o.pumps--
		case <-killed:
			killed, late = nil, time.After(outputGrace)
		case <-late:
			return
		}
	}
}

func (o *output) pump(c *Container, r io.ReadCloser, stream string, to sink) {
	lines := &lineLog{stream: stream}
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 && to != nil {
			if _, err := to.Write(buf[:n]); err != nil {
				// The reader has gone away: so does ours, and the container
				// gets the SIGPIPE it would have got.
				r.Close()
			}
		}
		o.write(c, lines.add(buf[:n]))
		if err != nil {
			break
		}
	}
	o.write(c, lines.end())
	if to != nil {
		to.flush()
	}
}

func (o *output) write(c *Container, b []byte) {
	if len(b) == 0 {
		return
	}
	if _, err := o.log.Write(b); err != nil {
		o.failed.Do(func() { c.pod.log.Warn("output is missing in the log", "container", c.name, "err", err) })
	}
}
