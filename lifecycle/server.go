package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// maxClients is how many connections are served at once.
const maxClients = 64

// replyTimeout is how long a client may take to read an answer.
const replyTimeout = 5 * time.Second

// A server answers on the control socket of a pod.
type server struct {
	pod *Pod
	l   *net.UnixListener
	wg  sync.WaitGroup // of the goroutines: accept, and one for each connection

	mu     sync.Mutex // mu guards conns
	conns  map[*net.UnixConn]bool
	closed bool
}

// listen makes the socket. What connects before the pod has started waits.
func listen(p *Pod) (*server, error) {
	l, err := p.dir.Listen()
	if err != nil {
		return nil, err
	}
	return &server{pod: p, l: l, conns: make(map[*net.UnixConn]bool)}, nil
}

// serve accepts connections until stopListening.
func (s *server) serve() { s.wg.Go(s.accept) }

func (s *server) accept() {
	for {
		conn, err := s.l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors: give others time to close some
			s.pod.log.Warn("control socket", "err", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		if !s.add(conn) {
			conn.Close()
			continue
		}
		s.wg.Go(func() {
			defer s.remove(conn)
			s.handle(conn)
		})
	}
}

func (s *server) add(conn *net.UnixConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.conns) >= maxClients {
		return false
	}
	s.conns[conn] = true
	return true
}

func (s *server) remove(conn *net.UnixConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
}

func (s *server) stopListening() { s.l.Close() }

// close waits for the answers that are under way: of stop, that it is done; of
// exec, the exit status. Who has not asked yet, or does not read, is cut off.
func (s *server) close() {
	s.mu.Lock()
	s.closed = true
	for conn := range s.conns {
		conn.SetReadDeadline(time.Now())
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// handle serves one connection.
func (s *server) handle(conn *net.UnixConn) {
	w := &wire{conn: conn, max: maxMessage}
	defer w.close()
	uid, err := peerUID(conn)
	if err != nil || uid != 0 && int(uid) != os.Geteuid() {
		s.pod.log.Warn("control socket: refused", "uid", uid, "err", err)
		return
	}
	conn.SetReadDeadline(time.Now().Add(firstMessage))
	line, err := w.read()
	if err != nil {
		if errors.Is(err, errTooLong) {
			s.answer(w, nil, err)
		}
		return
	}
	conn.SetReadDeadline(time.Time{})
	req, err := decodeRequest(line)
	if err != nil {
		s.answer(w, nil, err)
		return
	}
	if req.Verb == ctlExec {
		s.exec(w, req)
		return
	}
	r, err := s.do(req)
	s.answer(w, r, err)
}

// answer sends r, or err.
func (s *server) answer(w *wire, r *reply, err error) error {
	if r == nil {
		r = &reply{}
	}
	r.OK = err == nil
	if err != nil {
		r.Error = err.Error()
	}
	w.conn.SetWriteDeadline(time.Now().Add(replyTimeout))
	return w.write(r)
}

// do serves all verbs but exec.
func (s *server) do(req *request) (*reply, error) {
	p := s.pod
	switch req.Verb {
	case ctlStop:
		p.beginStop(time.Duration(req.TimeoutMS) * time.Millisecond)
		<-p.down
		return nil, nil
	case ctlKill:
		p.Kill()
		<-p.down
		return nil, nil
	case ctlPing:
		return nil, nil
	}
	list, err := s.containers(req.Container, req.Verb != ctlSignal)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(p.ctx, replyTimeout)
	defer cancel()
	switch req.Verb {
	case ctlStats:
		r := &reply{}
		for _, c := range list {
			r.Stats = append(r.Stats, c.figures(ctx))
		}
		return r, nil
	case ctlSignal:
		return nil, list[0].Signal(syscall.Signal(req.Signal))
	case ctlMode:
		var errs []error
		for _, c := range list {
			errs = append(errs, c.SetMode(ctx, req.Mode))
		}
		return nil, errors.Join(errs...)
	}
	return nil, fmt.Errorf("verb %q: unknown", req.Verb)
}

// containers returns the named one; or, with no name and if all may be meant,
// all.
func (s *server) containers(name string, all bool) ([]*Container, error) {
	if name == "" && (all || len(s.pod.containers) == 1) {
		return s.pod.containers, nil
	}
	c := s.pod.Container(name)
	if c == nil {
		return nil, fmt.Errorf("pod %q has no container %q, but %q", s.pod.cfg.Name, name, s.pod.Containers())
	}
	return []*Container{c}, nil
}

// figures are the container's part of an answer to stats.
func (c *Container) figures(ctx context.Context) ContainerStats {
	r := ContainerStats{Name: c.name, Status: c.Status(), Pid: c.Pid()}
	var err, nerr error
	r.Stats, err = c.Stats()
	if c.cfg.Spec.NIC != nil {
		r.Network, nerr = c.NetworkStats(ctx)
	}
	if err := errors.Join(err, nerr); err != nil {
		r.Error = err.Error()
	}
	return r
}

// exec runs a process for a client. It is killed if the client goes away.
func (s *server) exec(w *wire, req *request) {
	if len(w.files) != maxFiles {
		s.answer(w, nil, fmt.Errorf("exec: came with %d files, want %d", len(w.files), maxFiles))
		return
	}
	list, err := s.containers(req.Container, false)
	if err != nil {
		s.answer(w, nil, err)
		return
	}
	e := ExecConfig{
		Args: req.Exec.Args, Env: req.Exec.Env, Cwd: req.Exec.Cwd, User: req.Exec.User,
		Stdio: [3]*os.File(w.files), Terminal: req.Exec.Terminal,
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	p, err := list[0].Exec(ctx, e)
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
