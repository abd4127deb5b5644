package linux

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A slot holds the result of an earlier system call of a script.
type slot uint16

// A hostFD is a file descriptor of this process that a script uses. The child
// closes all others first.
type hostFD int

// A label is a place in a script to jump to. Jumps go forward only.
type label int

// A branch says where a script goes on when a call fails with errno.
type branch struct {
	errno uintptr // anyErrno for all
	pc    uintptr // a label until finish
}

const (
	maxSlots = 440
	anyErrno = ^uintptr(0)
)

// An op is one system call of a script, or one of the pseudo calls below. It
// holds words, no Go pointers: the child only ever copies them into registers.
type op struct {
	nr   uintptr
	args [6]uintptr
	from [6]uint16 // slot+1 whose value takes the place of the argument; 0 for none
	out  uint16    // slot+1 that takes the result; 0 for none
	step uint16    // index into script.steps
	on   [3]branch
}

// Pseudo calls, numbered above all system calls.
const (
	opGate = 1<<16 + iota // arg 0 is the control socket: report, then wait to be let on; end of file ends the child
	opWait                // the same without the report
	opFork                // go on in a child made by clone3(arg 0, arg 1); this process reports its pid and ends
	opJump                // arg 0 is the label
	opExec                // execve; success is the end of the script
)

// A script is a list of system calls that a freshly cloned child carries out in
// order, without the Go runtime. It is built by the parent, before the clone:
// so the child parses nothing, allocates nothing and decides nothing but
// "this errno: go on there". Every call belongs to a named step, which is what
// an error says.
//
// The ops and all they point to lie in a mapping of the script's own, for the
// child has no heap. It is unmapped by free.
type script struct {
	mem    []byte // room for maxOps ops, then for data
	ops    []op   // in mem
	used   int    // bytes of mem, from the start
	full   bool   // something found no room
	steps  []string
	fds    map[int]bool
	slots  int
	labels []int      // pc of each label; -1 until bound
	second *cloneArgs // of opFork, if there is one; in mem
}

// Bounds of a script. A page that is not used costs nothing. A usual container
// takes 540 ops; the kernel bounds the arguments of a program at 2 MiB.
const (
	maxOps  = 4096
	opBytes = maxOps * int(unsafe.Sizeof(op{})) // SAFETY: a size only
	maxData = 4 << 20
)

func newScript() (*script, error) {
	mem, err := unix.Mmap(-1, 0, opBytes+maxData, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("memory for a script: %w", err)
	}
	ops := unsafe.Slice((*op)(unsafe.Pointer(&mem[0])), maxOps)[:0] // SAFETY: page-aligned, large enough, holds no Go pointers
	return &script{mem: mem, ops: ops, used: opBytes, steps: make([]string, 0, 64), fds: map[int]bool{}}, nil
}

// free gives the script's memory back; it must not be used afterwards.
func (s *script) free() {
	unix.Munmap(s.mem)
	s.mem, s.ops = nil, nil
}

// place copies v into the script's memory and returns its address, which the
// child only passes on to the kernel.
func place[T any](s *script, v []T) uintptr {
	size := len(v) * int(unsafe.Sizeof(*new(T))) // SAFETY: a size only
	at := (s.used + 7) &^ 7
	if size > len(s.mem)-at {
		s.full = true
		return 0
	}
	s.used = at + size
	if size == 0 {
		return 0
	}
	p := unsafe.Pointer(&s.mem[at]) // SAFETY: aligned to 8, and there is room: see above
	copy(unsafe.Slice((*T)(p), len(v)), v)
	return uintptr(p)
}

// A StepError says which step of setting a container up failed, and how.
type StepError struct {
	Step string        // what was tried, `mount /proc`
	Err  syscall.Errno // 0 if the process ended within the step without saying why
}

// Error is `STEP: reason`.
func (e *StepError) Error() string {
	if e.Err == 0 {
		return e.Step + ": process was killed"
	}
	text := e.Step + ": " + e.Err.Error()
	if program, ok := strings.CutPrefix(e.Step, executeStep); ok && e.Err == unix.ENOENT {
		if strings.Contains(program, "/") {
			return text + " (the program, or the interpreter that it names)"
		}
		return text + " in the PATH of the container"
	}
	return text
}

// executeStep begins the name of the step that executes a program.
const executeStep = "execute "

// Unwrap returns the errno, for errors.Is.
func (e *StepError) Unwrap() error {
	if e.Err == 0 {
		return errKilled
	}
	return e.Err
}

var errKilled = errors.New("process was killed")

// step names the calls that follow.
func (s *script) step(format string, args ...any) {
	s.steps = append(s.steps, fmt.Sprintf(format, args...))
}

