package layout_test

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"sekimori/introspect/layout"
)

var (
	u8   = &btf.Int{Name: "unsigned char", Size: 1}
	u16  = &btf.Int{Name: "short unsigned int", Size: 2}
	u32  = &btf.Int{Name: "unsigned int", Size: 4}
	u64  = &btf.Int{Name: "long unsigned int", Size: 8}
	ptr  = &btf.Pointer{Target: &btf.Void{}}
	list = &btf.Struct{Name: "list_head", Size: 16, Members: []btf.Member{{Name: "next", Type: ptr}, {Name: "prev", Type: ptr, Offset: 64}}}
)

// fields are members of a struct, at offsets in bytes.
type fields []btf.Member

func (f fields) with(name string, t btf.Type, at uint32) fields {
	return append(f, btf.Member{Name: name, Type: t, Offset: btf.Bits(8 * at)})
}

func structOf(name string, size uint32, f fields) *btf.Struct {
	return &btf.Struct{Name: name, Size: size, Members: f}
}

func nameless(f fields) *btf.Union { return &btf.Union{Size: 64, Members: f} }

func array(t btf.Type, n uint32) btf.Type { return &btf.Array{Index: u32, Type: t, Nelems: n} }

// kernel is a kernel's types, with the names of those to be left out.
func kernel(without ...string) []btf.Type {
	inum := structOf("ns_common", 24, fields{}.with("inum", u32, 16))
	net := structOf("net", 512, fields{}.with("ns", inum, 112).with("dev_base_head", list, 136))
	possible := structOf("", 8, fields{}.with("net", ptr, 0)) // possible_net_t
	common := structOf("sock_common", 136, fields{}.with("skc_state", &btf.Volatile{Type: u8}, 18).
		with("skc_net", &btf.Typedef{Name: "possible_net_t", Type: possible}, 48))
	sock := structOf("sock", 760, fields{}.with("__sk_common", common, 0).
		with("sk_cgrp_data", structOf("sock_cgroup_data", 16, fields{}.with("cgroup", ptr, 0)), 632))
	sock.Members = append(sock.Members, btf.Member{Name: "sk_kern_sock", Type: u8, Offset: 8*538 + 1, BitfieldSize: 1})
	vring := structOf("vring", 32, fields{}.with("num", u32, 0).with("desc", ptr, 8))
	split := structOf("vring_virtqueue_split", 88, fields{}.with("vring", vring, 0).with("desc_state", ptr, 40))
	hot := structOf("pcpu_hot", 64, fields{}.with("current_task", ptr, 0).with("preempt_count", u32, 8))
	types := []btf.Type{
		// Of the same name, another driver's.
		structOf("send_queue", 32, fields{}.with("vq", ptr, 8).with("napi", ptr, 16)),
		structOf("task_struct", 4000, fields{}.with("thread_info", structOf("thread_info", 32, fields{}.with("flags", u64, 0)), 0).
			with("flags", u32, 44).with("stack", ptr, 56).with("pid", &btf.Typedef{Name: "pid_t", Type: u32}, 2432).with("tgid", u32, 2436).
			with("group_leader", ptr, 2496).with("thread_pid", ptr, 2536).with("start_time", u64, 2600).
			with("comm", array(u8, 16), 2976).with("nsproxy", ptr, 3064).with("signal", ptr, 3072).with("cgroups", ptr, 3584)),
		structOf("signal_struct", 1000, fields{}.with("pids", array(ptr, 4), 336)),
		&btf.Enum{Name: "pid_type", Size: 4, Values: []btf.EnumValue{{Name: "PIDTYPE_PID"}, {Name: "PIDTYPE_TGID", Value: 1}, {Name: "PIDTYPE_PGID", Value: 2}}},
		structOf("upid", 16, fields{}.with("nr", u32, 0).with("ns", ptr, 8)),
		structOf("pid", 112, fields{}.with("level", u32, 4).with("numbers", array(ptr, 0), 112)),
		structOf("pid_namespace", 200, fields{}.with("ns", inum, 104)),
		structOf("nsproxy", 72, fields{}.with("net_ns", ptr, 40)),
		structOf("css_set", 300, fields{}.with("dfl_cgrp", ptr, 128)),
		structOf("cgroup", 1000, fields{}.with("kn", ptr, 256)),
		structOf("kernfs_node", 136, fields{}.with("id", u64, 96)),
		net, sock,
		structOf("sk_buff", 232, fields{}.with("", nameless(fields{}.with("", structOf("", 24, fields{}.with("next", ptr, 0).
			with("", nameless(fields{}.with("dev", ptr, 0)), 16)), 0)), 0).with("sk", ptr, 24).with("len", u32, 104).with("skb_iif", u32, 136)),
		structOf("net_device", 2496, fields{}.with("nd_net", possible, 256).with("dev_list", list, 328).with("dev_addr", ptr, 952)),
		structOf("vring_desc_state_split", 16, fields{}.with("data", ptr, 0)),
		structOf("vring_virtqueue", 250, fields{}.with("vq", structOf("virtqueue", 64, nil), 0).with("packed_ring", &btf.Typedef{Name: "bool", Type: u8}, 64).
			with("", nameless(fields{}.with("split", split, 0)), 88)),
		structOf("virtnet_info", 600, fields{}.with("dev", ptr, 16).with("sq", ptr, 24).with("max_queue_pairs", &btf.Typedef{Name: "u16", Type: u16}, 44)),
		structOf("send_queue", 976, fields{}.with("vq", ptr, 0).with("sg", ptr, 8).with("napi", structOf("napi_struct", 400, fields{}.with("weight", u32, 32)), 544)),
		hot,
		&btf.Datasec{Name: ".data..percpu", Size: 4096, Vars: []btf.VarSecinfo{{Type: &btf.Var{Name: "pcpu_hot", Type: hot}, Offset: 0x500, Size: 64}}},
	}
	for _, w := range without {
		name, member, _ := strings.Cut(w, ".")
		types = slices.DeleteFunc(types, func(t btf.Type) bool { return member == "" && t.TypeName() == name })
		for _, t := range types {
			if s, ok := t.(*btf.Struct); ok && s.Name == name {
				s.Members = slices.DeleteFunc(s.Members, func(m btf.Member) bool { return m.Name == member })
			}
		}
	}
	return types
}

