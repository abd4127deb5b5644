package introspect

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
)

// An Image is how a kernel is found in memory: where it was linked to, which is
// where it lies unless it chose another place for itself as it started
// (CONFIG_RANDOMIZE_BASE).
//
// It is found by its banner, "Linux version …", a constant that names the very
// build: what is at the right distance from it is what the image's symbols say.
// Where the guest's registers point (LSTAR, the IDT) would tell as much of the
// distance, but nothing of whether this image is what runs.
type Image struct {
	Banner []byte
	At     uint64 // where it was linked to
}

// The places that a kernel of x86-64 chooses among (arch/x86/boot/compressed/kaslr.c):
// multiples of CONFIG_PHYSICAL_ALIGN up to KERNEL_IMAGE_SIZE.
const (
	slideStep = 2 << 20
	slideEnd  = 1 << 30
)

// maxBanner bounds what is read of a banner.
const maxBanner = 512

// ErrNoKernel says that the guest does not run the kernel whose image was read,
// or does not run it yet.
var ErrNoKernel = errors.New("the kernel of this image is not in the guest's memory")

// readImage finds the banner in an image.
func readImage(f *elf.File) (Image, error) {
	ro := f.Section(".rodata")
	if ro == nil {
		return Image{}, fmt.Errorf("kernel image: no .rodata")
	}
	data, err := ro.Data()
	if err != nil {
		return Image{}, fmt.Errorf("kernel image: .rodata: %w", err)
	}
	prefix := []byte("Linux version ")
	var found Image
	for at := 0; ; at += len(prefix) {
		next := bytes.Index(data[at:], prefix)
		if next < 0 {
			break
		}
		at += next
		text, _, whole := bytes.Cut(data[at:min(len(data), at+maxBanner)], []byte{0})
		if !whole || len(text) == len(prefix) || !digit(text[len(prefix)]) {
			continue // a format of one
		}
		i := Image{Banner: bytes.Clone(text), At: ro.Addr + uint64(at)}
		// Since v6.1 there are two, of which one lacks the number and the time of
		// the build: two builds of one version would have it in common.
		if _, build, _ := bytes.Cut(text, []byte(" #")); len(build) > 0 && digit(build[0]) {
			return i, nil
		}
		if found.Banner == nil {
			found = i
		}
	}
	if found.Banner == nil {
		return Image{}, errors.New("kernel image: no banner")
	}
	return found, nil
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// Slide is how far from where it was linked to the kernel was found, in bytes.
func (g *Guest) Slide() (distance uint64, found bool) { return g.slide, g.found }

// no allocation, no lock, no log below this line

// find makes sure of where the kernel lies. A kernel may be started anew, by
// kexec at another place, so the place is not taken for granted: asking costs two
// reads. Looking for it takes 512 of them, which is done until it is found: the
// guest begins without a kernel in memory, or with its decompressor.
func (g *Guest) find() error {
	if len(g.image.Banner) == 0 || g.found && g.lies(g.slide) {
		return nil
	}
	g.found = false
	for slide := uint64(0); slide < slideEnd; slide += slideStep {
		if g.lies(slide) {
			g.slide, g.found = slide, true
			return nil
		}
	}
	return ErrNoKernel
}

// lies reports whether the kernel's banner is that far from where it was linked.
func (g *Guest) lies(slide uint64) bool {
	b := g.buf[:min(len(g.image.Banner), maxBanner)]
	return g.mem.Read(g.image.At+slide, b) == nil && bytes.Equal(b, g.image.Banner)
}

// settle finds the kernel's page tables where the vCPU left from ring 3: with page
// table isolation they lie beside those that are in force. Isolation keeps the
// kernel's data out of the user's tables (though not, without PCID, its text), so
// tables that have the first network namespace are the kernel's.
func (g *Guest) settle() error {
	if g.settled {
		return nil
	}
	for _, beside := range [2]bool{false, true} {
		g.paged.Enter(g.regs.CR3, g.regs.CR4, beside)
		if g.find() != nil {
			continue
		}
		if _, err := g.mem.Physical(g.initNet + g.slide); err == nil {
			g.settled = true
			return nil
		}
	}
	return ErrNoKernel
}
