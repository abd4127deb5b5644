package starlark

import (
	"context"
	"fmt"
	"runtime"
	"runtime/metrics"
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
	done := make(chan struct{})
	finished := make(chan struct{})
	go func() { // ends with stop, which waits for it
		defer close(finished)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		// The first look is a tick late, when most files are evaluated: it
		// costs 0.1 ms to set runtime/metrics up.
		most := uint64(0)
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			if most == 0 {
				most = heapBytes() + s.opts.MaxMemory
			} else if heapBytes() > most {
				runtime.GC() // what nobody holds does not count
				if heapBytes() > most {
					cancel(fmt.Sprintf("more than %d MiB of memory", s.opts.MaxMemory>>20))
				}
			}
		}
	}()
	return func() {
		unhook()
		close(done)
		<-finished
	}
}

func heapBytes() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
