package rule_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
)

// A tableCase is a large table, the field searched in it, and how the values
// of a random entry and of a random stranger are made.
type tableCase struct {
	name  string
	class frame.Class
	field frame.Field
	table rule.Table
	in    func(r *rand.Rand) rule.Const
}

// large has n entries in each table: the kinds, and clustered values besides
// spread ones.
func large(n int) []tableCase {
	r := rand.New(rand.NewPCG(5, 6))
	value := func(width int) rule.Const {
		switch {
		case width == 128:
			return rule.Const{Hi: 0x2001_0db8<<32 | r.Uint64()&0xffff, Lo: r.Uint64()}
		default:
			return rule.Const{Lo: r.Uint64() & (1<<width - 1)}
		}
	}
	exact := func(name string, class frame.Class, f frame.Field, kind rule.TableKind, v func(i int) rule.Const) tableCase {
		t := rule.Table{Kind: kind}
		for i := range n {
			t.Values = append(t.Values, v(i))
		}
		return tableCase{name, class, f, t, func(r *rand.Rand) rule.Const { return t.Values[r.IntN(n)] }}
	}
	prefix := func(name string, class frame.Class, f frame.Field, kind rule.TableKind, bits int, v func(i int) rule.Const) tableCase {
		t := rule.Table{Kind: kind}
		for i := range n {
			t.Prefixes = append(t.Prefixes, rule.Prefix{Value: v(i), Bits: uint8(bits - r.IntN(6))})
		}
		return tableCase{name, class, f, t, func(r *rand.Rand) rule.Const {
			p := t.Prefixes[r.IntN(n)]
			rest := value(f.Width())
			for b := range f.Width() {
				half, at := &p.Value.Lo, f.Width()-1-b
				from := rest.Lo
				if at >= 64 {
					half, at, from = &p.Value.Hi, at-64, rest.Hi
				}
				if b >= int(p.Bits) {
					*half = *half&^(1<<at) | from&(1<<at)
				}
			}
			return p.Value
		}}
	}
	return []tableCase{
		exact("macs", frame.ClassARP, frame.ARPSenderMAC, rule.TableExact64, func(int) rule.Const { return value(48) }),
		exact("macs of one vendor", frame.ClassARP, frame.ARPSenderMAC, rule.TableExact64, func(i int) rule.Const {
			return rule.Const{Lo: 0x02000a<<24 | uint64(i)}
		}),
		exact("addresses", frame.ClassIPv6TCP, frame.IPv6Dst, rule.TableExact128, func(int) rule.Const { return value(128) }),
		prefix("prefixes", frame.ClassIPv4TCP, frame.IPv4Dst, rule.TablePrefix32, 28, func(int) rule.Const { return value(32) }),
		prefix("prefixes of 10.0.0.0/8", frame.ClassIPv4TCP, frame.IPv4Dst, rule.TablePrefix32, 32, func(int) rule.Const {
			return rule.Const{Lo: 10<<24 | r.Uint64()&0xffffff}
		}),
		prefix("prefixes of 128 bits", frame.ClassIPv6TCP, frame.IPv6Dst, rule.TablePrefix128, 64, func(int) rule.Const { return value(128) }),
		prefix("long prefixes of 128 bits", frame.ClassIPv6TCP, frame.IPv6Dst, rule.TablePrefix128, 128, func(i int) rule.Const {
			return rule.Const{Hi: 0x2001_0db8 << 32, Lo: r.Uint64() & 0xffff_ffff}
		}),
	}
}

// program forwards what is in the table, and drops the rest.
func (c tableCase) program(t testing.TB) *rule.Program {
	u := only(c.class, rule.Insn{Op: rule.OpTestIn, A: uint8(c.field), Off: 1}, rule.Insn{Op: rule.OpRet, A: 1})
	u.Tables = []rule.Table{c.table}
	p, err := rule.New(u)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (c tableCase) key(v rule.Const) *frame.Key {
	k := new(frame.Key)
	i := c.field.Info()
	if i.Width == 128 {
		k.Words[i.Word], k.Words[i.Word+1] = v.Hi, v.Lo
	} else {
		k.Words[i.Word] = v.Lo << i.Shift
	}
	k.Words[frame.ClassWord] |= uint64(c.class)
	return k
}

// Large tables hold what is in them, and agree with the plain search about
// the neighbours of that and about strangers.
func TestLargeTables(t *testing.T) {
	for _, c := range large(3000) {
		t.Run(c.name, func(t *testing.T) {
			p := c.program(t)
			r := rand.New(rand.NewPCG(1, 1))
			found := 0
			for i := range 6000 {
				v := c.in(r)
				switch i % 3 {
				case 1: // one beside it
					v.Lo ^= 1 << r.IntN(min(64, c.field.Width()))
				case 2:
					v = rule.Const{Lo: r.Uint64() & (1<<min(63, c.field.Width()) - 1)}
				}
				k := c.key(v)
				got := p.Run(k)
				if want := p.Trace(k, func(int, bool) {}); got != want {
					t.Fatalf("%x: Run = %v, Trace = %v", v, got, want)
				}
				if got.Verdict == rule.Forward {
					found++
				} else if i%3 == 0 {
					t.Fatalf("%x is not found", v)
				}
			}
			if found == 6000 {
				t.Error("strangers are found")
			}
		})
	}
}

// A table whose values all want the same slot of a hash table is searched
// another way.
func TestCollidingTable(t *testing.T) {
	const inverse = 0xf1de83e19937733d // of the multiplier of the hash, mod 2^64
	c := tableCase{name: "colliding", class: frame.ClassARP, field: frame.ARPSenderMAC}
	c.table.Kind = rule.TableExact64
	for i := uint64(0); len(c.table.Values) < 200; i++ {
		if v := i * inverse; v>>48 == 0 {
			c.table.Values = append(c.table.Values, rule.Const{Lo: v})
		}
		if i > 1<<26 {
			break
		}
	}
	p := c.program(t)
	for _, v := range c.table.Values {
		if o := p.Run(c.key(v)); o.Verdict != rule.Forward {
			t.Errorf("%x is not found", v.Lo)
		}
		v.Lo ^= 1
		k := c.key(v)
		if got, want := p.Run(k), p.Trace(k, func(int, bool) {}); got != want {
			t.Errorf("%x: Run = %v, Trace = %v", v.Lo, got, want)
		}
	}
}

// Building the largest tables takes well under a second each.
func TestLargeTablesAreBuiltQuickly(t *testing.T) {
	for _, c := range large(100_000) {
		start := time.Now()
		c.program(t)
		if d := time.Since(start); d > 2*time.Second { // 0.1 s measured
			t.Errorf("%s: %v", c.name, d)
		}
	}
}

func BenchmarkTable(b *testing.B) {
	for _, c := range large(100_000) {
		p := c.program(b)
		r := rand.New(rand.NewPCG(1, 1))
		keys := make([]*frame.Key, 4096)
		for i := range keys {
			keys[i] = c.key(c.in(r))
			if i%2 == 0 {
				keys[i].Words[c.field.Info().Word] ^= 1 << c.field.Info().Shift
			}
		}
		b.Run(c.name, func(b *testing.B) {
			i := 0
			for b.Loop() {
				sink = p.Run(keys[i&4095])
				i++
			}
		})
	}
}
