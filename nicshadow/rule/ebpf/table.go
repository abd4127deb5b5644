package ebpf

import (
	"encoding/binary"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// inline is the size up to which a table becomes comparisons: a lookup costs
// as much as ten of them.
const inline = 8

// A mapDef is a map to be made. The values of a table are one byte that says
// nothing: what matters is that the key is there.
type mapDef struct {
	typ        ebpf.MapType
	name       string
	key, value uint32 // bytes
	size       uint32 // entries
	flags      uint32
	// Slices of all keys, and of what is there, a byte each if nil. Without
	// keys the map begins empty, or 0.
	keys   any
	values func() any
	// shared names a map that is there already: see fabric. The rest is unused
	// then.
	shared string
	// For the kernel to find the lock in a value; nil where there is none.
	keyType, valueType btf.Type
}

func (c *compiler) addMap(m mapDef) int {
	c.maps = append(c.maps, m)
	return len(c.maps) - 1
}

// mapPtr puts the address of map m into r.
func (c *compiler) mapPtr(r asm.Register, m int) {
	c.uses[len(c.insns)] = m
	c.add(asm.LoadMapPtr(r, 0))
}

// lookup looks for the key that lies at off on the stack; R0 is where its
// value is, 0 where it is not.
func (c *compiler) lookup(m int, off int32) {
	c.mapPtr(asm.R1, m)
	c.add(asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, off), asm.FnMapLookupElem.Call())
}

// find goes to yes or no, of which one is the next instruction, as f is in a
// table or not.
func (c *compiler) find(f frame.Field, table uint32, yes, no label) {
	t := &c.u.Tables[table]
	if t.Len() > inline {
		c.loadKey(f, t.Kind)
		c.search(table, yes, no)
		return
	}
	c.never(yes)
	width := uint8(f.Width())
	for _, v := range t.Values {
		if f.Width() < 64 && v.Lo>>f.Width() != 0 {
			continue // the field has no such value
		}
		c.ifMatch(appendMatch(nil, f, full(f), v), yes)
	}
	for _, p := range t.Prefixes {
		c.ifMatch(appendMatch(nil, f, prefixMask(p.Bits, width), p.Value), yes)
	}
	c.jump(no)
}

func (c *compiler) ifMatch(ps []part, yes label) {
	next := c.newLabel()
	c.unless(ps, next)
	c.jump(yes)
	c.place(next)
}

// findNumber is find for the number in R1.
func (c *compiler) findNumber(table uint32, yes, no label) {
	t := &c.u.Tables[table]
	if t.Len() > inline {
		c.add(asm.StoreMem(asm.RFP, -8, asm.R1, asm.DWord))
		c.search(table, yes, no)
		return
	}
	c.never(yes)
	for _, v := range t.Values {
		c.add(asm.LoadImm(asm.R2, int64(v.Lo), asm.DWord))
		c.ifReg(asm.R1, asm.JEq, asm.R2, yes)
	}
	c.jump(no)
}

// search looks for the key that loadKey left.
func (c *compiler) search(table uint32, yes, no label) {
	t := &c.u.Tables[table]
	if c.table[table] == 0 {
		c.table[table] = 1 + c.addMap(tableMap(t))
	}
	c.lookup(c.table[table]-1, -int32(keyLen[t.Kind]))
	c.ifImm(asm.R0, asm.JNE, 0, yes)
	c.jump(no)
}

// keyLen is the size of the key of a table's map.
//
//	exact    8 or 16: the value, high half first
//	prefix  4 + 4 or 4 + 16: number of bits, address in network order
//	        (struct bpf_lpm_trie_key_u8, include/uapi/linux/bpf.h v6.18)
var keyLen = map[rule.TableKind]uint32{
	rule.TableExact64: 8, rule.TableExact128: 16, rule.TablePrefix32: 8, rule.TablePrefix128: 20,
}

// loadKey writes f as a key at the end of the stack.
func (c *compiler) loadKey(f frame.Field, kind rule.TableKind) {
	store := func(off int16, r asm.Register, size asm.Size) { c.add(asm.StoreMem(asm.RFP, off, r, size)) }
	word := f.Info().Word
	switch kind {
	case rule.TableExact64:
		c.loadField(asm.R1, f)
		store(-8, asm.R1, asm.DWord)
	case rule.TableExact128:
		c.loadWord(asm.R1, word)
		c.loadWord(asm.R2, word+1)
		store(-16, asm.R1, asm.DWord)
		store(-8, asm.R2, asm.DWord)
	case rule.TablePrefix32:
		c.loadField(asm.R1, f)
		c.add(asm.HostTo(asm.BE, asm.R1, asm.Word), asm.StoreImm(asm.RFP, -8, 32, asm.Word))
		store(-4, asm.R1, asm.Word)
	case rule.TablePrefix128:
		c.loadWord(asm.R1, word)
		c.loadWord(asm.R2, word+1)
		c.add(asm.HostTo(asm.BE, asm.R1, asm.DWord), asm.HostTo(asm.BE, asm.R2, asm.DWord),
			asm.StoreImm(asm.RFP, -20, 128, asm.Word))
		store(-16, asm.R1, asm.DWord)
		store(-8, asm.R2, asm.DWord)
	}
}

// BPF_F_NO_PREALLOC and BPF_F_RDONLY_PROG, include/uapi/linux/bpf.h v6.18.
const noPrealloc, readOnly = 1, 1 << 7

// A prefix4 is the key of a trie, and so is a prefix16.
type prefix4 struct {
	Bits uint32
	Addr [4]byte
}

type prefix16 struct {
	Bits uint32
	Addr [16]byte
}

// tableMap is a map with the values of t. Programs cannot write to it.
func tableMap(t *rule.Table) mapDef {
	m := mapDef{typ: ebpf.Hash, name: "exact", key: keyLen[t.Kind], value: 1, size: uint32(t.Len()), flags: readOnly}
	be := binary.BigEndian
	switch t.Kind {
	case rule.TableExact64:
		keys := make([]uint64, t.Len())
		for i, v := range t.Values {
			keys[i] = v.Lo
		}
		m.keys = keys
	case rule.TableExact128:
		keys := make([][2]uint64, t.Len())
		for i, v := range t.Values {
			keys[i] = [2]uint64{v.Hi, v.Lo}
		}
		m.keys = keys
	case rule.TablePrefix32:
		keys := make([]prefix4, t.Len())
		for i, p := range t.Prefixes {
			keys[i].Bits = uint32(p.Bits)
			be.PutUint32(keys[i].Addr[:], uint32(p.Value.Lo))
		}
		m.keys = keys
	case rule.TablePrefix128:
		keys := make([]prefix16, t.Len())
		for i, p := range t.Prefixes {
			keys[i].Bits = uint32(p.Bits)
			be.PutUint64(keys[i].Addr[:8], p.Value.Hi)
			be.PutUint64(keys[i].Addr[8:], p.Value.Lo)
		}
		m.keys = keys
	}
	if len(t.Prefixes) > 0 {
		m.typ, m.name, m.flags = ebpf.LPMTrie, "prefix", noPrealloc|readOnly
	}
	return m
}

// prefixMask has the high bits of width set.
func prefixMask(bits, width uint8) rule.Const {
	switch {
	case width == 32:
		return rule.Const{Lo: uint64(^uint32(0)) << (32 - bits) & 0xffffffff}
	case bits <= 64:
		return rule.Const{Hi: ^uint64(0) << (64 - bits)}
	}
	return rule.Const{Hi: ^uint64(0), Lo: ^uint64(0) << (128 - bits)}
}
