package early_test

import (
	"os"
	"runtime"
	"strconv"
	"testing"

	"sekimori/cmd/seki/early"
)

// TestAllProcessors: one processor from the beginning, and afterwards as many
// as the runtime would have taken.
func TestAllProcessors(t *testing.T) {
	if n := runtime.GOMAXPROCS(0); n != 1 {
		t.Errorf("%d processors at the beginning; want 1", n)
	}
	early.AllProcessors()
	got := runtime.GOMAXPROCS(0)
	want, err := strconv.Atoi(os.Getenv("GOMAXPROCS"))
	if err != nil || want <= 0 {
		runtime.SetDefaultGOMAXPROCS() // what the runtime itself would take now
		want = runtime.GOMAXPROCS(0)
	}
	if got != want {
		t.Errorf("%d processors afterwards; want %d", got, want)
	}
}
