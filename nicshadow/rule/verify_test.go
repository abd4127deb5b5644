package rule_test

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
	"sekimori/nicshadow/rule/ruletest"
)

// everywhere is a unit whose instructions all classes run; classes narrows
// that: all others go to a return of their own.
func everywhere(insns ...rule.Insn) *rule.Unit {
	return &rule.Unit{
		Insns:  insns,
		Whys:   []rule.Why{{Kind: rule.WhyUnspoken, Name: "ethernet"}},
		Consts: []rule.Const{{Lo: 5}, {Lo: 0xff}, {Hi: 1}, {Lo: 1 << 48}},
		Rows:   []rule.Row{{{Field: frame.EthSrc, Mask: rule.Const{Lo: 1}, Value: rule.Const{Lo: 1}}}},
		Tables: []rule.Table{
			{Kind: rule.TableExact64, Values: []rule.Const{{Lo: 1}}},
			{Kind: rule.TablePrefix32, Prefixes: []rule.Prefix{{Value: rule.Const{Lo: 10 << 24}, Bits: 8}}},
			{Kind: rule.TableExact128, Values: []rule.Const{{Lo: 1}}},
		},
	}
}

func only(c frame.Class, insns ...rule.Insn) *rule.Unit {
	u := everywhere(append(insns, ret)...)
	for i := range u.Entries {
		u.Entries[i] = uint32(len(insns))
	}
	u.Entries[c] = 0
	return u
}

func limited(limits ...rule.Limit) *rule.Unit {
	u := everywhere(ret)
	u.Limits = limits
	return u
}

var ret = rule.Insn{Op: rule.OpRet}

// test is a test of a field that all frames have.
func test(off uint16) rule.Insn {
	return rule.Insn{Op: rule.OpTestEq, A: uint8(frame.EtherType), Off: off, K: 1}
}

