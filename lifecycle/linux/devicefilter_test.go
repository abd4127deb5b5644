package linux

import (
	"fmt"
	"testing"

	"github.com/cilium/ebpf/asm"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// decide runs a device filter as the kernel would: the few instructions that it
// is made of.
func decide(t *testing.T, p asm.Instructions, accessType, major, minor uint32) bool {
	t.Helper()
	at := map[string]int{}
	for i, ins := range p {
		if s := ins.Symbol(); s != "" {
			at[s] = i
		}
	}
	var r [11]uint64
	for pc := 0; pc < len(p); pc++ {
		ins := p[pc]
		imm := uint64(ins.Constant)
		src := imm
		if ins.OpCode.Class().IsALU() || ins.OpCode.Class().IsJump() {
			if ins.OpCode.Source() == asm.RegSource {
				src = r[ins.Src]
			}
		}
		switch {
		case ins.OpCode.Class().IsLoad():
			r[ins.Dst] = uint64([]uint32{accessType, major, minor}[ins.Offset/4])
		case ins.OpCode.JumpOp() == asm.Exit:
			return r[0] == 1
		case ins.OpCode.JumpOp() == asm.JNE:
			if r[ins.Dst] != src {
				pc = at[ins.Reference()] - 1
			}
		case ins.OpCode.ALUOp() == asm.Mov:
			r[ins.Dst] = src
		case ins.OpCode.ALUOp() == asm.RSh:
			r[ins.Dst] >>= src
		case ins.OpCode.ALUOp() == asm.And:
			r[ins.Dst] &= src
		case ins.OpCode.ALUOp() == asm.Or:
			r[ins.Dst] |= src
		case ins.OpCode.ALUOp() == asm.Xor:
			r[ins.Dst] ^= src
		default:
			t.Fatalf("instruction %v", ins)
		}
	}
	t.Fatal("the program does not end")
	return false
}

func TestDeviceFilter(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	rules := []specs.LinuxDeviceCgroup{
		{Allow: false, Type: "a", Access: "rwm"},
		{Allow: true, Type: "c", Major: n(10), Minor: n(200), Access: "rw"},
		{Allow: true, Type: "c", Major: n(10), Access: "r"},
		{Allow: true, Type: "b", Major: n(8), Minor: n(-1), Access: "rw"},
		{Allow: false, Type: "b", Major: n(8), Minor: n(1), Access: "w"},
		{Allow: true, Type: "c", Minor: n(7), Access: "m"},
	}
	p, err := deviceFilter(rules)
	if err != nil {
		t.Fatal(err)
	}
	const b, c = 1, 2
	const m, r, w = 1, 2, 4
	for _, tt := range []struct {
		kind, major, minor, access uint32
		want                       bool
	}{
		{c, 1, 3, r, false},
		{c, 10, 200, r | w, true}, {c, 10, 200, r, true}, {c, 10, 200, m, false}, {b, 10, 200, r, false},
		{c, 10, 1, r, true}, {c, 10, 1, r | w, false}, {c, 10, 1, w, false},
		{b, 8, 0, r | w, true}, {b, 8, 1, r, true}, {b, 8, 1, r | w, false}, {b, 9, 1, r, false}, {c, 8, 0, r, false},
		{c, 99, 7, m, true}, {c, 99, 7, r, false}, {c, 99, 8, m, false}, {b, 99, 7, m, false},
		{c, 10, 200, 0, true}, // asked for nothing
	} {
		name := fmt.Sprintf("type %d, %d:%d, access %d", tt.kind, tt.major, tt.minor, tt.access)
		if got := decide(t, p, tt.access<<16|tt.kind, tt.major, tt.minor); got != tt.want {
			t.Errorf("%s: %v; want %v", name, got, tt.want)
		}
	}
	for _, bad := range []specs.LinuxDeviceCgroup{{Type: "x"}, {Type: "c", Access: "rx"}, {Type: "c", Major: n(1 << 31), Access: "r"}} {
		if _, err := deviceFilter([]specs.LinuxDeviceCgroup{bad}); err == nil {
			t.Errorf("%+v: no error", bad)
		}
	}
}
