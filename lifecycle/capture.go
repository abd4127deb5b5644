package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
)

// A Capturer is a [Network] that can show the frames it judges while it runs.
type Capturer interface {
	// Capture writes frames of a container, of all if the name is empty, to a
	// regular file until end is called; only those that dropped, if drops is
	// set. It closes the file. missed counts the frames that it had to leave
	// out.
	Capture(file *os.File, container string, drops bool) (end func() (missed uint64, err error), err error)
}

// capture serves a capture until the client goes away or the pod ends.
func (s *server) capture(w *wire, req *request) {
	end, err := s.beginCapture(w, req)
	if err != nil {
		s.answer(w, nil, err)
		return
	}
	if err := s.answer(w, nil, nil); err == nil {
		// The client says one thing more, that it has seen enough; or it goes
		// away, or the pod does, which ends the read too.
		_, _ = w.read()
	}
	missed, err := end()
	s.answer(w, &reply{Missed: missed}, err)
}

func (s *server) beginCapture(w *wire, req *request) (func() (uint64, error), error) {
	n, ok := s.pod.cfg.Network.(Capturer)
	if !ok {
		return nil, errors.New("capture: the network of this pod cannot")
	}
	if req.Container != "" {
		if _, err := s.containers(req.Container, false); err != nil {
			return nil, err
		}
	}
	if len(w.files) != 1 {
		return nil, fmt.Errorf("capture: came with %d files, want one", len(w.files))
	}
	// A pipe that nobody reads would hold the supervisor.
	f := w.files[0]
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(errors.New("capture: not a regular file"), err)
	}
	w.files = nil
	end, err := n.Capture(f, req.Container, req.Drops)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return end, nil
}

// Capture has the supervisor write frames to a regular file until ctx is done
// or the pod ends: see [Capturer]. It returns how many frames are missing.
func (c *Client) Capture(ctx context.Context, file *os.File, container string, drops bool) (missed uint64, err error) {
	w, _, stop, err := c.call(context.WithoutCancel(ctx), &request{Verb: ctlCapture, Container: container, Drops: drops}, file)
	if err != nil {
		return 0, err
	}
	defer w.close()
	defer stop()
	var once sync.Once
	enough := context.AfterFunc(ctx, func() { once.Do(func() { _ = w.write(struct{}{}) }) })
	defer enough()
	r, err := w.reply()
	if err != nil {
		return 0, err
	}
	return r.Missed, nil
}
