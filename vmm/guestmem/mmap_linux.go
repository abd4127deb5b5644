package guestmem

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A File is RAM that a guest shares with us as a file descriptor.
type File struct {
	Base GPA
	Size uint64
	// FD is open for reading and writing. It stays the caller's, who may close
	// it after [Map].
	FD int
	// Offset is where in the file the region begins, a multiple of the page
	// size.
	Offset uint64
}

// A mapping is a reserved run of our address space.
type mapping struct {
	p unsafe.Pointer
	n uintptr
}

// New returns size bytes of memory of our own at address 0, a multiple of the
// page size, all zero.
func New(size uint64) (*Memory, error) {
	if size == 0 || size%uint64(os.Getpagesize()) != 0 || size > maxSize {
		return nil, fmt.Errorf("guest memory of %d bytes: not a number of pages", size)
	}
	b, err := mmap(-1, 0, size, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("guest memory of %d bytes: %w", size, err)
	}
	return mapped([]region{newRegion(0, b)})
}

// maxSize is what an address space of 47 bits has room for, many times over.
const maxSize = 1 << 42

// Map returns the memory that the files hold. The files come from the guest,
// so each must be shared memory (a memfd, or a file on a tmpfs) and long
// enough; one that shrinks later costs its accesses a [*FaultError].
func Map(files ...File) (*Memory, error) {
	var regions []region
	for _, f := range files {
		b, err := f.mmap()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("guest memory [%#x, +%d): %w", uint64(f.Base), f.Size, err), unmap(regions))
		}
		regions = append(regions, newRegion(f.Base, b))
	}
	return mapped(regions)
}

func (f File) mmap() ([]byte, error) {
	// Shared memory has seals, and nothing else has. A page of any other file
	// may be somebody's to deliver, as with FUSE, and a thread that waits for
	// one waits for as long as he likes; asking for the seals asks nobody.
	if _, err := unix.FcntlInt(uintptr(f.FD), unix.F_GET_SEALS, 0); err != nil {
		return nil, fmt.Errorf("not shared memory: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.FD, &st); err != nil {
		return nil, fmt.Errorf("stat: %w", err)
	}
	// Huge pages have seals, too, but are mapped and unmapped by other rules.
	var fs unix.Statfs_t
	if err := unix.Fstatfs(f.FD, &fs); err != nil {
		return nil, fmt.Errorf("statfs: %w", err)
	}
	page := uint64(os.Getpagesize())
	switch size := uint64(st.Size); {
	case fs.Type != unix.TMPFS_MAGIC:
		return nil, fmt.Errorf("not of a tmpfs, but of a file system of type %#x", fs.Type)
	case f.Size == 0 || f.Size > maxSize:
		return nil, fmt.Errorf("size %d is out of range", f.Size)
	case f.Size%page != 0 || f.Offset%page != 0 || uint64(f.Base)%page != 0:
		return nil, fmt.Errorf("not a number of pages from offset %#x", f.Offset)
	case f.Offset > size || f.Size > size-f.Offset: // the sum may wrap
		return nil, fmt.Errorf("file of %d bytes ends before offset %#x + %d", size, f.Offset, f.Size)
	}
	return mmap(f.FD, int64(f.Offset), f.Size, unix.MAP_SHARED|unix.MAP_NORESERVE)
}

func mmap(fd int, offset int64, size uint64, flags int) ([]byte, error) {
	// SAFETY: a new mapping where the kernel likes; nothing of ours lies there.
	p, err := unix.MmapPtr(fd, offset, nil, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return nil, fmt.Errorf("mmap: %w", err)
	}
	return unsafe.Slice((*byte)(p), size), nil // SAFETY: size bytes are mapped at p
}

// mapped returns the memory of regions that were mapped for it, and gives
// their addresses back once nobody holds it.
func mapped(regions []region) (*Memory, error) {
	m, err := newMemory(regions)
	if err != nil {
		return nil, errors.Join(err, unmap(regions))
	}
	m.mapped = true
	for i := range m.regions {
		r := &m.regions[i]
		runtime.AddCleanup(m, func(at mapping) {
			// It was a mapping of ours, and nobody holds m: the kernel has no
			// reason to refuse, and there is nobody to tell.
			_ = unix.MunmapPtr(at.p, at.n) // SAFETY: m is gone, so no slice of it is used
		}, mapping{unsafe.Pointer(unsafe.SliceData(r.b)), uintptr(len(r.b))}) // SAFETY: not Go's memory, so it keeps nothing alive
	}
	return m, nil
}

func unmap(regions []region) error {
	var errs []error
	for _, r := range regions {
		errs = append(errs, unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(r.b)), uintptr(len(r.b)))) // SAFETY: just mapped, and handed to nobody
	}
	return errors.Join(errs...)
}

// Close gives back the pages of a memory that was mapped; what is accessed
// later is a [*FaultError]. The addresses stay reserved until nobody holds m,
// so that an access that races with Close cannot hit what came after it.
func (m *Memory) Close() error {
	if !m.mapped {
		return nil
	}
	var errs []error
	for i := range m.regions {
		r := &m.regions[i]
		// SAFETY: replaces a mapping of ours, whose users expect it to fault.
		_, err := unix.MmapPtr(-1, 0, unsafe.Pointer(unsafe.SliceData(r.b)), uintptr(len(r.b)), unix.PROT_NONE,
			unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE|unix.MAP_FIXED)
		if err != nil {
			errs = append(errs, fmt.Errorf("close guest memory at %#x: %w", uint64(r.base), err))
		}
	}
	runtime.KeepAlive(m)
	return errors.Join(errs...)
}
