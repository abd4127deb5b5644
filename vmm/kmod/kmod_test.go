package kmod_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"sekimori/vmm/kmod"
)

// tree makes a directory of modules: depmod has been there if dep is not empty.
func tree(t *testing.T, dep string, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("modules.builtin", "kernel/drivers/virtio/virtio.ko\nkernel/drivers/virtio/virtio_ring.ko\n")
	if dep != "" {
		write("modules.dep", dep)
	}
	for _, f := range files {
		write(f, "not an ELF file")
	}
	return dir
}

const dep = `kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz
kernel/net/9p/9pnet.ko.xz: kernel/fs/netfs/netfs.ko.xz
kernel/fs/netfs/netfs.ko.xz:
kernel/net/9p/9pnet_fd.ko.xz: kernel/net/9p/9pnet.ko.xz
kernel/drivers/net/virtio-net.ko.xz:
kernel/a.ko: kernel/b.ko
kernel/b.ko: kernel/a.ko
`

func TestResolve(t *testing.T) {
	dir := tree(t, dep)
	m, err := kmod.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		names []string
		want  []string
	}{
		{[]string{"9pnet_fd", "9p"}, []string{"kernel/fs/netfs/netfs.ko.xz", "kernel/net/9p/9pnet.ko.xz", "kernel/net/9p/9pnet_fd.ko.xz", "kernel/fs/9p/9p.ko.xz"}},
		{[]string{"virtio", "virtio_ring"}, nil},
		{[]string{"virtio_net", "virtio-net"}, []string{"kernel/drivers/net/virtio-net.ko.xz"}},
		{[]string{"a"}, []string{"kernel/b.ko", "kernel/a.ko"}}, // a circle ends
	} {
		got, err := m.Resolve(tt.names...)
		var want []string
		for _, w := range tt.want {
			want = append(want, filepath.Join(dir, w))
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("Resolve(%q) = %q, %v; want %q", tt.names, got, err, want)
		}
	}
	var missing *kmod.MissingError
	if _, err := m.Resolve("virtio", "vsock"); !errors.As(err, &missing) || missing.Module != "vsock" {
		t.Errorf("Resolve = %v; want a MissingError", err)
	}
}

// module is an ELF file whose .modinfo says what it stands on.
func module(t *testing.T, depends string) []byte {
	t.Helper()
	info := "license=GPL\x00depends=" + depends + "\x00name=x\x00"
	names := "\x00.modinfo\x00.shstrtab\x00"
	var b bytes.Buffer
	h := elf.Header64{Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1, Ehsize: 64, Shentsize: 64, Shnum: 3, Shstrndx: 2, Shoff: 64}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	const at = 64 + 3*64
	for _, v := range []any{h, elf.Section64{},
		elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: at, Size: uint64(len(info))},
		elf.Section64{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: at + uint64(len(info)), Size: uint64(len(names))},
		[]byte(info), []byte(names)} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// TestWithoutDepmod: the modules themselves are asked, packed as they may be.
func TestWithoutDepmod(t *testing.T) {
	dir := tree(t, "", "broken.ko", "broken.ko.xz", "odd.ko.lzo")
	var packed bytes.Buffer
	x, err := xz.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.Write(module(t, "c-c")); err != nil {
		t.Fatal(err)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"a.ko": module(t, "b,virtio"), "b.ko.xz": packed.Bytes(), "c-c.ko.zst": z.EncodeAll(module(t, ""), nil)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m, err := kmod.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{filepath.Join(dir, "c-c.ko.zst"), filepath.Join(dir, "b.ko.xz"), filepath.Join(dir, "a.ko")}
	if got, err := m.Resolve("a"); err != nil || !slices.Equal(got, want) {
		t.Errorf("Resolve(a) = %q, %v; want %q", got, err, want)
	}
	for _, name := range []string{"broken", "odd"} {
		if got, err := m.Resolve(name); err == nil {
			t.Errorf("Resolve(%s) = %q", name, got)
		}
	}
}

func TestFind(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{"one/boot", "one/lib/modules/6.9-x", "two/modules", "three/bin", "three/lib/uml/modules/6.9-x"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"one/lib/modules/6.9-x", "two/modules", "three/lib/uml/modules/6.9-x"} {
		if err := os.WriteFile(filepath.Join(root, d, "modules.builtin"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ kind, image, release, want string }{
		{kmod.Installed, "one/boot/vmlinuz-6.9-x", "6.9-x", "one/lib/modules/6.9-x"},
		{kmod.Installed, "two/vmlinuz", "", "two/modules"},
		{kmod.Installed, "one/boot/vmlinuz", "", ""},
		{kmod.Installed, "one/boot/vmlinuz", "../modules/6.9-x", ""},
		{kmod.Installed, "one/boot/vmlinuz", "6.9-y", ""},
		{kmod.Installed, "three/bin/linux.uml", "6.9-x", ""},
		{kmod.UML, "three/bin/linux.uml", "6.9-x", "three/lib/uml/modules/6.9-x"},
		{kmod.UML, "two/linux.uml", "6.9-x", "two/modules"},
	} {
		got, err := kmod.Find(tt.kind, filepath.Join(root, tt.image), tt.release)
		if errors.Is(err, fs.ErrNotExist) != (tt.want == "") || (err == nil) != (tt.want != "") || err == nil && got != filepath.Join(root, tt.want) {
			t.Errorf("Find(%s, %q) = %q, %v; want %q", tt.image, tt.release, got, err, tt.want)
		}
	}
}
