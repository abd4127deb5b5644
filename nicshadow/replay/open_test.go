package replay_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"sekimori/nicshadow/replay"
)

// captures are the project's recorded frames.
func captures(t testing.TB) []string {
	t.Helper()
	paths, err := filepath.Glob("../../testdata/pcap/*.pcap")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no captures: %v", err)
	}
	return paths
}

// TestOpenAsGopacket reads every capture as gopacket does.
func TestOpenAsGopacket(t *testing.T) {
	for _, path := range captures(t) {
		got, err := replay.Open(path)
		if err != nil {
			t.Errorf("Open = %v", err)
			continue
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		r, err := pcapgo.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for ; ; n++ {
			data, ci, err := r.ReadPacketData()
			if err != nil {
				break
			}
			if n >= len(got) || !bytes.Equal(got[n].Data, data) || !got[n].Time.Equal(ci.Timestamp) || got[n].Length != ci.Length || got[n].Number != n+1 {
				t.Fatalf("%s: frame %d unlike gopacket's", path, n+1)
			}
		}
		if n != len(got) || n == 0 {
			t.Errorf("%s: %d frames; gopacket has %d", path, len(got), n)
		}
	}
}

// at has nanoseconds, which only some formats keep.
var at = time.Date(2026, 3, 4, 5, 6, 7, 123456789, time.UTC)

// written are captures of two frames made by others, by format.
func written(t testing.TB) map[string][]byte {
	t.Helper()
	frames := [][]byte{bytes.Repeat([]byte{1}, 61), bytes.Repeat([]byte{2}, 64)}
	out := make(map[string][]byte)
	for name, newWriter := range map[string]func(*bytes.Buffer) *pcapgo.Writer{
		"pcap":             func(b *bytes.Buffer) *pcapgo.Writer { return pcapgo.NewWriter(b) },
		"pcap nanoseconds": func(b *bytes.Buffer) *pcapgo.Writer { return pcapgo.NewWriterNanos(b) },
	} {
		var b bytes.Buffer
		w := newWriter(&b)
		if err := w.WriteFileHeader(65536, layers.LinkTypeEthernet); err != nil {
			t.Fatal(err)
		}
		for _, f := range frames {
			w.WritePacket(gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(f), Length: len(f) + 10}, f)
		}
		out[name] = b.Bytes()
	}
	var b bytes.Buffer
	w, err := pcapgo.NewNgWriter(&b, layers.LinkTypeEthernet)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		w.WritePacket(gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(f), Length: len(f) + 10}, f)
	}
	w.Flush()
	out["pcapng"] = b.Bytes()
	for name, b := range out {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		w.Write(b)
		w.Close()
		out[name+" gzip"] = z.Bytes()
		if strings.Contains(name, "gzip") {
			delete(out, name+" gzip")
		}
	}
	out["pcap big-endian"] = bigEndian(frames)
	return out
}

func bigEndian(frames [][]byte) []byte {
	be := binary.BigEndian
	b := be.AppendUint32(nil, 0xA1B23C4D)
	b = append(b, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0)
	b = be.AppendUint32(be.AppendUint32(b, 65536), 1)
	for _, f := range frames {
		b = be.AppendUint32(be.AppendUint32(b, uint32(at.Unix())), uint32(at.Nanosecond()))
		b = be.AppendUint32(be.AppendUint32(b, uint32(len(f))), uint32(len(f)+10))
		b = append(b, f...)
	}
	return b
}

func TestReadFormats(t *testing.T) {
	for name, b := range written(t) {
		frames, err := replay.Read(bytes.NewReader(b))
		if err != nil || len(frames) != 2 {
			t.Errorf("%s: %d frames, %v; want 2", name, len(frames), err)
			continue
		}
		want := at
		if strings.TrimSuffix(name, " gzip") == "pcap" {
			want = at.Truncate(time.Microsecond)
		}
		for i, f := range frames {
			if f.Number != i+1 || !f.Time.Equal(want) || f.Length != len(f.Data)+10 || len(f.Data) != []int{61, 64}[i] || f.Data[0] != byte(i+1) {
				t.Errorf("%s: frame %d = %+v", name, i+1, f)
			}
		}
	}
}

