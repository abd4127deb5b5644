package uml

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/vmm/initramfs"
	"sekimori/vmm/uml/kernel"
)

// A Probed says how a kernel booted.
type Probed struct {
	Info kernel.Info
	LPJ  uint64        // as this boot calibrated it, 0 if it did not say
	Boot time.Duration // from the start to the guest's first word
}

// probeTimeout is far beyond the second that a distribution's kernel takes on
// a busy host.
const probeTimeout = 30 * time.Second

// probeMemory is enough for every kernel that was seen.
const probeMemory = 64 << 20

// probeWords are what the probe's init says.
const probeWords = "seki: the probe runs\n"

// Probe boots the kernel at path, in a jail, with an init that says a word and
// powers off. An error says why the kernel cannot run here.
func Probe(ctx context.Context, path string) (*Probed, error) {
	info, err := kernel.Inspect(path)
	if err != nil {
		return nil, err
	}
	return probe(ctx, &Config{Kernel: path, Info: &info, Verbose: true})
}

// probe boots c with an initial file system of its own.
func probe(ctx context.Context, c *Config) (*Probed, error) {
	archive, err := probeArchive()
	if err != nil {
		return nil, err
	}
	defer archive.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, probeTimeout, fmt.Errorf("it did not boot within %v", probeTimeout))
	defer cancel()
	w := &firstWord{start: time.Now()}
	c.Memory, c.InitRD, c.Console = probeMemory, archive, w
	m, err := Start(ctx, c)
	if err != nil {
		return nil, err
	}
	err = m.Wait()
	switch {
	case context.Cause(ctx) != nil:
		err = fmt.Errorf("%w; last words: %q", context.Cause(ctx), m.console.Last())
	case err == nil && w.after == 0:
		err = fmt.Errorf("it ended before its init ran; last words: %q", m.console.Last())
	}
	if err != nil {
		return nil, fmt.Errorf("kernel %s (%s) cannot run here: %w", c.Kernel, c.Info.Release, err)
	}
	return &Probed{Info: *c.Info, LPJ: calibrated(m.Console()), Boot: w.after}, nil
}

// calibrated finds the delay loop in the kernel's messages: "(lpj=12263424)".
func calibrated(messages string) uint64 {
	_, rest, _ := strings.Cut(messages, "(lpj=")
	digits, _, _ := strings.Cut(rest, ")")
	lpj, err := strconv.ParseUint(digits, 10, 63)
	if err != nil {
		return 0 // it did not say
	}
	return lpj
}

// A firstWord takes the time when the init is heard of.
type firstWord struct {
	start time.Time
	said  []byte
	after time.Duration
}

func (w *firstWord) Write(b []byte) (int, error) {
	if w.after != 0 {
		return len(b), nil
	}
	w.said = append(w.said, b...)
	if bytes.Contains(w.said, []byte(strings.TrimSpace(probeWords))) {
		w.after, w.said = time.Since(w.start), nil
	}
	return len(b), nil
}

// probeArchive is an initial file system of one program, in a memory file.
func probeArchive() (*os.File, error) {
	program := probeInit()
	fd, err := unix.MemfdCreate("seki-probe", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "probe.cpio")
	err = initramfs.Write(f, []initramfs.Entry{
		{Name: "dev", Mode: fs.ModeDir | 0o755},
		{Name: "dev/console", Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Major: 5, Minor: 1},
		{Name: "init", Mode: 0o755, Data: bytes.NewReader(program), Size: int64(len(program))},
	})
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// probeInit is a program of three system calls, as an ELF file: a header, one
// program header (read and execute), the code, and what it says.
func probeInit() []byte {
	code := []byte{
		0xb8, 0x01, 0x00, 0x00, 0x00, // mov eax, 1             write(1, words, length)
		0xbf, 0x01, 0x00, 0x00, 0x00, // mov edi, 1
		0x48, 0x8d, 0x35, 30, 0, 0, 0, // lea rsi, [rip+30]
		0xba, byte(len(probeWords)), 0x00, 0x00, 0x00, // mov edx, length
		0x0f, 0x05, // syscall
		0xb8, 0xa9, 0x00, 0x00, 0x00, // mov eax, 169           reboot(MAGIC1, MAGIC2, POWER_OFF)
		0xbf, 0xad, 0xde, 0xe1, 0xfe, // mov edi, 0xfee1dead
		0xbe, 0x69, 0x19, 0x12, 0x28, // mov esi, 0x28121969
		0xba, 0xdc, 0xfe, 0x21, 0x43, // mov edx, 0x4321fedc
		0x0f, 0x05, // syscall
		0xf4, // hlt                                            the guest's kernel panics: its init ended
	}
	const base, head = 0x400000, 64 + 56
	size := uint64(head + len(code) + len(probeWords))
	b := []byte("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00") // 64-bit, little-endian, version 1, System V
	for _, v := range []any{
		uint16(2), uint16(62), uint32(1), uint64(base + head), uint64(64), uint64(0), uint32(0), // ET_EXEC, EM_X86_64, program headers at 64
		uint16(64), uint16(56), uint16(1), uint16(64), uint16(0), uint16(0),
		uint32(1), uint32(5), uint64(0), uint64(base), uint64(base), size, size, uint64(0x1000), // PT_LOAD, R+X
	} {
		b, _ = binary.Append(b, binary.LittleEndian, v) // of fixed size: no error
	}
	return append(append(b, code...), probeWords...)
}
