package starlark

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// watch ends the evaluation when ctx ends or the heap has grown too far. The
// watch samples: what grows by many small bites is caught between two samples,
// and budget.go bounds the size of one bite.
func (s *Session) watch(ctx context.Context) (stop func()) {
	cancel := func(why string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stopped = why
		for th := range s.running {
			th.Cancel(why)
		}
	}
	unhook := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx).Error()) })
	m := &memoryWatch{limit: s.opts.MaxMemory, over: cancel}
	m.mu.Lock()
	m.timer = time.AfterFunc(2*watchEvery, m.look)
	m.mu.Unlock()
	return func() {
		unhook()
		m.stop()
	}
}

// watchEvery is how long the heap may grow unseen. The first look is later, when
// most files have been evaluated: it touches 28 pages of the runtime's.
const watchEvery = 5 * time.Millisecond

// A memoryWatch looks at the heap at intervals. It has a timer, not a goroutine,
// which would wake a thread at each start of a container.
type memoryWatch struct {
	limit uint64
	over  func(why string)

	// mu guards the fields below, and is held while there is a look: none is
	// under way when stop has returned.
	mu    sync.Mutex
	timer *time.Timer
	most  uint64 // what the heap may have; 0 before the first look
	done  bool
}

func (m *memoryWatch) look() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done {
		return
	}
	if m.most == 0 {
		m.most = heapBytes() + m.limit
	} else if heapBytes() > m.most {
		runtime.GC() // what nobody holds does not count
		if heapBytes() > m.most {
			m.over(fmt.Sprintf("more than %d MiB of memory", m.limit>>20))
		}
	}
	m.timer.Reset(watchEvery)
}

func (m *memoryWatch) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done = true
	m.timer.Stop()
}

// heapBytes is what the objects of the heap take. It stops the world for some
// 20 us; runtime/metrics would not, but its initialisation costs every start of
// seki 0.1 ms.
func heapBytes() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
