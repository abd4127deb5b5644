package introspect

import "sekimori/introspect/layout"

// An Owner is whose a frame is. The zero Owner is nobody.
type Owner struct {
	// Member is the number of the container, 0 for nobody.
	Member uint32
	// Kernel says that the frame belongs to no socket of a process: the kernel
	// sends it of its own accord, and Member is 0. Whose it is, is to be seen
	// by what it says.
	Kernel bool
	// Cause says why it is nobody's.
	Cause string
}

// dataFlags are bits of the pointer that virtio_net keeps for a descriptor
// (drivers/net/virtio_net.c): an XDP frame is no sk_buff, and of some, since
// v6.11, the driver forgot the socket. The numbers differ between versions; a
// sk_buff that kept its socket has none of them in all.
const dataFlags = 7

// States of a socket that is no whole struct sock (include/net/tcp_states.h).
const (
	stateTimeWait   = 6
	stateNewSynRecv = 12
)

// no allocation, no lock, no log below this line

// Owner follows the frame that begins at a descriptor, of so many bytes without
// the virtio header, to the socket that it was written into. It must be asked
// before the guest runs on.
//
// A frame keeps its socket from the system call that wrote it until the driver
// is told that it is sent, whoever's back it travels on. A frame without one is
// the kernel's own, if it was made here. One that came in from elsewhere, by a
// bridge or a route, may have lost its socket on the way, and proves nothing:
// containers share a card by macvlan, whose frames come straight here.
//
// Whose a frame of the kernel's own is, only its addresses say. So a container
// that shares a card must not have CAP_NET_ADMIN over the namespace of its end of
// it: it would give a device there another's address (a macvlan takes that of one
// that is down, a bridge or a veth any), and have the kernel speak for that one.
func (q *Queue) Owner(head uint16, length int) Owner {
	g := q.g
	g.ask.queue, g.ask.head, g.ask.length = q, head, length
	if g.mem.Look(g.look.owner) != nil {
		return Owner{Cause: "the guest's memory is gone"}
	}
	return g.ask.owner
}

func (g *Guest) askOwner() error {
	if g.settle() != nil {
		g.ask.owner = Owner{Cause: "the kernel's page tables are not found"}
		return nil
	}
	g.ask.owner = g.ask.queue.owner(g.ask.head, g.ask.length)
	return nil
}

func (q *Queue) owner(head uint16, length int) Owner {
	g, n := q.g, &q.g.layout.Net
	data, err := q.data(head)
	switch {
	case err != nil:
		return Owner{Cause: "the driver's state of the queue is not found"}
	case data&dataFlags != 0:
		return Owner{Cause: "an xdp frame, or one whose socket the driver forgot"}
	}
	skb, err := g.read(data, g.skb)
	if err != nil {
		return Owner{Cause: "the sk_buff is not in memory"}
	}
	if uint64(skb.uint32(n.SkbLen)) != uint64(length) {
		return Owner{Cause: "the sk_buff is another frame's"}
	}
	sk, made := skb.uint64(n.SkbSk), skb.uint32(n.SkbIif) == 0
	if sk != 0 {
		return g.socket(sk, made)
	}
	// What a card of somebody's namespace sends, his network stack sent.
	if m := q.namespace(); m != 0 {
		return Owner{Member: m}
	}
	if !made {
		return Owner{Cause: "a forwarded frame lost its socket"}
	}
	// Without napi_tx the driver forgets sockets, and a raw socket's frame
	// would look like the kernel's own.
	if weight, err := g.half(q.napi); err != nil || weight == 0 {
		return Owner{Cause: "the driver forgets sockets: napi_tx is off"}
	}
	return Owner{Kernel: true}
}

// namespace is the member whose network namespace the card is in; 0 for nobody.
func (q *Queue) namespace() uint32 {
	g, n := q.g, &q.g.layout.Net
	net, err := g.pointer(q.dev + uint64(n.DevNet))
	if err != nil {
		return 0
	}
	inode, err := g.inode(net, n.NetInum)
	if err != nil {
		return 0
	}
	return g.members.now.Load().netNS[inode]
}

// socket is whose a socket is: by its network namespace, else by its cgroup.
// made says that the frame was made on this side of every bridge and route.
func (g *Guest) socket(sk uint64, made bool) Owner {
	o, i := &g.layout.Net, g.members.now.Load()
	p, err := g.read(sk, g.sock)
	if err != nil {
		return Owner{Cause: "the socket is not in memory"}
	}
	net, state := p.uint64(o.SockNet), p.byte(o.SockState)
	if net == 0 {
		return Owner{Cause: "the socket has no namespace"}
	}
	inode, err := g.inode(net, o.NetInum)
	if err != nil {
		return Owner{Cause: "the socket's namespace is not in memory"}
	}
	if m := i.netNS[inode]; m != 0 {
		return Owner{Member: m}
	}
	if state == stateTimeWait || state == stateNewSynRecv {
		return Owner{Cause: "a socket of no container's namespace"}
	}
	if m := g.socketCgroup(sk, i); m != 0 {
		return Owner{Member: m}
	}
	// The kernel's sockets for answers (of ICMP, of TCP's resets) belong to the
	// first namespace while they answer nobody, and a frame that had to wait for
	// its neighbour outlives that.
	kern := g.buf[:1]
	if made && o.SockKern.Mask != 0 && g.mem.Read(sk+uint64(o.SockKern.Off), kern) == nil && kern[0]&o.SockKern.Mask != 0 {
		return Owner{Kernel: true}
	}
	return Owner{Cause: "a socket of no container's"}
}

// socketCgroup is the member in whose cgroup a socket was made; 0 for nobody.
func (g *Guest) socketCgroup(sk uint64, i *index) uint32 {
	at := g.layout.Net.SockCgroup
	if at == layout.None || len(i.cgroup) == 0 {
		return 0
	}
	cgroup, err := g.pointer(sk + uint64(at))
	if err != nil {
		return 0
	}
	id, err := g.cgroup(cgroup)
	if err != nil {
		return 0
	}
	return i.cgroup[id]
}
