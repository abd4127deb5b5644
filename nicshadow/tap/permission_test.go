package tap_test

import (
	"errors"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"sekimori/nicshadow/tap"
	"sekimori/nicshadow/tap/taptest"
)

// TestNoPermission opens a card on a thread that has given up its
// capabilities, in a namespace of its own.
func TestNoPermission(t *testing.T) {
	taptest.TUN(t)
	type result struct {
		setup, open, enter error
	}
	other := taptest.NetNS(t)
	c := make(chan result)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		var r result
		if r.setup = unix.Unshare(unix.CLONE_NEWNET); r.setup == nil {
			hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			r.setup = unix.Capset(&hdr, &make([]unix.CapUserData, 2)[0])
		}
		if r.setup == nil {
			d, err := tap.Open(nil, config("10.0.0.2/24"))
			if err == nil {
				d.Close()
			}
			r.open = err
			r.enter = unix.Setns(int(other.Fd()), unix.CLONE_NEWNET)
		}
		c <- r
	}()
	r := <-c
	if r.setup != nil {
		taptest.Missing(t, "netns", r.setup)
	}
	if !errors.Is(r.open, tap.ErrPermission) {
		t.Errorf("Open = %v; want %v", r.open, tap.ErrPermission)
	}
	if !errors.Is(r.enter, unix.EPERM) {
		t.Errorf("Setns = %v; want %v: the thread still has capabilities", r.enter, unix.EPERM)
	}
}