func blob(t testing.TB, types []btf.Type) *bytes.Reader {
	t.Helper()
	b, err := btf.NewBuilder(types, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(raw)
}

func TestRead(t *testing.T) {
	l, err := layout.Read(blob(t, kernel()))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		got  layout.Offset
		want layout.Offset
	}{
		{"behind a typedef", l.Task.PID, 2432},
		{"array", l.Task.Comm, 2976},
		{"of an array's element", l.Task.SignalPGRP, 336 + 2*8},
		{"struct in a struct", l.Net.NetInum, 112 + 16},
		{"volatile", l.Net.SockState, 18},
		{"behind a typedef of a nameless struct", l.Net.SockNet, 48},
		{"two nameless deep", l.Net.SkbDev, 16},
		{"in a nameless union of a struct", l.Net.VQDesc, 88 + 8},
		{"and behind it", l.Net.VQState, 88 + 40},
		{"thread_info in the task", l.Task.ThreadInfo, 0},
		{"thread_info without a count", l.Task.ThreadInfoPreempt, layout.None},
		{"flexible array", l.Task.PIDNumbers, 112},
		{"private part at 32", l.Net.DevPriv, 2496},
		{"of two structs of a name, the right one", l.Net.SendQueueNAPI, 544 + 32},
		{"per CPU", l.PerCPU.Current, 0x500},
		{"per CPU, in a struct", l.PerCPU.Preempt, 0x508},
		{"not before v4.19", l.Task.PGRP, layout.None},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %d; want %d", tt.name, tt.got, tt.want)
		}
	}
	if want := (layout.Bit{Off: 538, Mask: 2}); l.Net.SockKern != want {
		t.Errorf("SockKern = %+v; want %+v", l.Net.SockKern, want)
	}
	if !l.Traces() || l.Net.SendQueueSize != 976 || l.Task.UpidSize != 16 {
		t.Errorf("Traces %v, sizes %d, %d", l.Traces(), l.Net.SendQueueSize, l.Task.UpidSize)
	}
}

