package vhostuser_test

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/vmm/vhostuser"
	"sekimori/vmm/virtio"
)

// FuzzServe is a peer that sends what it likes: honest messages in any order,
// messages with one thing changed, and noise, with descriptors of any kind.
// Serve neither panics nor hangs; it ends with a ProtocolError, or with
// nothing once the peer is gone.
func FuzzServe(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 12, 200, 3, 5, 6})
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 254, 20, 3, 0xff, 12, 12, 13})
	f.Add([]byte{255, 5, 1, 2, 3, 4, 5})
	f.Fuzz(func(t *testing.T, script []byte) {
		n, err := virtio.NewNet(virtio.NetConfig{MAC: [6]byte{2}, Backend: discard{}})
		if err != nil {
			t.Fatal(err)
		}
		p := dial(t, vhostuser.Config{Device: n, MaxMemory: 64 << 20})
		for steps := 0; len(script) > 0 && steps < 100; steps++ {
			script = p.step(script[0], script[1:])
			for { // answers are not what this is about
				var b [512]byte
				if n, _, err := unix.Recvfrom(p.sock, b[:], unix.MSG_DONTWAIT); n <= 0 || err != nil {
					break
				}
			}
			_ = n.Deliver(aFrame)
		}
		p.hangUp()
		select {
		case err := <-p.served:
			if err != nil && !isProtocolError(err) {
				t.Errorf("Serve = %v; want a ProtocolError", err)
			}
			p.served <- err
		case <-time.After(5 * time.Second):
			p.cancel()
			t.Fatal("Serve goes on")
		}
		if err := n.Deliver(aFrame); !errors.Is(err, virtio.ErrDown) {
			t.Errorf("Deliver = %v; want ErrDown", err)
		}
	})
}

// step sends what one byte of the script says, and returns the rest of it.
func (p *peer) step(op byte, rest []byte) []byte {
	next := func() (b byte) {
		if len(rest) > 0 {
			b, rest = rest[0], rest[1:]
		}
		return b
	}
	honest := []struct {
		request uint32
		payload []byte
		fds     []int
	}{
		{setOwner, nil, nil},
		{getFeatures, nil, nil},
		{getProtocolFeatures, nil, nil},
		{setProtocolFeatures, u64s(protocol), nil},
		{setBackendReqFD, nil, []int{p.reqFar}},
		{setFeatures, u64s(features), nil},
		{setMemTable, ramTable, []int{p.ram}},
		{setVringNum, u32s(1, 256), nil},
		{setVringBase, u32s(1, 0), nil},
		{setVringAddr, addr(1, p.rings[1].Config), nil},
		{setVringEnable, u32s(1, 1), nil},
		{getConfig, append(u32s(0, 12, 0), make([]byte, 12)...), nil},
		{vringKick, u32s(1, 0), nil},
		{setVringEnable, u32s(1, 0), nil},
		{getVringBase, u32s(1, 0), nil},
		{setConfig, append(u32s(0, 4, 0), make([]byte, 4)...), nil},
		{setVringNum, u32s(0, 256), nil},
		{setVringAddr, addr(0, p.rings[0].Config), nil},
		{setVringEnable, u32s(0, 1), nil},
	}
	flags := uint32(flagVersion | flagNeedReply)
	m := honest[int(op)%len(honest)]
	payload, fds := append([]byte(nil), m.payload...), m.fds
	switch op / 32 {
	case 4: // one byte of the payload
		if len(payload) > 0 {
			payload[int(next())%len(payload)] = next()
		}
	case 5: // its length
		payload = append(payload, make([]byte, int(next()))...)
		payload = payload[:min(len(payload), int(next()))]
	case 6: // its descriptors, or its flags
		if op%2 == 0 {
			flags = uint32(next())
			break
		}
		kinds := []int{p.ram, p.sock, p.req, p.reqFar}
		for range next() % 12 {
			fds = append(fds, kinds[int(next())%len(kinds)])
		}
	case 7:
		if op%2 == 0 { // the ring
			p.rings[1].SetSlot(uint16(next()), uint16(next()))
			p.rings[1].SetAvailIdx(uint16(next()))
			return rest
		}
		n := int(next()) // which takes a byte of the rest
		n = min(n, len(rest))
		_ = p.raw(rest[:n])
		return rest[n:]
	}
	_ = p.send(m.request, flags, payload, fds...)
	return rest
}

// The context ends a connection in every state a script can leave it in.
func FuzzCancel(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12})
	f.Add(binary.LittleEndian.AppendUint32([]byte{255, 4}, 5))
	f.Fuzz(func(t *testing.T, script []byte) {
		_, _, p := card(t)
		for steps := 0; len(script) > 0 && steps < 30; steps++ {
			script = p.step(script[0], script[1:])
		}
		p.cancel()
		if err := p.end(); !errors.Is(err, context.Canceled) && !isProtocolError(err) {
			t.Errorf("Serve = %v; want context.Canceled, or the error that was faster", err)
		}
	})
}
