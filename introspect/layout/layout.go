package layout

import (
	"debug/elf"
	"fmt"
	"io"

	"github.com/cilium/ebpf/btf"
)

// A Layout holds offsets within structs, in bytes, and sizes of structs. Fields
// of type Offset that a kernel may lack are [None] then.
type Layout struct {
	// Task is what says who runs (include/linux/sched.h).
	Task struct {
		PID, TGID, Comm, Flags     Offset
		GroupLeader, StartTime     Offset
		Signal, ThreadPID          Offset
		NSProxy, Cgroups           Offset
		Stack                      Offset // where thread_info begins, if not in the task
		ThreadInfo                 Offset // None: at the base of the stack
		PGRP                       Offset // before v4.19: task_struct.pids[PIDTYPE_PGID].pid
		ThreadInfoTask             Offset // thread_info.task; None where it is in the task
		ThreadInfoPreempt          Offset // None where the count is per CPU
		SignalPGRP                 Offset // signal_struct.pids[PIDTYPE_PGID]
		PIDLevel, PIDNumbers       Offset
		UpidSize, UpidNr, UpidNS   Offset
		PIDNSInum, NSProxyNet      Offset
		CSSDefault, CgroupKN, KNID Offset
	}
	// Net is what says whose a frame is (include/linux/skbuff.h, net/sock.h).
	Net struct {
		NetInum                       Offset
		SkbSk, SkbDev, SkbLen, SkbIif Offset
		SockState, SockNet            Offset
		SockCgroup                    Offset // None: sockets are not told apart by cgroup
		SockKern                      Bit
		DevNet, DevList, DevAddr      Offset
		DevPriv                       Offset // where the driver's own begins
		NetDevices                    Offset // net.dev_base_head
		DescData, DescSize            Offset
		VQNum, VQDesc, VQState        Offset
		VQPacked, VQ                  Offset // VQ is the struct virtqueue in it
		InfoDev, InfoSendQueues       Offset
		InfoPairs                     Offset
		SendQueueVQ, SendQueueNAPI    Offset // NAPI is napi.weight
		SendQueueSize                 Offset
	}
	// PerCPU is what lies behind the base of a CPU's data on x86
	// (arch/x86/include/asm/current.h). None on User-Mode Linux.
	PerCPU struct {
		Current, Preempt Offset
	}
}

// An Offset is in bytes.
type Offset uint32

// None is the offset of what a kernel does not have.
const None Offset = ^Offset(0)

// A Bit is a bit field of one bit; Mask is 0 where the kernel does not have it.
type Bit struct {
	Off  Offset
	Mask byte
}

// An Error says which field of a kernel is not as introspection needs it.
type Error struct {
	Path string // "task_struct.signal"
	Why  string
}

func (e *Error) Error() string { return fmt.Sprintf("kernel layout: %s: %s", e.Path, e.Why) }

// Read reads the layout out of the BTF of a kernel's image, an ELF file or the
// bare blob, and, where drivers are modules, of theirs.
func Read(image io.ReaderAt, modules ...io.ReaderAt) (*Layout, error) {
	base, err := btf.LoadSpecFromReader(blob(image))
	if err != nil {
		return nil, fmt.Errorf("kernel layout: %w", err)
	}
	f := finder{specs: []*btf.Spec{base}, chosen: map[string]*btf.Struct{}}
	for _, m := range modules {
		s, err := btf.LoadSplitSpecFromReader(blob(m), base)
		if err != nil {
			return nil, fmt.Errorf("kernel layout: module: %w", err)
		}
		f.specs = append(f.specs, s)
	}
	var l Layout
	f.task(&l)
	f.net(&l)
	f.driver(&l)
	f.perCPU(&l)
	if f.err != nil {
		return nil, f.err
	}
	return &l, nil
}

// blob is the BTF of an ELF file, or all of what is none. Given the file, the
// library reads its symbols as well, which takes as long as the rest: 9 ms of 18
// for a User-Mode Linux kernel.
func blob(r io.ReaderAt) io.ReaderAt {
	f, err := elf.NewFile(r)
	if err != nil {
		return r
	}
	if s := f.Section(".BTF"); s != nil && s.Flags&elf.SHF_COMPRESSED == 0 && s.Type != elf.SHT_NOBITS {
		return s
	}
	return r
}

