package doorbell

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Ports, both 32 bits wide. The first has lengths, the second is for what is in them.
const (
	Port = 0x5a0
	Data = Port + 4
)

// MaxRequest is the longest request in bytes that the host takes, and MaxAnswer
// the longest answer that the guest does: a policy is some kilobytes.
const (
	MaxRequest = 1 << 20
	MaxAnswer  = 1 << 20
)

// none is the length of the answer that there is not.
const none = ^uint32(0)

// A Line is the way to the host. Its methods may be called from any goroutine.
type Line struct {
	mu    sync.Mutex // mu is held during a call
	calls chan call
}

type call struct {
	req  []byte
	done chan answer
}

type answer struct {
	b   []byte
	err error
}

// Open asks the kernel for the ports, for one thread that makes all calls until
// [Line.Close].
func Open() (*Line, error) {
	l := &Line{calls: make(chan call)}
	opened := make(chan error)
	go l.serve(opened) // until Close
	return l, <-opened
}

// serve makes the calls, on the thread that has the right to.
func (l *Line) serve(opened chan<- error) {
	runtime.LockOSThread() // never unlocked: the right to the ports ends with the thread
	if _, _, errno := unix.Syscall(unix.SYS_IOPERM, Port, 8, 1); errno != 0 {
		opened <- os.NewSyscallError("ioperm", errno)
		return
	}
	opened <- nil
	for c := range l.calls {
		b, err := ask(c.req)
		c.done <- answer{b, err}
	}
}

// Call makes a call and returns its answer.
func (l *Line) Call(req []byte) ([]byte, error) {
	if len(req) == 0 || len(req) > MaxRequest {
		return nil, fmt.Errorf("doorbell: request of %d bytes, at most %d", len(req), MaxRequest)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c := call{req, make(chan answer)}
	l.calls <- c
	a := <-c.done
	return a.b, a.err
}

// Close gives the ports back. No call may be made any more.
func (l *Line) Close() { close(l.calls) }

// ask is a call, on a thread that has the right to the ports.
func ask(req []byte) ([]byte, error) {
	out32(Port, uint32(len(req)))
	for ; len(req) > 0; req = req[min(4, len(req)):] {
		var word [4]byte
		copy(word[:], req)
		out32(Data, binary.LittleEndian.Uint32(word[:]))
	}
	n := in32(Port)
	switch {
	case n == none:
		return nil, errors.New("doorbell: nobody answers")
	case n > MaxAnswer:
		return nil, fmt.Errorf("doorbell: answer of %d bytes", n)
	}
	b := make([]byte, 0, n+3)
	for len(b) < int(n) {
		b = binary.LittleEndian.AppendUint32(b, in32(Data))
	}
	return b[:n], nil
}

// Instructions, which fault without the right to the port.

func out32(port uint16, v uint32)
func in32(port uint16) uint32
