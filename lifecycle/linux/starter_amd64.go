package linux

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// The starter is a program of some 400 bytes that stands between our last
// system call and the workload. It has two entries.
//
//   - _start: the reaper, PID 1 of a container whose workload does not wait for
//     children. It forks the workload, forwards signals to it, reaps whoever
//     ends, and exits as the workload does, with 128+n for a signal. It holds no
//     descriptor and one page of stack.
//   - direct: becomes the workload at once. A container without a user
//     namespace needs it: until its first execve a child is a copy of this
//     program, so a workload `#!/proc/self/exe` would execute, and could then
//     overwrite, our binary (CVE-2019-5736). This way it finds the starter, in a
//     sealed memory file.
//
// Its arguments are the paths to try, an empty string, and the workload's
// arguments. Descriptor 3 is the control socket: closed by execve, or told the
// errno in one byte.
//
// The left column is the machine code of the right one; TestStarterListing
// holds them together where an assembler is at hand.
const starterListing = `
                        | _start:
31 ed                   |     xor  ebp, ebp              # reap: fork, wait, reap
eb 05                   |     jmp  begin
                        | direct:                        # second entry: execute at once
bd 01 00 00 00          |     mov  ebp, 1
                        | begin:
48 8d 5c 24 08          |     lea  rbx, [rsp+8]          # argv
48 89 df                |     mov  rdi, rbx
                        | scan:                          # find the empty string that ends the candidates
48 8b 07                |     mov  rax, [rdi]
48 85 c0                |     test rax, rax
0f 84 6a 01 00 00       |     je   bad
48 83 c7 08             |     add  rdi, 8
80 38 00                |     cmp  byte ptr [rax], 0
75 eb                   |     jne  scan
49 89 fd                |     mov  r13, rdi              # the workload's argv
48 8b 04 24             |     mov  rax, [rsp]
4c 8d 74 c3 08          |     lea  r14, [rbx+rax*8+8]    # envp
48 81 ec 00 01 00 00    |     sub  rsp, 256
85 ed                   |     test ebp, ebp
0f 85 bf 00 00 00       |     jne  child
48 c7 04 24 ff ff ff ff |     mov  qword ptr [rsp], -1   # the set of all signals
b8 0e 00 00 00          |     mov  eax, 14               # rt_sigprocmask(SIG_SETMASK, &all, NULL, 8)
bf 02 00 00 00          |     mov  edi, 2
48 89 e6                |     mov  rsi, rsp
31 d2                   |     xor  edx, edx
41 ba 08 00 00 00       |     mov  r10d, 8
0f 05                   |     syscall
b8 3a 00 00 00          |     mov  eax, 58               # vfork
0f 05                   |     syscall
48 85 c0                |     test rax, rax
0f 88 17 01 00 00       |     js   bad
0f 84 8a 00 00 00       |     je   child
49 89 c4                |     mov  r12, rax
b8 b4 01 00 00          |     mov  eax, 436              # close_range(0, ~0, 0)
31 ff                   |     xor  edi, edi
be ff ff ff ff          |     mov  esi, -1
31 d2                   |     xor  edx, edx
0f 05                   |     syscall
                        | next:
b8 80 00 00 00          |     mov  eax, 128              # rt_sigtimedwait(&all, &info, NULL, 8)
48 89 e7                |     mov  rdi, rsp
48 8d 74 24 10          |     lea  rsi, [rsp+16]
31 d2                   |     xor  edx, edx
41 ba 08 00 00 00       |     mov  r10d, 8
0f 05                   |     syscall
85 c0                   |     test eax, eax
78 e5                   |     js   next
83 f8 11                |     cmp  eax, 17
74 15                   |     je   reap                  # SIGCHLD
83 7c 24 18 00          |     cmp  dword ptr [rsp+24], 0 # si_code
7f d9                   |     jg   next                  # the kernel's own, a key on the terminal: the child got it too
89 c6                   |     mov  esi, eax
4c 89 e7                |     mov  rdi, r12
b8 3e 00 00 00          |     mov  eax, 62               # kill(child, signal)
0f 05                   |     syscall
eb cb                   |     jmp  next
                        | reap:
b8 3d 00 00 00          |     mov  eax, 61               # wait4(-1, &status, WNOHANG, NULL)
48 c7 c7 ff ff ff ff    |     mov  rdi, -1
48 8d 74 24 08          |     lea  rsi, [rsp+8]
ba 01 00 00 00          |     mov  edx, 1
45 31 d2                |     xor  r10d, r10d
0f 05                   |     syscall
48 85 c0                |     test rax, rax
7e ab                   |     jle  next
4c 39 e0                |     cmp  rax, r12
75 db                   |     jne  reap
8b 44 24 08             |     mov  eax, [rsp+8]          # the wait status: low 7 bits the signal, next 8 the exit code
89 c7                   |     mov  edi, eax
83 e7 7f                |     and  edi, 0x7f
75 05                   |     jne  killed
0f b6 fc                |     movzx edi, ah
eb 06                   |     jmp  exit
                        | killed:
81 c7 80 00 00 00       |     add  edi, 128              # as a shell says it
                        | exit:
b8 e7 00 00 00          |     mov  eax, 231              # exit_group
0f 05                   |     syscall
                        | child:                         # shares its parent's memory until execve: another place on the stack
48 c7 84 24 a0 00 00 00 00 00 00 00|     mov  qword ptr [rsp+160], 0
b8 0e 00 00 00          |     mov  eax, 14               # rt_sigprocmask(SIG_SETMASK, &none, NULL, 8)
bf 02 00 00 00          |     mov  edi, 2
48 8d b4 24 a0 00 00 00 |     lea  rsi, [rsp+160]
31 d2                   |     xor  edx, edx
41 ba 08 00 00 00       |     mov  r10d, 8
0f 05                   |     syscall
b8 48 00 00 00          |     mov  eax, 72               # fcntl(3, F_SETFD, FD_CLOEXEC)
bf 03 00 00 00          |     mov  edi, 3
be 02 00 00 00          |     mov  esi, 2
ba 01 00 00 00          |     mov  edx, 1
0f 05                   |     syscall
                        | try:
48 8b 3b                |     mov  rdi, [rbx]
80 3f 00                |     cmp  byte ptr [rdi], 0
74 20                   |     je   fail
48 83 c3 08             |     add  rbx, 8
4c 89 ee                |     mov  rsi, r13
4c 89 f2                |     mov  rdx, r14
b8 3b 00 00 00          |     mov  eax, 59               # execve
0f 05                   |     syscall
f7 d8                   |     neg  eax
41 89 c7                |     mov  r15d, eax
83 f8 02                |     cmp  eax, 2                # ENOENT
74 dd                   |     je   try
83 f8 14                |     cmp  eax, 20               # ENOTDIR
74 d8                   |     je   try
                        | fail:
44 89 bc 24 a0 00 00 00 |     mov  [rsp+160], r15d
b8 01 00 00 00          |     mov  eax, 1                # write(3, &errno, 1)
bf 03 00 00 00          |     mov  edi, 3
48 8d b4 24 a0 00 00 00 |     lea  rsi, [rsp+160]
ba 01 00 00 00          |     mov  edx, 1
0f 05                   |     syscall
                        | bad:
bf 7f 00 00 00          |     mov  edi, 127
b8 e7 00 00 00          |     mov  eax, 231
0f 05                   |     syscall
`

