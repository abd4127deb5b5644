package rule

import (
	"math/bits"
	"math/rand/v2"
	"sync"

	"sekimori/nicshadow/frame"
)

// MaxFlows is how many flows and requests a [State] remembers. They live in
// sets of flowWays; where a set is full, the one put out is the one that has
// not been seen for longest. A flow put out is not established: what asks for
// that drops. So one who floods the table, from whichever side, stops answers
// and lets nothing through.
const MaxFlows = flowSets * flowWays

const (
	flowSets   = 1024
	flowWays   = 4
	flowShards = 64
)

// How long a flow is remembered after its last frame, in nanoseconds (RFC
// 5382, 5 has at least 2 h for TCP without probing; RFC 4787, 4.3 has 2
// minutes or more for UDP).
const (
	ttlTCP  = 7200e9
	ttlUDP  = 180e9
	ttlEcho = 30e9
	ttlAsk  = 3e9  // ARP and neighbour solicitations are asked once a second
	ttlRS   = 10e9 // routers wait up to half a second, and answer all at once
)

// A flowKind tells apart keys of different meaning.
type flowKind uint8

const (
	flowNone flowKind = iota
	flowTCP
	flowUDP
	flowEcho     // an echo request
	flowARP      // own is who asks, peer who is asked for
	flowNeighbor // likewise
	flowRouter
)

// A flowKey is a flow as the container sees it: word holds the kind in its
// high half, with IPv6 in bit 40, and the ports in its low half.
type flowKey struct {
	own, peer Const
	word      uint64
}

// A contact is when frames of a key were last seen: [0] from the container, [1]
// on their way to it; 0 for never.
type contact struct {
	key  flowKey
	seen [2]int64
}

type flowSet [flowWays]contact

type flows struct {
	seed   [2]uint64 // so that nobody outside knows which keys share a set
	shards [flowShards]struct {
		mu sync.Mutex // mu guards every flowShards-th set
		_  [56]byte
	}
	sets [flowSets]flowSet
}

func newFlows() *flows {
	return &flows{seed: [2]uint64{rand.Uint64(), rand.Uint64()}}
}

// no allocation and no log below this line

// flowOf is the flow that a frame is of, and whether it is the kind of frame
// that an answer follows (ask) or an answer; both for TCP and UDP. ttl is 0 for
// what is of no flow.
//
//	TCP, UDP  both addresses and ports
//	echo      both addresses; type 8 or 128 asks, 0 or 129 answers
//	ARP       sender and target; operation 1 asks, 2 answers
//	NS, NA    source and target; :: where the answer goes to a group
//	RS, RA    any: the answer to one router solicitation is for all
func flowOf(k *frame.Key, ingress bool) (key flowKey, ttl int64, ask, answer bool) {
	kind := flowNone
	switch c := k.Class(); c {
	case frame.ClassIPv4TCP, frame.ClassIPv6TCP:
		kind, ttl = flowTCP, ttlTCP
	case frame.ClassIPv4UDP, frame.ClassIPv6UDP, frame.ClassIPv4DHCP, frame.ClassIPv6DHCP:
		kind, ttl = flowUDP, ttlUDP
	case frame.ClassIPv4ICMP, frame.ClassIPv6ICMP:
		typ, request, reply := k.Uint(frame.ICMPType), uint64(8), uint64(0)
		if c == frame.ClassIPv6ICMP {
			request, reply = 128, 129
		}
		if ask, answer = typ == request, typ == reply; ask || answer {
			kind, ttl = flowEcho, ttlEcho
		}
	case frame.ClassARP:
		return arpFlow(k)
	case frame.ClassIPv6NDP:
		return ndpFlow(k)
	}
	if kind == flowNone {
		return key, 0, false, false
	}
	// Whole words: read by read, this took twice as long.
	if w := k.Words[frame.AddressWord]; k.Class().Has(frame.IPv4Src) {
		key.own.Lo, key.peer.Lo = w>>32, w&0xffffffff
	} else {
		const s = frame.Source6Word
		key.own, key.peer = Const{k.Words[s], k.Words[s+1]}, Const{k.Words[s+2], k.Words[s+3]}
		key.word = 1 << 40
	}
	ports := uint64(0)
	if kind != flowEcho {
		ports, ask, answer = k.Words[frame.TransportWord]>>32, true, true
	}
	if ingress {
		key.own, key.peer, ports = key.peer, key.own, ports>>16|ports&0xffff<<16
	}
	key.word |= uint64(kind)<<32 | ports
	return key, ttl, ask, answer
}

