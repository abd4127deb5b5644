package ebpf_test

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/replay"
	"sekimori/nicshadow/rule/ebpf"
)

func parser(t testing.TB) *ebpf.Parser {
	t.Helper()
	require(t)
	p, err := ebpf.LoadParser()
	if err != nil {
		t.Fatalf("LoadParser: %+v", err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// sameParse holds both parsers to one reading of b: the reason, the class, and
// every field that it has.
func sameParse(t testing.TB, p *ebpf.Parser, b []byte) frame.Reason {
	t.Helper()
	var want, got frame.Key
	r := frame.Parse(b, &want)
	k, err := p.Parse(b, &got)
	if err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	if k != r || got.Class() != want.Class() {
		t.Fatalf("%x\nkernel: %v, class %v; Parse: %v, class %v", b, k, got.Class(), r, want.Class())
	}
	for f := frame.FieldInvalid + 1; f < frame.NumFields; f++ {
		gh, gl := got.Wide(f)
		if wh, wl := want.Wide(f); gh != wh || gl != wl {
			t.Fatalf("%x\n%v: kernel %x %x, Parse %x %x", b, f, gh, gl, wh, wl)
		}
	}
	return r
}

const (
	ether   = "020000000001" + "020000000002"
	ip4Head = "4500LLLL00000000" + "40PP0000" + "0a000002" + "0a000001"
	ip6Head = "60000000LLLL" + "PPff" + "fe800000000000000000000000000002" + "ff0200000000000000000001ff000001"
	target6 = "fe800000000000000000000000000001"
)

// packet is a frame of the EtherType with an IP packet around the payload. The
// length stands where LLLL does.
func packet(head, proto, payload string) string {
	typ, n := "0800", 20+len(payload)/2
	if head == ip6Head {
		typ, n = "86dd", len(payload)/2
	}
	head = strings.Replace(head, "PP", proto, 1)
	return ether + typ + strings.Replace(head, "LLLL", hex.EncodeToString(binary.BigEndian.AppendUint16(nil, uint16(n))), 1) + payload
}

func udp(ports, payload string) string {
	return ports + hex.EncodeToString(binary.BigEndian.AppendUint16(nil, uint16(8+len(payload)/2))) + "0000" + payload
}

// seeds are frames of every class and with every header, to be changed.
func seeds(t testing.TB) [][]byte {
	tcp := "1f90005000000001000000005012ffff00000000"
	dhcp := "01010600deadbeef00000000" + strings.Repeat("00000000", 4) + "020000000002" + strings.Repeat("00", 202) +
		"63825363" + "350103" + "32040a000007" + "00" + "36040a0000fe" + "330400000e10" + "37020103" + "ff"
	offer := "02" + strings.Replace(dhcp[2:], "350103", "350105", 1)
	iana := "0003002800000001000000020000000300050018" + target6 + "0000003c00000078"
	iata := "0004002000000001" + "00050018" + target6 + "0000003c00000078"
	unicast := "000c0010" + target6
	ndp := func(typ, flags string) string { return typ + "000000" + flags + target6 }
	texts := []string{
		ether + "0806" + "0001080006040001" + "0200000000020a000002" + "0000000000000a000001",
		ether + "88cc" + "0102030405",
		ether + "0003" + "424203",
		ether + "8100000588a80006" + "0806" + "0001080006040002" + "0200000000020a000002" + "0000000000000a000001",
		ether + "9100000081000001" + "8100" + "0003" + "0800",
		packet(ip4Head, "06", tcp), packet(ip4Head, "06", tcp+"00112233"), packet(ip4Head, "2f", "0000"),
		packet(ip4Head, "11", udp("00350036", "0011")), packet(ip4Head, "01", "0800000000010001"),
		packet(ip4Head, "01", "0301000000000000"+"4500001c00000000401100000a0000020a000009"+"0000000000000000"),
		packet(ip4Head, "11", udp("00440043", dhcp)), packet(ip4Head, "11", udp("00430044", offer)),
		packet("4800LLLL00000000"+"40PP0000"+"0a000002"+"0a000001"+"0101940400000000", "06", tcp),
		packet("4700LLLL00000000"+"40PP0000"+"0a000002"+"0a000001"+"83070400000000"+"00", "06", tcp),
		packet("4500LLLL00002000"+"40PP0000"+"0a000002"+"0a000001", "11", "00350036010000000011223344556677"),
		packet("4500LLLL00000003"+"40PP0000"+"0a000002"+"0a000001", "06", tcp),
		packet(ip6Head, "06", tcp), packet(ip6Head, "11", udp("00350036", "0011")), packet(ip6Head, "2f", "00"),
		packet(ip6Head, "3a", "8000000000010001"), packet(ip6Head, "3a", "8500000000000000"+"0101020000000002"),
		packet(ip6Head, "3a", "8600000040000000"+"0000000000000000"+"0101020000000002"+"05010000000005dc"),
		packet(ip6Head, "3a", ndp("87", "0000000000")[:8]+"00000000"+target6+"0101020000000002"),
		packet(ip6Head, "3a", "88000000"+"20000000"+target6+"0201020000000002"),
		packet(ip6Head, "3a", "89000000"+"00000000"+target6+target6+"0201020000000002"+"0e02000000000000"+"0000000000000000"),
		packet(ip6Head, "3a", "0200000000000500"+"600000000000"+"3aff"+target6+target6),
		packet(ip6Head, "00", "3c00050200000000"+"2b00010400000000"+"2c00040000000000"+"0600000100000000"+tcp),
		packet(ip6Head, "2c", "3a00000000000000"+"8000000000010001"),
		packet(ip6Head, "2c", "1100001800000000"+"8000000000010001"),
		packet(ip6Head, "3c", strings.Repeat("3c00010400000000", 6)+"0600010400000000"+tcp),
		packet(ip6Head, "3c", strings.Repeat("3c00010400000000", 7)+"0600010400000000"+tcp),
		packet(ip6Head, "11", udp("02220223", "01abcdef"+iana+unicast+iata)),
		packet(ip6Head, "11", udp("02230222", "07abcdef"+"00030004000000ff"+iata+iana)),
		packet(ip6Head, "11", udp("02230223", "0c00"+target6+target6+"00090004"+"01020304")),
	}
	var out [][]byte
	for _, s := range texts {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatalf("seed %s: %v", s, err)
		}
		out = append(out, b)
	}
	return out
}

// captured are the frames of testdata/pcap.
func captured(t testing.TB) [][]byte {
	files, err := filepath.Glob("../../../testdata/pcap/*.pcap")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captures: %v", err)
	}
	var out [][]byte
	for _, name := range files {
		frames, err := replay.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range frames {
			out = append(out, f.Data)
		}
	}
	return out
}

// Every captured frame and every seed, at every length.
func TestParserFrames(t *testing.T) {
	p := parser(t)
	classes := frame.ClassSet(0)
	for _, b := range append(captured(t), seeds(t)...) {
		var k frame.Key
		if sameParse(t, p, b) == frame.OK && frame.Parse(b, &k) == frame.OK {
			classes |= frame.SetOf(k.Class())
		}
		if len(b) > 400 {
			continue
		}
		for n := range b {
			sameParse(t, p, b[:n])
		}
		padded := append([]byte(nil), b...)
		for range 64 {
			padded = append(padded, 0xff)
			sameParse(t, p, padded)
		}
	}
	for c := frame.ClassARP; c < frame.NumClasses; c++ {
		if !classes.Has(c) {
			t.Errorf("no frame of class %v was accepted: the seeds are of no use for it", c)
		}
	}
}

// changed is b with a few bytes changed, the ends cut or more behind, mostly
// with the lengths of its headers set right again.
func changed(r *rand.Rand, b []byte) []byte {
	b = append([]byte(nil), b...)
	switch r.IntN(8) {
	case 0:
		b = b[:r.IntN(len(b)+1)]
	case 1:
		for range 1 + r.IntN(80) {
			b = append(b, byte(r.Uint32()))
		}
	case 2: // a piece twice
		at := r.IntN(len(b) + 1)
		n := r.IntN(len(b) - at + 1)
		b = append(b[:at+n:at+n], b[at:]...)
	}
	odd := []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 17, 43, 44, 50, 51, 52, 53, 54, 58, 60, 0x45, 0x46, 0x60, 0x81, 131, 133, 134, 135, 136, 137, 254, 255}
	for range r.IntN(4) {
		if len(b) == 0 {
			break
		}
		switch i := r.IntN(len(b)); r.IntN(3) {
		case 0:
			b[i] ^= 1 << r.IntN(8)
		case 1:
			b[i] = odd[r.IntN(len(odd))]
		case 2:
			b[i] += byte(r.IntN(9) - 4)
		}
	}
	if r.IntN(4) > 0 {
		fit(b)
	}
	return b
}

