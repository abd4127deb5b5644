package main

import (
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

func handUnit() *rule.Unit {
	u := &rule.Unit{Files: []string{"hand"}}
	c := func(v uint64) rule.Const { return rule.Const{Lo: v} }
	m := func(f frame.Field, mask, v uint64) rule.Match {
		return rule.Match{Field: f, Mask: c(mask), Value: c(v)}
	}
	all32 := uint64(0xffffffff)
	u.Whys = []rule.Why{{Kind: rule.WhyUnspoken, Name: "x"}}
	u.Rows = []rule.Row{
		{m(frame.ARPSenderMAC, 1<<48-1, 0x020000000005), m(frame.ARPSenderIP, all32, 0x0a000005), m(frame.ARPTargetIP, 0xffffff00, 0x0a000000)},
	}
	u.Consts = []rule.Const{c(0x0a000000), c(0xff000000)}
	u.Tables = []rule.Table{{Kind: rule.TableExact64, Values: []rule.Const{c(80), c(443)}}}
	u.Insns = []rule.Insn{
		{Op: rule.OpRet, A: 0},             // 0 drop
		{Op: rule.OpTestRow, K: 0, Off: 2}, // 1
		{Op: rule.OpTestNe, A: uint8(frame.ARPTargetIP), K: 0x0a000001, Off: 1},
		{Op: rule.OpRet, A: 1},
		{Op: rule.OpRet, A: 0}, // 4
		// tcp 5
		{Op: rule.OpTestEq, A: uint8(frame.IPv4Src), K: 0x0a000005, Off: 4},
		{Op: rule.OpTestNMask, A: uint8(frame.IPv4Dst), K: 0, Off: 2},
		{Op: rule.OpTestNe, A: uint8(frame.DstPort), K: 80, Off: 1},
		{Op: rule.OpTestEq, A: uint8(frame.DstPort), K: 443, Off: 1},
		{Op: rule.OpRet, A: 1},
		{Op: rule.OpRet, A: 0}, // 10
		// udp 11
		{Op: rule.OpTestEq, A: uint8(frame.IPv4Src), K: 0x0a000005, Off: 3},
		{Op: rule.OpTestNMask, A: uint8(frame.IPv4Dst), K: 0, Off: 1},
		{Op: rule.OpTestEq, A: uint8(frame.DstPort), K: 53, Off: 1},
		{Op: rule.OpRet, A: 1},
		{Op: rule.OpRet, A: 0}, // 15
		// icmp 16
		{Op: rule.OpTestEq, A: uint8(frame.IPv4Src), K: 0x0a000005, Off: 2},
		{Op: rule.OpTestMask, A: uint8(frame.IPv4Dst), K: 0, Off: 1},
		{Op: rule.OpRet, A: 1},
		{Op: rule.OpRet, A: 0}, // 19
	}
	u.Entries[frame.ClassARP] = 1
	u.Entries[frame.ClassIPv4TCP] = 5
	u.Entries[frame.ClassIPv4UDP] = 11
	u.Entries[frame.ClassIPv4ICMP] = 16
	return u
}

func sekiEngines() ([]engine, error) {
	p, err := rule.New(handUnit())
	if err != nil {
		return nil, err
	}
	k := new(frame.Key)
	return []engine{{"seki", func(b []byte) bool {
		return frame.Parse(b, k) == frame.OK && p.Run(k).Verdict == rule.Forward
	}}}, nil
}
