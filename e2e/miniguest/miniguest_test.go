package miniguest_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.starlark.net/starlark"

	"sekimori/e2e/miniguest"
	"sekimori/introspect"
	"sekimori/introspect/introspecttest"
	"sekimori/nicshadow"
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
	"sekimori/starlark/policy"
	"sekimori/starlark/value"
	"sekimori/vmm/kvm"
	"sekimori/vmm/virtio"
)

// How many frames a run sends; a short one is for a machine that is emulated, where
// each exit takes 0.3 ms and more.
const (
	many = 20_000
	few  = 1_000
)

// A container of the guest: number n has network namespace 100+n, cgroup 200+n,
// and sends from its own addresses.
type container struct {
	n         int
	mac       frame.MAC
	ip        netip.Addr
	net, task uint64
}

func containerOf(g *miniguest.Guest, n int) container {
	c := container{n: n, mac: frame.MAC{2, 0, 0, 0, 1, byte(n)}, ip: netip.AddrFrom4([4]byte{10, 0, 0, byte(10 + n)}), net: g.Net(uint32(100 + n))}
	c.task = g.Task(introspecttest.Task{PID: uint32(1000 + n), TGID: uint32(1000 + n), PGID: uint32(1000 + n), Comm: fmt.Sprint("c", n),
		Net: c.net, Cgroup: g.Cgroup(uint64(200 + n)), PIDNS: 9})
	return c
}

// udp is a datagram to the peer, of the shortest length.
func (c container) udp(port uint16) []byte {
	b := append([]byte{2, 0, 0, 0, 0, 9}, c.mac[:]...)
	b = append(b, 8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0)
	b = append(append(b, c.ip.AsSlice()...), 10, 0, 0, 1)
	b = binary.BigEndian.AppendUint16(b, 9999)
	b = append(binary.BigEndian.AppendUint16(b, port), 0, 26, 0, 0)
	b = append(b, make([]byte, 18)...)
	sum := uint32(0)
	for i := 14; i < 34; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	binary.BigEndian.PutUint16(b[24:], ^uint16(sum+sum>>16))
	return b
}

// arp is an answer: the container's address is at its MAC.
func (c container) arp() []byte {
	b := append([]byte{2, 0, 0, 0, 0, 9}, c.mac[:]...)
	b = append(b, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2)
	b = append(append(b, c.mac[:]...), c.ip.AsSlice()...)
	return append(append(b, 2, 0, 0, 0, 0, 9, 10, 0, 0, 1), make([]byte, 18)...)
}

// A kind of frame, and what has to be found.
type kind struct {
	name  string
	frame miniguest.Frame
	owner introspect.Owner // but for Cause, of which it is a part
	pid   int32            // of the running task
	ctx   introspect.Context
	fate  string
}

// Fates of frames.
const (
	forwarded    = "forwarded"
	refused      = "policy"
	mismatch     = "identity mismatch"
	unattributed = "unattributed"
)

// kinds sends what the three containers send, from every context in which a
// kernel sends it, and what the first of them sends in the name of the second.
func kinds(g *miniguest.Guest) (all []kind, containers []container) {
	const softirq, bhOff, hardirq = 0x100, 0x600, 0x10000
	for n := 1; n <= 3; n++ {
		containers = append(containers, containerOf(g, n))
	}
	ksoftirqd := g.Task(introspecttest.Task{PID: 14, TGID: 14, Comm: "ksoftirqd/0", Flags: 0x00208040, Cgroup: g.Cgroup(1), PIDNS: 1})
	stranger := g.Net(999)
	for i, c := range containers {
		other := containers[(i+1)%3]
		sk := g.Socket(introspecttest.Socket{Net: c.net})
		// The third is known by its cgroup alone.
		if c.n == 3 {
			sk = g.Socket(introspecttest.Socket{Net: stranger, Cgroup: g.Cgroup(203)})
		}
		member, pid, kernel := introspect.Owner{Member: uint32(c.n)}, int32(1000+c.n), introspect.Owner{Kernel: true}
		all = append(all,
			kind{"of whom it runs for", miniguest.Frame{Bytes: c.udp(7), Sk: sk, Current: c.task, Preempt: bhOff}, member, pid, introspect.ContextProcess, forwarded},
			kind{"what the policy drops", miniguest.Frame{Bytes: c.udp(22), Sk: sk, Current: c.task}, member, pid, introspect.ContextProcess, refused},
			kind{"on another's back", miniguest.Frame{Bytes: c.udp(7), Sk: sk, Current: other.task, Preempt: softirq}, member, int32(1000 + other.n), introspect.ContextSoftirq, forwarded},
			kind{"on an interrupt's", miniguest.Frame{Bytes: c.udp(7), Sk: sk, Current: other.task, Preempt: softirq + hardirq}, member, int32(1000 + other.n), introspect.ContextHardirq, forwarded},
			kind{"by a kernel thread", miniguest.Frame{Bytes: c.udp(7), Sk: sk, Current: ksoftirqd, Preempt: softirq}, member, 14, introspect.ContextSoftirq, forwarded},
			kind{"flushed by another", miniguest.Frame{Bytes: c.udp(7), Sk: sk, Current: other.task}, member, int32(1000 + other.n), introspect.ContextProcess, forwarded},
			kind{"an answer of its kernel", miniguest.Frame{Bytes: c.arp(), Current: other.task, Preempt: softirq}, kernel, int32(1000 + other.n), introspect.ContextSoftirq, forwarded},
			kind{"in another's name", miniguest.Frame{Bytes: other.udp(7), Sk: sk, Current: c.task}, member, pid, introspect.ContextProcess, mismatch},
			kind{"in another's name, on his back", miniguest.Frame{Bytes: other.udp(7), Sk: sk, Current: other.task, Preempt: softirq}, member, int32(1000 + other.n), introspect.ContextSoftirq, mismatch},
		)
	}
	sk := g.Socket(introspecttest.Socket{Net: stranger})
	return append(all,
		kind{"a stranger's, on a container's back", miniguest.Frame{Bytes: containers[0].udp(7), Sk: sk, Current: containers[0].task}, introspect.Owner{Cause: "no container's"}, 1001, introspect.ContextProcess, unattributed},
		kind{"forwarded", miniguest.Frame{Bytes: containers[0].udp(7), Iif: 3, Current: containers[0].task}, introspect.Owner{Cause: "lost its socket"}, 1001, introspect.ContextProcess, unattributed},
	), containers
}

