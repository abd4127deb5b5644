package main

import (
	"encoding/binary"
	"fmt"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/interpreter"
)

// celPolicy is the policy in the Common Expression Language. It has no bit
// operations, so prefixes are ranges.
const celPolicy = `
ethertype == 0x0806u ?
  (arp_head == 0x0001080006040001u || arp_head == 0x0001080006040002u) &&
  arp_src == 0x0a000005u && arp_mac == 0x020000000005u &&
  arp_dst >= 0x0a000000u && arp_dst <= 0x0a0000ffu && arp_dst != 0x0a000001u :
ethertype == 0x0800u && head >= 0x45u && head <= 0x4fu && src == 0x0a000005u && (
  dst >= 0x0a000000u && dst <= 0x0affffffu ||
  protocol == 6u && (dst_port == 80u || dst_port == 443u) ||
  protocol == 17u && dst_port == 53u)
`

func celEnv() (*cel.Env, error) {
	var vars []cel.EnvOption
	for _, v := range []string{"ethertype", "arp_head", "arp_src", "arp_mac", "arp_dst", "head", "src", "dst", "protocol", "dst_port"} {
		vars = append(vars, cel.Variable(v, cel.UintType))
	}
	return cel.NewEnv(vars...)
}

// celCompile is what the compiler is measured against.
func celCompile(env *cel.Env) (cel.Program, error) {
	ast, issues := env.Compile(celPolicy)
	if issues.Err() != nil {
		return nil, fmt.Errorf("cel: %w", issues.Err())
	}
	return env.Program(ast)
}

func celEngine() ([]engine, error) {
	env, err := celEnv()
	if err != nil {
		return nil, err
	}
	program, err := celCompile(env)
	if err != nil {
		return nil, err
	}
	fields := &celFrame{}
	return []engine{{"cel-go", func(b []byte) bool {
		if len(b) < 42 {
			return false
		}
		fields.b = b
		v, _, err := program.Eval(fields)
		return err == nil && v.Value() == true
	}}}, nil
}

// celFrame reads the variables from a frame when they are asked for.
type celFrame struct{ b []byte }

var _ interpreter.Activation = (*celFrame)(nil)

func (f *celFrame) Parent() interpreter.Activation { return nil }

func (f *celFrame) ResolveName(name string) (any, bool) {
	switch name {
	case "ethertype":
		return uint64(binary.BigEndian.Uint16(f.b[12:])), true
	case "arp_head":
		return binary.BigEndian.Uint64(f.b[14:]), true
	case "arp_src":
		return uint64(binary.BigEndian.Uint32(f.b[28:])), true
	case "arp_mac":
		return binary.BigEndian.Uint64(f.b[22:]) >> 16, true
	case "arp_dst":
		return uint64(binary.BigEndian.Uint32(f.b[38:])), true
	case "head":
		return uint64(f.b[14]), true
	case "src":
		return uint64(binary.BigEndian.Uint32(f.b[26:])), true
	case "dst":
		return uint64(binary.BigEndian.Uint32(f.b[30:])), true
	case "protocol":
		return uint64(f.b[23]), true
	case "dst_port":
		at := 16 + int(f.b[14]&15)*4
		if len(f.b) < at+2 || binary.BigEndian.Uint16(f.b[20:])&0x1fff != 0 {
			return nil, false // an error, and so a drop
		}
		return uint64(binary.BigEndian.Uint16(f.b[at:])), true
	}
	return nil, false
}
