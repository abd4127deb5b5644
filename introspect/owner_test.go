package introspect_test

import (
	"strings"
	"testing"

	"sekimori/introspect"
	"sekimori/introspect/introspecttest"
	"sekimori/introspect/layout"
	"sekimori/vmm/guestmem"
)

var cardMAC = [6]byte{2, 0, 0, 0, 0, 1}

// A traced is a kernel with a card and a queue that follows its frames.
type traced struct {
	*introspecttest.Kernel
	g    *introspect.Guest
	card *introspecttest.Card
	ring introspect.Ring
	q    *introspect.Queue
	nets map[uint32]uint64
}

func newTraced(t testing.TB) *traced { return newTracedAt(t, direct) }

func newTracedAt(t testing.TB, ram uint64) *traced {
	t.Helper()
	k := introspecttest.NewKernel(introspecttest.UML(), ram)
	// The list has others, before and behind, and a macvlan of the same address.
	k.Device([6]byte{})
	k.Device(cardMAC)
	card := k.Card(cardMAC, 256)
	k.Device([6]byte{2, 0, 0, 0, 0, 9})
	g := newGuest(t, k, nil, introspect.Current{})
	ring := introspect.Ring{MAC: cardMAC, Desc: card.Desc, Count: 256}
	q, err := g.Queue(ring)
	if err != nil {
		t.Fatal(err)
	}
	tr := &traced{k, g, card, ring, q, map[uint32]uint64{}}
	for _, n := range []uint32{101, 102, 999} {
		tr.nets[n] = k.Net(n)
	}
	return tr
}

func TestOwner(t *testing.T) {
	member := func(n uint32) introspect.Owner { return introspect.Owner{Member: n} }
	nobody := func(cause string) introspect.Owner { return introspect.Owner{Cause: cause} }
	kernel := introspect.Owner{Kernel: true}
	tests := []struct {
		name  string
		sock  *introspecttest.Socket // nil: none
		net   uint32                 // of the socket
		group uint64                 // of the socket
		frame introspecttest.Frame
		want  introspect.Owner
	}{
		{"of a namespace", &introspecttest.Socket{}, 101, 5, introspecttest.Frame{}, member(1)},
		{"of a cgroup", &introspecttest.Socket{}, 999, 203, introspecttest.Frame{}, member(3)},
		{"of nobody", &introspecttest.Socket{}, 999, 5, introspecttest.Frame{}, nobody("no container's")},
		{"of a namespace, forwarded", &introspecttest.Socket{}, 102, 5, introspecttest.Frame{Iif: 4}, member(2)},
		{"the answer to a connection", &introspecttest.Socket{State: 12}, 102, 0, introspecttest.Frame{}, member(2)},
		{"of a request: what lies behind it is no cgroup", &introspecttest.Socket{State: 12}, 999, 203, introspecttest.Frame{}, nobody("no container's namespace")},
		{"of a connection that lingers", &introspecttest.Socket{State: 6}, 999, 203, introspecttest.Frame{}, nobody("no container's namespace")},
		{"the kernel's socket", &introspecttest.Socket{Kern: true}, 999, 5, introspecttest.Frame{}, kernel},
		{"the kernel's socket in a namespace", &introspecttest.Socket{Kern: true}, 101, 5, introspecttest.Frame{}, member(1)},
		{"the kernel's socket, forwarded", &introspecttest.Socket{Kern: true}, 999, 5, introspecttest.Frame{Iif: 4}, nobody("no container's")},
		{"without a socket", nil, 0, 0, introspecttest.Frame{}, kernel},
		{"without a socket, forwarded", nil, 0, 0, introspecttest.Frame{Iif: 4}, nobody("lost its socket")},
		{"the driver forgot it", nil, 0, 0, introspecttest.Frame{Flags: 2}, nobody("driver forgot")},
		{"xdp", nil, 0, 0, introspecttest.Frame{Flags: 1}, nobody("xdp")},
		{"not a pointer", nil, 0, 0, introspecttest.Frame{Flags: 4}, nobody("xdp")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tr := newTraced(t)
			if tt.sock != nil {
				s := *tt.sock
				s.Net, s.Cgroup = tr.nets[tt.net], tr.Cgroup(tt.group)
				tt.frame.Sk = tr.Socket(s)
			}
			tt.frame.Len = 60
			tr.Post(tr.card, 255, tt.frame)
			for range 2 { // found, and found again
				got := tr.q.Owner(255, 60)
				if got.Member != tt.want.Member || got.Kernel != tt.want.Kernel || !strings.Contains(got.Cause, tt.want.Cause) || (got.Cause == "") != (tt.want.Cause == "") {
					t.Errorf("Owner = %+v; want %+v", got, tt.want)
				}
			}
		})
	}
}