// A rig is a switch with a shared port for the guest's card and a sink behind.
type rig struct {
	*virtio.Net
	port    *nicshadow.SharedPort
	table   *nicshadow.Table
	members *introspect.Members
	sink    *sink
}

func newRig(t testing.TB, containers []container, backend virtio.NetBackend) *rig {
	t.Helper()
	r := &rig{table: nicshadow.NewTable(), members: introspect.NewMembers(), sink: &sink{closed: make(chan struct{})}}
	sw := nicshadow.NewSwitch(nicshadow.Config{Table: r.table})
	t.Cleanup(func() { sw.Close() })
	var err error
	if r.Net, err = virtio.NewNet(virtio.NetConfig{MAC: miniguest.MAC, Backend: backend}); err != nil {
		t.Fatal(err)
	}
	if r.port, err = sw.AddSharedPort(nicshadow.SharedConfig{Name: "card", Device: nothing{}}); err != nil {
		t.Fatal(err)
	}
	if err := sw.AddPort(nicshadow.PortConfig{Name: "up", MAC: frame.MAC{2, 0, 0, 0, 0, 9}, Trusted: true, Device: r.sink}); err != nil {
		t.Fatal(err)
	}
	var all []introspect.Member
	for _, c := range containers {
		r.attach(t, c)
		m := introspect.Member{Number: uint32(c.n), NetNS: uint64(100 + c.n), CgroupID: uint64(200 + c.n)}
		if c.n == 3 {
			m.NetNS = 0
		}
		all = append(all, m)
	}
	r.members.Set(all)
	return r
}