func TestVerify(t *testing.T) {
	insn := func(op rule.Op, a uint8, k uint32) rule.Insn { return rule.Insn{Op: op, A: a, K: k} }
	ethSrc, ethType, vlan := uint8(frame.EthSrc), uint8(frame.EtherType), uint8(frame.VLAN)
	ipSrc, ip6Src, ttl := uint8(frame.IPv4Src), uint8(frame.IPv6Src), uint8(frame.IPTTL)
	arp, v4, v6 := frame.ClassARP, frame.ClassIPv4TCP, frame.ClassIPv6TCP

	tests := []struct {
		name   string
		unit   *rule.Unit
		pc     int
		reason string // "" where the unit verifies
	}{
		{"a return", everywhere(ret), 0, ""},
		{"no instructions", everywhere(), -1, "no instructions"},

		// Flow.
		{"test at the end", everywhere(test(0)), 0, "jump to 1 is past the end"},
		{"jump past the end", everywhere(test(1), ret), 0, "jump to 2 is past the end"},
		{"jump far past the end", everywhere(test(math.MaxUint16), ret), 0, "past the end"},
		{"path without a return", everywhere(test(0), insn(rule.OpLoadI, 0, 0)), 1, "ends without a return"},
		{"unreachable", everywhere(ret, ret), 1, "unreachable"},
		{"jumped over", everywhere(rule.Insn{Op: rule.OpJmp, Off: 1}, ret, ret), 1, "unreachable"},
		{"jump to the next", everywhere(rule.Insn{Op: rule.OpJmp}, ret), 0, ""},
		{"offset of a return", everywhere(rule.Insn{Op: rule.OpRet, Off: 1}), 0, "offset of 1"},
		{"offset of a load", everywhere(rule.Insn{Op: rule.OpLoadI, Off: 1}, ret), 0, "offset of 1"},

		// Opcodes and operands.
		{"opcode 0", everywhere(rule.Insn{}, ret), 0, "unknown opcode"},
		{"opcode 255", everywhere(rule.Insn{Op: 255}, ret), 0, "unknown opcode"},
		{"verdict 3", everywhere(insn(rule.OpRet, 3, 0)), 0, "verdict 3"},
		{"why past the end", everywhere(insn(rule.OpRet, 0, 1)), 0, "why 1 of 1"},
		{"operand of a jump", everywhere(rule.Insn{Op: rule.OpJmp, A: 1}, ret), 0, "an operand of 1"},
		{"row with a field", everywhere(insn(rule.OpTestRow, 1, 0), ret), 0, "an operand of 1"},
		{"row past the end", everywhere(insn(rule.OpTestRow, 0, 1), ret), 0, "row 1 of 1"},
		{"field 0", everywhere(insn(rule.OpTestEq, 0, 0), ret), 0, "unknown field 0"},
		{"field 255", everywhere(insn(rule.OpTestEq, 255, 0), ret), 0, "unknown field 255"},
		{"constant past the end", everywhere(insn(rule.OpTestEqC, ethSrc, 4), ret), 0, "constant 4 of 4"},
		{"constant 2^32-1", everywhere(insn(rule.OpTestEqC, ethSrc, math.MaxUint32), ret), 0, "constant 4294967295 of 4"},
		{"mask past the end", everywhere(insn(rule.OpTestMask, ethSrc, 3), ret), 0, "constants 3 and 4 of 4"},
		{"mask 2^32-1", everywhere(insn(rule.OpTestMask, ethSrc, math.MaxUint32), ret), 0, "constants 4294967295 and 4294967296"},
		{"table past the end", everywhere(insn(rule.OpTestIn, ethSrc, 3), ret), 0, "table 3 of 3"},

		// Classes.
		{"field of all", everywhere(insn(rule.OpTestEq, ethType, 1), ret), 0, ""},
		{"field of some", everywhere(insn(rule.OpTestEqC, ipSrc, 0), ret), 0, "field ip4.src in a frame of class arp"},
		{"field of the class", only(v4, insn(rule.OpTestEqC, ipSrc, 0)), 0, ""},
		{"field of another class", only(v6, insn(rule.OpTestEqC, ipSrc, 0)), 0, "field ip4.src in a frame of class ipv6-tcp"},
		{"peer of another class", only(v4, insn(rule.OpTestEqF, ipSrc, uint32(frame.ARPSenderIP))), 0, "field arp.spa"},
		{"load of another class", only(arp, insn(rule.OpLoadF, 0, uint32(ttl))), 0, "field ip.ttl"},
		{"row of another class", func() *rule.Unit {
			u := only(arp, insn(rule.OpTestRow, 0, 0))
			u.Rows[0] = append(u.Rows[0], rule.Match{Field: frame.IPTTL, Mask: rule.Const{Lo: 1}})
			return u
		}(), 0, "field ip.ttl in a frame of class arp"},
		{"class joins behind a test", func() *rule.Unit {
			// Class arp begins at 1, where class ipv4-tcp passes by.
			u := only(v4, test(0), insn(rule.OpTestEqC, ipSrc, 0))
			u.Entries[arp] = 1
			return u
		}(), 1, "field ip4.src in a frame of class arp"},

		// Widths.
		{"immediate and a field of 48 bits", everywhere(insn(rule.OpTestEq, ethSrc, 1), ret), 0, "a field of 48 bits"},
		{"immediate wider than its field", everywhere(insn(rule.OpTestEq, ethType, 0x10000), ret), 0, "number 65536 and a field of 16 bits"},
		{"immediate of 12 bits", everywhere(insn(rule.OpTestLe, vlan, 4095), ret), 0, ""},
		{"range of a field of 48 bits", everywhere(insn(rule.OpTestRange, ethSrc, 0), ret), 0, "a field of 48 bits"},
		{"range upside down", everywhere(insn(rule.OpTestRange, ethType, 2|1<<16), ret), 0, "range 2 to 1"},
		{"range wider than its field", everywhere(insn(rule.OpTestRange, vlan, 1|4096<<16), ret), 0, "range 1 to 4096"},
		{"constant wider than its field", everywhere(insn(rule.OpTestEqC, ethSrc, 3), ret), 0, "wider than 48 bits"},
		{"constant of 128 bits", everywhere(insn(rule.OpTestEqC, ethSrc, 2), ret), 0, "wider than 48 bits"},
		{"constant of 128 bits and its field", only(v6, insn(rule.OpTestEqC, ip6Src, 2)), 0, ""},
		{"constant of 128 bits and a register", everywhere(insn(rule.OpLoadC, 0, 2), ret), 0, "wider than 64 bits"},
		{"value within mask", everywhere(insn(rule.OpTestMask, ethSrc, 0), ret), 0, ""},
		{"value outside of mask", everywhere(insn(rule.OpTestMask, ethSrc, 1), ret), 0, "no value and mask"},
		{"peers of 48 and 16 bits", everywhere(insn(rule.OpTestEqF, ethSrc, uint32(ethType)), ret), 0, "fields of 48 and 16 bits"},
		{"peers of 48 bits", everywhere(insn(rule.OpTestNeF, ethSrc, uint32(frame.EthDst)), ret), 0, ""},
		{"address in a register", only(v6, insn(rule.OpLoadF, 0, uint32(ip6Src))), 0, "too wide for a register"},
		{"mac in a register", everywhere(insn(rule.OpLoadF, 0, uint32(ethSrc)), ret), 0, ""},

		// Tables.
		{"mac in prefixes", everywhere(insn(rule.OpTestIn, ethSrc, 1), ret), 0, "of another kind"},
		{"mac in a set", everywhere(insn(rule.OpTestIn, ethSrc, 0), ret), 0, ""},
		{"address in prefixes", only(v4, insn(rule.OpTestIn, ipSrc, 1)), 0, ""},
		{"address in a set of 128 bits", only(v4, insn(rule.OpTestNotI, ipSrc, 2)), 0, "of another kind"},
		{"address of 128 bits in a set", only(v6, insn(rule.OpTestNotI, ip6Src, 2)), 0, ""},
		{"address of 128 bits in a small set", only(v6, insn(rule.OpTestIn, ip6Src, 0)), 0, "of another kind"},
		{"register in prefixes", everywhere(insn(rule.OpLoadI, 0, 1), insn(rule.OpTestRIn, 0, 1), ret), 1, "of another kind"},

		// Registers.
		{"register 8", everywhere(insn(rule.OpLoadI, 8, 1), ret), 0, "register 8 of 8"},
		{"register never written", everywhere(insn(rule.OpTestREq, 0, 0), ret), 0, "register 0 is not written"},
		{"register moved onto itself", everywhere(insn(rule.OpMove, 1, 1), ret), 0, "register 1 is not written"},
		{"register added to, unwritten", everywhere(insn(rule.OpLoadI, 1, 1), insn(rule.OpAdd, 0, 1), ret), 1, "register 0 is not written"},
		{"register written on one path", everywhere(test(1), insn(rule.OpLoadI, 0, 1), insn(rule.OpTestREq, 0, 0), ret), 2, "register 0 is not written on every path"},
		{"register written on both paths", everywhere(test(2), insn(rule.OpLoadI, 0, 1), rule.Insn{Op: rule.OpJmp, Off: 1},
			insn(rule.OpLoadI, 0, 2), insn(rule.OpTestREq, 0, 0), ret), 0, ""},
		{"register written on the first path only", func() *rule.Unit {
			u := everywhere(insn(rule.OpLoadI, 0, 1), rule.Insn{Op: rule.OpJmp, Off: 1}, rule.Insn{Op: rule.OpJmp},
				insn(rule.OpTestREq, 0, 0), ret)
			u.Entries[arp] = 2
			return u
		}(), 3, "register 0 is not written on every path"},
		{"register of another entry", func() *rule.Unit {
			u := everywhere(insn(rule.OpLoadI, 0, 1), insn(rule.OpTestREq, 0, 0), ret)
			u.Entries[arp] = 1
			return u
		}(), 1, "register 0 is not written"},

		// Rows.
		{"row of none", func() *rule.Unit {
			u := everywhere(ret)
			u.Rows[0] = nil
			return u
		}(), -1, "section rows: 1 entries in 4 bytes"},
		{"row of five", func() *rule.Unit {
			u := everywhere(ret)
			u.Rows[0] = make(rule.Row, rule.MaxRow+1)
			return u
		}(), -1, "row 0: 5 matches"},

		// What is remembered.
		{"rate of no limit", only(v4, insn(rule.OpTestRate, 0, 0)), 0, "limit 0 of 0"},
		{"lease of a number", only(v4, insn(rule.OpTestLease, ttl, 0)), 0, "field ip.ttl is no address"},
		{"lease of no field", only(v4, insn(rule.OpTestLease, 250, 0)), 0, "unknown field 250"},
		{"lease of another class's field", only(v4, insn(rule.OpTestLease, ip6Src, 0)), 0, "field ip6.src in a frame of class ipv4-tcp"},
		{"flow of something", only(v4, insn(rule.OpTestFlow, 1, 0)), 0, "an operand of 1"},
		{"limit of no tokens", limited(rule.Limit{Period: 1}), -1, "limit 0: 0 tokens"},
		{"limit of no period", limited(rule.Limit{Burst: 1}), -1, "one every 0 ns"},
		{"limit of too long a period", limited(rule.Limit{Period: rule.MaxPeriod + 1, Burst: 1}), -1, "one every"},
		{"limit of too many tokens", limited(rule.Limit{Period: 1, Burst: rule.MaxBurst + 1}), -1, "tokens"},
		{"limit twice", limited(rule.Limit{Period: 1, Burst: 1}, rule.Limit{Period: 1, Burst: 1}), -1, "limit 1: there twice"},
		{"limit with an endless name", limited(rule.Limit{Name: strings.Repeat("a", 256), Period: 1, Burst: 1}), -1, "a name of 256 bytes"},
		{"too many limits", limited(make([]rule.Limit, rule.MaxLimits+1)...), -1, "61 entries, at most 60"},

		// Entries.
		{"ingress of too few classes", func() *rule.Unit {
			u := everywhere(ret)
			u.Ingress = []uint32{0, 0}
			return u
		}(), -1, "2 entries for ingress"},
		{"ingress past the end", func() *rule.Unit {
			u := everywhere(ret)
			u.Ingress = make([]uint32, frame.NumClasses)
			u.Ingress[arp] = 1
			return u
		}(), -1, "entry of class arp: 1 is past the end"},
		{"ingress of class none", func() *rule.Unit {
			u := everywhere(test(0), ret)
			u.Ingress = make([]uint32, frame.NumClasses)
			u.Ingress[0] = 1
			return u
		}(), -1, "entry of class none: 1"},
		{"entry past the end", func() *rule.Unit {
			u := everywhere(ret)
			u.Entries[arp] = 1
			return u
		}(), -1, "entry of class arp: 1 is past the end"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := rule.New(tt.unit)
			if tt.reason == "" {
				if err != nil {
					t.Fatal(err)
				}
				same(t, p)
				return
			}
			var v *rule.VerifyError
			if !errors.As(err, &v) || p != nil {
				t.Fatalf("New = %v, %v; want a VerifyError", p, err)
			}
			if v.PC != tt.pc || !strings.Contains(v.Reason, tt.reason) {
				t.Errorf("error %q at %d, want %q at %d", v.Reason, v.PC, tt.reason, tt.pc)
			}
		})
	}
}

