package lifecycle

import "sync"

// A mailbox holds the points that a container has reached and whose hooks have
// not run yet. There is at most one entry for each point, so that hooks slower
// than what calls them neither pile up nor block anybody.
type mailbox struct {
	wake chan struct{} // has room for one; something may be there

	mu    sync.Mutex // mu guards queue
	queue []Event
}

func newMailbox() *mailbox { return &mailbox{wake: make(chan struct{}, 1)} }

// post puts e in. If its point is waiting already, e takes that one's place and
// the counts add up.
func (m *mailbox) post(e Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.queue {
		if m.queue[i].Point == e.Point {
			e.Count += m.queue[i].Count
			m.queue[i] = e
			return
		}
	}
	m.queue = append(m.queue, e)
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// take removes the oldest entry.
func (m *mailbox) take() (Event, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.queue) == 0 {
		return Event{}, false
	}
	e := m.queue[0]
	m.queue = m.queue[1:]
	return e, true
}
