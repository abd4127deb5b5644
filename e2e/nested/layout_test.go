package nested_test

import (
	"bytes"
	"io"
	"os"
	"testing"

	"sekimori/e2e/nested"
	"sekimori/introspect"
	"sekimori/introspect/layout"
	"sekimori/vmm/bzimage"
)

// TestLayout: Debian's kernels say in their own files where they keep what
// introspection reads, stripped as they are.
func TestLayout(t *testing.T) {
	for _, series := range []string{"6.1", "6.12"} {
		vmlinux, modules := unpack(t, nested.Require(t, series))
		l, err := layout.Read(vmlinux, modules...)
		if err != nil {
			t.Fatal(series, err)
		}
		if !l.Traces() || l.PerCPU.Current == layout.None || l.PerCPU.Preempt == layout.None || l.Net.SockCgroup == layout.None {
			t.Errorf("%s: %+v; want all of it", series, l)
		}
		if k, err := introspect.ReadX86(vmlinux, modules...); err != nil {
			t.Errorf("%s: ReadX86 = %v, %v", series, k, err)
		}
	}
}

// unpack is what introspection wants to see of a kernel: the image, and the
// modules of its network card.
func unpack(t *testing.T, k nested.Kernel) (vmlinux io.ReaderAt, modules []io.ReaderAt) {
	t.Helper()
	f, err := os.Open(k.Image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	image, err := bzimage.Unpack(f)
	if err != nil {
		t.Fatal(err)
	}
	files, err := k.Modules("virtio_net", "virtio_ring")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		m, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		modules = append(modules, m)
	}
	return bytes.NewReader(image), modules
}
