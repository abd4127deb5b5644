package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
)

// exec runs a process for a client. It is killed if the client goes away.
func (s *server) exec(w *wire, req *request) {
	if len(w.files) != maxFiles {
		s.answer(w, nil, fmt.Errorf("exec: came with %d files, want %d", len(w.files), maxFiles))
		return
	}
	run := s.pod.execInMachine
	if req.Container != MachineName {
		list, err := s.containers(req.Container, false)
		if err != nil {
			s.answer(w, nil, err)
			return
		}
		run = list[0].Exec
	}
	e := ExecConfig{
		Args: req.Exec.Args, Env: req.Exec.Env, Cwd: req.Exec.Cwd, User: req.Exec.User,
		Stdio: [3]*os.File(w.files), Terminal: req.Exec.Terminal,
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	p, err := run(ctx, e)
	for _, f := range w.files {
		f.Close() // the process has them, or nobody
	}
	w.files = nil
	if err != nil {
		s.answer(w, nil, err)
		return
	}
	if err := s.answer(w, &reply{Pid: p.Pid()}, nil); err != nil {
		cancel()
	}
	var follow sync.WaitGroup
	done := make(chan struct{})
	follow.Go(func() { // ends with the connection
		s.follow(w, p, done)
		cancel()
	})
	st, err := p.Wait()
	close(done)
	s.answer(w, &reply{Exit: &exitReply{Code: st.Code, Signal: int(st.Signal)}}, err)
	w.conn.Close()
	follow.Wait()
}

// follow reads what the client of a running process sends, until it goes away
// or the process has ended. The pod's end is not the client's: then the process
// is gone, or about to be, and its status must still be told.
func (s *server) follow(w *wire, p Process, done <-chan struct{}) {
	for {
		line, err := w.read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			<-done
			return
		}
		if err != nil {
			return
		}
		req, err := decodeRequest(line)
		if err != nil || req.Verb != ctlSignal || len(w.files) > 0 {
			s.pod.log.Warn("control socket: unexpected message", "err", err)
			return
		}
		if err := p.Signal(syscall.Signal(req.Signal)); err != nil {
			s.pod.log.Debug("signal not passed on", "err", err)
		}
	}
}