// call appends a system call. Arguments are integers, strings (passed as
// NUL-terminated bytes), byte slices (copied), addresses of what was placed,
// slots and host descriptors.
func (s *script) call(nr uintptr, args ...any) {
	o := op{nr: nr, step: uint16(len(s.steps) - 1)}
	for i, a := range args {
		o.args[i], o.from[i] = s.arg(a)
	}
	if len(s.ops) == maxOps {
		s.full = true
		return
	}
	s.ops = append(s.ops, o)
}

// open is call for a call whose result is kept.
func (s *script) open(nr uintptr, args ...any) slot {
	s.call(nr, args...)
	return s.result(s.slot())
}

// slot returns a fresh slot.
func (s *script) slot() slot {
	sl := slot(s.slots)
	s.slots++
	return sl
}

// result keeps the result of the last call in sl.
func (s *script) result(sl slot) slot {
	s.ops[len(s.ops)-1].out = uint16(sl) + 1
	return sl
}

func (s *script) arg(a any) (val uintptr, from uint16) {
	switch a := a.(type) {
	case int:
		return uintptr(a), 0
	case uint32:
		return uintptr(a), 0
	case uint64:
		return uintptr(a), 0
	case uintptr:
		return a, 0
	case hostFD:
		s.fds[int(a)] = true
		return uintptr(a), 0
	case slot:
		return 0, uint16(a) + 1
	case label:
		return uintptr(a), 0
	case string:
		return place(s, append([]byte(a), 0)), 0
	case []byte:
		return place(s, a), 0
	case unix.OpenHow:
		return place(s, []unix.OpenHow{a}), 0
	default:
		// A type that this switch does not know is a bug in the caller, here in this package.
		panic(fmt.Sprintf("script argument of type %T", a))
	}
}

// on makes the last call go on at l when it fails with one of errnos.
func (s *script) on(l label, errnos ...syscall.Errno) {
	o := &s.ops[len(s.ops)-1]
	for _, e := range errnos {
		i := slices.IndexFunc(o.on[:], func(b branch) bool { return b.errno == 0 })
		o.on[i] = branch{errno: uintptr(e), pc: uintptr(l)}
	}
}

// ignore lets the last call fail with one of errnos.
func (s *script) ignore(errnos ...syscall.Errno) {
	l := s.label()
	s.on(l, errnos...)
	s.bind(l)
}

func (s *script) label() label {
	s.labels = append(s.labels, -1)
	return label(len(s.labels) - 1)
}

func (s *script) bind(l label) { s.labels[l] = len(s.ops) }

func (s *script) jump(l label) { s.call(opJump, l) }

// forkSecond appends the clone of the process that goes on in this one's place.
// It is the parent's child too (CLONE_PARENT).
func (s *script) forkSecond(flags uint64) {
	at := place(s, []cloneArgs{{flags: flags | unix.CLONE_PARENT | unix.CLONE_PARENT_SETTID}})
	s.call(opFork, at, int(unsafe.Sizeof(cloneArgs{}))) // SAFETY: a size only
	if !s.full {
		s.second = (*cloneArgs)(unsafe.Pointer(&s.mem[s.used-int(unsafe.Sizeof(cloneArgs{}))])) // SAFETY: what was placed just now
	}
}

// finish turns labels into positions and checks what the child relies on.
func (s *script) finish() error {
	if s.full {
		return fmt.Errorf("container needs more than %d system calls, or %d bytes for their arguments, to set up", maxOps, maxData)
	}
	if s.slots > maxSlots {
		return fmt.Errorf("container needs %d descriptors to set up, at most %d", s.slots, maxSlots)
	}
	for pc := range s.ops {
		o := &s.ops[pc]
		if o.nr == opJump {
			o.args[0] = uintptr(s.labels[o.args[0]])
		}
		for i := range o.on {
			if o.on[i].errno != 0 {
				o.on[i].pc = uintptr(s.labels[o.on[i].pc])
			}
		}
	}
	return nil
}

// String lists the script, one call a line, for tests and debugging.
func (s *script) String() string {
	var b strings.Builder
	for pc, o := range s.ops {
		fmt.Fprintf(&b, "%3d %-40s %d", pc, s.steps[o.step], o.nr)
		for i, a := range o.args {
			if o.from[i] != 0 {
				fmt.Fprintf(&b, " $%d", o.from[i]-1)
			} else {
				fmt.Fprintf(&b, " %#x", a)
			}
		}
		if o.out != 0 {
			fmt.Fprintf(&b, " -> $%d", o.out-1)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
