package nicshadow_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket/pcapgo"

	"sekimori/nicshadow"
	"sekimori/nicshadow/replay"
	"sekimori/nicshadow/rule"
	"sekimori/nicshadow/tap/taptest"
)

func newCapture(t testing.TB, cfg nicshadow.CaptureConfig) (*nicshadow.Capture, string) {
	t.Helper()
	if cfg.Path == "" {
		cfg.Path = filepath.Join(t.TempDir(), "drops.pcapng")
	}
	c, err := nicshadow.NewCapture(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c, cfg.Path
}

// writeDrops captures three drops of two containers and returns the file.
func writeDrops(t *testing.T) (path string, frames [][]byte) {
	t.Helper()
	c, path := newCapture(t, nicshadow.CaptureConfig{})
	b := newBench(t, nicshadow.Config{Capture: c}, 2)
	put(t, b.table, 1, program(t, rule.Drop, 42))
	frames = [][]byte{arpReply(macOf(2), macOf(1), "10.0.0.3", "10.0.0.2"), udp(9, 2, 0), append(udp(2, 1, 1), make([]byte, 13)...)}
	b.send(t, 1, frames[0])
	b.send(t, 2, frames[1])
	b.send(t, 1, frames[2])
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return path, frames
}

var wantComments = []string{
	"c1 drop: policy: predicate allow_all at a.star:42:5: arp reply 10.0.0.3 is-at 02:00:00:00:00:01 -> 10.0.0.2",
	"c2 drop: unknown destination: udp 10.0.0.2:4096 -> 10.0.0.9:8192 length 50",
	"c1 drop: trailing bytes: 02:00:00:00:00:01 -> 02:00:00:00:00:02 type 0x0800 length 63",
}

// TestCapture reads the file back by our own reader, and by gopacket's, which
// knows no comments.
func TestCapture(t *testing.T) {
	path, frames := writeDrops(t)
	got, err := replay.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ng, err := pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	var comments []string
	for i, g := range got {
		comments = append(comments, g.Interface+" "+g.Comment)
		data, ci, err := ng.ReadPacketData()
		if err != nil {
			t.Fatal(err)
		}
		iface, err := ng.Interface(ci.InterfaceIndex)
		if err != nil || iface.Name != g.Interface || !ci.Timestamp.Equal(g.Time) || ci.Length != g.Length {
			t.Errorf("frame %d: gopacket has %+v of %q, %v; want %+v", i, ci, iface.Name, err, g)
		}
		if !bytes.Equal(data, frames[i]) || !bytes.Equal(g.Data, frames[i]) {
			t.Errorf("frame %d: %x, by gopacket %x; want %x", i, g.Data, data, frames[i])
		}
		if time.Since(g.Time) > time.Minute {
			t.Errorf("frame %d at %v", i, g.Time)
		}
	}
	if d := cmp.Diff(wantComments, comments); d != "" {
		t.Errorf("comments (-want +got):\n%s", d)
	}
	if _, _, err := ng.ReadPacketData(); err != io.EOF {
		t.Errorf("after the last frame: %v; want %v", err, io.EOF)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", st.Mode(), err)
	}
}

// TestCaptureTshark reads the file with Wireshark's reader.
func TestCaptureTshark(t *testing.T) {
	if _, err := exec.LookPath("tshark"); err != nil {
		taptest.Missing(t, "tshark", err)
	}
	path, _ := writeDrops(t)
	out, err := exec.Command("tshark", "-r", path, "-T", "fields", "-e", "frame.interface_name", "-e", "frame.comment", "-e", "frame.len").Output()
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for i, c := range wantComments {
		name, comment, _ := strings.Cut(c, " ")
		fmt.Fprintf(&want, "%s\t%s\t%d\n", name, comment, []int{42, 50, 63}[i])
	}
	if d := cmp.Diff(want.String(), string(out)); d != "" {
		t.Errorf("tshark (-want +got):\n%s", d)
	}
}

// TestCaptureRing fills the ring several times: two files of bounded size, each
// readable, that end with the last frame.
func TestCaptureRing(t *testing.T) {
	const size = 64 << 10
	c, path := newCapture(t, nicshadow.CaptureConfig{Size: size, Rate: 1e9})
	src := c.Source("web")
	j := &nicshadow.Judgement{Reason: nicshadow.NoProgram}
	const n = 2000
	for i := range n {
		missed := c.Missed()
		for src.Offer(udp(2, 1, uint64(i)), j); c.Missed() > missed; src.Offer(udp(2, 1, uint64(i)), j) {
			missed = c.Missed()
			time.Sleep(time.Millisecond) // the writer's turn
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	next := uint64(n)
	for _, p := range []string{path, path + ".old"} {
		st, err := os.Stat(p)
		if err != nil || st.Size() > size/2+4096 {
			t.Fatalf("%s: %d bytes, %v; want at most %d", p, st.Size(), err, size/2+4096)
		}
		frames, err := replay.Open(p)
		if err != nil || len(frames) == 0 {
			t.Fatalf("%s: %d frames, %v", p, len(frames), err)
		}
		for i := len(frames) - 1; i >= 0; i-- {
			next--
			if got := frames[i].Data[49]; got != byte(next) {
				t.Fatalf("%s: frame %d has number %d; want %d", p, i, got, byte(next))
			}
		}
	}
}

// TestCaptureMisses: frames that nobody writes down are counted, and whoever
// offers them does not wait.
func TestCaptureMisses(t *testing.T) {
	c, path := newCapture(t, nicshadow.CaptureConfig{Rate: 100})
	src := c.Source("web")
	j := &nicshadow.Judgement{Reason: nicshadow.NoProgram}
	for range 5000 {
		src.Offer(udp(2, 1, 0), j)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	src.Offer(udp(2, 1, 0), j) // after Close: nothing
	frames, err := replay.Open(path)
	if err != nil || uint64(len(frames))+c.Missed() != 5000 || len(frames) > 120 {
		t.Errorf("%d captured, %d missed, %v; want 5000 together", len(frames), c.Missed(), err)
	}
}

// TestCaptureFullDisk: a disk that is full ends the capture, with its error at
// Close, and nothing else.
func TestCaptureFullDisk(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		taptest.Missing(t, "/dev/full", err)
	}
	c, _ := newCapture(t, nicshadow.CaptureConfig{Path: "/dev/full"})
	b := newBench(t, nicshadow.Config{Capture: c}, 2)
	for range 300 {
		b.send(t, 1, udp(9, 1, 0))
	}
	b.send(t, 1, udp(2, 1, 0))
	if len(b.cards[2].frames()) != 1 {
		t.Error("the switch stopped with the capture")
	}
	if err := c.Close(); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("Close = %v; want no space left", err)
	}
	if _, err := nicshadow.NewCapture(nicshadow.CaptureConfig{Path: filepath.Join(t.TempDir(), "no", "x")}); err == nil {
		t.Error("NewCapture in a directory that is not there: no error")
	}
}

func TestCaptureAllocates(t *testing.T) {
	c, _ := newCapture(t, nicshadow.CaptureConfig{Rate: 1})
	defer c.Close()
	src := c.Source("web")
	j := &nicshadow.Judgement{Reason: nicshadow.NoProgram}
	f := udp(2, 1, 0)
	src.Offer(f, j)
	if n := testing.AllocsPerRun(1000, func() { src.Offer(f, j) }); n != 0 {
		t.Errorf("Offer allocates %v times", n)
	}
}
