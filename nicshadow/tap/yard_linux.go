package tap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// NewNetNS makes a network namespace that nobody is in and nothing answers in:
// it has no address, no route, no IPv6. What is in it ends with the last file
// that holds it, so with its process at the latest.
func NewNetNS() (*os.File, error) {
	type result struct {
		ns  *os.File
		err error
	}
	c := make(chan result, 1)
	go func() {
		ns, err := unshared()
		c <- result{ns, err}
	}()
	r := <-c
	if r.err != nil {
		return nil, fmt.Errorf("new network namespace: %w", r.err)
	}
	return r.ns, nil
}

// unshared runs on a goroutine of its own: see inside.
func unshared() (*os.File, error) {
	runtime.LockOSThread()
	const path = "/proc/thread-self/ns/net"
	own, err := os.Open(path)
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer own.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	ns, err := os.Open(path)
	if err == nil {
		err = quiet()
	}
	if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread()
	}
	if err != nil && ns != nil {
		ns.Close()
		return nil, err
	}
	return ns, err
}

// quiet keeps the namespace's devices from saying anything of their own accord.
func quiet() error {
	for _, which := range []string{"all", "default"} {
		if err := Sysctl("ipv6/conf/"+which+"/disable_ipv6", "1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