// fit sets the lengths of an untagged IP packet and of UDP behind its plain
// header.
func fit(b []byte) {
	be := binary.BigEndian
	switch {
	case len(b) >= 34 && be.Uint16(b[12:]) == 0x0800:
		be.PutUint16(b[16:], uint16(len(b)-14))
		if b[23] == 17 && len(b) >= 42 {
			be.PutUint16(b[38:], uint16(len(b)-34))
		}
	case len(b) >= 54 && be.Uint16(b[12:]) == 0x86dd:
		be.PutUint16(b[18:], uint16(len(b)-54))
		if b[20] == 17 && len(b) >= 62 {
			be.PutUint16(b[58:], uint16(len(b)-54))
		}
	}
}

// TestParserRandom changes the seeds; every reason but that of frames
// longer than TestParserRandom makes must come up.
func TestParserRandom(t *testing.T) {
	p, r, from := parser(t), rand.New(rand.NewPCG(1, 2)), append(seeds(t), captured(t)...)
	n := 150000
	if testing.Short() {
		n = 30000
	}
	seen := map[frame.Reason]int{}
	for range n {
		b := from[r.IntN(len(from))]
		for range 1 + r.IntN(3) {
			b = changed(r, b)
		}
		if len(b) <= 1600 {
			seen[sameParse(t, p, b)]++
		}
	}
	for reason := frame.OK; reason < frame.NumReasons; reason++ {
		if seen[reason] == 0 && reason != frame.TooLong {
			t.Errorf("no frame was refused as %q", reason)
		}
	}
	t.Log(seen)
}

