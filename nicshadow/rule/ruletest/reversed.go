package ruletest

import "sekimori/nicshadow/frame"

// Reversed is the frame that would answer k, as far as its fields say: what
// was asked of one side and told the other is swapped.
func Reversed(k *frame.Key) *frame.Key {
	r, c := *k, k.Class()
	for _, p := range [][2]frame.Field{
		{frame.EthSrc, frame.EthDst}, {frame.IPv4Src, frame.IPv4Dst}, {frame.IPv6Src, frame.IPv6Dst},
		{frame.SrcPort, frame.DstPort}, {frame.ARPSenderIP, frame.ARPTargetIP}, {frame.ARPSenderMAC, frame.ARPTargetMAC},
	} {
		if c.Has(p[0]) && c.Has(p[1]) {
			a, b := wide(k, p[0]), wide(k, p[1])
			Set(&r, p[0], b[0], b[1])
			Set(&r, p[1], a[0], a[1])
		}
	}
	answers := map[uint64]uint64{8: 0, 128: 129, 133: 134, 135: 136}
	if typ, ok := answers[k.Uint(frame.ICMPType)]; ok && c.Has(frame.ICMPType) {
		Set(&r, frame.ICMPType, 0, typ)
	}
	if c == frame.ClassARP {
		Set(&r, frame.ARPOp, 0, 2)
	}
	return &r
}

func wide(k *frame.Key, f frame.Field) [2]uint64 {
	hi, lo := k.Wide(f)
	return [2]uint64{hi, lo}
}

// Set makes hi and lo the value of field f of k, which has it.
func Set(k *frame.Key, f frame.Field, hi, lo uint64) {
	i := f.Info()
	if i.Width == 128 {
		k.Words[i.Word], k.Words[i.Word+1] = hi, lo
		return
	}
	mask := uint64(1)<<i.Width - 1
	k.Words[i.Word] = k.Words[i.Word]&^(mask<<i.Shift) | lo&mask<<i.Shift
}