// attach makes a container a member of the port, which may send to all ports
// but 22.
func (r *rig) attach(t testing.TB, c container) {
	t.Helper()
	s := nicshadow.Sender(c.n)
	program := compile(t, c, "def allow_udp(dst_port):\n    return dst_port != 22\nresult = policy(allow_arp = True, allow_ipv4 = True, allow_udp = allow_udp)")
	err := r.table.Register(s, fmt.Sprint("c", c.n))
	if err != nil {
		t.Fatal(err)
	}
	hash, err := r.table.Load(s, program.Bytes())
	if err == nil {
		err = r.table.Swap(s, hash, nicshadow.Enforce)
	}
	if err == nil {
		err = r.port.Attach(nicshadow.Member{Name: fmt.Sprint("c", c.n), Sender: s, MAC: c.mac, Addrs: []netip.Addr{c.ip},
			Envelope: compile(t, c, "result = policy(allow_arp = True, allow_ipv4 = True)")})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func compile(t testing.TB, c container, source string) *rule.Program {
	t.Helper()
	globals, err := policy.NewSources(value.Builtins()).Exec(&starlark.Thread{Name: "test"}, "test.star", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	p, err := globals["result"].(*policy.Policy).Compile(policy.Identity{MAC: c.mac, Addrs: []netip.Addr{c.ip}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A sink is the device of the trusted port: nothing comes from it.
type sink struct {
	closed chan struct{}
	once   sync.Once
	frames int
}

func (s *sink) Read([]byte) (int, error)    { <-s.closed; return 0, io.EOF }
func (s *sink) Write(b []byte) (int, error) { s.frames++; return len(b), nil }
func (s *sink) Close() error                { s.once.Do(func() { close(s.closed) }); return nil }

type nothing struct{}

func (nothing) Write(b []byte) (int, error) { return len(b), nil }
func (nothing) Close() error                { return nil }

// A judge holds what is found of each frame against what it is.
type judge struct {
	t     *testing.T
	g     *miniguest.Guest
	kinds []kind
	rig   *rig
	in    *introspect.Guest
	queue *introspect.Queue
	sent  int // frames that are to come
	n     int
	wrong int
}

// Transmit implements virtio.NetBackend.
func (j *judge) Transmit(b []byte, head uint16) {
	k := &j.kinds[j.n%miniguest.Slots%len(j.kinds)]
	j.n++
	o := j.queue.Owner(head, len(b))
	task, err := j.in.Running()
	if o.Member != k.owner.Member || o.Kernel != k.owner.Kernel || !strings.Contains(o.Cause, k.owner.Cause) || (o.Cause == "") != (k.owner.Cause == "") ||
		err != nil || task.PID != k.pid || task.Context != k.ctx || !slices.Equal(b, k.frame.Bytes) {
		if j.wrong++; j.wrong < 10 {
			j.t.Errorf("frame %d, %s: %+v, %+v, %v; want %+v, pid %d, %v", j.n, k.name, o, task, err, k.owner, k.pid, k.ctx)
		}
	}
	j.rig.port.Send(b, nicshadow.Origin{Sender: nicshadow.Sender(o.Member), Kernel: o.Kernel, Cause: o.Cause})
}

// Refuse implements virtio.NetBackend.
func (j *judge) Refuse(b []byte, _ uint16, why virtio.NetFault) {
	j.t.Errorf("the device refused %x: %v", b, why)
}

// kicked tells where the processor stands.
func (j *judge) kicked(r *kvm.Regs, _ int) {
	if r.CPL != 0 {
		j.t.Errorf("a kick from ring %d", r.CPL)
	}
	j.in.Enter(&introspect.Registers{CR3: r.CR3, CR4: r.CR4, GSBase: r.GSBase, RSP: r.RSP, TaskState: r.TRBase})
}

// TestFrames: each frame is traced to whom it is of and judged by his
// policy, or dropped as nobody's, in every context; the task that runs is known,
// and is no proof of anything.
func TestFrames(t *testing.T) {
	requireKVM(t)
	g := miniguest.New()
	j := &judge{t: t, g: g, sent: many}
	if testing.Short() {
		j.sent = few
	}
	var containers []container
	j.kinds, containers = kinds(g)
	for _, k := range j.kinds {
		g.Send(k.frame)
	}
	j.rig = newRig(t, containers, j)
	ready := make(chan struct{})
	m, err := kvm.Start(t.Context(), &kvm.Config{Image: g.Program(uint32(j.sent)), Memory: miniguest.Memory, Devices: []kvm.Device{{Virtio: j.rig.Net, Kicked: func(r *kvm.Regs, queue int) {
		<-ready
		j.kicked(r, queue)
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	j.in, j.queue, err = g.Introspect(m.Memory(), j.rig.members)
	if err != nil {
		t.Fatal(err)
	}
	close(ready)
	if err := m.Wait(); err != nil {
		t.Fatal(err)
	}
	j.counted()
}

// counted holds the table's counters against what was sent.
func (j *judge) counted() {
	if j.n != j.sent || j.wrong != 0 {
		j.t.Errorf("%d frames came, of which %d are taken for what they are not; want %d, 0", j.n, j.wrong, j.sent)
	}
	want := map[string]uint64{}
	for n := range j.sent {
		want[j.kinds[n%miniguest.Slots%len(j.kinds)].fate]++
	}
	got := map[string]uint64{unattributed: j.rig.table.Unattributed()}
	for n := 1; n <= 3; n++ {
		st, err := j.rig.table.Stats(nicshadow.Sender(n))
		if err != nil {
			j.t.Fatal(err)
		}
		got[forwarded] += st.Forwarded
		for _, r := range st.Reasons {
			got[r.Reason] += r.Frames
		}
	}
	for fate, n := range want {
		if got[fate] != n {
			j.t.Errorf("%s: %d frames; want %d", fate, got[fate], n)
		}
	}
	if uint64(j.rig.sink.frames) != want[forwarded] {
		j.t.Errorf("%d frames arrived; want %d", j.rig.sink.frames, want[forwarded])
	}
	j.t.Logf("%d frames: %v", j.n, got)
}

// requireKVM skips the test where there is no /dev/kvm, unless
// SEKI_TEST_REQUIRE lists it: then that is a failure.
func requireKVM(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err == nil {
		f.Close()
		return
	}
	if slices.Contains(strings.Split(os.Getenv("SEKI_TEST_REQUIRE"), ","), "kvm") {
		t.Fatal("SEKI_TEST_REQUIRE wants kvm: ", err)
	}
	t.Skip("needs kvm: ", err)
}
