package virtq_test

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"sekimori/vmm/guestmem"
	"sekimori/vmm/virtq"
)

// FuzzQueue gives the device a ring of any content and a list of things that
// the driver and the device do in turn, and holds it against a second opinion
// that reads the same ring naively:
//
//   - a chain is taken if and only if it breaks no rule;
//   - nothing is written but the used ring and the writable part of a chain
//     that was taken;
//   - nothing beside the guest's RAM is written at all;
//   - what broke stays broken, and everything returns.
func FuzzQueue(f *testing.F) {
	desc := func(addr uint64, n uint32, flags, next uint16) []byte {
		b := binary.LittleEndian.AppendUint64(nil, addr)
		b = binary.LittleEndian.AppendUint32(b, n)
		b = binary.LittleEndian.AppendUint16(b, flags)
		return binary.LittleEndian.AppendUint16(b, next)
	}
	avail := func(idx uint16, heads ...uint16) []byte {
		b := binary.LittleEndian.AppendUint16([]byte{0, 0}, idx)
		for _, h := range heads {
			b = binary.LittleEndian.AppendUint16(b, h)
		}
		return b
	}
	honest := bytes.Join([][]byte{desc(0x800, 64, 1, 1), desc(0x900, 64, 2, 0), desc(0xa00, 8, 0, 0)}, nil)
	f.Add(honest, avail(2, 0, 2), []byte{0, 0, 0})
	f.Add(desc(0x800, 64, 1, 0), avail(1, 0), []byte{0})                                     // a loop
	f.Add(desc(0xffc, 64, 2, 0), avail(1, 0), []byte{0})                                     // over the end
	f.Add(desc(0xfffffffffffffff8, 64, 2, 0), avail(1, 0), []byte{0})                        // wraps
	f.Add(desc(0x100, 64, 2, 0), avail(3, 0, 0, 0), []byte{0, 0, 0})                         // into its own ring
	f.Add(honest, avail(0xffff), []byte{0})                                                  // far ahead
	f.Add(honest, avail(1, 0xffff), []byte{0})                                               // no such head
	f.Add(desc(0x800, 4, 4, 0), avail(1, 0), []byte{0, 1, 2, 3, 4})                          // indirect
	f.Add(honest, avail(1, 0), []byte{0, 3, 0x42, 9, 0, 2, 1, 0, 0, 3, 0x42, 8, 0, 4, 0, 1}) // the driver changes things

	f.Fuzz(func(t *testing.T, table, ring, ops []byte) {
		newModel(t, table, ring).run(ops[:min(len(ops), 100)])
	})
}

// Where the fuzzed queue lies in its 4 KiB of RAM.
const (
	fuzzSize  = 8
	fuzzAvail = 0x80
	fuzzUsed  = 0xc0
	fuzzRAM   = 0x1000
)

var untouched = bytes.Repeat([]byte{0xa5}, fuzzRAM)

// A model is the queue that is tested, and what is known of it otherwise.
type model struct {
	t      *testing.T
	q      *virtq.Queue
	mem    *guestmem.Memory
	around []byte // RAM, with a page on each side of it
	ram    []byte
	used   uint16 // chains that were given back
	flags  uint16
	broken error
}

func newModel(t *testing.T, table, ring []byte) *model {
	m := &model{t: t, around: bytes.Repeat([]byte{0xa5}, 3*fuzzRAM)}
	m.ram = m.around[fuzzRAM : 2*fuzzRAM]
	clear(m.ram)
	copy(m.ram[:fuzzAvail], table)
	copy(m.ram[fuzzAvail:fuzzUsed], ring)
	var err error
	if m.mem, err = guestmem.FromSlices(guestmem.Slice{Bytes: m.ram}); err != nil {
		t.Fatal(err)
	}
	m.q, err = virtq.New(m.mem, virtq.Config{Name: "fuzz", Size: fuzzSize, Avail: fuzzAvail, Used: fuzzUsed})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *model) run(ops []byte) {
	var chain virtq.Chain
	for len(ops) > 0 {
		op := ops[0]
		ops = ops[1:]
		before := bytes.Clone(m.ram)
		start := time.Now()
		switch op % 5 {
		case 0:
			m.pop(&chain, before)
		case 1:
			m.check("Push", m.q.Push(chain.Head, 1), func() { m.push(before, uint32(chain.Head), 1) }, before)
		case 2:
			m.check("SetNotify", m.q.SetNotify(op&0x80 != 0), func() { m.notify(before, op&0x80 != 0) }, before)
		case 3: // the driver writes a word anywhere
			if len(ops) < 3 {
				return
			}
			at := binary.LittleEndian.Uint16(ops) % (fuzzRAM - 1)
			m.ram[at] = ops[2]
			m.ram[at+1] = op
			ops = ops[3:]
		case 4:
			want, err := m.q.NeedInterrupt()
			m.check("NeedInterrupt", err, func() {}, before)
			if err == nil && want != (before[fuzzAvail]&1 == 0) {
				m.t.Fatalf("NeedInterrupt = %v with flags %#x", want, before[fuzzAvail])
			}
		}
		if took := time.Since(start); took > time.Second {
			m.t.Fatalf("operation %d took %v", op%5, took)
		}
		if !bytes.Equal(m.around[:fuzzRAM], untouched) || !bytes.Equal(m.around[2*fuzzRAM:], untouched) {
			m.t.Fatal("bytes beside the RAM were written")
		}
	}
}

// check holds an operation that nothing but a broken queue can refuse to what
// it may change.
func (m *model) check(what string, err error, expect func(), ram []byte) {
	if err != m.broken {
		m.t.Fatalf("%s = %v; want %v", what, err, m.broken)
	}
	if err == nil {
		expect()
	}
	m.same(what, ram)
}

