package rule

import "slices"

// An interner fills the pools of a unit, each value once: equal values share
// the first. The assembler builds pools with it; the disassembler asks it
// where a value would be.
type interner struct {
	u      *Unit
	consts map[Const]uint32
	pairs  map[[2]Const]uint32
	rows   map[string]uint32
	whys   map[Why]uint32
}

// newInterner goes on with what the pools of u hold already.
func newInterner(u *Unit) *interner {
	in := &interner{
		u:      u,
		consts: make(map[Const]uint32),
		pairs:  make(map[[2]Const]uint32),
		rows:   make(map[string]uint32),
		whys:   make(map[Why]uint32),
	}
	consts, rows, whys := u.Consts, u.Rows, u.Whys
	u.Consts, u.Rows, u.Whys = nil, nil, nil
	for _, c := range consts {
		in.pushConst(c)
	}
	for _, r := range rows {
		in.pushRow(r)
	}
	for _, w := range whys {
		in.pushWhy(w)
	}
	return in
}

// push adds v to the pool whether it is there or not.
func push[K comparable, T any](pool *[]T, first map[K]uint32, key K, v T) uint32 {
	i := uint32(len(*pool))
	if _, ok := first[key]; !ok {
		first[key] = i
	}
	*pool = append(*pool, v)
	return i
}

func (in *interner) pushConst(c Const) uint32 {
	i := push(&in.u.Consts, in.consts, c, c)
	if i > 0 {
		pair := [2]Const{in.u.Consts[i-1], c}
		if _, ok := in.pairs[pair]; !ok {
			in.pairs[pair] = i - 1
		}
	}
	return i
}

func (in *interner) pushRow(r Row) uint32 { return push(&in.u.Rows, in.rows, r.key(), r) }
func (in *interner) pushWhy(w Why) uint32 { return push(&in.u.Whys, in.whys, w, w) }

func (in *interner) constant(c Const) uint32 {
	if i, ok := in.consts[c]; ok {
		return i
	}
	return in.pushConst(c)
}

// pair is the index of a value that has its mask right behind it.
func (in *interner) pair(value, mask Const) uint32 {
	if i, ok := in.pairs[[2]Const{value, mask}]; ok {
		return i
	}
	i := in.pushConst(value)
	in.pushConst(mask)
	return i
}

func (in *interner) row(r Row) uint32 {
	if i, ok := in.rows[r.key()]; ok {
		return i
	}
	return in.pushRow(r)
}

func (in *interner) why(w Why) uint32 {
	if i, ok := in.whys[w]; ok {
		return i
	}
	return in.pushWhy(w)
}

// key is equal for equal rows only: it is their encoding.
func (r Row) key() string {
	return string(appendRow(nil, r))
}

// fileNamed is the index of the first file of that path, or -1.
func (u *Unit) fileNamed(path string) int { return slices.Index(u.Files, path) }