// TestReadEditcap reads what Wireshark writes, comments and all.
func TestReadEditcap(t *testing.T) {
	if _, err := exec.LookPath("editcap"); err != nil {
		t.Skipf("missing feature: editcap: %v", err)
	}
	path := filepath.Join(t.TempDir(), "x.pcapng")
	if out, err := exec.Command("editcap", "-F", "pcapng", "-a", "2:why not", captures(t)[0], path).CombinedOutput(); err != nil {
		t.Fatalf("editcap: %v: %s", err, out)
	}
	a, err := replay.Open(captures(t)[0])
	if err != nil {
		t.Fatal(err)
	}
	b, err := replay.Open(path)
	if err != nil || len(a) != len(b) {
		t.Fatalf("%d frames, %v; want %d", len(b), err, len(a))
	}
	for i := range a {
		if !bytes.Equal(a[i].Data, b[i].Data) || !a[i].Time.Equal(b[i].Time) || (b[i].Comment == "why not") != (i == 1) {
			t.Errorf("frame %d: %+v; want %+v", i+1, b[i], a[i])
		}
	}
}

// ng builds a pcapng file: a section, then the blocks, each its type and body.
func ng(blocks ...any) []byte {
	le := binary.LittleEndian
	block := func(typ uint32, body []byte) []byte {
		body = append(body, make([]byte, -len(body)&3)...)
		n := uint32(len(body) + 12)
		return le.AppendUint32(append(le.AppendUint32(le.AppendUint32(nil, typ), n), body...), n)
	}
	b := block(0x0A0D0D0A, []byte{0x4D, 0x3C, 0x2B, 0x1A, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255})
	for i := 0; i < len(blocks); i += 2 {
		b = append(b, block(uint32(blocks[i].(int)), blocks[i+1].([]byte))...)
	}
	return b
}