func arpFlow(k *frame.Key) (key flowKey, ttl int64, ask, answer bool) {
	ask = k.Uint(frame.ARPOp) == 1
	key.word = uint64(flowARP) << 32
	key.own, key.peer = read(k, frame.ARPSenderIP), read(k, frame.ARPTargetIP)
	if !ask {
		key.own, key.peer = key.peer, key.own
	}
	return key, ttlAsk, ask, !ask
}

func ndpFlow(k *frame.Key) (key flowKey, ttl int64, ask, answer bool) {
	switch k.Uint(frame.ICMPType) {
	case 133:
		key.word = uint64(flowRouter) << 32
		return key, ttlRS, true, false
	case 134:
		key.word = uint64(flowRouter) << 32
		return key, ttlRS, false, true
	case 135:
		ask, key.own = true, read(k, frame.IPv6Src)
	case 136:
		answer = true
		// To all nodes: to one that has no address yet (RFC 4861, 7.2.4).
		if key.own = read(k, frame.IPv6Dst); key.own.Hi>>56 == 0xff {
			key.own = Const{}
		}
	default:
		return key, 0, false, false
	}
	key.word, key.peer = uint64(flowNeighbor)<<32, read(k, frame.NDPTarget)
	return key, ttlAsk, ask, answer
}

// side is the index of a direction.
func side(ingress bool) int {
	if ingress {
		return 1
	}
	return 0
}

// established reports whether the other side of the frame's flow has sent.
func (f *flows) established(k *frame.Key, ingress bool, now int64) bool {
	key, ttl, _, answer := flowOf(k, ingress)
	switch flowKind(key.word >> 32 & 0xff) {
	case flowTCP, flowUDP, flowEcho:
		return answer && f.seen(&key, side(!ingress), now, ttl)
	}
	return false
}

// answered reports whether the frame answers what the other side asked.
func (f *flows) answered(k *frame.Key, ingress bool, now int64) bool {
	key, ttl, _, answer := flowOf(k, ingress)
	switch flowKind(key.word >> 32 & 0xff) {
	case flowARP, flowNeighbor, flowRouter:
		return answer && f.seen(&key, side(!ingress), now, ttl)
	}
	return false
}

// note remembers a frame that an answer may follow.
func (f *flows) note(k *frame.Key, ingress bool, now int64) {
	key, ttl, ask, _ := flowOf(k, ingress)
	if ttl == 0 || !ask {
		return
	}
	h := f.set(&key)
	mu := &f.shards[h%flowShards].mu
	mu.Lock()
	set := &f.sets[h]
	put, oldest := &set[0], set[0].last()
	for i := range set {
		if set[i].key == key {
			put = &set[i]
			break
		}
		if t := set[i].last(); t < oldest {
			put, oldest = &set[i], t
		}
	}
	if put.key != key {
		*put = contact{key: key}
	}
	put.seen[side(ingress)] = now
	mu.Unlock()
}

// seen reports whether frames of key went that way within ttl.
func (f *flows) seen(key *flowKey, from int, now, ttl int64) bool {
	h := f.set(key)
	mu := &f.shards[h%flowShards].mu
	mu.Lock()
	set, at := &f.sets[h], int64(0)
	for i := range set {
		if set[i].key == *key {
			at = set[i].seen[from]
		}
	}
	mu.Unlock()
	return at != 0 && now-at < ttl
}

func (f *contact) last() int64 { return max(f.seen[0], f.seen[1]) }

// set is where a key lives.
func (f *flows) set(k *flowKey) uint64 {
	h := fold(k.own.Hi^f.seed[0], k.own.Lo^f.seed[1])
	h = fold(h^k.peer.Hi, k.peer.Lo^f.seed[0])
	return fold(h^k.word, f.seed[1]) % flowSets
}

func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0x9e3779b97f4a7c15, b|1)
	return hi ^ lo
}