// TestOwnerBroken breaks one thing at a time; nobody may be charged.
func TestOwnerBroken(t *testing.T) {
	l := introspecttest.UML()
	n := &l.Net
	put64 := func(base func(*traced) uint64, o layout.Offset, v uint64) func(*traced) {
		return func(tr *traced) { tr.Put64(base(tr)+uint64(o), v) }
	}
	vq := func(tr *traced) uint64 { return tr.card.VQ }
	info := func(tr *traced) uint64 { return tr.card.Info }
	sq := func(tr *traced) uint64 { return tr.card.SendQueues }
	dev := func(tr *traced) uint64 { return tr.card.Dev }
	tests := map[string]func(*traced){
		"another ring":                put64(vq, n.VQDesc, direct+0x10000),
		"ring not in ram":             put64(vq, n.VQDesc, 8),
		"packed ring":                 func(tr *traced) { tr.Write(tr.card.VQ+uint64(n.VQPacked), []byte{1}) },
		"ring of another size":        func(tr *traced) { tr.Put32(tr.card.VQ+uint64(n.VQNum), 128) },
		"no state":                    put64(vq, n.VQState, 0),
		"state not in memory":         put64(vq, n.VQState, 0xdead_0000),
		"state below all":             put64(vq, n.VQState, ^uint64(0)-8),
		"private part of another":     put64(info, n.InfoDev, direct),
		"no queues":                   put64(info, n.InfoSendQueues, 0),
		"queues not in memory":        put64(info, n.InfoSendQueues, 0xdead_0000),
		"no pairs":                    func(tr *traced) { tr.Write(tr.card.Info+uint64(n.InfoPairs), []byte{0, 0}) },
		"too many pairs":              func(tr *traced) { tr.Write(tr.card.Info+uint64(n.InfoPairs), []byte{0xff, 0xff}) },
		"no virtqueue":                put64(sq, n.SendQueueVQ, 0),
		"virtqueue not in memory":     put64(sq, n.SendQueueVQ, 0xdead_0000),
		"no address":                  put64(dev, n.DevAddr, 0),
		"address not in memory":       put64(dev, n.DevAddr, 0xdead_0000),
		"napi off":                    func(tr *traced) { tr.Put32(tr.card.SendQueues+uint64(n.SendQueueNAPI), 0) },
		"list ends":                   func(tr *traced) { tr.Put64(tr.InitNet+uint64(n.NetDevices), 0) },
		"list leads nowhere":          func(tr *traced) { tr.Put64(tr.InitNet+uint64(n.NetDevices), 0xdead_0000) },
		"list is a ring without head": func(tr *traced) { loop(tr) },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			tr := newTraced(t)
			tr.Post(tr.card, 3, introspecttest.Frame{Len: 60})
			spoil(tr)
			tr.Reads = 0
			if got := tr.q.Owner(3, 60); got.Member != 0 || got.Kernel || got.Cause == "" {
				t.Errorf("Owner = %+v; want nobody", got)
			}
			if tr.Reads > 50_000 {
				t.Errorf("%d reads", tr.Reads)
			}
		})
	}
}

