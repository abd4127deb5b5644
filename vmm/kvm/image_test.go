package kvm

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bobuhiro11/gokvm/kvm"

	"sekimori/vmm/guestmem"
)

// A loaded is what an image made of a machine without processors.
type loaded struct {
	mem   *guestmem.Memory
	regs  *kvm.Regs
	sregs *kvm.Sregs
}

// load loads an image into 64 MiB.
func load(t testing.TB, i Image) (*loaded, error) {
	t.Helper()
	const size = 64 << 20
	mem, err := guestmem.New(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mem.Close() })
	l := &loaded{mem: mem}
	err = i.load(&boot{
		mem: mem, low: size, size: size, cpus: 2, devices: 3,
		sregs: func() (*kvm.Sregs, error) { return &kvm.Sregs{}, nil },
		set: func(r *kvm.Regs, s *kvm.Sregs) error {
			l.regs, l.sregs = r, s
			return nil
		},
	})
	return l, err
}

// file writes content to a file.
func file(t testing.TB, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// archiveOf is an initial file system.
func archiveOf(t testing.TB, content []byte) *os.File {
	t.Helper()
	f, err := os.Open(file(t, content))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// bzImage is a kernel of n bytes behind its setup code, which takes init bytes from
// 16 MiB on (Documentation/arch/x86/boot.rst).
func bzImage(n int, init uint32) []byte {
	b := make([]byte, 2*512+n)
	le := binary.LittleEndian
	b[0x1f1] = 1 // setup_sects
	copy(b[0x202:], "HdrS")
	le.PutUint16(b[0x206:], 0x020f)
	le.PutUint16(b[0x20e:], 0x1f0) // kernel_version, from 0x200 on
	b[0x211] = 1                   // LOADED_HIGH
	le.PutUint32(b[0x22c:], 0x7fffffff)
	le.PutUint16(b[0x236:], 1) // XLF_KERNEL_64
	le.PutUint32(b[0x238:], 2047)
	le.PutUint64(b[0x258:], 16<<20)
	le.PutUint32(b[0x260:], init)
	copy(b[0x3f0:], "6.99.0-test (who@where) #1\x00")
	for i := range n {
		b[1024+i] = byte(i)
	}
	return b
}

// vmlinux is a kernel with one segment of n bytes in the file and size in memory,
// at paddr, and a PVH entry.
func vmlinux(paddr, size uint64, n int) []byte {
	var b bytes.Buffer
	note := append([]byte{4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0}, "Xen\x00\x00\x00\x10\x01"...) // 0x01100000
	const phdrs, notes, code = 64, 64 + 2*56, 64 + 2*56 + 20
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: phdrs, Ehsize: 64, Phentsize: 56, Phnum: 2}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	load := elf.Prog64{Type: uint32(elf.PT_LOAD), Off: code, Paddr: paddr, Filesz: uint64(n), Memsz: size}
	notep := elf.Prog64{Type: uint32(elf.PT_NOTE), Off: notes, Filesz: uint64(len(note)), Memsz: uint64(len(note))}
	for _, v := range []any{h, load, notep, note, bytes.Repeat([]byte{0x90}, n)} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			panic(err) // a bug of this test
		}
	}
	return b.Bytes()
}