// Each opcode is in the table or refused; those in it have a name of their
// own, run, and read back from text.
func TestAllOpcodes(t *testing.T) {
	names := make(map[string]bool)
	for i := range 256 {
		op := rule.Op(i)
		if (i > 0 && i < int(rule.NumOps)) != op.Valid() {
			t.Errorf("opcode %d: Valid = %v", i, op.Valid())
		}
		if !op.Valid() {
			if _, err := rule.New(everywhere(rule.Insn{Op: op}, ret)); err == nil {
				t.Errorf("opcode %d verifies", i)
			}
			continue
		}
		if names[op.String()] {
			t.Errorf("opcode %d: name %q twice", i, op)
		}
		names[op.String()] = true
	}
	// Each operation turns up in random programs, which TestRandomPrograms
	// runs and reads back.
	seen := make(map[rule.Op]bool)
	for seed := range uint64(300) {
		g := ruletest.New(seed)
		p, err := rule.New(g.Unit(frame.ClassIPv4TCP, 20))
		if err != nil {
			continue
		}
		for _, in := range p.Unit().Insns {
			seen[in.Op] = true
		}
	}
	seen[rule.OpJmp] = true // TestVerify
	if len(seen) != len(names) {
		t.Errorf("random programs have %d of %d operations", len(seen), len(names))
	}
}