// Long lists are walked to their end: options that fill a frame.
func TestParserLong(t *testing.T) {
	p := parser(t)
	for _, n := range []int{1, 100, 1000, 1200} {
		pads := udp("00440043", "01010600deadbeef00000000"+strings.Repeat("00000000", 4)+"020000000002"+strings.Repeat("00", 202)+"63825363"+strings.Repeat("00", n)+"350101ff")
		nonces := "8500000000000000" + strings.Repeat("0e01000000000000", n/8)
		for _, s := range []string{packet(ip4Head, "11", pads), packet(ip6Head, "3a", nonces), packet(ip6Head, "11", udp("02220223", "01abcdef"+strings.Repeat("00080000", n/4)))} {
			b, err := hex.DecodeString(s)
			if err != nil {
				t.Fatal(err)
			}
			if r := sameParse(t, p, b); r != frame.OK {
				t.Errorf("%d: %v", n, r)
			}
		}
	}
}

// FuzzParser is TestParserRandom without end.
func FuzzParser(f *testing.F) {
	p := parser(f)
	for _, b := range seeds(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) <= 3000 {
			sameParse(t, p, b)
		}
	})
}

func BenchmarkParser(b *testing.B) {
	p := parser(b)
	if n, ok := p.Verified(); ok {
		b.ReportMetric(float64(n), "verified")
	}
	for name, s := range map[string]string{
		"arp": ether + "0806" + "0001080006040001" + "0200000000020a000002" + "0000000000000a000001",
		"tcp": packet(ip4Head, "06", "1f90005000000001000000005012ffff00000000"),
	} {
		b.Run(name, func(b *testing.B) {
			data, err := hex.DecodeString(s)
			if err != nil {
				b.Fatal(err)
			}
			each, err := p.Repeat(data, b.N)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(each.Nanoseconds()), "ns/frame")
		})
	}
}
