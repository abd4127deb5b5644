package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"

	"sekimori/e2e/miniguest"
	"sekimori/introspect"
	"sekimori/introspect/introspecttest"
	"sekimori/nicshadow"
	"sekimori/vmm/kvm"
	"sekimori/vmm/virtio"
)

// kicks is how many frames a guest sends in a round, after as many that only
// warm the caches.
const kicks = 2000

// kick measures what it costs to find out who sent a frame, and to judge it,
// beside the exit that a guest of KVM makes for each: with a guest of some
// instructions, so that nothing but the exit and the card is in the measure.
func kick(w io.Writer, rounds int) ([]bar, error) {
	dev, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		fmt.Fprintf(w, "A kick: %v: not measured\n", err)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	dev.Close()
	alone, whole := &kicked{}, &kicked{whole: true}
	for range rounds {
		if err := errors.Join(alone.round(), whole.round()); err != nil {
			return nil, err
		}
	}
	fmt.Fprintf(w, "A frame that a guest of KVM kicks its card for, %d rounds\n\n", rounds)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name string, ns []float64) {
		fmt.Fprintf(t, "%s\tleast %.0f ns\tmedian %.0f ns\n", name, slices.Min(ns), middle(ns))
	}
	row("from kick to kick, the card alone", alone.ns)
	for i, name := range []string{"its sender", "judged", "the running task besides"} {
		row(name, whole.parts[i])
	}
	t.Flush()
	share := (slices.Min(whole.parts[partSender]) + slices.Min(whole.parts[partJudged])) / slices.Min(alone.ns)
	return []bar{
		{"kick, sender and judgement: share of what it takes without", share, 0.10, false},
		{"kick, allocations of a frame", slices.Min(whole.allocs), 0, true},
	}, nil
}

func middle(v []float64) float64 { return slices.Sorted(slices.Values(v))[len(v)/2] }

// Parts of what is done for each frame.
const (
	partSender = iota
	partJudged
	partRunning
	parts
)

// A kicked is the host's side of a guest that kicks.
type kicked struct {
	whole  bool             // the frame is traced and judged; else the card alone
	ns     []float64        // from frame to frame, by round
	parts  [parts][]float64 // the same of each part, without the clock's own time
	allocs []float64        // a frame, by round; the runtime's own are among them, now and then

	in    *introspect.Guest
	queue *introspect.Queue
	port  *nicshadow.SharedPort

	n             int
	err           error
	start, end    time.Duration
	spent         [parts]time.Duration
	before, after runtime.MemStats
}

// enter tells where the processor stands; its time is the sender's.
func (k *kicked) enter(r *kvm.Regs) {
	begin := time.Now()
	k.in.Enter(&introspect.Registers{CR3: r.CR3, CR4: r.CR4, GSBase: r.GSBase, RSP: r.RSP, TaskState: r.TRBase})
	k.spent[partSender] += time.Since(begin) - clockTime
}

// Transmit implements virtio.NetBackend.
func (k *kicked) Transmit(b []byte, head uint16) {
	switch k.n++; k.n {
	case kicks:
		k.spent = [parts]time.Duration{}
		runtime.ReadMemStats(&k.before)
		k.start = cpuTime()
	case 2 * kicks:
		k.end = cpuTime()
		runtime.ReadMemStats(&k.after)
	}
	if !k.whole {
		return
	}
	begin := time.Now()
	o := k.queue.Owner(head, len(b))
	found := time.Now()
	k.port.Send(b, nicshadow.Origin{Sender: nicshadow.Sender(o.Member), Kernel: o.Kernel, Cause: o.Cause})
	sent := time.Now()
	task, err := k.in.Running()
	end := time.Now()
	k.spent[partSender] += found.Sub(begin) - clockTime
	k.spent[partJudged] += sent.Sub(found) - clockTime
	k.spent[partRunning] += end.Sub(sent) - clockTime
	if o.Member != 1 || err != nil || task.PID != 42 {
		k.err = fmt.Errorf("frame %d is taken for one of %+v, sent by %+v, %w", k.n, o, task, err)
	}
}

// clockTime is what lies between two readings of the clock with nothing between
// them.
var clockTime = func() time.Duration {
	least := time.Hour
	for range 10_000 {
		begin := time.Now()
		least = min(least, time.Since(begin))
	}
	return least
}()

// Refuse implements virtio.NetBackend.
func (k *kicked) Refuse(_ []byte, _ uint16, why virtio.NetFault) {
	k.err = fmt.Errorf("the device refused a frame: %v", why)
}

// round runs a guest.
func (k *kicked) round() error {
	k.n, k.err = 0, nil
	g := miniguest.New()
	net := g.Net(101)
	task := g.Task(introspecttest.Task{PID: 42, TGID: 42, PGID: 42, Net: net, Cgroup: g.Cgroup(201), PIDNS: 9})
	sk := g.Socket(introspecttest.Socket{Net: net})
	for _, s := range samples() {
		g.Send(miniguest.Frame{Bytes: s.frame, Sk: sk, Current: task})
	}
	members := introspect.NewMembers()
	members.Set([]introspect.Member{{Number: 1, NetNS: 101, CgroupID: 201}})
	card, err := virtio.NewNet(virtio.NetConfig{MAC: miniguest.MAC, Backend: k})
	if err != nil {
		return err
	}
	stop, err := k.connect()
	if err != nil {
		return err
	}
	defer stop()
	ready := make(chan struct{}) // closed when the guest can be looked into
	d := kvm.Device{Virtio: card}
	if k.whole {
		d.Kicked = func(r *kvm.Regs, _ int) {
			if k.n == 0 {
				<-ready
			}
			k.enter(r)
		}
	}
	m, err := kvm.Start(context.Background(), &kvm.Config{Image: g.Program(2 * kicks), Memory: miniguest.Memory, Devices: []kvm.Device{d}})
	if err != nil {
		return err
	}
	defer m.Close()
	if k.in, k.queue, err = g.Introspect(m.Memory(), members); err != nil {
		return err
	}
	close(ready)
	if err := m.Wait(); err != nil {
		return err
	}
	k.ns = append(k.ns, float64(k.end-k.start)/kicks)
	for i, d := range k.spent {
		k.parts[i] = append(k.parts[i], float64(d)/kicks)
	}
	k.allocs = append(k.allocs, float64(k.after.Mallocs-k.before.Mallocs)/kicks)
	return k.err
}

// connect puts the card on a shared port of a switch of its own, with the sender
// of the frames as its member: what it sends is judged by the guarded policy,
// and has nowhere to go.
func (k *kicked) connect() (stop func() error, err error) {
	p, err := compile(policySource, "guarded")
	if err != nil {
		return nil, err
	}
	table, err := tableWith(p)
	if err != nil {
		return nil, err
	}
	sw := nicshadow.NewSwitch(nicshadow.Config{Table: table})
	if k.port, err = sw.AddSharedPort(nicshadow.SharedConfig{Name: "card", Device: nowhere{}}); err != nil {
		return nil, errors.Join(err, sw.Close())
	}
	err = k.port.Attach(nicshadow.Member{Name: "bench", Sender: 1, MAC: ownMAC, Addrs: []netip.Addr{own}, Envelope: p})
	return sw.Close, err
}

type nowhere struct{}

func (nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (nowhere) Close() error                { return nil }
