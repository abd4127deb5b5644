package main

import "encoding/binary"

// An engine judges frames by the one policy of the measurement: ARP that tells
// the truth about its sender and asks for a station of the subnet, but not for
// the gateway; IPv4 from the own address, to 10.0.0.0/8 or to TCP port 80 or
// 443 or UDP port 53; nothing else.
type engine struct {
	name string
	// judge reports whether the frame goes on.
	judge func(frame []byte) bool
}

// engines builds all of them, in the order of the table.
func engines() ([]engine, error) {
	list := []engine{{"hand-go", handGo}}
	for _, build := range []func() ([]engine, error){sekiEngines, bpfEngine, wasmEngine, celEngine, exprEngine, starlarkEngines} {
		e, err := build()
		if err != nil {
			return nil, err
		}
		list = append(list, e...)
	}
	return list, nil
}

// handGo is the policy written by hand in Go: what an engine would have to be
// to cost nothing. Like the other peers it checks what the verdicts of
// TestAgree need, the headers of ARP and IPv4, and leaves out the rest of what
// our parser does (lengths, options, padding, transport headers).
func handGo(b []byte) bool {
	if len(b) < 42 {
		return false
	}
	switch binary.BigEndian.Uint16(b[12:]) {
	case 0x0806:
		target := binary.BigEndian.Uint32(b[38:])
		head := binary.BigEndian.Uint64(b[14:])
		return (head == 0x0001_0800_06_04_0001 || head == 0x0001_0800_06_04_0002) &&
			binary.BigEndian.Uint32(b[28:]) == 0x0a000005 &&
			binary.BigEndian.Uint64(b[22:])>>16 == 0x020000000005 &&
			target&^0xff == 0x0a000000 && target != 0x0a000001
	case 0x0800:
		if b[14] < 0x45 || b[14] > 0x4f || binary.BigEndian.Uint32(b[26:]) != 0x0a000005 {
			return false
		}
		if b[30] == 10 {
			return true
		}
		at := 16 + int(b[14]&15)*4
		if binary.BigEndian.Uint16(b[20:])&0x1fff != 0 || len(b) < at+2 {
			return false
		}
		port := binary.BigEndian.Uint16(b[at:])
		switch b[23] {
		case 6:
			return port == 80 || port == 443
		case 17:
			return port == 53
		}
	}
	return false
}
