package lifecycle

import (
	"errors"
	"net"
	"os"
	"sync"
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

func (s *server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
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
	defer func() {
		if w.conn != nil { // or an order has taken it over
			w.close()
		}
	}()
	uid, err := peerUID(conn)
	if err != nil || uid != 0 && int(uid) != os.Geteuid() {
		s.pod.log.Warn("control socket: refused", "uid", uid, "err", err)
		return
	}
	conn.SetReadDeadline(time.Now().Add(firstMessage))
	if s.isClosed() { // close has set its deadline already, and this one would stand in its place
		return
	}
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
	if r := s.pod.reserved; r != nil && r.first(s, w, req) {
		return
	}
	if req.Verb == ctlExec {
		s.exec(w, req)
		return
	}
	if req.Verb == ctlCapture {
		s.capture(w, req)
		return
	}
	if req.Verb == ctlTry {
		s.try(w, req)
		return
	}
	r, err := s.do(w, req)
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
