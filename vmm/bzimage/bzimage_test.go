package bzimage_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"

	"sekimori/vmm/bzimage"
)

// kernel is what is packed: longer than a block of LZ4's old format.
var kernel = bytes.Repeat([]byte("\x7fELF is what a kernel begins with. "), 300_000)

// bzImage is a file with that payload.
func bzImage(sectors byte, payload []byte) []byte {
	n := int(sectors)
	if n == 0 {
		n = 4
	}
	const gap = 100 // code before the payload
	b := make([]byte, (1+n)*512+gap)
	b[0x1f1] = sectors
	copy(b[0x202:], "HdrS\x0f\x02")
	binary.LittleEndian.PutUint32(b[0x248:], gap)
	binary.LittleEndian.PutUint32(b[0x24c:], uint32(len(payload)))
	return append(append(b, payload...), "what follows"...)
}

// packed is the kernel by each packer, with its size behind.
func packed(t testing.TB) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	pack := func(name string, w io.WriteCloser, err error, to *bytes.Buffer, sized bool) {
		if err == nil {
			_, err = w.Write(kernel)
		}
		if err = errors.Join(err, w.Close()); err != nil {
			t.Fatal(name, err)
		}
		all[name] = to.Bytes()
		if !sized {
			all[name] = binary.LittleEndian.AppendUint32(all[name], uint32(len(kernel)))
		}
	}
	var g, z, l, x bytes.Buffer
	pack("gzip", gzip.NewWriter(&g), nil, &g, true)
	zw, err := zstd.NewWriter(&z, zstd.WithWindowSize(64<<20))
	pack("zstd", zw, err, &z, false)
	lw := lz4.NewWriter(&l)
	pack("lz4", lw, lw.Apply(lz4.LegacyOption(true)), &l, false)
	xw, err := xz.WriterConfig{CheckSum: xz.CRC32}.NewWriter(&x)
	pack("xz", xw, err, &x, false)
	return all
}

func TestUnpack(t *testing.T) {
	for name, payload := range packed(t) {
		for _, sectors := range []byte{0, 1, 39} {
			got, err := bzimage.Unpack(bytes.NewReader(bzImage(sectors, payload)))
			if err != nil || !bytes.Equal(got, kernel) {
				t.Errorf("%s, %d sectors: Unpack = %d bytes, %v; want %d", name, sectors, len(got), err, len(kernel))
			}
		}
	}
}

// TestUnpackXZ unpacks what the kernel's own build packs, with its options: machine
// code, whose calls xz's filter turns from relative to absolute.
func TestUnpackXZ(t *testing.T) {
	tool, err := exec.LookPath("xz")
	if err != nil && slices.Contains(strings.Split(os.Getenv("SEKI_TEST_REQUIRE"), ","), "xz") {
		t.Fatal("SEKI_TEST_REQUIRE wants xz: ", err)
	}
	if err != nil {
		t.Skip("needs xz: ", err)
	}
	code, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tool, "--check=crc32", "--x86", "--lzma2=preset=1,dict=32MiB") // scripts/xz_wrap.sh, v6.1, but quicker
	cmd.Stdin = bytes.NewReader(code)
	payload, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	payload = binary.LittleEndian.AppendUint32(payload, uint32(len(code)))
	if got, err := bzimage.Unpack(bytes.NewReader(bzImage(39, payload))); err != nil || !bytes.Equal(got, code) {
		t.Errorf("Unpack = %d bytes, %v; want the %d of this program", len(got), err, len(code))
	}
}

func TestUnpackRefused(t *testing.T) {
	gz := packed(t)["gzip"]
	sized := func(n uint32) []byte {
		return binary.LittleEndian.AppendUint32(bytes.Clone(packed(t)["zstd"][:len(packed(t)["zstd"])-4]), n)
	}
	old := bzImage(1, gz)
	old[0x206] = 7
	for _, tt := range []struct {
		name string
		file []byte
		want string
	}{
		{"nothing", nil, "not one"},
		{"short", bzImage(1, gz)[:0x24f], "not one"},
		{"an ELF file", bytes.Repeat([]byte("\x7fELF"), 1000), "not one"},
		{"before there was a payload", old, "not one"},
		{"no payload", bzImage(1, nil), "a kernel of 0 bytes"},
		{"cut off", bzImage(1, gz)[:2000], "EOF"},
		{"lzma", bzImage(1, []byte("\x5d\x00\x00\x80 and so on\x00\x01\x00\x00")), "lzma"},
		{"no xz", bzImage(1, []byte("\xfd7zXZ\x00 and so on\x00\x01\x00\x00")), "xz: "},
		{"it says more than there is", bzImage(1, sized(uint32(len(kernel)+1))), "its end says"},
		{"it says less than there is", bzImage(1, sized(uint32(len(kernel)-1))), "its end says"},
		{"more than we take", bzImage(1, sized(2<<30)), "2048 MiB"},
		{"damaged", bzImage(1, append(bytes.Clone(gz[:len(gz)/2]), gz[len(gz)-8:]...)), "bytes"},
	} {
		got, err := bzimage.Unpack(bytes.NewReader(tt.file))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Unpack = %d bytes, %v; want %q", tt.name, len(got), err, tt.want)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	for _, p := range packed(f) {
		f.Add(byte(1), p[:min(len(p), 3000)], uint32(100))
	}
	f.Fuzz(func(t *testing.T, sectors byte, payload []byte, size uint32) {
		size %= 1 << 20
		got, err := bzimage.Unpack(bytes.NewReader(bzImage(sectors, binary.LittleEndian.AppendUint32(payload, size))))
		if err != nil && got != nil || err == nil && uint32(len(got)) != size {
			t.Errorf("Unpack = %d bytes, %v", len(got), err)
		}
	})
}
