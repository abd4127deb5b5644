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
	pumps  sync.WaitGroup
	failed sync.Once
	tty    *tty
}

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
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	o.child, o.pipes = append(o.child, w), append(o.pipes, r)
	if err := unix.SetNonblock(int(w.Fd()), false); err != nil { // os.Pipe set it for us, the container does not expect it
		return nil, err
	}
	o.pumps.Go(func() { o.pump(c, r, stream, to) }) // ends when r does; close waits
	return w, nil
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
	done := make(chan struct{})
	go func() { // ends when the pumps do; outlives close only if the pod was killed
		o.pumps.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-killed:
		select {
		case <-done:
		case <-time.After(outputGrace):
		}
	}
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
