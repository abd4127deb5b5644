package nicshadow

import "errors"

// ErrCapturing says that a live capture is under way already.
var ErrCapturing = errors.New("a capture is under way already")

// A LiveConfig says what a live capture takes.
type LiveConfig struct {
	// Capture takes the frames. It is the caller's to close, once the live
	// capture has ended.
	Capture *Capture
	// Container is whose frames; empty for all.
	Container string
	// Drops says to leave out what went on without a word.
	Drops bool
}

// Live begins a live capture: frames that the switch judges from now on are
// offered to it. There is one at a time.
func (sw *Switch) Live(cfg LiveConfig) (end func(), err error) {
	if !sw.live.CompareAndSwap(nil, &cfg) {
		return nil, ErrCapturing
	}
	end = func() {
		if sw.live.CompareAndSwap(&cfg, nil) {
			if err := sw.watchPaths(); err != nil {
				sw.cfg.Log.Error("capture goes on in the kernel", "err", err)
			}
		}
	}
	if err := sw.watchPaths(); err != nil {
		end()
		return nil, err
	}
	return end, nil
}

// watch offers a judged frame to the live capture, if there is one. The load is
// all that a frame pays where there is none.
func (st *station) watch(b []byte, j *Judgement) {
	if l := st.port.sw.live.Load(); l != nil {
		l.take(st, b, j)
	}
}

func (l *LiveConfig) take(st *station, b []byte, j *Judgement) {
	if l.Drops && j.Reason == Allowed || l.Container != "" && l.Container != st.name {
		return
	}
	// One source for each station and capture: it is for one goroutine.
	if st.live == nil || st.live.capture != l.Capture {
		st.live = l.Capture.Source(st.name)
	}
	st.live.Offer(b, j)
}