func (f *finder) task(l *Layout) {
	t := &l.Task
	t.PID, t.TGID = f.need("task_struct.pid", 4), f.need("task_struct.tgid", 4)
	t.Comm, t.Flags = f.need("task_struct.comm", 16), f.need("task_struct.flags", 4)
	t.GroupLeader, t.StartTime = f.need("task_struct.group_leader", 8), f.need("task_struct.start_time", 8)
	t.Signal, t.NSProxy = f.need("task_struct.signal", 8), f.need("task_struct.nsproxy", 8)
	t.Cgroups, t.Stack = f.need("task_struct.cgroups", 8), f.need("task_struct.stack", 8)

	t.ThreadInfo = f.may("task_struct.thread_info", 0)
	t.ThreadInfoTask, t.ThreadInfoPreempt = f.may("thread_info.task", 8), f.may("thread_info.preempt_count", 4)

	t.ThreadPID, t.PGRP, t.SignalPGRP = f.may("task_struct.thread_pid", 8), None, None
	group := Offset(f.enum("pid_type", "PIDTYPE_PGID"))
	if pids := f.may("signal_struct.pids", 0); pids != None {
		t.SignalPGRP = pids + 8*group
	} else {
		link := f.size("pid_link")
		t.PGRP = f.need("task_struct.pids", 0) + link*group + f.need("pid_link.pid", 8)
		t.ThreadPID = f.need("task_struct.pids", 0) + f.need("pid_link.pid", 8)
	}
	t.PIDLevel, t.PIDNumbers = f.need("pid.level", 4), f.need("pid.numbers", 0)
	t.UpidSize, t.UpidNr, t.UpidNS = f.size("upid"), f.need("upid.nr", 4), f.need("upid.ns", 8)
	t.PIDNSInum, t.NSProxyNet = f.need("pid_namespace.ns.inum", 4), f.need("nsproxy.net_ns", 8)
	t.CSSDefault, t.CgroupKN = f.need("css_set.dfl_cgrp", 8), f.need("cgroup.kn", 8)
	t.KNID = f.need("kernfs_node.id", 8)
}

func (f *finder) net(l *Layout) {
	n := &l.Net
	n.NetInum, n.NetDevices = f.need("net.ns.inum", 4), f.need("net.dev_base_head", 16)
	n.SkbSk, n.SkbDev = f.need("sk_buff.sk", 8), f.need("sk_buff.dev", 8)
	n.SkbLen, n.SkbIif = f.need("sk_buff.len", 4), f.need("sk_buff.skb_iif", 4)
	n.SockState, n.SockNet = f.need("sock.__sk_common.skc_state", 1), f.need("sock.__sk_common.skc_net.net", 8)
	// Before v5.15 the word was a pointer only while its lowest bit said so, and
	// had no field of this name.
	n.SockCgroup = f.may("sock.sk_cgrp_data.cgroup", 8)
	n.SockKern = f.bit("sock.sk_kern_sock")
	n.DevNet, n.DevList = f.need("net_device.nd_net.net", 8), f.need("net_device.dev_list", 16)
	n.DevAddr = f.need("net_device.dev_addr", 8)
	if n.DevPriv = f.may("net_device.priv", 0); n.DevPriv == None {
		// netdev_priv() before v6.11: behind the struct, at a multiple of
		// NETDEV_ALIGN, 32.
		n.DevPriv = (f.size("net_device") + 31) &^ 31
	}
}

// driver is the transmit side of virtio_net. A kernel that has it as a module
// keeps its types there: without them frames are not traced, which [Layout]
// shows by VQState being None.
func (f *finder) driver(l *Layout) {
	n := &l.Net
	had := f.err
	f.choose("send_queue", "vq", "napi", "sg")
	n.VQ = f.need("vring_virtqueue.vq", 0)
	if n.VQPacked = f.may("vring_virtqueue.packed_ring", 1); n.VQPacked == None {
		// Newer versions (7.3) have one of several layouts, of which the first, 0, is split.
		n.VQPacked = f.need("vring_virtqueue.layout", 4)
	}
	n.VQNum, n.VQDesc = f.need("vring_virtqueue.split.vring.num", 4), f.need("vring_virtqueue.split.vring.desc", 8)
	n.VQState = f.need("vring_virtqueue.split.desc_state", 8)
	n.DescData, n.DescSize = f.need("vring_desc_state_split.data", 8), f.size("vring_desc_state_split")
	n.InfoDev, n.InfoSendQueues = f.need("virtnet_info.dev", 8), f.need("virtnet_info.sq", 8)
	n.InfoPairs = f.need("virtnet_info.max_queue_pairs", 2)
	n.SendQueueVQ, n.SendQueueNAPI = f.need("send_queue.vq", 8), f.need("send_queue.napi.weight", 4)
	n.SendQueueSize = f.size("send_queue")
	if had == nil && f.err != nil {
		f.err, n.VQState = nil, None
	}
}

func (f *finder) perCPU(l *Layout) {
	l.PerCPU.Current, l.PerCPU.Preempt = f.variable("current_task"), f.variable("__preempt_count")
	if hot := f.variable("pcpu_hot"); hot != None {
		l.PerCPU.Current, l.PerCPU.Preempt = hot+f.need("pcpu_hot.current_task", 8), hot+f.need("pcpu_hot.preempt_count", 4)
	}
}

// Traces reports whether the kernel's network driver is known, so that a frame
// can be followed from its descriptor to its socket.
func (l *Layout) Traces() bool { return l.Net.VQState != None }
