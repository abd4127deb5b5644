package introspect_test

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"sekimori/introspect"
	"sekimori/introspect/introspecttest"
	"sekimori/vmm/guestmem"
)

// A shifting memory changes while it is read, as a guest's may: after each read
// one of the words that the fuzzer chose is written.
type shifting struct {
	*introspecttest.Kernel
	script []byte
}

// step takes 12 bytes: how far behind the beginning of RAM, and a word, which
// is an address in RAM where its lowest bit says so.
func (m *shifting) step() {
	if len(m.script) < 12 {
		return
	}
	at, v := uint64(binary.LittleEndian.Uint32(m.script)), binary.LittleEndian.Uint64(m.script[4:])
	m.script = m.script[12:]
	span := m.Alloc(0) - m.Direct
	if v&1 != 0 {
		v = m.Direct + (v>>3)%span&^7
	}
	m.Put64(m.Direct+at%span&^7, v)
}

func (m *shifting) Read(va uint64, b []byte) error {
	err := m.Kernel.Read(va, b)
	m.step()
	return err
}

// FuzzMemory reads tasks and frames of a kernel that is changed before and
// while it is read: each answer is one of those that there are, after a bounded
// number of reads, and nothing panics.
func FuzzMemory(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 8 {
		b := make([]byte, 12*n*4)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		f.Add(byte(n), b)
	}
	f.Fuzz(func(t *testing.T, before byte, script []byte) {
		tr := newTraced(t)
		m := &shifting{tr.Kernel, script}
		sk := tr.Socket(introspecttest.Socket{Net: tr.nets[101], Cgroup: tr.Cgroup(203)})
		tr.Post(tr.card, 0, introspecttest.Frame{Len: 60, Sk: sk})
		tr.Post(tr.card, 1, introspecttest.Frame{Len: 60})
		task := tr.Task(introspecttest.Task{PID: 4, TGID: 4, PGID: 4, Net: tr.nets[101], Cgroup: tr.Cgroup(9), PIDNS: 1, Level: 2})
		tr.Put64(direct+0x100, task)
		g := newGuest(t, tr.Kernel, m, introspect.UMLCurrent(direct+0x100))
		q, err := g.Queue(tr.ring)
		if err != nil {
			t.Fatal(err)
		}
		for range before % 16 {
			m.step()
		}
		for head := range uint16(4) {
			tr.Reads, tr.Bytes = 0, 0
			o := q.Owner(head, 60)
			if o.Member > 3 || o.Kernel && o.Member != 0 || (o.Cause == "") == (o.Member == 0 && !o.Kernel) {
				t.Errorf("Owner = %+v", o)
			}
			if tr.Reads > 50_000 || tr.Bytes > 1<<20 {
				t.Errorf("Owner made %d reads of %d bytes", tr.Reads, tr.Bytes)
			}
			tr.Reads = 0
			got, err := g.Running()
			if err != nil && got != (introspect.Task{}) {
				t.Errorf("Running = %+v with %v", got, err)
			}
			if tr.Reads > 20 {
				t.Errorf("Running made %d reads", tr.Reads)
			}
		}
	})
}

// FuzzPaged walks page tables of any bytes: no read leaves RAM, and each ends.
func FuzzPaged(f *testing.F) {
	f.Add(uint64(0xffff_8880_0000_0000), uint64(0x1000), true, []byte{0x67, 0x10})
	f.Add(^uint64(0)-7, uint64(0), false, []byte{})
	f.Fuzz(func(t *testing.T, va, cr3 uint64, five bool, script []byte) {
		ram := make([]byte, 64<<10)
		for i := 0; i+4 <= len(script); i += 4 {
			at := uint64(binary.LittleEndian.Uint16(script[i:])) &^ 7
			entry := uint64(script[i+2])<<12&0xf000 | uint64(script[i+3]) | 1
			binary.LittleEndian.PutUint64(ram[at:], entry)
		}
		mem, err := guestmem.FromSlices(guestmem.Slice{Bytes: ram})
		if err != nil {
			t.Fatal(err)
		}
		p := introspect.NewPaged(mem)
		cr4 := uint64(0)
		if five {
			cr4 = 1 << 12
		}
		p.Enter(cr3, cr4, false)
		b := make([]byte, 64)
		err = read(p, va, b)
		at, perr := physical(p, va)
		if err == nil && (perr != nil || !mem.Contains(at, 1)) {
			t.Errorf("Read(%#x) without error; Physical = %#x, %v", va, at, perr)
		}
		if int64(va) >= 0 && perr == nil {
			t.Errorf("an address of the user's half, %#x, is at %#x", va, at)
		}
	})
}
