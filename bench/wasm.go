package main

import (
	"context"
	"fmt"

	"github.com/tetratelabs/wazero"
)

// headerBytes is how much of a frame is copied into the module's memory.
const headerBytes = 128

// wasmEngine is the policy as WebAssembly, compiled by wazero to machine code.
func wasmEngine() ([]engine, error) {
	ctx := context.Background()
	runtime := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler())
	module, err := runtime.Instantiate(ctx, wasmModule())
	if err != nil {
		return nil, fmt.Errorf("wazero: %w", err)
	}
	judge := module.ExportedFunction("judge")
	memory, ok := module.Memory().Read(0, headerBytes) // a view, not a copy
	if judge == nil || !ok {
		return nil, fmt.Errorf("wazero: the module exports no judge or no memory")
	}
	stack := make([]uint64, 1)
	return []engine{{"wazero-compiled", func(b []byte) bool {
		stack[0] = uint64(copy(memory, b))
		return judge.CallWithStack(ctx, stack) == nil && stack[0] != 0
	}}}, nil
}

// wasmModule encodes the module (WebAssembly 1.0, section 5): one page of
// memory, and judge(length i32) i32, which looks at the frame at address 0.
func wasmModule() []byte {
	section := func(id byte, body ...byte) []byte { return append([]byte{id, byte(len(body))}, body...) }
	code := append([]byte{0}, wasmJudge()...) // no locals
	var m []byte
	m = append(m, 0, 'a', 's', 'm', 1, 0, 0, 0)
	m = append(m, section(1, 1, 0x60, 1, i32, 1, i32)...) // type 0: i32 -> i32
	m = append(m, section(3, 1, 0)...)                    // function 0 has type 0
	m = append(m, section(5, 1, 0, 1)...)                 // a memory of 1 page
	m = append(m, section(7, append([]byte{2, 6}, "memory\x02\x00\x05judge\x00\x00"...)...)...)
	body := append(uleb(uint32(len(code))), code...)
	return append(append(append(m, 10), uleb(uint32(len(body)+1))...), append([]byte{1}, body...)...)
}

// Types and instructions, with the numbers of the binary format.
const (
	i32    = 0x7f
	opIf   = 0x04
	opEnd  = 0x0b
	opRet  = 0x0f
	opGet  = 0x20
	opLoad = 0x28 // i32.load
	load8  = 0x2d // i32.load8_u
	load16 = 0x2f // i32.load16_u
	opInt  = 0x41 // i32.const
	opEq   = 0x46
	opNe   = 0x47
	opLtU  = 0x49
	opGtU  = 0x4b
	opSub  = 0x6b
	opAnd  = 0x71
	opOr   = 0x72
	opShl  = 0x74
)

// wasmJudge is the body. Loads are little-endian, so the constants are the
// frame's bytes in reverse.
func wasmJudge() []byte {
	var b []byte
	emit := func(op ...byte) { b = append(b, op...) }
	constant := func(v int32) { emit(opInt); b = append(b, sleb(v)...) }
	load := func(op byte, off uint32) { // from address 0
		constant(0)
		emit(op, 0)
		b = append(b, uleb(off)...)
	}
	is := func(op byte, off uint32, v int32) { load(op, off); constant(v); emit(opEq) }
	begin := func() { emit(opIf, 0x40) }
	ret := func(v int32) { constant(v); emit(opRet) }
	port := func(v int32) { // of the destination, behind an IPv4 header of any length
		load(load8, 14)
		constant(15)
		emit(opAnd)
		constant(2)
		emit(opShl, load16, 0, 16)
		constant(v)
		emit(opEq)
	}

	emit(opGet, 0)
	constant(42)
	emit(opLtU)
	begin()
	ret(0)
	emit(opEnd)

	is(load16, 12, 0x0608)
	begin()
	is(opLoad, 14, 0x00080100)
	is(opLoad, 18, 0x02000406)
	is(opLoad, 18, 0x01000406)
	emit(opOr, opAnd)
	is(opLoad, 28, 0x0500000a)
	emit(opAnd)
	is(opLoad, 22, 0x00000002)
	emit(opAnd)
	is(load16, 26, 0x0500)
	emit(opAnd)
	load(opLoad, 38)
	constant(0xffffff)
	emit(opAnd)
	constant(0x00000a)
	emit(opEq, opAnd)
	load(opLoad, 38)
	constant(0x0100000a)
	emit(opNe, opAnd, opRet, opEnd)

	is(load16, 12, 0x0008)
	begin()
	load(load8, 14) // version 4 and a header of 5 words or more
	constant(0x45)
	emit(opSub)
	constant(0x4f - 0x45)
	emit(opGtU)
	load(opLoad, 26)
	constant(0x0500000a)
	emit(opNe, opOr)
	begin()
	ret(0)
	emit(opEnd)
	is(load8, 30, 10)
	begin()
	ret(1)
	emit(opEnd)
	load(load16, 20)
	constant(0xff1f)
	emit(opAnd)
	begin()
	ret(0)
	emit(opEnd)
	is(load8, 23, 6)
	begin()
	port(0xbb01)
	port(0x5000)
	emit(opOr, opRet, opEnd)
	is(load8, 23, 17)
	begin()
	port(0x3500)
	emit(opRet, opEnd, opEnd)
	constant(0)
	emit(opEnd)
	return b
}

// uleb is v as unsigned LEB128.
func uleb(v uint32) []byte {
	var b []byte
	for ; v >= 0x80; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v))
}

// sleb is v as signed LEB128.
func sleb(v int32) []byte {
	var b []byte
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}
