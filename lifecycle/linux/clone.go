package linux

import (
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A cloneArgs is struct clone_args, include/uapi/linux/sched.h v5.7.
type cloneArgs struct {
	flags      uint64
	pidfd      uint64
	childTID   uint64
	parentTID  uint64
	exitSignal uint64
	stack      uint64
	stackSize  uint64
	tls        uint64
	setTID     uint64
	setTIDSize uint64
	cgroup     uint64
}

var _ [88]byte = [unsafe.Sizeof(cloneArgs{})]byte{} // SAFETY: a size only

// A board is the page that parent and child share until the child executes its
// program: how far it is and how it fared.
type board struct {
	pc    uintptr // of the op being carried out
	errno uintptr // why it failed
	pid   uintptr // of the process made by opFork, written by the kernel (4 bytes)
	byte  [8]byte // what the gates read and write
	slots [maxSlots]uintptr
}

var _ [4096 - unsafe.Sizeof(board{})]byte // SAFETY: a size only: a board fits a page

// newBoard maps a page that a child and this process share.
func newBoard() (*board, error) {
	p, err := unix.MmapPtr(-1, 0, nil, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	return (*board)(p), nil // SAFETY: page-aligned, larger than a board, holds no Go pointers
}

// free unmaps the page; b must not be used again.
func (b *board) free() { unix.MunmapPtr(unsafe.Pointer(b), 4096) } // SAFETY: from newBoard

// spawner runs functions on one thread that never ends. PR_SET_PDEATHSIG means
// the death of the thread that cloned, not of the process: were a goroutine's
// thread to clone, the container would be killed when the Go runtime retires
// that thread.
//
// A thread also has its timer slack from the one that started it, and hands it on;
// a container is to have what this process was started with.
var spawner = sync.OnceValue(func() chan<- func() {
	c := make(chan func())
	go func() {
		runtime.LockOSThread()
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, firstSlack, 0, 0, 0) // it takes any number
		for f := range c {
			f()
		}
	}()
	return c
})

// firstSlack is the timer slack of the process's first thread, which is the one
// that initialises packages, in nanoseconds; 0 stands for a thread's own.
var firstSlack = func() uintptr {
	n, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		return 0
	}
	return uintptr(n)
}()

// spawn clones a child that carries out s and reports on b. The child is a copy
// of this process without its heap: the memory that it needs is the script's
// and the board.
func spawn(s *script, args *cloneArgs, b *board) (pid int, err error) {
	done := make(chan struct{})
	spawner() <- func() {
		defer close(done)
		r, errno := cloneAndRun(args, s, b)
		if errno != 0 {
			err = errno
			return
		}
		pid = int(r)
	}
	<-done
	return pid, err
}

//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

// heapArena is the size, and alignment, of what the runtime reserves for the
// heap at a time (heapArenaBytes in runtime/malloc.go).
const heapArena = 64 << 20

// cloneAndRun clones; the child carries out s and never returns.
//
// It gets no heap: each page of it that parent or child then writes to would be
// copied first, a tenth of a start's processor time; and a copy of what the
// supervisor knows is none of a container's business (compare CVE-2016-9962).
// What the heap of a large process has beyond one arena is copied all the same.
//
// All signals are blocked in the child, and none has a handler, until its script
// says otherwise.
func cloneAndRun(args *cloneArgs, s *script, b *board) (pid uintptr, errno syscall.Errno) {
	args.flags |= unix.CLONE_CLEAR_SIGHAND
	// Nobody else may fork meanwhile: that child would miss the heap.
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	heap := uintptr(unsafe.Pointer(s)) &^ (heapArena - 1) // SAFETY: an address only; s is on the heap
	unix.RawSyscall(unix.SYS_MADVISE, heap, heapArena, unix.MADV_DONTFORK)
	runtimeBeforeFork()
	pid, e := cloneScript(args, unsafe.SliceData(s.ops), uintptr(len(s.ops)), b) // SAFETY: the ops are outside of the heap
	runtimeAfterFork()
	unix.RawSyscall(unix.SYS_MADVISE, heap, heapArena, unix.MADV_DOFORK)
	return pid, syscall.Errno(e)
}

// cloneScript clones a child that carries out n ops. What they point to, and
// they themselves, must be outside of the heap: see [script].
//
//go:noescape
func cloneScript(args *cloneArgs, ops *op, n uintptr, b *board) (pid, errno uintptr)