// loop makes the device list go round and never come back to its head.
func loop(tr *traced) {
	n := &tr.Layout.Net
	first := tr.Device([6]byte{7}) + uint64(n.DevList)
	tr.Put64(first, first)
	tr.Put64(tr.InitNet+uint64(n.NetDevices), first)
}

func TestOwnerPointers(t *testing.T) {
	for _, bad := range []uint64{8, 0xdead_0000, direct - 8, ^uint64(0) - 7} {
		tr := newTraced(t)
		n := &tr.Layout.Net
		skb := tr.Post(tr.card, 0, introspecttest.Frame{Len: 60, Sk: bad})
		if got := tr.q.Owner(0, 60); got.Member != 0 || got.Kernel {
			t.Errorf("socket at %#x: Owner = %+v; want nobody", bad, got)
		}
		sk := tr.Socket(introspecttest.Socket{Net: bad, Cgroup: bad})
		tr.Put64(skb+uint64(n.SkbSk), sk)
		if got := tr.q.Owner(0, 60); got.Member != 0 || got.Kernel {
			t.Errorf("namespace at %#x: Owner = %+v; want nobody", bad, got)
		}
		tr.Put64(sk+uint64(n.SockNet), tr.nets[999])
		if got := tr.q.Owner(0, 60); got.Member != 0 || got.Kernel {
			t.Errorf("cgroup at %#x: Owner = %+v; want nobody", bad, got)
		}
	}
}

// TestOwnerOtherFrame: what the device took is not what the driver says.
func TestOwnerOtherFrame(t *testing.T) {
	tr := newTraced(t)
	tr.Post(tr.card, 7, introspecttest.Frame{Len: 60, Sk: tr.Socket(introspecttest.Socket{Net: tr.nets[101]})})
	for _, length := range []int{0, 59, 61, -1, 60 + 1<<32} {
		if got := tr.q.Owner(7, length); got.Member != 0 || got.Kernel {
			t.Errorf("Owner of %d bytes = %+v; want nobody", length, got)
		}
	}
	for _, head := range []uint16{6, 256, 65535} {
		if got := tr.q.Owner(head, 60); got.Member != 0 || got.Kernel {
			t.Errorf("Owner of descriptor %d = %+v; want nobody", head, got)
		}
	}
	if got := tr.q.Owner(7, 60); got.Member != 1 {
		t.Errorf("Owner = %+v; want 1", got)
	}
}

// TestOwnerMoved: the guest takes its driver down and up. What lay where the
// queue's state was is somebody else's now.
func TestOwnerMoved(t *testing.T) {
	tr := newTraced(t)
	n := &tr.Layout.Net
	tr.Post(tr.card, 1, introspecttest.Frame{Len: 60, Sk: tr.Socket(introspecttest.Socket{Net: tr.nets[101]})})
	if got := tr.q.Owner(1, 60); got.Member != 1 {
		t.Fatalf("Owner = %+v; want 1", got)
	}
	old := tr.card.VQ
	vq := tr.Alloc(4096)
	b := make([]byte, 256)
	if err := tr.Read(old, b); err != nil {
		t.Fatal(err)
	}
	tr.Write(vq, b)
	tr.Put64(tr.card.SendQueues+uint64(n.SendQueueVQ), vq+uint64(n.VQ))
	tr.Put64(old+uint64(n.VQDesc), 0x1234)
	if got := tr.q.Owner(1, 60); got.Member != 1 {
		t.Errorf("Owner after the move = %+v; want 1", got)
	}
	tr.Put64(vq+uint64(n.VQDesc), 0x1234)
	if got := tr.q.Owner(1, 60); got.Member != 0 || got.Kernel {
		t.Errorf("Owner of a queue that is gone = %+v; want nobody", got)
	}
}

