package linux

import (
	"bytes"
	"context"
	"io"
	"os"
	"sync"
	"time"
)

// A Result is what a command in a container left.
type Result struct {
	Status         int // exit code, 128+n for signal n
	Stdout, Stderr string
}

// maxOutput is how much of each output of a command [Output] keeps.
const maxOutput = 1 << 20

// OutputGrace is how long output is still read once the command has exited: a
// process it left behind may hold the pipe open for ever.
const OutputGrace = time.Second

// A Waiter is a process that can be waited for.
type Waiter interface{ Wait() (ExitStatus, error) }

// Output has start run a command with these standard streams, and waits. At
// most 1 MiB of each output is kept.
func Output(ctx context.Context, start func(stdio [3]*os.File) (Waiter, error)) (Result, error) {
	var stdout, stderr capture
	var stdio [3]*os.File
	for i, o := range []*capture{&stdout, &stderr} {
		w, err := o.open()
		if err != nil {
			stdout.close()
			return Result{}, err
		}
		defer w.Close()
		stdio[i+1] = w
	}
	p, err := start(stdio)
	stdio[1].Close() // or the reader would not see the end
	stdio[2].Close()
	if err != nil {
		stdout.close()
		stderr.close()
		return Result{}, err
	}
	st, err := p.Wait()
	res := Result{Status: st.Status(), Stdout: stdout.close(), Stderr: stderr.close()}
	if err == nil {
		err = ctx.Err()
	}
	return res, err
}

// A capture keeps the beginning of what is written to a pipe.
type capture struct {
	r    *os.File
	buf  bytes.Buffer
	done sync.WaitGroup
}

// open returns the end to write to, and starts the goroutine that reads; close
// ends it.
func (k *capture) open() (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	k.r = r
	k.done.Go(func() {
		io.Copy(&k.buf, io.LimitReader(r, maxOutput))
		io.Copy(io.Discard, r)
	})
	return w, nil
}

func (k *capture) close() string {
	if k.r == nil {
		return ""
	}
	k.r.SetReadDeadline(time.Now().Add(OutputGrace))
	k.done.Wait()
	k.r.Close()
	return k.buf.String()
}
