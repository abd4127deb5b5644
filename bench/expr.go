package main

import (
	"encoding/binary"
	"fmt"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"
)

// exprPolicy is the policy in the language of expr-lang, which has no bit
// operations on numbers either.
const exprPolicy = `
EtherType == 0x0806 ?
  (ARPHead == 0x0001080006040001 || ARPHead == 0x0001080006040002) &&
  ARPSrc == 0x0a000005 && ARPMAC == 0x020000000005 &&
  ARPDst >= 0x0a000000 && ARPDst <= 0x0a0000ff && ARPDst != 0x0a000001 :
EtherType == 0x0800 && Head >= 0x45 && Head <= 0x4f && Src == 0x0a000005 && (
  Dst >= 0x0a000000 && Dst <= 0x0affffff ||
  Protocol == 6 && (DstPort == 80 || DstPort == 443) ||
  Protocol == 17 && DstPort == 53)
`

// exprFrame is what a program sees of a frame.
type exprFrame struct {
	EtherType, ARPHead, ARPSrc, ARPMAC, ARPDst, Head, Src, Dst, Protocol, DstPort int
}

// read fills in the fields. Those of ARP and of IPv4 lie in the same bytes: the
// program asks for the right ones.
func (f *exprFrame) read(b []byte) {
	be := binary.BigEndian
	f.EtherType = int(be.Uint16(b[12:]))
	f.ARPHead, f.ARPSrc, f.ARPMAC, f.ARPDst = int(be.Uint64(b[14:])), int(be.Uint32(b[28:])), int(be.Uint64(b[22:])>>16), int(be.Uint32(b[38:]))
	f.Head, f.Src, f.Dst, f.Protocol, f.DstPort = int(b[14]), int(be.Uint32(b[26:])), int(be.Uint32(b[30:])), int(b[23]), -1
	if at := 16 + int(b[14]&15)*4; len(b) >= at+2 && be.Uint16(b[20:])&0x1fff == 0 {
		f.DstPort = int(be.Uint16(b[at:]))
	}
}

func exprEngine() ([]engine, error) {
	program, err := expr.Compile(exprPolicy, expr.Env(&exprFrame{}), expr.AsBool())
	if err != nil {
		return nil, fmt.Errorf("expr: %w", err)
	}
	// One machine for all frames, which is how its authors measure it.
	fields, machine := &exprFrame{}, vm.VM{}
	return []engine{{"expr-lang", func(b []byte) bool {
		if len(b) < 42 {
			return false
		}
		fields.read(b)
		v, err := machine.Run(program, fields)
		return err == nil && v == true
	}}}, nil
}
