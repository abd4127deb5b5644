package lifecycle_test

import (
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"sekimori/lifecycle"
)

// TestHostSoak has 110 pods come and go at once, twice: the second time uses no
// more than the first left, and nothing is left of either.
func TestHostSoak(t *testing.T) {
	spec := busybox(t, "a", "true")
	cfg := hostPod(t, spec)
	var files, goroutines int
	for round := range 2 {
		var wg sync.WaitGroup
		for i := range 110 {
			wg.Go(func() {
				c := *cfg
				c.Name = fmt.Sprint("soak", i)
				c.Containers = []lifecycle.Config{{Spec: spec}}
				p, err := lifecycle.Start(t.Context(), c)
				if err != nil {
					t.Error(err)
					return
				}
				if code, err := p.Wait(); code != 0 || err != nil {
					t.Errorf("%s: Wait() = %d, %v; want 0, nil", c.Name, code, err)
				}
			})
		}
		wg.Wait()
		if round == 0 {
			files, goroutines = openFiles(t), runtime.NumGoroutine()
			continue
		}
		if n := openFiles(t); n > files {
			t.Errorf("%d open files after the second round; %d after the first", n, files)
		}
		checkGoroutines(t, goroutines)
	}
	if left, _ := filepath.Glob("/sys/fs/cgroup/*/seki+soak*"); len(left) != 0 {
		t.Errorf("cgroups left: %q", left)
	}
}
