package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// A Trier is a [Network] that can have a program judge beside the one in force.
type Trier interface {
	// Try has program judge the container's frames, too, and decide nothing,
	// until end is called; tell takes the frames that the two judge otherwise,
	// as JSON, one after the other. over is closed when there is nothing to
	// compare any more, because another program was put in force. counts are
	// JSON as well.
	Try(container string, program []byte, tell func(json.RawMessage)) (over <-chan struct{}, end func() (counts json.RawMessage), err error)
}

// A Trial is what came of a program that judged beside the one in force.
type Trial struct {
	Container string          `json:"container"`
	Counts    json.RawMessage `json:"counts"`
	// Over says that it ended early: another program was put in force.
	Over bool `json:"over,omitempty"`
}

// A Seen is a frame that two programs judge otherwise.
type Seen struct {
	Container  string          `json:"container"`
	Difference json.RawMessage `json:"difference"`
}

// A trying is one that is under way.
type trying struct {
	container string
	over      <-chan struct{}
	end       func() json.RawMessage
}

// try serves trials until the client has seen enough or goes away, a program is
// put in force for one of the containers, or the pod ends.
func (s *server) try(w *wire, req *request) {
	var mu sync.Mutex // mu orders what is told, and guards deaf
	var deaf error
	tell := func(container string) func(json.RawMessage) {
		return func(d json.RawMessage) {
			mu.Lock()
			defer mu.Unlock()
			if deaf == nil { // a client that does not read is waited for once
				deaf = s.answer(w, &reply{Seen: &Seen{container, d}}, nil)
			}
		}
	}
	mu.Lock()
	all, err := s.beginTrials(w, req, tell)
	if err == nil {
		deaf = s.answer(w, nil, nil)
	}
	mu.Unlock()
	if err == nil {
		s.untilEnough(w, all)
	}
	r := &reply{Trials: []Trial{}}
	for _, t := range all {
		over := isClosed(t.over)
		r.Trials = append(r.Trials, Trial{t.container, t.end(), over})
	}
	mu.Lock()
	defer mu.Unlock()
	s.answer(w, r, err)
}

// untilEnough waits for the client's word, its end, or that of a trial.
func (s *server) untilEnough(w *wire, all []trying) {
	done := make(chan struct{})
	defer close(done)
	for _, t := range all {
		go func() {
			select {
			case <-t.over:
				w.conn.SetReadDeadline(time.Now())
			case <-done:
			}
		}()
	}
	_, _ = w.read()
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (s *server) beginTrials(w *wire, req *request, tell func(string) func(json.RawMessage)) (all []trying, err error) {
	n, ok := s.pod.cfg.Network.(Trier)
	if !ok {
		return nil, errors.New("try: the network of this pod cannot")
	}
	containers, programs, err := s.programs(w, req.Reload)
	if err != nil {
		return nil, err
	}
	for i, c := range containers {
		over, end, err := n.Try(c.name, programs[i], tell(c.name))
		if err != nil {
			return all, fmt.Errorf("container %q: %w", c.name, err)
		}
		all = append(all, trying{c.name, over, end})
	}
	return all, nil
}

// Try has policies judge beside those in force, until ctx is done, one of them is
// replaced, or the pod ends. saw takes the frames that are judged otherwise.
func (c *Client) Try(ctx context.Context, ps []Policy, saw func(Seen)) ([]Trial, error) {
	f, list, err := programFile(ps)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	w, _, stop, err := c.call(context.WithoutCancel(ctx), &request{Verb: ctlTry, Reload: list}, f)
	if err != nil {
		return nil, err
	}
	defer w.close()
	defer stop()
	enough := context.AfterFunc(ctx, func() { _ = w.write(struct{}{}) })
	defer enough()
	for {
		r, err := w.reply()
		switch {
		case err != nil:
			return nil, err
		case r.Seen == nil:
			return r.Trials, nil
		}
		saw(*r.Seen)
	}
}

// programFile is a file with the programs of policies, one behind the other, and
// how long they are. It has no name any more.
func programFile(ps []Policy) (*os.File, []policyRequest, error) {
	f, err := os.CreateTemp("", "seki-reload-*")
	if err != nil {
		return nil, nil, err
	}
	var list []policyRequest
	err = os.Remove(f.Name())
	for _, p := range ps {
		if err == nil {
			_, err = f.Write(p.Program)
		}
		list = append(list, policyRequest{p.Container, p.Mode, int64(len(p.Program))})
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, list, nil
}

// programs reads the programs of a request, and finds whose they are.
func (s *server) programs(w *wire, rs []policyRequest) (containers []*Container, programs [][]byte, err error) {
	if len(w.files) != 1 {
		return nil, nil, fmt.Errorf("%d files, want one with the programs", len(w.files))
	}
	for _, r := range rs {
		c := s.pod.Container(r.Container)
		if c == nil {
			return nil, nil, fmt.Errorf("pod %q has no container %q, but %q", s.pod.cfg.Name, r.Container, s.pod.Containers())
		}
		b := make([]byte, r.Size)
		if _, err := io.ReadFull(w.files[0], b); err != nil {
			return nil, nil, fmt.Errorf("program of %q: %w", r.Container, err)
		}
		containers, programs = append(containers, c), append(programs, b)
	}
	return containers, programs, nil
}