func TestReadWithout(t *testing.T) {
	for _, path := range []string{
		"task_struct.pid", "task_struct.cgroups", "task_struct.nsproxy", "pid_type.PIDTYPE_PGID", "upid.nr", "pid.level", "nsproxy.net_ns",
		"css_set.dfl_cgrp", "kernfs_node.id", "net.ns.inum", "sk_buff.sk", "sock.__sk_common.skc_state", "net_device.dev_addr",
	} {
		cut := strings.Join(strings.SplitN(path, ".", 3)[:2], ".")
		if strings.HasPrefix(cut, "pid_type") {
			cut = "pid_type"
		}
		_, err := layout.Read(blob(t, kernel(cut)))
		var e *layout.Error
		if !errors.As(err, &e) || e.Path != path || !strings.Contains(err.Error(), "not in the kernel's BTF") {
			t.Errorf("without %s: Read = %v", path, err)
		}
	}
	for _, driver := range []string{"virtnet_info", "vring_virtqueue", "send_queue.napi", "vring_desc_state_split"} {
		l, err := layout.Read(blob(t, kernel(driver)))
		if err != nil || l.Traces() {
			t.Errorf("without %s: Read = %v; want a layout that traces nothing", driver, err)
		}
	}
	for optional, is := range map[string]func(*layout.Layout) bool{
		"sock.sk_cgrp_data": func(l *layout.Layout) bool { return l.Net.SockCgroup == layout.None },
		"sock.sk_kern_sock": func(l *layout.Layout) bool { return l.Net.SockKern.Mask == 0 },
	} {
		if l, err := layout.Read(blob(t, kernel(optional))); err != nil || !is(l) {
			t.Errorf("without %s: Read = %v", optional, err)
		}
	}
}

// TestReadSizes: a field of another size is another field.
func TestReadSizes(t *testing.T) {
	types := kernel("kernfs_node.id")
	for _, typ := range types {
		if s, ok := typ.(*btf.Struct); ok && s.Name == "kernfs_node" {
			s.Members = append(s.Members, btf.Member{Name: "id", Type: u32, Offset: 8 * 96})
		}
	}
	var e *layout.Error
	if _, err := layout.Read(blob(t, types)); !errors.As(err, &e) || e.Path != "kernfs_node.id" || !strings.Contains(e.Why, "4 bytes, want 8") {
		t.Errorf("Read = %v; want the size refused", err)
	}
}

// TestReadOld: process groups lay in the task before v4.19.
func TestReadOld(t *testing.T) {
	link := structOf("pid_link", 24, fields{}.with("node", list, 0).with("pid", ptr, 16))
	types := append(kernel("signal_struct", "task_struct.thread_pid"), link)
	for _, typ := range types {
		switch x := typ.(type) {
		case *btf.Struct:
			if x.Name == "task_struct" {
				x.Members = append(x.Members, btf.Member{Name: "pids", Type: array(link, 3), Offset: 8 * 1000})
			}
		case *btf.Enum:
			x.Values = []btf.EnumValue{{Name: "PIDTYPE_PID"}, {Name: "PIDTYPE_PGID", Value: 1}}
		}
	}
	l, err := layout.Read(blob(t, types))
	if err != nil || l.Task.PGRP != 1000+24+16 || l.Task.ThreadPID != 1000+16 || l.Task.SignalPGRP != layout.None {
		t.Errorf("Read = %+v, %v", l, err)
	}
}

func TestReadNotBTF(t *testing.T) {
	for _, b := range [][]byte{nil, []byte("no kernel"), make([]byte, 4096)} {
		if l, err := layout.Read(bytes.NewReader(b)); err == nil {
			t.Errorf("Read of %q = %+v", b[:min(len(b), 9)], l)
		}
	}
}

// TestReadHost reads the layout of the kernel that runs the test.
func TestReadHost(t *testing.T) {
	f, err := os.Open("/sys/kernel/btf/vmlinux")
	if err != nil {
		t.Skip("the host's kernel shows no BTF: ", err)
	}
	defer f.Close()
	l, err := layout.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	if l.Task.PID == 0 || l.Task.TGID != l.Task.PID+4 {
		t.Errorf("task_struct.pid at %d, tgid at %d", l.Task.PID, l.Task.TGID)
	}
}
