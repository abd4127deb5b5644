package nicshadow_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sekimori/nicshadow"
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
	"sekimori/nicshadow/tap"
	"sekimori/nicshadow/tap/taptest"
)

// program returns one that gives every frame the verdict, by line of a.star,
// but drops TCP to port 22 (line 99).
func program(t testing.TB, v rule.Verdict, line uint32) *rule.Program {
	t.Helper()
	u := &rule.Unit{
		Files: []string{"a.star"},
		Whys: []rule.Why{
			{Kind: rule.WhyPredicate, Name: "allow_all", Pos: rule.Pos{Line: line, Col: 5}},
			{Kind: rule.WhyPredicate, Name: "allow_tcp", Pos: rule.Pos{Line: 99, Col: 7}},
		},
		Insns: []rule.Insn{
			{Op: rule.OpTestEq, A: uint8(frame.DstPort), Off: 1, K: 22},
			{Op: rule.OpRet, A: uint8(rule.Drop), K: 1},
			{Op: rule.OpRet, A: uint8(v), K: 0},
		},
	}
	for c := frame.ClassNone + 1; c < frame.NumClasses; c++ {
		u.Entries[c] = 2
	}
	u.Entries[frame.ClassIPv4TCP] = 0
	p, err := rule.New(u)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// put registers a sender unless it is, and puts a program in force.
func put(t testing.TB, table *nicshadow.Table, s nicshadow.Sender, p *rule.Program) {
	t.Helper()
	if table.Program(s) == nil {
		_ = table.Register(s, fmt.Sprint("c", s))
	}
	h, err := table.Load(s, p.Bytes())
	if err == nil {
		err = table.Swap(s, h, nicshadow.Enforce)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func stats(t testing.TB, table *nicshadow.Table, s nicshadow.Sender) nicshadow.Stats {
	t.Helper()
	st, err := table.Stats(s)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// reason is how many frames were counted for a reason, dropped or would drop.
func reason(st nicshadow.Stats, name string) (n uint64) {
	for _, r := range st.Reasons {
		if r.Reason == name {
			n += r.Frames
		}
	}
	return n
}

// macOf is the address of card i.
func macOf(i int) frame.MAC { return frame.MAC{2, 0, 0, 0, 0, byte(i)} }

var broadcast = frame.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// arpReply is a reply of 42 bytes: card src says that ip is at its address.
func arpReply(dst, src frame.MAC, spa, tpa string) []byte {
	b := append(append([]byte{}, dst[:]...), src[:]...)
	b = append(b, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2)
	b = append(append(b, src[:]...), netip.MustParseAddr(spa).AsSlice()...)
	return append(append(b, dst[:]...), netip.MustParseAddr(tpa).AsSlice()...)
}

// udp is a datagram of 10.0.0.src to 10.0.0.dst whose payload is n.
func udp(dst, src int, n uint64) []byte {
	d, s := macOf(dst), macOf(src)
	b := append(append([]byte{}, d[:]...), s[:]...)
	b = append(b, 8, 0, 0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, byte(src), 10, 0, 0, byte(dst))
	b = append(b, 0x10, 0, 0x20, 0, 0, 16, 0, 0)
	return binary.BigEndian.AppendUint64(b, n)
}

// A fakeDevice is a card in memory. Frames put into in are read from it.
type fakeDevice struct {
	in     chan []byte
	closed chan struct{}
	once   sync.Once
	reads  atomic.Int64

	mu   sync.Mutex
	out  [][]byte
	fail error // of Write
}

func newFake() *fakeDevice {
	return &fakeDevice{in: make(chan []byte, 1024), closed: make(chan struct{})}
}

func (d *fakeDevice) Read(b []byte) (int, error) {
	d.reads.Add(1)
	select {
	case f := <-d.in:
		if f == nil {
			return 0, syscall.EBADFD
		}
		return copy(b, f), nil // a long frame is cut, as the kernel does
	case <-d.closed:
		return 0, os.ErrClosed
	}
}

func (d *fakeDevice) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return 0, d.fail
	}
	d.out = append(d.out, append([]byte{}, b...))
	return len(b), nil
}

func (d *fakeDevice) Close() error {
	err := os.ErrClosed
	d.once.Do(func() { close(d.closed); err = nil })
	return err
}

func (d *fakeDevice) failWith(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = err
}

func (d *fakeDevice) frames() [][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.out
}

// eventually waits for what other goroutines bring about.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after 5 s: not %s", what)
		}
	}
}

// A card is a TAP device in a network namespace of its own, on a switch.
type card struct {
	ns  *os.File
	dev *tap.Device
}

// newCard makes card i, eth0 with address 10.0.0.i, and adds it as port "ci"
// of sender i.
func newCard(t testing.TB, sw *nicshadow.Switch, i int) *card {
	t.Helper()
	taptest.TUN(t)
	c := &card{ns: taptest.NetNS(t)}
	dev, err := tap.Open(c.ns, tap.Config{
		Name: "eth0", MAC: macOf(i), Ping: true, EndsWithNetNS: true,
		Addrs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 24)},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.dev = dev
	err = sw.AddPort(nicshadow.PortConfig{Name: fmt.Sprint("c", i), Sender: nicshadow.Sender(i), MAC: macOf(i), Device: dev})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// run runs a command in the card's namespace.
func (c *card) run(args ...string) (string, error) {
	var out []byte
	err := tap.In(c.ns, func() (err error) {
		out, err = exec.Command(args[0], args[1:]...).CombinedOutput()
		return err
	})
	return strings.TrimSpace(string(out)), err
}

// ping sends n echo requests and reports whether all were answered.
func (c *card) ping(t testing.TB, addr string, n int) bool {
	t.Helper()
	out, err := c.run("ping", "-q", "-n", "-i", "0.01", "-c", fmt.Sprint(n), "-W", "1", addr)
	if err != nil && !strings.Contains(out, "packet loss") {
		t.Fatalf("ping: %v: %s", err, out)
	}
	return strings.Contains(out, " 0% packet loss")
}

// A loopDevice is read from as many times as the numbers sent on n say.
type loopDevice struct {
	frame []byte
	n     chan int
	left  int
	stop  sync.Once
}

func (d *loopDevice) Read(b []byte) (int, error) {
	for d.left == 0 {
		n, ok := <-d.n
		if !ok {
			return 0, os.ErrClosed
		}
		d.left = n
	}
	d.left--
	return copy(b, d.frame), nil
}

func (d *loopDevice) Write(b []byte) (int, error) { return len(b), nil }
func (d *loopDevice) Close() error                { d.stop.Do(func() { close(d.n) }); return nil }

// A sinkDevice takes everything and has nothing to say.
type sinkDevice struct {
	once   sync.Once
	closed chan struct{}
}

func (d *sinkDevice) wait() chan struct{} {
	d.once.Do(func() { d.closed = make(chan struct{}) })
	return d.closed
}
func (d *sinkDevice) Read([]byte) (int, error)    { <-d.wait(); return 0, os.ErrClosed }
func (d *sinkDevice) Write(b []byte) (int, error) { return len(b), nil }
func (d *sinkDevice) Close() error                { close(d.wait()); return nil }

// A lockedBuffer collects what is logged.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lockedBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }
