package layout

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// A finder looks fields up in BTF. It keeps the first error.
type finder struct {
	specs  []*btf.Spec
	chosen map[string]*btf.Struct // of several of a name
	err    error
}

func (f *finder) fail(path, format string, args ...any) {
	if f.err == nil {
		f.err = &Error{Path: path, Why: fmt.Sprintf(format, args...)}
	}
}

// A place is a field, as BTF has it.
type place struct {
	off  btf.Bits
	typ  btf.Type
	bits btf.Bits // of a bit field
}

// need is the offset of a field of that size in bytes; 0 for any size.
func (f *finder) need(path string, size int) Offset {
	p, ok := f.look(path)
	if !ok {
		f.fail(path, "not in the kernel's BTF")
		return None
	}
	if have, err := btf.Sizeof(p.typ); size != 0 && (err != nil || have != size || p.bits != 0) {
		f.fail(path, "is of %d bytes, want %d", have, size)
	}
	return Offset(p.off.Bytes())
}

// may is need, or None where there is no such field.
func (f *finder) may(path string, size int) Offset {
	if _, ok := f.look(path); !ok {
		return None
	}
	return f.need(path, size)
}

// bit is a bit field of one bit.
func (f *finder) bit(path string) Bit {
	p, ok := f.look(path)
	if !ok || p.bits != 1 {
		return Bit{Off: None}
	}
	return Bit{Off: Offset(p.off / 8), Mask: 1 << (p.off % 8)}
}

// choose settles which of several structs of a name is meant, drivers' private
// ones: that which has all these members.
func (f *finder) choose(name string, members ...string) {
	for _, typ := range f.types(name) {
		if !slices.ContainsFunc(members, func(m string) bool { _, ok := within(typ, m, maxAnonymous); return !ok }) {
			f.chosen[name] = typ
			return
		}
	}
}

// look finds a field by its path: a struct, and members. Where several structs
// have the name and none was chosen, the first that has the field is it.
func (f *finder) look(path string) (place, bool) {
	name, rest, _ := strings.Cut(path, ".")
	for _, typ := range f.types(name) {
		p, ok := place{typ: typ}, true
		for _, member := range strings.Split(rest, ".") {
			off := p.off
			if p, ok = within(p.typ, member, maxAnonymous); !ok {
				break
			}
			p.off += off
		}
		if ok {
			return p, true
		}
	}
	return place{}, false
}

// types are the structs of a name.
func (f *finder) types(name string) (all []*btf.Struct) {
	if s := f.chosen[name]; s != nil {
		return []*btf.Struct{s}
	}
	for i := len(f.specs) - 1; i >= 0; i-- {
		types, err := f.specs[i].AnyTypesByName(name)
		if err != nil {
			continue
		}
		for _, t := range types {
			if s, ok := t.(*btf.Struct); ok {
				all = append(all, s)
			}
		}
	}
	return all
}

// maxAnonymous bounds how deep nameless members lie in each other.
const maxAnonymous = 8

// within finds a member of a struct or union, and in its nameless members.
func within(t btf.Type, name string, depth int) (place, bool) {
	var members []btf.Member
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		members = t.Members
	case *btf.Union:
		members = t.Members
	}
	for _, m := range members {
		if m.Name == name {
			return place{m.Offset, m.Type, m.BitfieldSize}, true
		}
		if m.Name == "" && depth > 0 {
			if p, ok := within(m.Type, name, depth-1); ok {
				p.off += m.Offset
				return p, true
			}
		}
	}
	return place{}, false
}

// size is that of a struct.
func (f *finder) size(name string) Offset {
	types := f.types(name)
	if len(types) == 0 {
		f.fail(name, "not in the kernel's BTF")
		return None
	}
	return Offset(types[0].Size)
}

// enum is the value of a name in an enum.
func (f *finder) enum(name, value string) uint64 {
	for _, s := range f.specs {
		var e *btf.Enum
		if s.TypeByName(name, &e) != nil {
			continue
		}
		for _, v := range e.Values {
			if v.Name == value {
				return v.Value
			}
		}
	}
	f.fail(name+"."+value, "not in the kernel's BTF")
	return 0
}

// variable is the offset of a variable in the data of a CPU, None if there is
// none of that name.
func (f *finder) variable(name string) Offset {
	var sec *btf.Datasec
	if f.specs[0].TypeByName(".data..percpu", &sec) != nil {
		return None
	}
	for _, v := range sec.Vars {
		if v.Type.TypeName() == name {
			return Offset(v.Offset)
		}
	}
	return None
}
