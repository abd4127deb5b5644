package main

import (
	"errors"
	"fmt"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"sekimori/nicshadow/frame"
)

// starlarkEngines call a Starlark function for each frame: the compiler's own
// oracle, which calls the very predicates that a program is compiled from; the
// least that such a call can cost, a function of the parsed fields; and a
// function that takes the frame apart itself.
func starlarkEngines() ([]engine, error) {
	p, err := evaluate(policySource, "bare")
	if err != nil {
		return nil, err
	}
	k := new(frame.Key)
	judge := engine{"starlark-judge", func(b []byte) bool {
		if frame.Parse(b, k) != frame.OK {
			return false
		}
		forward, _, err := p.Judge(identity, k)
		return err == nil && forward
	}}
	byFields, err := fieldsEngine()
	if err != nil {
		return nil, err
	}
	byBytes, err := bytesEngine()
	if err != nil {
		return nil, err
	}
	return []engine{judge, byFields, byBytes}, nil
}

// fieldsPolicy is the policy as functions of numbers.
const fieldsPolicy = `
def arp(mac, src, dst):
    return src == 0x0a000005 and mac == 0x020000000005 and dst >> 8 == 0x0a0000 and dst != 0x0a000001

def ipv4(src, dst, protocol, port):
    return src == 0x0a000005 and (dst >> 24 == 10 or
        protocol == 6 and port in (80, 443) or protocol == 17 and port == 53)
`

func fieldsEngine() (engine, error) {
	thread := &starlark.Thread{Name: "bench"}
	globals, err := starlark.ExecFileOptions(&syntax.FileOptions{}, thread, "fields.star", fieldsPolicy, nil)
	if err != nil {
		return engine{}, err
	}
	k := new(frame.Key)
	number := func(f frame.Field) starlark.Value { return starlark.MakeUint64(k.Uint(f)) }
	return engine{"starlark-fields", func(b []byte) bool {
		if frame.Parse(b, k) != frame.OK {
			return false
		}
		var v starlark.Value
		var err error
		switch k.Class() {
		case frame.ClassARP:
			v, err = starlark.Call(thread, globals["arp"], starlark.Tuple{number(frame.ARPSenderMAC), number(frame.ARPSenderIP), number(frame.ARPTargetIP)}, nil)
		case frame.ClassIPv4TCP, frame.ClassIPv4UDP, frame.ClassIPv4ICMP:
			v, err = starlark.Call(thread, globals["ipv4"], starlark.Tuple{number(frame.IPv4Src), number(frame.IPv4Dst), number(frame.IPProtocol), number(frame.DstPort)}, nil)
		default:
			return false
		}
		return err == nil && v == starlark.True
	}}, nil
}

// bytesPolicy is the policy as it would be without fields: the function takes
// the frame apart itself.
const bytesPolicy = `
def u16(b, i): return b[i] << 8 | b[i+1]
def u32(b, i): return u16(b, i) << 16 | u16(b, i+2)

def judge(b):
    if len(b) < 42: return False
    t = u16(b, 12)
    if t == 0x0806:
        dst = u32(b, 38)
        return (u32(b, 14) == 0x00010800 and u32(b, 18) in (0x06040001, 0x06040002) and u32(b, 28) == 0x0a000005 and u32(b, 22) == 0x02000000 and u16(b, 26) == 5 and
            dst >> 8 == 0x0a0000 and dst != 0x0a000001)
    if t != 0x0800 or b[14] < 0x45 or b[14] > 0x4f or u32(b, 26) != 0x0a000005: return False
    if b[30] == 10: return True
    if u16(b, 20) & 0x1fff: return False
    port = u16(b, 16 + (b[14] & 15) * 4)
    return b[23] == 6 and port in (80, 443) or b[23] == 17 and port == 53
`

func bytesEngine() (engine, error) {
	thread := &starlark.Thread{Name: "bench"}
	globals, err := starlark.ExecFileOptions(&syntax.FileOptions{}, thread, "bytes.star", bytesPolicy, nil)
	if err != nil {
		return engine{}, err
	}
	judge := globals["judge"]
	return engine{"starlark-bytes", func(b []byte) bool {
		v, err := starlark.Call(thread, judge, starlark.Tuple{frameValue(b)}, nil)
		return err == nil && v == starlark.True
	}}, nil
}

// A frameValue is a frame as a sequence of ints, without a copy.
type frameValue []byte

var _ starlark.Indexable = frameValue(nil)

func (f frameValue) String() string             { return fmt.Sprintf("frame of %d bytes", len(f)) }
func (f frameValue) Type() string               { return "frame" }
func (f frameValue) Freeze()                    {}
func (f frameValue) Truth() starlark.Bool       { return len(f) > 0 }
func (f frameValue) Hash() (uint32, error)      { return 0, errors.New("unhashable type: frame") }
func (f frameValue) Len() int                   { return len(f) }
func (f frameValue) Index(i int) starlark.Value { return starlark.MakeInt(int(f[i])) }
