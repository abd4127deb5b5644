package kernel_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"sekimori/nicshadow"
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
	"sekimori/nicshadow/tap"
)

// datagram is UDP of card 1 to card 2, of n bytes in all.
func datagram(n int) []byte {
	d, s := macOf(2), macOf(1)
	b := slices.Concat(d[:], s[:], []byte{8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x10, 0, 0x20, 0, 0, 0, 0, 0})
	binary.BigEndian.PutUint16(b[16:], uint16(n-14))
	binary.BigEndian.PutUint16(b[38:], uint16(n-34))
	return append(b, make([]byte, n-42)...)
}

// segment is TCP of card 1 to card 2, of n bytes in all.
func segment(n int) []byte {
	b := datagram(n)
	b[23] = 6
	copy(b[38:], []byte{0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0})
	return b
}

// offloads switches on again what the card does not offer, as a container with
// CAP_NET_ADMIN may.
func (r *rig) offloads(i int) {
	r.t.Helper()
	err := tap.In(r.ns[i], func() error {
		family, err := netlink.GenlFamilyGet("ethtool")
		if err != nil {
			return err
		}
		req := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_ACK)
		req.AddData(&nl.Genlmsg{Command: 12, Version: 1}) // ETHTOOL_MSG_FEATURES_SET
		header := nl.NewRtAttr(1|unix.NLA_F_NESTED, nil)
		header.AddRtAttr(2, nl.ZeroTerminated("eth0"))
		req.AddData(header)
		wanted := nl.NewRtAttr(3|unix.NLA_F_NESTED, nil)
		bits := wanted.AddRtAttr(3|unix.NLA_F_NESTED, nil)
		for _, name := range []string{"tx-checksum-ip-generic", "tx-tcp-segmentation", "tx-udp-segmentation", "tx-scatter-gather"} {
			bit := bits.AddRtAttr(1|unix.NLA_F_NESTED, nil)
			bit.AddRtAttr(2, nl.ZeroTerminated(name))
			bit.AddRtAttr(3, nil)
		}
		req.AddData(wanted)
		_, err = req.Execute(unix.NETLINK_GENERIC, 0)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// TestOffloads: what is left to be done behind the card drops, for the sender
// could choose what is written where. Until it switches that on, its kernel does
// it before.
func TestOffloads(t *testing.T) {
	r := newBareRig(t, true, 2)
	for i := 1; i <= 2; i++ {
		r.put(i, all(t, rule.Forward, 1), nicshadow.Enforce)
	}
	w, to := r.wire(1), r.wire(2)
	const vnetHdr = 15 // PACKET_VNET_HDR
	if err := unix.SetsockoptInt(w.fd, unix.SOL_PACKET, vnetHdr, 1); err != nil {
		t.Fatal(err)
	}
	// struct virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start,
	// csum_offset.
	header := func(flags, gso byte, length, size, start, offset uint16) []byte {
		b := []byte{flags, gso}
		for _, v := range []uint16{length, size, start, offset} {
			b = binary.NativeEndian.AppendUint16(b, v)
		}
		return b
	}
	plain := slices.Concat(header(0, 0, 0, 0, 0, 0), datagram(100))
	checksum := slices.Concat(header(1, 0, 0, 0, 34, 6), datagram(100))
	// The destination port, once it has been judged.
	elsewhere := slices.Concat(header(1, 0, 0, 0, 34, 2), datagram(100))
	cut := slices.Concat(header(1, 1, 54, 1000, 34, 16), segment(2454))
	send := func(frames ...[]byte) (got [][]byte) {
		t.Helper()
		for _, b := range append(frames, plain) { // the plain one comes last
			if err := w.send(b); err != nil {
				t.Fatalf("%x: %v", b[:10], err)
			}
		}
		eventually(t, "the last frame", func() bool {
			got = append(got, to.received()...)
			return len(got) > 0 && bytes.Equal(got[len(got)-1], plain[10:])
		})
		return got[:len(got)-1]
	}
	if got := send(checksum, cut); len(got) != 4 || bytes.Equal(got[0], checksum[10:]) || got[0][40] == 0 && got[0][41] == 0 || len(got[1]) != 1054 {
		t.Errorf("without offloads: %d frames; want one with its checksum, and three segments", len(got))
	}
	if n := reason(r.stats(1), "bad offload header"); n != 0 {
		t.Errorf("without offloads %d frames drop for them", n)
	}
	r.offloads(1)
	if got := send(checksum, elsewhere, cut); len(got) != 0 {
		t.Errorf("with offloads %d frames arrive: %x", len(got), got)
	}
	if n := reason(r.stats(1), "bad offload header"); n != 3 {
		t.Errorf("with offloads %d frames drop for them, want 3", n)
	}
}

// only is a program that forwards DHCP that asks for 10.0.0.7, and drops other
// DHCP.
func only(t testing.TB) *rule.Program {
	t.Helper()
	u := &rule.Unit{
		Files: []string{"a.star"},
		Whys:  []rule.Why{{Kind: rule.WhyPredicate, Name: "allow_dhcp", Pos: rule.Pos{Line: 1, Col: 1}}},
		Insns: []rule.Insn{
			{Op: rule.OpTestEq, A: uint8(frame.DHCPRequested4), Off: 1, K: 0x0a000007},
			{Op: rule.OpRet, A: uint8(rule.Forward)},
			{Op: rule.OpRet, A: uint8(rule.Drop)},
		},
	}
	for c := frame.ClassNone + 1; c < frame.NumClasses; c++ {
		u.Entries[c] = 1
	}
	u.Entries[frame.ClassIPv4DHCP] = 0
	p, err := rule.New(u)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestChangedFrame: frames made of pages that the sender still writes to (what
// sendfile sends of a file that it has mapped), and changes while they are
// judged. What is judged is what is sent: no lie arrives.
func TestChangedFrame(t *testing.T) {
	r := newRig(t, nicshadow.Config{}, true, 2)
	r.put(1, only(t), nicshadow.Enforce)
	r.put(2, all(t, rule.Forward, 1), nicshadow.Enforce)
	r.offloads(1) // or its kernel would copy the pages, for the checksum
	fd, err := unix.MemfdCreate("message", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, 4096); err != nil {
		t.Fatal(err)
	}
	page, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(page)
	const size, asked = 300, 240 + 3 + 2
	copy(page, []byte{1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef})
	copy(page[236:], []byte{0x63, 0x82, 0x53, 0x63, 53, 1, 3, 50, 4, 10, 0, 0, 7, 255})
	r.hurry(t, fd, page[asked:asked+4], size)
}

// hurry sends the file from card 1 to card 2, over and over, while where flips
// between the truth and a lie.
func (r *rig) hurry(t *testing.T, fd int, where []byte, size int) {
	t.Helper()
	var sock int
	err := tap.In(r.ns[1], func() (err error) {
		if sock, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		// No checksum, which its kernel would leave to the card.
		if err := unix.SetsockoptInt(sock, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
			return err
		}
		return unix.Connect(sock, &unix.SockaddrInet4{Port: 67, Addr: [4]byte{10, 0, 0, 2}})
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(sock)
	eventually(t, "ping", func() bool { return r.ping(1, "10.0.0.2", 1) })
	to := r.wire(2)
	truth, lie := []byte{10, 0, 0, 7}, []byte{10, 0, 0, 8}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	end := sync.OnceFunc(func() { close(stop); wg.Wait() })
	defer end()
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				for range 100 { // by copy: of two stores in a row the compiler would leave one
					copy(where, lie)
					copy(where, truth)
				}
			}
		}
	})
	arrived, lies := uint64(0), 0
	take := func() {
		for _, b := range to.received() {
			if len(b) != 42+size || binary.BigEndian.Uint16(b[36:]) != 67 {
				continue
			}
			arrived++
			if b[42+240+3+5] != 7 {
				lies++
			}
		}
	}
	before := r.stats(1).Forwarded
	for range 20000 {
		at := int64(0)
		if _, err := unix.Sendfile(sock, fd, &at, size); err != nil && err != unix.ECONNREFUSED && err != unix.ENOBUFS {
			t.Fatal(err)
		}
	}
	eventually(t, "delivered", func() bool { take(); return arrived > 0 && arrived+before+100 > r.stats(1).Forwarded })
	end()
	st := r.stats(1)
	t.Logf("%d forwarded, %d dropped, %d arrived", st.Forwarded-before, st.Dropped, arrived)
	if arrived < 100 || st.Dropped < 100 {
		t.Errorf("%d arrived, %d dropped: nothing was changed under way", arrived, st.Dropped)
	}
	if lies > 0 {
		t.Errorf("%d of %d frames that arrived are not those that were judged", lies, arrived)
	}
}

// TestHostileAdmin is a container with CAP_NET_ADMIN over its card: whatever it
// does to it, the others go on.
func TestHostileAdmin(t *testing.T) {
	for _, attack := range []string{
		"ip link set eth0 down",
		"ip link del eth0",
		"ip link set eth0 address 02:00:00:00:00:02",
		"ip link set eth0 mtu 65000",
		"ip link set eth0 name lost",
		"tc qdisc add dev eth0 clsact",
	} {
		t.Run(attack, func(t *testing.T) {
			r := newRig(t, nicshadow.Config{}, true, 3)
			for i := 1; i <= 3; i++ {
				r.put(i, all(t, rule.Forward, 1), nicshadow.Enforce)
			}
			if out, err := r.run(1, strings.Fields(attack)...); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			eventually(t, "ping of the others", func() bool { return r.ping(2, "10.0.0.3", 1) })
			if err := r.sw.RemovePort("c1"); err != nil {
				t.Errorf("RemovePort = %v", err)
			}
			if !r.ping(2, "10.0.0.3", 2) {
				t.Error("the others' ping was lost")
			}
		})
	}
}

// TestLongFrame sends frames longer than the card may from one whose MTU was
// raised: too long, counted and not forwarded.
func TestLongFrame(t *testing.T) {
	r := newBareRig(t, true, 2)
	for i := 1; i <= 2; i++ {
		r.put(i, all(t, rule.Forward, 1), nicshadow.Enforce)
	}
	if out, err := r.run(1, "ip", "link", "set", "eth0", "mtu", "9000"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w, to := r.wire(1), r.wire(2)
	for _, n := range []int{1523, 3000, 9014, 1514} { // 1500 and two tags are 1522
		if err := w.send(datagram(n)); err != nil {
			t.Fatal(err)
		}
	}
	var got [][]byte
	eventually(t, "one frame", func() bool { got = append(got, to.received()...); return len(got) > 0 })
	if st := r.stats(1); reason(st, "too long") != 3 || len(got) != 1 || len(got[0]) != 1514 {
		t.Errorf("%+v; received %d frames", st.Reasons, len(got))
	}
}

// TestRemovedPort: a card whose port was removed neither sends nor receives, and
// what it counted stays.
func TestRemovedPort(t *testing.T) {
	r := newRig(t, nicshadow.Config{}, true, 2)
	for i := 1; i <= 2; i++ {
		r.put(i, all(t, rule.Forward, 1), nicshadow.Enforce)
	}
	eventually(t, "ping", func() bool { return r.ping(1, "10.0.0.2", 1) })
	if err := r.sw.RemovePort("c2"); err != nil {
		t.Fatal(err)
	}
	before := r.stats(2)
	if before.Delivered == 0 || before.Forwarded == 0 {
		t.Errorf("counters went with the port: %+v", before)
	}
	if r.ping(1, "10.0.0.2", 2) || r.ping(2, "10.0.0.1", 2) {
		t.Error("ping of a removed card was answered")
	}
	if n := reason(r.stats(1), "unknown destination"); n == 0 {
		t.Errorf("nobody was told that the card is gone: %+v", r.stats(1))
	}
	if after := r.stats(2); after.Frames != before.Frames {
		t.Errorf("a removed card sent: %+v", after)
	}
}

// TestReload sends numbered datagrams while the sender's policy is reloaded:
// none may be lost, none come twice, and none be judged by neither program.
func TestReload(t *testing.T) {
	r := newBareRig(t, true, 2)
	r.put(1, all(t, rule.Forward, 1), nicshadow.Enforce)
	r.put(2, all(t, rule.Forward, 1), nicshadow.Enforce)
	w, to := r.wire(1), r.wire(2)
	done := make(chan struct{})
	var swaps atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		ps := [2]*rule.Program{all(t, rule.Forward, 1), all(t, rule.Audit, 2)}
		for ; ; swaps.Add(1) {
			select {
			case <-done:
				return
			default:
				r.put(1, ps[swaps.Load()%2], nicshadow.Enforce)
			}
		}
	})
	sent, next := uint64(0), uint64(0)
	const reloads = 50
	for limit := time.Now().Add(2 * time.Minute); swaps.Load() < reloads || next < sent; {
		if sent < next+64 && swaps.Load() < reloads {
			b := datagram(60)
			binary.BigEndian.PutUint64(b[44:], sent)
			if err := w.send(b); err != nil {
				t.Fatal(err)
			}
			sent++
		}
		for _, b := range to.received() {
			if n := binary.BigEndian.Uint64(b[44:]); n != next {
				t.Fatalf("datagram %d came, want %d", n, next)
			}
			next++
		}
		if time.Now().After(limit) {
			t.Fatalf("%d of %d datagrams came, %d reloads", next, sent, swaps.Load())
		}
	}
	close(done)
	wg.Wait()
	st := r.stats(1)
	t.Logf("%d datagrams, %d reloads", sent, swaps.Load())
	if st.Dropped != 0 || st.Undelivered != 0 || st.Frames != sent || st.Forwarded+st.WouldDrop != sent || sent < reloads {
		t.Errorf("%d sent, %d reloads, Stats = %+v", sent, swaps.Load(), st)
	}
}
