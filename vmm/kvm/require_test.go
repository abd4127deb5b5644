package kvm_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"sekimori/vmm/kvm"
)

// require skips the test where this machine lacks feature, unless
// SEKI_TEST_REQUIRE lists it: then that is a failure.
func require(t testing.TB, feature string, have bool) {
	t.Helper()
	if have {
		return
	}
	if slices.Contains(strings.Split(os.Getenv("SEKI_TEST_REQUIRE"), ","), feature) {
		t.Fatalf("this machine lacks %s, which SEKI_TEST_REQUIRE asks for", feature)
	}
	t.Skipf("needs %s", feature)
}

// start starts a machine for this test, on a /dev/kvm that runs programs; Linux
// is another matter.
func start(t testing.TB, c kvm.Config) *kvm.Machine {
	t.Helper()
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	require(t, "kvm", err == nil)
	f.Close()
	if c.Memory == 0 {
		c.Memory = 64 << 20
	}
	m, err := kvm.Start(t.Context(), &c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// A code is a program of the guest, in machine code for 64-bit mode.
type code []byte

// at is where it lies.
const at = 0x100000

func program(c code) kvm.Program { return kvm.Program{At: at, Code: c} }

// out is MOV DX, port; MOV AL, v; OUT DX, AL. It is the same in real mode but
// for the prefix of the first.
func (c code) out(port uint16, v byte) code {
	return append(c, 0x66, 0xba, byte(port), byte(port>>8), 0xb0, v, 0xee)
}

func (c code) print(s string) code {
	for i := range len(s) {
		c = c.out(0x3f8, s[i])
	}
	return c
}

// off turns the machine off.
func (c code) off() code { return c.out(kvm.PortPower, kvm.PowerOff) }

// rbx is MOV RBX, v.
func (c code) rbx(v uint64) code {
	c = append(c, 0x48, 0xbb)
	for i := range 8 {
		c = append(c, byte(v>>(8*i)))
	}
	return c
}

// store is MOV RBX, addr; MOV DWORD PTR [RBX], v.
func (c code) store(addr uint64, v uint32) code {
	return append(c.rbx(addr), 0xc7, 0x03, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
}

// forever is JMP to itself.
func (c code) forever() code { return append(c, 0xeb, 0xfe) }
