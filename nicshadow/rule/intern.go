package rule

import "slices"

// The intern functions find a value in a pool of the unit, or append it, and
// return its index. They search from the front, so that equal values share
// the first.

func (u *Unit) internConst(c Const) uint32 {
	return intern(&u.Consts, func(d Const) bool { return d == c }, c)
}

// internPair finds a value with its mask right behind it.
func (u *Unit) internPair(value, mask Const) uint32 {
	for i := 0; i+1 < len(u.Consts); i++ {
		if u.Consts[i] == value && u.Consts[i+1] == mask {
			return uint32(i)
		}
	}
	u.Consts = append(u.Consts, value, mask)
	return uint32(len(u.Consts) - 2)
}

func (u *Unit) internRow(r Row) uint32 {
	return intern(&u.Rows, func(s Row) bool { return slices.Equal(r, s) }, r)
}

func (u *Unit) internWhy(w Why) uint32 {
	return intern(&u.Whys, func(x Why) bool { return x == w }, w)
}

func intern[T any](pool *[]T, same func(T) bool, v T) uint32 {
	i := slices.IndexFunc(*pool, same)
	if i < 0 {
		i = len(*pool)
		*pool = append(*pool, v)
	}
	return uint32(i)
}

// fileNamed is the index of the first file of that path, or -1.
func (u *Unit) fileNamed(path string) int { return slices.Index(u.Files, path) }
