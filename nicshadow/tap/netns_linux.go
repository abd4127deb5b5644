package tap

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// In calls f on a thread that is in the network namespace netns, or, if netns
// is nil, right here. Sockets and devices that f opens belong to the namespace
// for good; /proc/sys/net is the namespace's own while f runs. The namespace
// may belong to another user namespace, of which the caller must have
// CAP_SYS_ADMIN (root of the host has).
func In(netns *os.File, f func() error) error {
	if netns == nil {
		return f()
	}
	errc := make(chan error, 1)
	go func() { errc <- inside(netns, f) }()
	return <-errc
}

// inside runs on a goroutine of its own. A thread that does not find back to
// its own namespace stays locked and so ends with the goroutine: it must never
// run anything else.
func inside(netns *os.File, f func() error) error {
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer own.Close()
	if err := unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace: %w", err)
	}
	err = f()
	if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread()
	}
	return err
}