func TestVerifyErrorText(t *testing.T) {
	for want, err := range map[string]error{
		"rule: no instructions":                  &rule.VerifyError{PC: -1, Reason: "no instructions"},
		"rule: insn 4 (eq): unreachable":         &rule.VerifyError{PC: 4, Op: rule.OpTestEq, Reason: "unreachable"},
		"rule: insn 0 (op 0xc8): unknown opcode": &rule.VerifyError{Op: 0xc8, Reason: "unknown opcode"},
	} {
		if err.Error() != want {
			t.Errorf("%q, want %q", err, want)
		}
	}
}

// TestDecodeBytes breaks the encoding of a good program, one place at a time.
func TestDecodeBytes(t *testing.T) {
	good := benchProgram(t).Bytes()
	section := func(b []byte, n int) []byte { // what begins with section n
		at := 16
		for range n - 1 {
			at += 16 + int(binary.LittleEndian.Uint64(b[at+8:]))
		}
		return b[at:]
	}
	resize := func(b []byte) []byte {
		binary.LittleEndian.PutUint64(b[8:], uint64(len(b)))
		return b
	}
	tests := []struct {
		name, reason string
		edit         func(b []byte) []byte
	}{
		{"empty", "not a rule program", func([]byte) []byte { return nil }},
		{"magic", "not a rule program", func(b []byte) []byte { b[0]++; return b }},
		{"version", "version 3, want 2", func(b []byte) []byte { b[4]++; return b }},
		{"number of sections", "10 sections", func(b []byte) []byte { b[6]++; return b }},
		{"length", "length", func(b []byte) []byte { b[8]++; return b }},
		{"trailing byte", "length", func(b []byte) []byte { return append(b, 0) }},
		{"trailing byte in the length", "1 bytes behind the last section", func(b []byte) []byte { return resize(append(b, 0)) }},
		{"length 2^64-1", "length", func(b []byte) []byte {
			binary.LittleEndian.PutUint64(b[8:], math.MaxUint64)
			return b
		}},
		{"section twice", "found number 1, want 2", func(b []byte) []byte { section(b, 2)[0] = 1; return b }},
		{"section padding", "padding is not zero", func(b []byte) []byte { section(b, 2)[2] = 1; return b }},
		{"section length 2^64-1", "section insns: 18446744073709551615 bytes", func(b []byte) []byte {
			binary.LittleEndian.PutUint64(section(b, 2)[8:], math.MaxUint64)
			return b
		}},
		{"section shorter than its entries", "in 16 bytes", func(b []byte) []byte {
			binary.LittleEndian.PutUint64(section(b, 2)[8:], 16)
			return b
		}},
		{"section longer than its entries", "section insns: 8 bytes too many", func(b []byte) []byte {
			s := section(b, 2)
			binary.LittleEndian.PutUint32(s[4:], binary.LittleEndian.Uint32(s[4:])-1)
			return b
		}},
		{"2^32 instructions", "section insns: 4294967295 entries, at most 65536", func(b []byte) []byte {
			binary.LittleEndian.PutUint32(section(b, 2)[4:], math.MaxUint32)
			return b
		}},
		{"65536 constants that are not there", "section consts: 65536 entries in", func(b []byte) []byte {
			binary.LittleEndian.PutUint32(section(b, 4)[4:], 65536)
			return b
		}},
		{"one entry too few", "section entries: 15 entries, want 16", func(b []byte) []byte { section(b, 1)[4]--; return b }},
		{"entry of class none", "entry of class none: 1", func(b []byte) []byte { section(b, 1)[16] = 1; return b }},
		{"line in no file", "line of insn 0: no such position", func(b []byte) []byte {
			copy(section(b, 3)[16:], []byte{9, 0, 1, 0, 1, 0, 0, 0})
			return b
		}},
		{"column without a line", "line of insn 0: no such position", func(b []byte) []byte {
			copy(section(b, 3)[16:], []byte{0, 0, 1, 0, 0, 0, 0, 0})
			return b
		}},
		{"row of five", "section rows: 5 entries, at most 4", func(b []byte) []byte { section(b, 5)[16] = 5; return b }},
		{"row of none", "section rows", func(b []byte) []byte { section(b, 5)[16] = 0; return b }},
		{"row padding", "padding is not zero", func(b []byte) []byte { section(b, 5)[17] = 1; return b }},
		{"field of a match", "row 0: no value and mask", func(b []byte) []byte { section(b, 5)[20] = 99; return b }},
		{"why of no kind", "why 0: unknown kind 0", func(b []byte) []byte { section(b, 7)[16] = 0; return b }},
		{"why padding", "padding is not zero", func(b []byte) []byte { section(b, 7)[17] = 1; return b }},
		{"name with an escape", "unprintable", func(b []byte) []byte { section(b, 7)[16+12] = 0x1b; return b }},
		{"name that is not UTF-8", "not UTF-8", func(b []byte) []byte { section(b, 7)[16+12] = 0xff; return b }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := rule.Decode(tt.edit(append([]byte(nil), good...)))
			var v *rule.VerifyError
			if !errors.As(err, &v) || p != nil {
				t.Fatalf("Decode = %v, %v; want a VerifyError", p, err)
			}
			if !strings.Contains(err.Error(), tt.reason) {
				t.Errorf("error %q, want %q", err, tt.reason)
			}
		})
	}
	for n := range good {
		if p, err := rule.Decode(good[:n]); err == nil {
			t.Fatalf("the first %d of %d bytes: %v", n, len(good), p)
		}
	}
	if _, err := rule.Decode(make([]byte, rule.MaxEncoded+1)); err == nil {
		t.Error("a program longer than MaxEncoded")
	}
}