// TestReadHostile: files that lie are errors, and cost no memory for their lies.
func TestReadHostile(t *testing.T) {
	good := written(t)
	eth := []byte{1, 0, 0, 0, 0, 0, 0, 0}
	resol := func(v byte) []byte { return append(bytes.Clone(eth), 9, 0, 1, 0, v, 0, 0, 0) }
	epb := func(iface, caplen uint32, data int) []byte {
		b := make([]byte, 20+data)
		binary.LittleEndian.PutUint32(b, iface)
		binary.LittleEndian.PutUint32(b[4:], 1<<31)
		binary.LittleEndian.PutUint32(b[12:], caplen)
		return b
	}
	put := func(b []byte, at int, v ...byte) []byte {
		b = bytes.Clone(b)
		copy(b[at:], v)
		return b
	}
	tests := []struct {
		name string
		file []byte
		want error // nil: no error
		n    int   // frames
	}{
		{"empty", nil, replay.ErrFormat, 0},
		{"text", []byte("#!/bin/sh\n"), replay.ErrFormat, 0},
		{"pcap header cut", good["pcap"][:23], replay.ErrCut, 0},
		{"pcap of wifi", put(good["pcap"], 20, 105), replay.ErrLinkType, 0},
		{"pcap record header cut", good["pcap"][:30], replay.ErrCut, 0},
		{"pcap record cut", good["pcap"][:len(good["pcap"])-1], replay.ErrCut, 1},
		{"pcap record of 4 GiB", put(good["pcap"], 32, 255, 255, 255, 255), replay.ErrFormat, 0},
		{"pcapng cut", good["pcapng"][:len(good["pcapng"])-1], replay.ErrCut, 1},
		{"pcapng byte order", put(good["pcapng"], 8, 0), replay.ErrFormat, 0},
		{"pcapng block of 0", ng(1, eth, 6, epb(0, 1, 4))[:28+4], replay.ErrCut, 0},
		{"pcapng block length 3", put(ng(1, eth), 32, 3), replay.ErrFormat, 0},
		{"pcapng block length 2^32-4", put(ng(1, eth), 32, 252, 255, 255, 255), replay.ErrCut, 0},
		{"pcapng packet of no interface", ng(6, epb(0, 4, 4)), replay.ErrFormat, 0},
		{"pcapng interface 2^32-1", ng(1, eth, 6, epb(1<<32-1, 4, 4)), replay.ErrFormat, 0},
		{"pcapng packet longer than its block", ng(1, eth, 6, epb(0, 5, 4)), replay.ErrFormat, 0},
		{"pcapng packet of 4 GiB", ng(1, eth, 6, epb(0, 1<<32-1, 4)), replay.ErrFormat, 0},
		{"pcapng packet block cut", ng(1, eth, 6, make([]byte, 16)), replay.ErrFormat, 0},
		{"pcapng wifi", ng(1, put(eth, 0, 105), 6, epb(0, 4, 4)), replay.ErrLinkType, 0},
		{"pcapng wifi without frames", ng(1, put(eth, 0, 105)), nil, 0},
		{"pcapng resolution 10^-64, gopacket divides by zero", ng(1, resol(64), 6, epb(0, 4, 4)), replay.ErrFormat, 0},
		{"pcapng resolution 2^-127", ng(1, resol(255), 6, epb(0, 4, 4)), replay.ErrFormat, 0},
		{"pcapng resolution 2^-63", ng(1, resol(0x80|63), 6, epb(0, 4, 4)), nil, 1},
		{"pcapng option longer than its block", ng(1, append(bytes.Clone(eth), 2, 0, 9, 0)), replay.ErrFormat, 0},
		{"pcapng simple packet", ng(1, eth, 3, []byte{4, 0, 0, 0, 1, 2, 3, 4}), nil, 1},
		{"pcapng simple packet of no interface", ng(3, []byte{4, 0, 0, 0, 1, 2, 3, 4}), replay.ErrFormat, 0},
		{"pcapng old packet block", ng(1, eth, 2, epb(0, 4, 4)), nil, 1},
		{"pcapng unknown block", ng(1, eth, 77, []byte{1}, 6, epb(0, 4, 4)), nil, 1},
		{"gzip of nothing", []byte{0x1f, 0x8b, 8}, nil, -1},
		{"gzip bomb", bomb(t), replay.ErrTooLarge, 0},
	}
	for _, tt := range tests {
		frames, err := replay.Read(bytes.NewReader(tt.file))
		if tt.n < 0 {
			if err == nil {
				t.Errorf("%s: no error", tt.name)
			}
			continue
		}
		if !errors.Is(err, tt.want) || len(frames) != tt.n {
			t.Errorf("%s: %d frames, %v; want %d, %v", tt.name, len(frames), err, tt.n, tt.want)
		}
	}
	if _, err := replay.Open(filepath.Join(t.TempDir(), "no")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open of nothing = %v", err)
	}
}

// bomb is a small file that unpacks to more than a capture may have.
func bomb(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range replay.MaxCapture>>20 + 1 {
		w.Write(zeros)
	}
	w.Close()
	return b.Bytes()
}

// FuzzRead: an error, or frames that are inside the file and numbered.
func FuzzRead(f *testing.F) {
	for _, b := range written(f) {
		f.Add(b)
	}
	f.Add(ng(1, []byte{1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, 64, 0, 0, 0}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 2 && b[0] == 0x1f {
			return // the work of compress/gzip
		}
		frames, err := replay.Read(bytes.NewReader(b))
		total := 0
		for i, fr := range frames {
			total += len(fr.Data)
			if fr.Number != i+1 {
				t.Fatalf("frame %d has number %d", i+1, fr.Number)
			}
			_ = fmt.Sprint(fr.Time)
		}
		if total > len(b) {
			t.Fatalf("%d bytes of frames in %d, %v", total, len(b), err)
		}
	})
}
