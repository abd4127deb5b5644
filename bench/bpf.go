package main

import (
	"fmt"

	"golang.org/x/net/bpf"
)

// bpfEngine is the policy for the virtual machine of golang.org/x/net/bpf.
func bpfEngine() ([]engine, error) {
	program, err := bpfProgram()
	if err != nil {
		return nil, err
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		return nil, fmt.Errorf("x/net/bpf: %w", err)
	}
	return []engine{{"x-net-bpf", func(b []byte) bool {
		n, err := vm.Run(b)
		return err == nil && n > 0
	}}}, nil
}

// A step is an instruction with names instead of distances.
type step struct {
	label string
	insn  bpf.Instruction
	// For a jump: where it goes when the test holds and when it does not; an
	// empty name is the next step.
	yes, no string
}

func bpfProgram() ([]bpf.Instruction, error) {
	load := func(off uint32, size int) bpf.Instruction { return bpf.LoadAbsolute{Off: off, Size: size} }
	equal := func(v uint32) bpf.Instruction { return bpf.JumpIf{Cond: bpf.JumpEqual, Val: v} }
	steps := []step{
		{insn: load(12, 2)},
		{insn: equal(0x0806), yes: "arp"},
		{insn: equal(0x0800), no: "drop"},

		{insn: load(14, 1)},
		{insn: bpf.JumpIf{Cond: bpf.JumpLessThan, Val: 0x45}, yes: "drop"},
		{insn: bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: 0x4f}, yes: "drop"},
		{insn: load(26, 4)},
		{insn: equal(0x0a000005), no: "drop"},
		{insn: load(30, 1)},
		{insn: equal(10), yes: "forward"},
		{insn: load(20, 2)},
		{insn: bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff}, yes: "drop"},
		{insn: bpf.LoadMemShift{Off: 14}},
		{insn: load(23, 1)},
		{insn: equal(6), yes: "tcp"},
		{insn: equal(17), no: "drop"},
		{insn: bpf.LoadIndirect{Off: 16, Size: 2}},
		{insn: equal(53), yes: "forward", no: "drop"},
		{label: "tcp", insn: bpf.LoadIndirect{Off: 16, Size: 2}},
		{insn: equal(443), yes: "forward"},
		{insn: equal(80), yes: "forward", no: "drop"},

		{label: "arp", insn: load(14, 4)},
		{insn: equal(0x00010800), no: "drop"},
		{insn: load(18, 4)},
		{insn: equal(0x06040002), yes: "sender"},
		{insn: equal(0x06040001), no: "drop"},
		{label: "sender", insn: load(28, 4)},
		{insn: equal(0x0a000005), no: "drop"},
		{insn: load(22, 4)},
		{insn: equal(0x02000000), no: "drop"},
		{insn: load(26, 2)},
		{insn: equal(0x0005), no: "drop"},
		{insn: load(38, 4)},
		{insn: equal(0x0a000001), yes: "drop"},
		{insn: bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xffffff00}},
		{insn: equal(0x0a000000), yes: "forward"},
		{label: "drop", insn: bpf.RetConstant{Val: 0}},
		{label: "forward", insn: bpf.RetConstant{Val: 1}},
	}
	at := map[string]int{}
	for i, s := range steps {
		at[s.label] = i
	}
	program := make([]bpf.Instruction, len(steps))
	for i, s := range steps {
		program[i] = s.insn
		jump, ok := s.insn.(bpf.JumpIf)
		if !ok {
			continue
		}
		skip := func(label string) uint8 {
			if label == "" {
				return 0
			}
			return uint8(at[label] - i - 1)
		}
		jump.SkipTrue, jump.SkipFalse = skip(s.yes), skip(s.no)
		program[i] = jump
	}
	return program, nil
}