// starterImage is the starter as an ELF file, for each entry: a header, one
// program header (read and execute only), and the code.
func starterImage(direct bool) ([]byte, error) {
	code, labels, err := parseListing(starterListing)
	if err != nil {
		return nil, err
	}
	const base, head = 0x400000, 64 + 56
	entry := uint64(base + head + labels["_start"])
	if direct {
		entry = uint64(base + head + labels["direct"])
	}
	size := uint64(head + len(code))
	var b bytes.Buffer
	b.WriteString("\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9)) // 64-bit, little-endian, version 1, System V
	le := func(vs ...any) {
		for _, v := range vs {
			binary.Write(&b, binary.LittleEndian, v)
		}
	}
	le(uint16(2), uint16(62), uint32(1), entry, uint64(64), uint64(0), uint32(0)) // ET_EXEC, EM_X86_64, program headers at 64
	le(uint16(64), uint16(56), uint16(1), uint16(64), uint16(0), uint16(0))
	le(uint32(1), uint32(5), uint64(0), uint64(base), uint64(base), size, size, uint64(0x1000)) // PT_LOAD, R+X
	b.Write(code)
	return b.Bytes(), nil
}

// parseListing reads the machine code of a listing, and where its labels are.
func parseListing(listing string) (code []byte, labels map[string]int, err error) {
	labels = map[string]int{}
	for line := range strings.Lines(listing) {
		hexes, source, ok := strings.Cut(line, "|")
		if !ok {
			continue
		}
		if name, _, ok := strings.Cut(source, ":"); ok && !strings.HasPrefix(source, "     ") {
			labels[strings.TrimSpace(name)] = len(code)
		}
		b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(hexes), " ", ""))
		if err != nil {
			return nil, nil, fmt.Errorf("starter listing: %q: %w", line, err)
		}
		code = append(code, b...)
	}
	return code, labels, nil
}

// reaperFD and directFD are the two starters in sealed memory files, open as
// long as this process runs.
var (
	reaperFD = sync.OnceValues(func() (hostFD, error) { return starterFile(false) })
	directFD = sync.OnceValues(func() (hostFD, error) { return starterFile(true) })
)

// starterFile makes a memory file that nobody can change any more.
func starterFile(direct bool) (hostFD, error) {
	image, err := starterImage(direct)
	if err != nil {
		return -1, err
	}
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("seki-reaper", flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("seki-reaper", flags)
	}
	if err != nil {
		return -1, fmt.Errorf("reaper: memfd_create: %w", err)
	}
	if n, err := unix.Write(fd, image); err != nil || n != len(image) {
		unix.Close(fd)
		return -1, fmt.Errorf("reaper: wrote %d of %d bytes: %w", n, len(image), err)
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("reaper: seal: %w", err)
	}
	return hostFD(fd), nil
}

// execStarter appends the execution of p's program by way of the starter.
func (s *script) execStarter(p *program, fd, ctl hostFD) error {
	args := append(append(candidates(p.args[0], p.env), ""), p.args...)
	argv, err := s.vector(args)
	if err != nil {
		return err
	}
	env, err := s.vector(p.env)
	if err != nil {
		return err
	}
	// The control socket becomes descriptor 3, which outlives this execve. The
	// starter's own file closes with it.
	image := s.open(unix.SYS_FCNTL, fd, unix.F_DUPFD_CLOEXEC, 4)
	sock := s.open(unix.SYS_FCNTL, ctl, unix.F_DUPFD_CLOEXEC, 4)
	s.call(unix.SYS_DUP3, sock, 3, 0)
	s.call(opExec, image, "", argv, env, unix.AT_EMPTY_PATH)
	return nil
}
