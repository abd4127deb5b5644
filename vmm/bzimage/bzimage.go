// Package bzimage takes the kernel out of the file that distributions install
// as vmlinuz: the ELF file vmlinux, which has the kernel's BTF and exports
// (package introspect reads those), and which a machine can enter without the
// guest unpacking it first.
//
//	vmlinux, err := bzimage.Unpack(file)
//
// The file may be anybody's: nothing is believed but what was read, and what is
// unpacked is bounded.
package bzimage

import (
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/therootcompany/xz"
)

// The setup header (Documentation/arch/x86/boot.rst, v6.12): offsets within the
// file, and what stands there.
const (
	offSetupSects = 0x1f1 // sectors of real-mode code behind the first
	offMagic      = 0x202
	offVersion    = 0x206
	offPayload    = 0x248 // from the protected-mode code on, and its length
	headerEnd     = 0x250

	sector         = 512
	defaultSectors = 4
	version208     = 0x0208 // the first with a payload
)

// MaxSize bounds an unpacked kernel: 20 times what distributions have.
const MaxSize = 1 << 30

// Errors of files that cannot be unpacked.
var (
	ErrNotBzImage  = errors.New("bzImage: not one")
	ErrCompression = errors.New("bzImage: the kernel is packed in a way that is not known here (lzma, lzo): unpack it with the kernel's scripts/extract-vmlinux")
)

// Unpack returns the kernel in a file. It takes half a second, for 60 MB, and three of what
// xz packed.
func Unpack(file io.ReaderAt) ([]byte, error) {
	var h [headerEnd]byte
	if _, err := file.ReadAt(h[:], 0); errors.Is(err, io.EOF) {
		return nil, ErrNotBzImage
	} else if err != nil {
		return nil, fmt.Errorf("bzImage: %w", err)
	}
	le := binary.LittleEndian
	if string(h[offMagic:offMagic+4]) != "HdrS" || le.Uint16(h[offVersion:]) < version208 {
		return nil, ErrNotBzImage
	}
	sectors := int64(h[offSetupSects])
	if sectors == 0 {
		sectors = defaultSectors
	}
	at, n := (1+sectors)*sector+int64(le.Uint32(h[offPayload:])), int64(le.Uint32(h[offPayload+4:]))
	if n < 8 {
		return nil, fmt.Errorf("bzImage: a kernel of %d bytes", n)
	}
	// The size of what was packed is the end of the payload, of a gzip file too.
	var end [4]byte
	if _, err := file.ReadAt(end[:], at+n-4); err != nil {
		return nil, fmt.Errorf("bzImage: %d bytes from %d on: %w", n, at, err)
	}
	size := int64(le.Uint32(end[:]))
	if size > MaxSize {
		return nil, fmt.Errorf("bzImage: a kernel of %d MiB", size>>20)
	}
	r, err := unpacker(io.NewSectionReader(file, at, n))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	// What is there is read, rather than what is claimed set aside.
	var kernel bytes.Buffer
	got, err := io.Copy(&kernel, io.LimitReader(r, size+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("bzImage: after %d of %d bytes: %w", got, size, err)
	case got != size:
		return nil, fmt.Errorf("bzImage: %d bytes or more, and its end says %d", got, size)
	}
	return kernel.Bytes(), nil
}

// maxWindow is what zstd -22 looks back, with which kernels are packed; xz does 32 MB.
const maxWindow = 128 << 20

// unpacker reads what was packed.
func unpacker(payload *io.SectionReader) (io.ReadCloser, error) {
	var magic [4]byte
	if _, err := payload.ReadAt(magic[:], 0); err != nil {
		return nil, fmt.Errorf("bzImage: %w", err)
	}
	body := io.NewSectionReader(payload, 0, payload.Size()-4) // without the size
	switch {
	case bytes.HasPrefix(magic[:], []byte{0x1f, 0x8b}):
		return gzip.NewReader(payload)
	case bytes.HasPrefix(magic[:], []byte("BZh")):
		return io.NopCloser(bzip2.NewReader(body)), nil
	case bytes.Equal(magic[:], []byte{0x02, 0x21, 0x4c, 0x18}): // the format of lz4 -l
		return io.NopCloser(lz4.NewReader(body)), nil
	case bytes.Equal(magic[:], []byte{0xfd, '7', 'z', 'X'}): // behind xz's filter for x86, as scripts/xz_wrap.sh packs
		z, err := xz.NewReader(body, maxWindow)
		if err != nil {
			return nil, fmt.Errorf("bzImage: %w", err)
		}
		z.Multistream(false)
		return io.NopCloser(z), nil
	case bytes.Equal(magic[:], []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(body, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(MaxSize))
		if err != nil {
			return nil, fmt.Errorf("bzImage: %w", err)
		}
		return z.IOReadCloser(), nil
	}
	return nil, ErrCompression
}
