package kernel_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/nicshadow"
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/kernel"
	"sekimori/nicshadow/rule"
	"sekimori/nicshadow/tap"
	"sekimori/nicshadow/tap/taptest"
)

// A rig is a switch with cards in namespaces of their own, whose frames the
// kernel judges, or, to compare, this process.
type rig struct {
	t      testing.TB
	table  *nicshadow.Table
	sw     *nicshadow.Switch
	kernel *kernel.Switch // nil where this process judges
	ns     []*os.File     // by card, counted from 1

	mu      sync.Mutex
	records []nicshadow.Record
}

func macOf(i int) frame.MAC { return frame.MAC{2, 0, 0, 0, 0, byte(i)} }

// newRig makes a rig with n cards, none of which has a program.
func newRig(t testing.TB, cfg nicshadow.Config, inKernel bool, n int) *rig {
	t.Helper()
	r := &rig{t: t, table: nicshadow.NewTable(), ns: []*os.File{nil}}
	drops := nicshadow.NewDropLog(nicshadow.DropLogConfig{Rate: 1e6, Burst: 1e6, Sink: r.record})
	cfg.Table, cfg.DropLog = r.table, drops
	r.sw = nicshadow.NewSwitch(cfg)
	t.Cleanup(drops.Close)
	if inKernel {
		if err := kernel.Supported(); err != nil {
			taptest.Missing(t, "bpf", err)
		}
		k, err := kernel.New(kernel.Config{Ports: r.sw, Cards: max(n, 3) + 1})
		if err != nil {
			t.Fatal(err)
		}
		r.kernel = k
		t.Cleanup(func() {
			if err := k.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		if err := r.sw.Close(); err != nil {
			t.Error(err)
		}
	})
	for i := 1; i <= n; i++ {
		r.join(i, r.card(i))
	}
	return r
}

// join makes card i, in a namespace of its own.
func (r *rig) join(i int, cfg tap.Config) {
	r.t.Helper()
	r.ns = append(r.ns, taptest.NetNS(r.t))
	if err := r.table.Register(nicshadow.Sender(i), fmt.Sprint("c", i)); err != nil {
		r.t.Fatal(err)
	}
	r.attach(i, cfg)
}

func (r *rig) record(rec nicshadow.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records = append(r.records, rec)
}

func (r *rig) told() []nicshadow.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.records)
}

func (r *rig) card(i int) tap.Config {
	return tap.Config{
		Name: "eth0", MAC: macOf(i), EndsWithNetNS: true,
		Addrs: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.0.0.%d/24", i)), netip.MustParsePrefix(fmt.Sprintf("fd00::%d/64", i))},
	}
}

func (r *rig) attach(i int, cfg tap.Config) {
	r.t.Helper()
	name := fmt.Sprint("c", i)
	if r.kernel != nil {
		if err := r.kernel.AddCard(kernel.CardConfig{Name: name, Sender: nicshadow.Sender(i), NetNS: r.ns[i], Card: cfg}); err != nil {
			r.t.Fatalf("%+v", err)
		}
		return
	}
	dev, err := tap.Open(r.ns[i], cfg)
	if err == nil {
		err = r.sw.AddPort(nicshadow.PortConfig{Name: name, Sender: nicshadow.Sender(i), MAC: cfg.MAC, MTU: cfg.MTU, Device: dev})
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// put puts a program in force.
func (r *rig) put(i int, p *rule.Program, m nicshadow.Mode) {
	r.t.Helper()
	h, err := r.table.Load(nicshadow.Sender(i), p.Bytes())
	if err == nil {
		err = r.table.Swap(nicshadow.Sender(i), h, m)
	}
	if err != nil {
		r.t.Fatalf("%+v", err)
	}
}

func (r *rig) stats(i int) nicshadow.Stats {
	r.t.Helper()
	st, err := r.table.Stats(nicshadow.Sender(i))
	if err != nil {
		r.t.Fatal(err)
	}
	return st
}

// run runs a program inside the namespace of card i.
func (r *rig) run(i int, args ...string) (string, error) {
	r.t.Helper()
	if _, err := exec.LookPath(args[0]); err != nil {
		taptest.Missing(r.t, args[0], err)
	}
	var out []byte
	err := tap.In(r.ns[i], func() (err error) {
		out, err = exec.Command(args[0], args[1:]...).CombinedOutput()
		return err
	})
	return string(out), err
}

func (r *rig) ping(i int, addr string, n int) bool {
	r.t.Helper()
	_, err := r.run(i, "ping", "-n", "-q", "-c", fmt.Sprint(n), "-i", "0.01", "-W", "1", addr)
	return err == nil
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in 20 s: %s", what)
		}
	}
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

// all is a program that gives every frame the verdict, by line of a.star; TCP
// to port 22 drops by line 99.
func all(t testing.TB, v rule.Verdict, line uint32) *rule.Program {
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

// A wire is a raw socket on a card.
type wire struct {
	t  testing.TB
	fd int
}

func (r *rig) wire(i int) *wire {
	r.t.Helper()
	w := &wire{t: r.t}
	err := tap.In(r.ns[i], func() (err error) {
		const all = 0x0300 // ETH_P_ALL, in network order
		if w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, all); err != nil {
			return err
		}
		var ifr *unix.Ifreq
		if ifr, err = unix.NewIfreq("eth0"); err == nil {
			err = unix.IoctlIfreq(w.fd, unix.SIOCGIFINDEX, ifr)
		}
		if err == nil {
			err = unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
		}
		if err == nil {
			err = unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: int(ifr.Uint32())})
		}
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { unix.Close(w.fd) })
	return w
}

// send sends a frame; what the kernel does not take, it does not take.
func (w *wire) send(b []byte) error {
	for {
		_, err := unix.Write(w.fd, b)
		if err != unix.EAGAIN && err != unix.ENOBUFS {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// received are the frames that came in, so far, without those sent.
func (w *wire) received() [][]byte {
	var out [][]byte
	buf := make([]byte, 70000)
	for {
		n, from, err := unix.Recvfrom(w.fd, buf, 0)
		if err != nil {
			return out
		}
		if sa, ok := from.(*unix.SockaddrLinklayer); ok && sa.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		out = append(out, slices.Clone(buf[:n]))
	}
}