// Tables have one form: New makes it, Decode wants it.
func TestTableForms(t *testing.T) {
	unit := func(table rule.Table) *rule.Unit {
		u := only(frame.ClassIPv4TCP, rule.Insn{Op: rule.OpTestIn, A: uint8(frame.IPv4Src)})
		u.Tables = []rule.Table{table}
		return u
	}
	p, err := rule.New(unit(rule.Table{Kind: rule.TablePrefix32, Prefixes: []rule.Prefix{
		{Value: rule.Const{Lo: 0x0b000001}, Bits: 8}, {Value: rule.Const{Lo: 0x0a000000}, Bits: 8},
		{Value: rule.Const{Lo: 0x0b000000}, Bits: 8},
	}}))
	if err != nil {
		t.Fatal(err)
	}
	got := p.Unit().Tables[0].Prefixes
	if len(got) != 2 || got[0].Value.Lo != 0x0a000000 || got[1].Value.Lo != 0x0b000000 {
		t.Errorf("prefixes %v", got)
	}
	same(t, p)

	// The prefixes lie at the end of section 6; swap them, give one a host
	// bit, make it twice.
	b := p.Bytes()
	at := strings.Index(string(b), "\x08\x00\x00\x00\x0a\x08\x00\x00\x00\x0b")
	if at < 0 {
		t.Fatal("the table is not where it was")
	}
	for name, bytes := range map[string]string{
		"not sorted": "\x08\x00\x00\x00\x0b\x08\x00\x00\x00\x0a",
		"host bits":  "\x08\x01\x00\x00\x0a\x08\x00\x00\x00\x0b",
		"twice":      "\x08\x00\x00\x00\x0a\x08\x00\x00\x00\x0a",
		"longer":     "\x21\x00\x00\x00\x0a\x08\x00\x00\x00\x0b",
	} {
		bad := append([]byte(nil), b...)
		copy(bad[at:], bytes)
		if _, err := rule.Decode(bad); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, table := range []rule.Table{
		{},
		{Kind: 9},
		{Kind: rule.TablePrefix32, Values: []rule.Const{{Lo: 1}}},
		{Kind: rule.TableExact64, Prefixes: []rule.Prefix{{}}},
		{Kind: rule.TableExact64, Values: []rule.Const{{Hi: 1}}},
		{Kind: rule.TablePrefix32, Prefixes: []rule.Prefix{{Value: rule.Const{Lo: 1 << 32}}}},
		{Kind: rule.TablePrefix32, Prefixes: []rule.Prefix{{Bits: 33}}},
		{Kind: rule.TablePrefix128, Prefixes: []rule.Prefix{{Bits: 129}}},
	} {
		if _, err := rule.New(unit(table)); err == nil {
			t.Errorf("table %+v verifies", table)
		}
	}
}

// MaxSteps is the longest path, not the longest program.
func TestMaxSteps(t *testing.T) {
	u := everywhere(test(2), test(0), ret, ret)
	p, err := rule.New(u)
	if err != nil {
		t.Fatal(err)
	}
	if p.MaxSteps() != 3 || p.Len() != 4 {
		t.Errorf("MaxSteps %d, Len %d; want 3, 4", p.MaxSteps(), p.Len())
	}
}

// What was decoded does not change with the bytes it came from, nor with
// what was handed out.
func TestProgramIsPrivate(t *testing.T) {
	b := benchProgram(t).Bytes()
	p, err := rule.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	hash, text := p.Hash(), rule.Disassemble(p)
	clear(b)
	clear(p.Bytes())
	u := p.Unit()
	clear(u.Insns)
	clear(u.Rows[0])
	u.Files[0] = "x"
	if p.Hash() != hash || rule.Disassemble(p) != text {
		t.Error("the program changed")
	}
}
