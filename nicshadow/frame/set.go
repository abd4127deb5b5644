package frame

// SetClass begins a key by hand, for explanations and for frames that are
// looked for, not parsed: all fields are 0, and the class is c.
func (k *Key) SetClass(c Class) {
	*k = Key{}
	k.Words[wordMeta] = uint64(c)
}

// Set writes the value of a field that the key's class has; hi is the high
// half of a 128-bit field. Bits wider than the field are cut off.
func (k *Key) Set(f Field, hi, lo uint64) {
	if !k.Class().Has(f) {
		return
	}
	i := &infos[f]
	if i.Width == 128 {
		k.Words[i.Word], k.Words[i.Word+1] = hi, lo
		return
	}
	mask := uint64(1)<<i.Width - 1
	k.Words[i.Word] = k.Words[i.Word]&^(mask<<i.Shift) | lo&mask<<i.Shift
}
