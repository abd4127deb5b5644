package nicshadow_test

import (
	"net"
	"os"
	"runtime"
	"testing"

	"sekimori/nicshadow"
	"sekimori/nicshadow/tap/taptest"
)

// TestNothingLeft makes and closes switches with cards and uplinks: no
// descriptor, no goroutine and no link of the host is left.
func TestNothingLeft(t *testing.T) {
	taptest.TUN(t)
	state := func() (n [3]int) {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		links, err := net.Interfaces()
		if err != nil {
			t.Fatal(err)
		}
		return [3]int{len(fds), runtime.NumGoroutine(), len(links)}
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
	eventually(t, "as before", func() bool { return state() == before })
}
