package nicshadow_test

import (
	"net"
	"os"
	"runtime"
	"strings"
	"testing"

	"sekimori/nicshadow"
	"sekimori/nicshadow/tap/taptest"
)

// TestNothingLeft makes and closes switches with cards and uplinks: no
// descriptor, no goroutine and no link of the host is left.
func TestNothingLeft(t *testing.T) {
	taptest.TUN(t)
	type counts struct{ fds, goroutines, links int }
	state := func() counts {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return counts{len(fds), runtime.NumGoroutine(), ours(t)}
	}
	once := func() {
		t.Run("", func(t *testing.T) {
			log := nicshadow.NewDropLog(nicshadow.DropLogConfig{})
			defer log.Close()
			capture, _ := newCapture(t, nicshadow.CaptureConfig{})
			defer capture.Close()
			_, sw, _ := cards(t, nicshadow.Config{DropLog: log, Capture: capture}, 2)
			newUplink(t, sw, true)
			if err := sw.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	once() // what is opened once and kept
	before := state()
	for range 5 {
		once()
	}
	eventually(t, "as before", func() bool { // or fewer: what other tests left to end has ended
		now := state()
		return now.fds <= before.fds && now.goroutines <= before.goroutines && now.links == 0
	})
}

// ours is how many links of the host have a name that only we give.
func ours(t *testing.T) (n int) {
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Name, "seki") {
			n++
		}
	}
	return n
}
