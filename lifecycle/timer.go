package lifecycle

import (
	"sync"
	"time"
)

// timers post events when their time has come, until they are stopped. There is
// one timer for each point.
type timers struct {
	post func(Event)

	mu      sync.Mutex // mu guards the fields below
	list    map[Point]*time.Timer
	stopped bool
}

// after posts e once, d from now.
func (t *timers) after(d time.Duration, e Event) { t.start(d, e, false) }

// every posts e each time d has passed.
func (t *timers) every(d time.Duration, e Event) { t.start(d, e, true) }

func (t *timers) start(d time.Duration, e Event, again bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return
	}
	if t.list == nil {
		t.list = make(map[Point]*time.Timer)
	}
	if old := t.list[e.Point]; old != nil {
		old.Stop()
	}
	var timer *time.Timer
	timer = time.AfterFunc(d, func() {
		e.Time = time.Now()
		t.post(e)
		t.mu.Lock()
		defer t.mu.Unlock()
		if again && !t.stopped {
			timer.Reset(d)
		}
	})
	t.list[e.Point] = timer
}

// stop lets nothing be posted that is not being posted already.
func (t *timers) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	for _, timer := range t.list {
		timer.Stop()
	}
}
