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
var spawner = sync.OnceValue(func() chan<- func() {
	c := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range c {
			f()
		}
	}()
	return c
})

// spawn clones a child that carries out s and reports on b. The child is a
// plain copy of this process: it shares no memory but b with it.
func spawn(s *script, args *cloneArgs, b *board) (pid int, err error) {
	done := make(chan struct{})
	spawner() <- func() {
		defer close(done)
		r, errno := cloneAndRun(args, s.ops, b)
		if errno != 0 {
			err = errno
			return
		}
		pid = int(r)
	}
	<-done
	runtime.KeepAlive(s)
	return pid, err
}

//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

//go:linkname runtimeAfterForkInChild syscall.runtime_AfterForkInChild
func runtimeAfterForkInChild()

// cloneAndRun clones; the child carries out ops and never returns.
//
// In the child there is one thread, whose goroutine believes to be in a program
// that no longer exists: it must not allocate, grow its stack, take a lock or
// write a pointer. So there are only words, indexed loops and raw system calls
// below, as in syscall.forkAndExecInChild1, from which the pragmas come too.
//
//go:noinline
//go:norace
//go:nocheckptr
func cloneAndRun(args *cloneArgs, ops []op, b *board) (pid uintptr, errno syscall.Errno) {
	var (
		o   *op
		a   [6]uintptr
		r   uintptr
		pc  uintptr
		i   int
		hit bool
	)
	runtimeBeforeFork()
	// SAFETY: args lives on; the kernel reads it, and writes the pidfd to where it says.
	pid, _, errno = syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args), 0)
	if errno != 0 || pid != 0 {
		runtimeAfterFork()
		return pid, errno
	}
	runtimeAfterForkInChild()

	for pc < uintptr(len(ops)) {
		o = &ops[pc]
		b.pc = pc
		for i = 0; i < len(a); i++ {
			a[i] = o.args[i]
			if o.from[i] != 0 && o.from[i] <= maxSlots {
				a[i] = b.slots[o.from[i]-1]
			}
		}
		switch o.nr {
		case opJump:
			pc = a[0]
			continue
		case opGate, opWait:
			b.byte[0] = '.'
			if o.nr == opGate {
				// SAFETY: the shared page outlives the child.
				syscall.RawSyscall(unix.SYS_WRITE, a[0], uintptr(unsafe.Pointer(&b.byte)), 1)
			}
			for {
				r, _, errno = syscall.RawSyscall(unix.SYS_READ, a[0], uintptr(unsafe.Pointer(&b.byte)), 1) // SAFETY: as above
				if errno != syscall.EINTR {
					break
				}
			}
			if r != 1 { // the parent is gone, or has given up
				syscall.RawSyscall(unix.SYS_EXIT_GROUP, 125, 0, 0)
			}
			pc++
			continue
		case opFork:
			r, _, errno = syscall.RawSyscall(unix.SYS_CLONE3, a[0], a[1], 0)
			if errno == 0 && r != 0 {
				syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
			}
		case opExec:
			r, _, errno = syscall.RawSyscall6(unix.SYS_EXECVEAT, a[0], a[1], a[2], a[3], a[4], 0)
		default:
			r, _, errno = syscall.RawSyscall6(o.nr, a[0], a[1], a[2], a[3], a[4], a[5])
		}
		if errno == 0 {
			if o.out != 0 && o.out <= maxSlots {
				b.slots[o.out-1] = r
			}
			pc++
			continue
		}
		hit = false
		for i = 0; i < len(o.on); i++ {
			if o.on[i].errno == uintptr(errno) || o.on[i].errno == anyErrno {
				pc, hit = o.on[i].pc, true
				break
			}
		}
		if !hit {
			b.errno = uintptr(errno)
			break
		}
	}
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 124, 0, 0)
	}
}