func (l *loaded) at(t *testing.T, at guestmem.GPA, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if err := l.mem.Read(at, b); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestBzImage: the kernel lies where it wants to, and finds its command line, its
// file systems one behind the other, and the memory map by the boot parameters.
func TestBzImage(t *testing.T) {
	one, two := bytes.Repeat([]byte("1"), 5001), bytes.Repeat([]byte("2"), 3000)
	l, err := load(t, Kernel{Path: file(t, bzImage(4096, 8<<20)), InitRD: []*os.File{archiveOf(t, one), archiveOf(t, two)}, CommandLine: "quiet a=b"})
	if err != nil {
		t.Fatal(err)
	}
	if l.regs.RIP != 16<<20+0x200 || l.regs.RSI != bootParams || l.sregs.CS.L != 1 || l.sregs.EFER&eferLMA == 0 {
		t.Errorf("begins with %+v", l.regs)
	}
	if got := l.at(t, 16<<20, 4); !bytes.Equal(got, []byte{0, 1, 2, 3}) {
		t.Errorf("kernel % x", got)
	}
	p := l.at(t, bootParams, 4096)
	le := binary.LittleEndian
	at, n := le.Uint32(p[0x218:]), le.Uint32(p[0x21c:])
	if want := append(append(bytes.Clone(one), 0, 0, 0), two...); !bytes.Equal(l.at(t, guestmem.GPA(at), int(n)), want) || at%4096 != 0 {
		t.Errorf("file systems at %#x, %d bytes", at, n)
	}
	line := l.at(t, guestmem.GPA(le.Uint32(p[0x228:])), 200)
	if got := string(line[:bytes.IndexByte(line, 0)]); got != ownParameters+" quiet a=b" {
		t.Errorf("command line %q", got)
	}
	if rsdp := le.Uint64(p[0x70:]); rsdp != acpiBase || string(l.at(t, acpiBase, 8)) != "RSD PTR " {
		t.Errorf("RSDP at %#x", rsdp)
	}
	if p[0x1e8] != 3 || le.Uint64(p[0x2d0:]) != 0 || le.Uint64(p[0x2d8:]) != lowEnd || le.Uint64(p[0x2d0+40:]) != highStart || le.Uint64(p[0x2d8+40:]) != 63<<20 {
		t.Errorf("%d entries in the memory map: % x", p[0x1e8], p[0x2d0:0x2d0+60])
	}
}

// TestVmlinux is the same for the PVH entry.
func TestVmlinux(t *testing.T) {
	l, err := load(t, Kernel{Path: file(t, vmlinux(16<<20, 1<<20, 100)), InitRD: []*os.File{archiveOf(t, []byte("archive"))}, CommandLine: "quiet"})
	if err != nil {
		t.Fatal(err)
	}
	if l.regs.RIP != 0x1100000 || l.regs.RBX != pvhInfo || l.sregs.CR0 != cr0PE || l.sregs.CS.DB != 1 {
		t.Errorf("begins with %+v, CR0 %#x", l.regs, l.sregs.CR0)
	}
	info, le := l.at(t, pvhInfo, 56), binary.LittleEndian
	module := l.at(t, guestmem.GPA(le.Uint64(info[16:])), 16)
	if le.Uint32(info) != 0x336ec578 || le.Uint32(info[12:]) != 1 || le.Uint64(info[32:]) != acpiBase || le.Uint32(info[48:]) != 3 {
		t.Errorf("start info % x", info)
	}
	if got := l.at(t, guestmem.GPA(le.Uint64(module)), 7); string(got) != "archive" || le.Uint64(module[8:]) != 8 {
		t.Errorf("module %q, % x", got, module)
	}
}

// TestBadImages: what is no kernel, or does not fit, is refused with the reason.
func TestBadImages(t *testing.T) {
	edit := func(b []byte, at int, v ...byte) []byte {
		copy(b[at:], v)
		return b
	}
	big := archiveOf(t, make([]byte, 60<<20))
	for _, tt := range []struct {
		name  string
		image []byte
		more  Kernel
		want  string
	}{
		{"empty", nil, Kernel{}, "neither a bzImage nor a vmlinux"},
		{"text", bytes.Repeat([]byte("hello"), 1000), Kernel{}, "neither a bzImage nor a vmlinux"},
		{"bzImage cut", bzImage(4096, 8<<20)[:0x230], Kernel{}, "neither a bzImage nor a vmlinux"},
		{"no code", bzImage(0, 8<<20), Kernel{}, "a kernel of 0 bytes"},
		{"32 bit", edit(bzImage(4096, 8<<20), 0x236, 0), Kernel{}, "no 64-bit entry"},
		{"longer than it says", bzImage(4096, 100), Kernel{}, "a kernel of 4096 bytes that asks for 100"},
		{"too large", bzImage(4096, 49<<20), Kernel{}, "it wants the memory from 16 to 65 MiB, and there are 64"},
		{"nowhere", edit(bzImage(4096, 8<<20), 0x258, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), Kernel{}, "it wants the memory"},
		{"file system too large", bzImage(4096, 8<<20), Kernel{InitRD: []*os.File{big}}, "its file system 61 MiB, and there are 64"},
		{"command line too long", bzImage(4096, 8<<20), Kernel{CommandLine: strings.Repeat("a", 2047)}, "the kernel takes 2047"},
		{"command line of two", bzImage(4096, 8<<20), Kernel{CommandLine: "a\nb"}, "one line"},
		{"ELF of another machine", edit(vmlinux(16<<20, 1<<20, 8), 18, 40), Kernel{}, "want one for x86-64"},
		{"ELF below 1 MiB", vmlinux(0x1000, 1<<20, 8), Kernel{}, "it wants 1 MiB from 0 MiB on"},
		{"ELF behind RAM", vmlinux(63<<20, 2<<20, 8), Kernel{}, "and there are 64"},
		{"ELF that wraps", vmlinux(16<<20, ^uint64(0)-8, 8), Kernel{}, "and there are 64"},
		{"ELF without a note", edit(vmlinux(16<<20, 1<<20, 8), 64+2*56+8, 17), Kernel{}, "no PVH entry"},
		{"ELF cut", vmlinux(16<<20, 1<<20, 4096)[:300], Kernel{}, "which the file does not have"},
	} {
		tt.more.Path = file(t, tt.image)
		if _, err := load(t, tt.more); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %s", tt.name, err, tt.want)
		}
	}
	if _, err := load(t, Kernel{Path: "/dev/zero"}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("/dev/zero: %v", err)
	}
	if _, err := load(t, Kernel{Path: "/nothing"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("/nothing: %v", err)
	}
	if _, err := load(t, Program{At: 0x1000}); err == nil {
		t.Error("a program over the page tables")
	}
}

func TestRelease(t *testing.T) {
	for _, tt := range []struct {
		image []byte
		want  string
	}{
		{bzImage(64, 1<<20), "6.99.0-test"}, {nil, ""}, {bytes.Repeat([]byte{0xff}, 0x300), ""}, {make([]byte, 0x300), ""},
	} {
		if got := Release(bytes.NewReader(tt.image)); got != tt.want {
			t.Errorf("Release = %q; want %q", got, tt.want)
		}
	}
}

// FuzzImage: any file is a kernel or an error, and no panic; what it is loaded
// into is bounded by the guest's memory.
func FuzzImage(f *testing.F) {
	f.Add(bzImage(64, 1<<20))
	f.Add(vmlinux(16<<20, 1<<20, 64))
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, image []byte) {
		l, err := load(t, Kernel{Path: file(t, image)})
		if (err == nil) != (l.regs != nil) {
			t.Errorf("load = %v, registers %v", err, l.regs)
		}
		Release(bytes.NewReader(image))
	})
}
