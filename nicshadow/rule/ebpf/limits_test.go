package ebpf_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
	"sekimori/nicshadow/rule/ebpf"
	"sekimori/nicshadow/rule/ruletest"
)

// unit is a program whose every class begins at the first instruction.
func unit(insns ...rule.Insn) *rule.Unit {
	return &rule.Unit{Insns: insns, Whys: []rule.Why{{Kind: rule.WhyGuard, Name: "why"}}}
}

func program(t testing.TB, u *rule.Unit) *rule.Program {
	t.Helper()
	p, err := rule.New(u)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var other = ruletest.New(1).Key(frame.ClassOther)

// Every operation on every pair of numbers at the edges: the result is the one
// that the interpreter computes, or both fault at the instruction.
func TestArithmetic(t *testing.T) {
	require(t)
	edges := []int64{math.MinInt64, math.MinInt64 + 1, -1 << 32, -64, -7, -2, -1, 0, 1, 2, 3, 7, 62, 63, 64, 1 << 31, 1<<32 + 1, 1 << 62, math.MaxInt64}
	for op := rule.OpMove; op <= rule.OpNot; op++ {
		t.Run(op.String(), func(t *testing.T) {
			for _, a := range edges {
				for _, b := range edges {
					v, ok := op.Compute(a, b)
					k := uint32(2)
					if op == rule.OpNeg || op == rule.OpNot {
						k = 0
					}
					u := unit(
						rule.Insn{Op: rule.OpLoadC, A: 1, K: 0},
						rule.Insn{Op: rule.OpLoadC, A: 2, K: 1},
						rule.Insn{Op: rule.OpLoadC, A: 3, K: 2},
						rule.Insn{Op: op, A: 1, K: k},
						rule.Insn{Op: rule.OpTestREq, A: 1, K: 3, Off: 1},
						rule.Insn{Op: rule.OpRet, A: 1},
						rule.Insn{Op: rule.OpRet},
					)
					u.Consts = []rule.Const{{Lo: uint64(a)}, {Lo: uint64(b)}, {Lo: uint64(v)}}
					x, err := ebpf.Load(program(t, u))
					if err != nil {
						t.Fatal(err)
					}
					got, err := x.Judge(other, 1, false)
					x.Close()
					want := rule.Outcome{Verdict: rule.Forward, PC: 5}
					if !ok {
						want = rule.Outcome{Verdict: rule.Drop, PC: 3}
					}
					if err != nil || got != want {
						t.Errorf("%d %s %d: %v, %v; want %v (%d)", a, op, b, got, err, want, v)
					}
				}
			}
		})
	}
}

// tableOf is a program that forwards what is in a table, of n entries.
func tableOf(r *rand.Rand, kind rule.TableKind, n int) *rule.Unit {
	field := map[rule.TableKind]frame.Field{
		rule.TableExact64: frame.EthSrc, rule.TableExact128: frame.IPv6Src,
		rule.TablePrefix32: frame.IPv4Src, rule.TablePrefix128: frame.IPv6Src,
	}[kind]
	u := unit(
		rule.Insn{Op: rule.OpTestIn, A: uint8(field), Off: 1},
		rule.Insn{Op: rule.OpRet, A: 1},
		rule.Insn{Op: rule.OpRet},
	)
	for c := frame.ClassNone + 1; c < frame.NumClasses; c++ {
		if !c.Has(field) {
			u.Entries[c] = 2
		}
	}
	t := rule.Table{Kind: kind}
	for range n {
		switch kind {
		case rule.TableExact64:
			t.Values = append(t.Values, rule.Const{Lo: r.Uint64N(1 << 48)})
		case rule.TableExact128:
			t.Values = append(t.Values, rule.Const{Hi: r.Uint64(), Lo: r.Uint64()})
		case rule.TablePrefix32:
			t.Prefixes = append(t.Prefixes, rule.Prefix{Value: rule.Const{Lo: uint64(r.Uint32())}, Bits: uint8(12 + r.IntN(21))})
		case rule.TablePrefix128:
			t.Prefixes = append(t.Prefixes, rule.Prefix{Value: rule.Const{Hi: r.Uint64(), Lo: r.Uint64()}, Bits: uint8(16 + r.IntN(113))})
		}
	}
	u.Tables = []rule.Table{t}
	return u
}

// probes are keys that are in the table, and keys beside those.
func probes(r *rand.Rand, t *rule.Table, n int) []frame.Key {
	keys := make([]frame.Key, n)
	for i := range keys {
		k := &keys[i]
		v := rule.Const{Hi: r.Uint64(), Lo: r.Uint64()}
		switch pick := r.IntN(t.Len()); {
		case i%4 == 0:
		case len(t.Values) > 0:
			v = t.Values[pick]
		default:
			v = t.Prefixes[pick].Value
		}
		if i%4 == 1 {
			v.Lo ^= 1 << r.IntN(40)
		}
		switch t.Kind {
		case rule.TableExact64:
			k.Words[frame.ClassWord], k.Words[frame.SourceWord] = uint64(frame.ClassOther), v.Lo<<16
		case rule.TablePrefix32:
			k.Words[frame.ClassWord], k.Words[frame.AddressWord] = uint64(frame.ClassIPv4TCP), v.Lo<<32
		default:
			k.Words[frame.ClassWord] = uint64(frame.ClassIPv6TCP)
			k.Words[frame.Source6Word], k.Words[frame.Source6Word+1] = v.Hi, v.Lo
		}
	}
	return keys
}

var kinds = map[string]rule.TableKind{
	"exact64": rule.TableExact64, "exact128": rule.TableExact128,
	"prefix32": rule.TablePrefix32, "prefix128": rule.TablePrefix128,
}

// Tables of each kind and size, those that become comparisons and those that
// become maps, have the same entries in the kernel.
func TestTables(t *testing.T) {
	require(t)
	for name, kind := range kinds {
		for _, n := range []int{1, 8, 9, 300, 100_000} {
			t.Run(fmt.Sprint(name, "/", n), func(t *testing.T) {
				r := rand.New(rand.NewPCG(uint64(n), uint64(kind)))
				p := program(t, tableOf(r, kind, n))
				start := time.Now()
				x := load(t, p)
				t.Logf("loaded in %v", time.Since(start))
				in := 0
				for _, k := range probes(r, &p.Unit().Tables[0], 400) {
					want := p.Run(&k)
					if want.Verdict == rule.Forward {
						in++
					}
					if got, err := x.Judge(&k, 1, false); err != nil || got != want {
						t.Fatalf("%x: %v, %v; want %v", k.Words, got, err, want)
					}
				}
				if in < 100 || in == 400 {
					t.Errorf("%d of 400 are in the table: the test has lost its grip", in)
				}
			})
		}
	}
}

// An address that no IPv4 prefix of length 0 misses, and an empty table that
// has nothing.
func TestTableEnds(t *testing.T) {
	require(t)
	for name, tt := range map[string]struct {
		kind     rule.TableKind
		prefixes []rule.Prefix
		want     rule.Verdict
	}{
		"all of IPv4": {rule.TablePrefix32, []rule.Prefix{{}}, rule.Forward},
		"all of IPv6": {rule.TablePrefix128, []rule.Prefix{{}}, rule.Forward},
		"no IPv4":     {rule.TablePrefix32, nil, rule.Drop},
		"no MAC":      {rule.TableExact64, nil, rule.Drop},
	} {
		t.Run(name, func(t *testing.T) {
			u := tableOf(nil, tt.kind, 0)
			u.Tables[0].Prefixes = tt.prefixes
			p := program(t, u)
			for c := frame.ClassNone + 1; c < frame.NumClasses; c++ {
				if u.Entries[c] == 2 {
					continue
				}
				k := ruletest.New(2).Key(c)
				if got, err := load(t, p).Judge(k, 1, false); err != nil || got.Verdict != tt.want || got != p.Run(k) {
					t.Errorf("%s: %v, %v; want %v, the interpreter's %v", c, got, err, tt.want, p.Run(k))
				}
			}
		})
	}
}

// A value wider than the field is not its low bits.
func TestTableOfWiderValues(t *testing.T) {
	require(t)
	u := tableOf(nil, rule.TableExact64, 0)
	u.Entries = [frame.NumClasses]uint32{}
	for c := frame.ClassNone + 1; c < frame.NumClasses; c++ {
		if !c.Has(frame.IPv4Dst) {
			u.Entries[c] = 2
		}
	}
	u.Insns[0].A = uint8(frame.IPv4Dst)
	u.Tables[0].Values = []rule.Const{{Lo: 1<<32 | 5}}
	p := program(t, u)
	k := new(frame.Key)
	k.Words[frame.ClassWord], k.Words[frame.AddressWord] = uint64(frame.ClassIPv4TCP), 5
	if got, err := load(t, p).Judge(k, 1, false); err != nil || got != p.Run(k) || got.Verdict != rule.Drop {
		t.Errorf("%v, %v; want drop, the interpreter's %v", got, err, p.Run(k))
	}
}

// The key of a frame that was not parsed drops, whatever the program says.
func TestNoClassDrops(t *testing.T) {
	require(t)
	p := program(t, unit(rule.Insn{Op: rule.OpRet, A: 1}))
	x := load(t, p)
	for _, class := range []uint64{0, uint64(frame.NumClasses), 17, 128, 255} {
		var k frame.Key
		k.Words[frame.ClassWord] = class
		if got, err := x.Judge(&k, 1, false); err != nil || got != p.Run(&k) || got.Verdict != rule.Drop {
			t.Errorf("class %d: %v, %v; want drop, the interpreter's %v", class, got, err, p.Run(&k))
		}
	}
}

// Thirty tests of which each counts a register up: a thousand million paths,
// which the verifier must not walk one by one.
func TestVerifierWalksNoPaths(t *testing.T) {
	require(t)
	insns := []rule.Insn{{Op: rule.OpLoadI, A: 1}, {Op: rule.OpLoadI, A: 2, K: 1}}
	for i := range 30 {
		insns = append(insns,
			rule.Insn{Op: rule.OpTestEq, A: uint8(frame.Length), K: uint32(i), Off: 1},
			rule.Insn{Op: rule.OpAdd, A: 1, K: 2},
			rule.Insn{Op: rule.OpTestRLe, A: 1, K: 2, Off: 1}, // what the number is matters
			rule.Insn{Op: rule.OpAdd, A: 2, K: 1},
			rule.Insn{Op: rule.OpAdd, A: 2, K: 2})
	}
	insns = append(insns, rule.Insn{Op: rule.OpTestREq, A: 1, K: 2, Off: 1}, rule.Insn{Op: rule.OpRet, A: 1}, rule.Insn{Op: rule.OpRet})
	p := program(t, unit(insns...))
	c, err := ebpf.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	n, ok := load(t, p).Verified()
	if !ok {
		t.Skip("needs a kernel that says what its verifier did")
	}
	t.Logf("%d instructions of a program, %d of the kernel, %d looked at", p.Len(), c.Len(), n)
	if n > 4*c.Len() {
		t.Errorf("the verifier looked at %d instructions, of a program of %d", n, c.Len())
	}
}

// A program of the largest size: 65,536 instructions, in chains no longer than
// the verifier follows. Jumps reach over all of it.
func TestLargestProgram(t *testing.T) {
	require(t)
	const chains = 16
	var u rule.Unit
	u.Whys = unit().Whys
	each := (rule.MaxInsns - 2) / chains
	for c := range chains {
		if c > 0 && c < int(frame.NumClasses) {
			u.Entries[c] = uint32(len(u.Insns))
		}
		for i := range each {
			pc := c*each + i
			if i == each-1 {
				u.Insns = append(u.Insns, rule.Insn{Op: rule.OpRet, A: 1})
				break
			}
			u.Insns = append(u.Insns, rule.Insn{Op: rule.OpTestNe, A: uint8(frame.Length), K: uint32(i), Off: uint16(chains*each - pc - 1)})
		}
	}
	u.Insns = append(u.Insns, rule.Insn{Op: rule.OpRet})
	u.Insns = u.Insns[each:] // that of class none
	for c := range u.Entries {
		u.Entries[c] = max(0, u.Entries[c]-uint32(each))
	}
	u.Entries[0] = 0
	p := program(t, &u)
	start := time.Now()
	x := load(t, p)
	n, _ := x.Verified()
	t.Logf("%d instructions loaded in %v, %d looked at", p.Len(), time.Since(start), n)
	for c := frame.ClassNone; c < frame.NumClasses; c++ {
		for _, length := range []uint64{0, 1, 4000, 9000} {
			var k frame.Key
			k.Words[frame.ClassWord] = uint64(c) | length<<8
			if got, err := x.Judge(&k, 1, false); err != nil || got != p.Run(&k) {
				t.Errorf("%s, length %d: %v, %v; want %v", c, length, got, err, p.Run(&k))
			}
		}
	}
}

// A path of more tests than the verifier follows is refused here, and names
// the instruction.
func TestTooDeep(t *testing.T) {
	for n, want := range map[int]bool{8170: true, 8200: false} {
		var insns []rule.Insn
		for i := range n {
			insns = append(insns, rule.Insn{Op: rule.OpTestNe, A: uint8(frame.Length), K: uint32(i), Off: uint16(n - i)})
		}
		insns = append(insns, rule.Insn{Op: rule.OpRet, A: 1}, rule.Insn{Op: rule.OpRet})
		p := program(t, unit(insns...))
		_, err := ebpf.Compile(p)
		var no *ebpf.Unsupported
		if (err == nil) != want || err != nil && (!errors.As(err, &no) || no.PC < 8000 || no.Op != rule.OpTestNe) {
			t.Errorf("%d tests: %v; want ok %v", n, err, want)
		}
		if want {
			require(t)
			load(t, p)
		}
	}
}