func (m *model) same(what string, want []byte) {
	if !bytes.Equal(m.ram, want) {
		for i := range want {
			if m.ram[i] != want[i] {
				m.t.Fatalf("%s left %#x at %#x; want %#x", what, m.ram[i], i, want[i])
			}
		}
	}
}

func (m *model) push(ram []byte, head, n uint32) {
	at := fuzzUsed + 4 + 8*int(m.used%fuzzSize)
	binary.LittleEndian.PutUint32(ram[at:], head)
	binary.LittleEndian.PutUint32(ram[at+4:], n)
	m.used++
	m.head(ram)
}

func (m *model) notify(ram []byte, on bool) {
	m.flags = 1
	if on {
		m.flags = 0
	}
	m.head(ram)
}

func (m *model) head(ram []byte) {
	binary.LittleEndian.PutUint16(ram[fuzzUsed:], m.flags)
	binary.LittleEndian.PutUint16(ram[fuzzUsed+2:], m.used)
}

// pop takes a chain, and holds it to what is known of it.
func (m *model) pop(c *virtq.Chain, before []byte) {
	next := m.q.Next()
	ok, err := m.q.Pop(c)
	switch {
	case m.broken != nil:
		if ok || err != m.broken {
			m.t.Fatalf("Pop of the broken queue = %v, %v; want %v", ok, err, m.broken)
		}
		return
	case !ok:
		m.broken = err
		if err != nil && m.q.Broken() != err {
			m.t.Fatalf("Broken = %v; want %v", m.q.Broken(), err)
		}
		ahead := binary.LittleEndian.Uint16(before[fuzzAvail+2:]) - next
		head := binary.LittleEndian.Uint16(before[fuzzAvail+4+2*(next%fuzzSize):])
		_, _, good := naive(before, head)
		switch {
		case err == nil && ahead != 0:
			m.t.Fatalf("Pop found nothing, but %d chains are available", ahead)
		case err != nil && m.q.Next() == next && ahead <= fuzzSize:
			m.t.Fatalf("Pop = %v; but the index is only %d ahead", err, ahead)
		case err != nil && m.q.Next() != next && good:
			m.t.Fatalf("Pop = %v; but chain %d is good", err, head)
		}
		return
	}
	head := binary.LittleEndian.Uint16(before[fuzzAvail+4+2*(next%fuzzSize):])
	readable, writable, good := naive(before, head)
	if !good || c.Head != head {
		m.t.Fatalf("Pop took chain %d; want chain %d, good %v", c.Head, head, good)
	}
	if c.Readable() != total(readable) || c.Writable() != total(writable) {
		m.t.Fatalf("readable, writable = %d, %d; want %d, %d", c.Readable(), c.Writable(), total(readable), total(writable))
	}
	m.same("Pop", before)
	m.copies(c, readable, writable, before)
}

// copies reads and writes the first bytes of a chain.
func (m *model) copies(c *virtq.Chain, readable, writable []span, ram []byte) {
	got := make([]byte, 0x300)
	n, err := c.CopyOut(got, 0)
	want, good := gather(ram, readable, len(got))
	if (err == nil) != good || !bytes.Equal(got[:n], want[:n]) || good && n != len(want) {
		m.t.Fatalf("CopyOut = %d, %v; want %d bytes, good %v", n, err, len(want), good)
	}
	m.same("CopyOut", ram)

	put := bytes.Repeat([]byte{0x77}, 0x300)
	n, err = c.CopyIn(put, 0)
	left := put
	for _, s := range writable {
		k := min(s.n, uint64(len(left)))
		if k == 0 {
			continue
		}
		if s.addr >= fuzzRAM || k > fuzzRAM-s.addr {
			if err == nil {
				m.t.Fatalf("CopyIn wrote [%#x, +%d) and says nothing", s.addr, k)
			}
			break
		}
		copy(ram[s.addr:], left[:k])
		left = left[k:]
	}
	if n != len(put)-len(left) {
		m.t.Fatalf("CopyIn = %d, %v; want %d", n, err, len(put)-len(left))
	}
	m.same("CopyIn", ram)
}

type span struct{ addr, n uint64 }

// naive reads a chain as the specification has it, and says whether it is one.
func naive(ram []byte, head uint16) (readable, writable []span, good bool) {
	for range fuzzSize {
		if head >= fuzzSize {
			return nil, nil, false
		}
		d := ram[16*int(head):][:16]
		s := span{binary.LittleEndian.Uint64(d), uint64(binary.LittleEndian.Uint32(d[8:]))}
		flags := binary.LittleEndian.Uint16(d[12:])
		if flags&4 != 0 || s.n > 0 && s.addr+s.n-1 < s.addr {
			return nil, nil, false
		}
		if flags&2 != 0 {
			writable = append(writable, s)
		} else {
			if len(writable) > 0 {
				return nil, nil, false
			}
			readable = append(readable, s)
		}
		if total(readable)+total(writable) > 1<<32 {
			return nil, nil, false
		}
		if flags&1 == 0 {
			return readable, writable, true
		}
		head = binary.LittleEndian.Uint16(d[14:])
	}
	return nil, nil, false
}

func total(spans []span) (n uint64) {
	for _, s := range spans {
		n += s.n
	}
	return n
}

// gather returns the first n bytes of the spans, and whether all of them are
// RAM.
func gather(ram []byte, spans []span, n int) (b []byte, good bool) {
	for _, s := range spans {
		k := min(s.n, uint64(n-len(b)))
		if k == 0 {
			continue
		}
		if s.addr >= fuzzRAM || k > fuzzRAM-s.addr {
			return b, false
		}
		b = append(b, ram[s.addr:s.addr+k]...)
	}
	return b, true
}
