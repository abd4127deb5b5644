package agent_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sekimori/lifecycle/agent"
)

// TestCalmMonitor: one thread of this process, not the first, sleeps longer than
// it asks for. It is left so: the runtime's monitor takes no harm of it.
func TestCalmMonitor(t *testing.T) {
	require(t, "root", os.Geteuid() == 0)
	if err := agent.CalmMonitor(); err != nil {
		t.Fatal(err)
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	var calm []string
	for _, tid := range threads {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%s/timerslack_ns", tid.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(string(b)) == fmt.Sprint(time.Millisecond.Nanoseconds()) {
			calm = append(calm, tid.Name())
		}
	}
	if len(calm) == 0 || slices.Contains(calm, fmt.Sprint(os.Getpid())) {
		t.Errorf("threads %v of process %d are calm; want one, and not the first", calm, os.Getpid())
	}
}