func TestQueueRefused(t *testing.T) {
	k := introspecttest.NewKernel(introspecttest.Old(), direct)
	if _, err := newGuest(t, k, nil, introspect.Current{}).Queue(introspect.Ring{Count: 256}); err == nil {
		t.Error("a queue without the driver's structs was taken")
	}
	tr := newTraced(t)
	for _, count := range []uint32{0, 1<<15 + 1} {
		if _, err := tr.g.Queue(introspect.Ring{Count: count}); err == nil {
			t.Errorf("a ring of %d descriptors was taken", count)
		}
	}
	tr.InitNet = 0
	if _, err := newGuest(t, tr.Kernel, nil, introspect.Current{}).Queue(tr.ring); err == nil {
		t.Error("a queue without init_net was taken")
	}
	l := introspecttest.UML()
	l.Net.SkbSk = 1 << 20
	if _, err := introspect.New(introspect.Config{Memory: tr, Layout: &l, Members: introspect.NewMembers()}); err == nil || !strings.Contains(err.Error(), "sk_buff") {
		t.Errorf("New with fields a megabyte apart = %v", err)
	}
	if _, err := introspect.New(introspect.Config{Memory: tr, Layout: &l}); err != introspect.ErrNoMembers {
		t.Errorf("New without members = %v", err)
	}
}

// linear is the kernel's memory as User-Mode Linux shares it.
func linear(t testing.TB, k *introspecttest.Kernel) introspect.Memory {
	t.Helper()
	ram, err := guestmem.FromSlices(guestmem.Slice{Bytes: k.RAM(k.Alloc(1) - direct + 4096)})
	if err != nil {
		t.Fatal(err)
	}
	return introspect.NewUML(ram, 0, direct, direct)
}

func TestAllocates(t *testing.T) {
	tr := newTraced(t)
	task := tr.Task(introspecttest.Task{PID: 4, TGID: 4, PGID: 4, Net: tr.nets[101], Cgroup: tr.Cgroup(9), PIDNS: 1})
	tr.Post(tr.card, 0, introspecttest.Frame{Len: 60, Sk: tr.Socket(introspecttest.Socket{Net: tr.nets[101]})})
	tr.Post(tr.card, 1, introspecttest.Frame{Len: 60, Sk: tr.Socket(introspecttest.Socket{Net: tr.nets[999], Cgroup: tr.Cgroup(203)})})
	tr.Post(tr.card, 2, introspecttest.Frame{Len: 60})
	g := newGuest(t, tr.Kernel, linear(t, tr.Kernel), introspect.Current{})
	q, err := g.Queue(tr.ring)
	if err != nil {
		t.Fatal(err)
	}
	if q.Owner(0, 60).Member != 1 || q.Owner(1, 60).Member != 3 || !q.Owner(2, 60).Kernel {
		t.Fatalf("Owner = %+v, %+v, %+v", q.Owner(0, 60), q.Owner(1, 60), q.Owner(2, 60))
	}
	if n := testing.AllocsPerRun(1000, func() {
		q.Owner(0, 60)
		q.Owner(1, 60)
		q.Owner(2, 60)
		q.Owner(3, 60)
		g.Task(task)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkOwner(b *testing.B) {
	tr := newTraced(b)
	tr.Post(tr.card, 0, introspecttest.Frame{Len: 60, Sk: tr.Socket(introspecttest.Socket{Net: tr.nets[101]})})
	tr.Post(tr.card, 1, introspecttest.Frame{Len: 60, Sk: tr.Socket(introspecttest.Socket{Net: tr.nets[999], Cgroup: tr.Cgroup(203)})})
	q, err := newGuest(b, tr.Kernel, linear(b, tr.Kernel), introspect.Current{}).Queue(tr.ring)
	if err != nil {
		b.Fatal(err)
	}
	for head, name := range []string{"netns", "cgroup"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				q.Owner(uint16(head), 60)
			}
		})
	}
}

func BenchmarkTask(b *testing.B) {
	tr := newTraced(b)
	task := tr.Task(introspecttest.Task{PID: 4, TGID: 4, PGID: 4, Net: tr.nets[101], Cgroup: tr.Cgroup(9), PIDNS: 1})
	g := newGuest(b, tr.Kernel, linear(b, tr.Kernel), introspect.Current{})
	b.ReportAllocs()
	for b.Loop() {
		g.Task(task)
	}
}
