package kvm_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	gokvm "github.com/bobuhiro11/gokvm/kvm"

	"sekimori/vmm/guestmem"
	"sekimori/vmm/kvm"
	"sekimori/vmm/virtio"
)

// TestConsole: what the guest writes to its serial port comes out, and it can
// turn itself off.
func TestConsole(t *testing.T) {
	var out bytes.Buffer
	m := start(t, kvm.Config{Image: program(code{}.print("hello\nworld").off()), Console: &out})
	if err := m.Wait(); err != nil {
		t.Fatal(err)
	}
	if out.String() != "hello\nworld" || m.Console() != out.String() {
		t.Errorf("console %q, kept %q", out.String(), m.Console())
	}
	if m.Running() || m.Exits() != 12 {
		t.Errorf("running %v, %d exits; want 12, one a byte", m.Running(), m.Exits())
	}
}

// TestEnds: each way in which a guest ends is told apart.
func TestEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		code code
		want string
	}{
		{"ACPI reset", code{}.print("bye\n").out(0x602, 1), `machine: the guest restarted; its last words: "bye"`},
		{"port 0xcf9", code{}.out(0xcf9, 6), "machine: the guest restarted"},
		{"keyboard controller", code{}.out(0x64, 0xfe), "machine: the guest restarted"},
		{"panic", code{}.print("Kernel panic - not syncing: x\n").out(0x602, 1), "machine: the guest's kernel panicked; its last words"},
		{"triple fault", append(code{}, 0x0f, 0x0b), "machine: triple fault (vCPU 0 at 0x"}, // UD2 without an IDT; SVM has reset the processor by then
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := start(t, kvm.Config{Image: program(tt.code)}).Wait()
			var e *kvm.ExitError
			if !errors.As(err, &e) || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("Wait = %v; want %s", err, tt.want)
			}
		})
	}
}

// TestKill: a machine ends whatever its processors do, at any time.
func TestKill(t *testing.T) {
	for i := range 20 {
		m := start(t, kvm.Config{Image: program(code{}.forever()), CPUs: 4})
		time.Sleep(time.Duration(i) * 100 * time.Microsecond) // any moment will do
		began := time.Now()
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("Close took %v", took)
		}
		if err := m.Wait(); err == nil || err.Error() != "machine: killed" {
			t.Errorf("Wait = %v", err)
		}
	}
}

// TestContext: the machine ends with the context it was started with.
func TestContext(t *testing.T) {
	start(t, kvm.Config{Image: program(code{}.off())}) // skips without KVM
	ctx, cancel := context.WithCancel(t.Context())
	m, err := kvm.Start(ctx, &kvm.Config{Image: program(code{}.forever()), Memory: 1 << 20 * 2})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	<-m.Done()
	if _, err := kvm.Start(ctx, &kvm.Config{Image: program(code{}), Memory: 1 << 20}); !errors.Is(err, context.Canceled) {
		t.Errorf("Start = %v", err)
	}
}

// TestProcessors: the first processor starts another by INIT and SIPI, as Linux
// does, and that one turns the machine off.
func TestProcessors(t *testing.T) {
	const icr, icrHigh, there = 0xfee00300, 0xfee00310, 0x8000                                          // the vector is the page
	second := code{0xba, 0xf8, 0x03, 0xb0, '2', 0xee, 0xba, 0x00, 0x06, 0xb0, kvm.PowerOff, 0xee, 0xf4} // 16 bit
	p := program(code{}.print("1").store(0xfee000f0, 0x1ff).
		store(icrHigh, 1<<24).store(icr, 0x4500).                     // INIT to APIC 1
		store(icrHigh, 1<<24).store(icr, 0x4600|there>>12).forever()) // SIPI
	p.Init = func(mem *guestmem.Memory, _ *gokvm.Regs, _ *gokvm.Sregs) error { return mem.Write(there, second) }
	m := start(t, kvm.Config{Image: p, CPUs: 2})
	if err := m.Wait(); err != nil || m.Console() != "12" {
		t.Errorf("Wait = %v, console %q", err, m.Console())
	}
}

// TestHostile writes what it likes to every port that does not end the machine
// and to every register of its devices, in widths of 1 to 4 bytes: the machine
// goes on, and turns itself off in the end.
func TestHostile(t *testing.T) {
	const table, n = 0x200000, 2000
	random := rand.New(rand.NewPCG(4, 2))
	var entries []byte
	for range n {
		port := uint16(random.Uint32())
		if random.IntN(4) == 0 {
			port = 0x3f8 + uint16(random.IntN(8))
		}
		switch port {
		case 0x64, 0xcf9, kvm.PortPower, 0x602: // these are allowed to end it
			port = 0x80
		}
		addr := 0xd000_0000 + uint64(random.IntN(3*0x1000))&^3 // two devices and what lies behind
		if random.IntN(2) == 0 {
			addr = 0xd000_0000 + uint64(random.IntN(0x40))*4 // registers that are some
		}
		entries = binary.LittleEndian.AppendUint16(entries, port)
		entries = binary.LittleEndian.AppendUint16(entries, uint16(random.Uint32()))
		entries = binary.LittleEndian.AppendUint32(entries, random.Uint32()>>random.IntN(32))
		entries = binary.LittleEndian.AppendUint64(entries, addr)
	}
	c := code{
		0xbe, 0x00, 0x00, 0x20, 0x00, // MOV ESI, table
		0xb9, byte(n & 0xff), byte(n >> 8), 0, 0, // MOV ECX, n
		// loop:
		0x66, 0x8b, 0x16, // MOV DX, [RSI]
		0x8b, 0x46, 0x04, // MOV EAX, [RSI+4]
		0xee, 0x66, 0xef, 0xef, // OUT DX, AL; OUT DX, AX; OUT DX, EAX
		0xec, 0xed, // IN AL, DX; IN EAX, DX
		0x48, 0x8b, 0x5e, 0x08, // MOV RBX, [RSI+8]
		0x8b, 0x46, 0x04, // MOV EAX, [RSI+4]
		0x89, 0x03, 0x66, 0x89, 0x03, 0x88, 0x43, 0x01, // MOV [RBX], EAX; [RBX], AX; [RBX+1], AL
		0x8b, 0x03, 0x8a, 0x03, // MOV EAX, [RBX]; MOV AL, [RBX]
		0x48, 0x83, 0xc6, 0x10, // ADD RSI, 16
		0xff, 0xc9, // DEC ECX
	}
	c = append(c, 0x75, byte(10-len(c)-2)) // JNZ loop
	p := program(c.off())
	p.Init = func(mem *guestmem.Memory, _ *gokvm.Regs, _ *gokvm.Sregs) error { return mem.Write(table, entries) }
	card, err := virtio.NewNet(virtio.NetConfig{MAC: [6]byte{2}, Backend: &nobody{}})
	if err != nil {
		t.Fatal(err)
	}
	sockets, err := virtio.NewVsock(virtio.VsockConfig{CID: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer sockets.Close()
	m := start(t, kvm.Config{Image: p, Devices: []kvm.Device{{Virtio: card}, {Virtio: sockets, Kicked: func(*kvm.Regs, int) {}}}})
	if err := m.Wait(); err != nil {
		t.Fatal(err)
	}
	if m.Exits() < 10*n {
		t.Errorf("%d exits", m.Exits())
	}
}

type nobody struct{}

func (*nobody) Transmit([]byte, uint16)                {}
func (*nobody) Refuse([]byte, uint16, virtio.NetFault) {}

// TestString: an instruction that writes a whole string to a port.
func TestString(t *testing.T) {
	p := program(code{0xbe, 0, 0, 0x20, 0, 0xb9, 5, 0, 0, 0, 0x66, 0xba, 0xf8, 0x03, 0xf3, 0x6e}.off()) // MOV ESI; MOV ECX, 5; MOV DX; REP OUTSB
	p.Init = func(mem *guestmem.Memory, _ *gokvm.Regs, _ *gokvm.Sregs) error {
		return mem.Write(0x200000, []byte("string"))
	}
	m := start(t, kvm.Config{Image: p})
	if err := m.Wait(); err != nil || m.Console() != "strin" {
		t.Errorf("Wait = %v, console %q", err, m.Console())
	}
}

// TestNothingLeft: a machine leaves no descriptor, no mapping and no thread
// behind, however it ends.
func TestNothingLeft(t *testing.T) {
	start(t, kvm.Config{Image: program(code{}.off())}).Wait()
	count := func(dir string) int {
		e, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(e)
	}
	maps := func() int {
		b, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(b), "seki-guest") + strings.Count(string(b), "kvm-vcpu")
	}
	fds := count("/proc/self/fd")
	mapped := maps()
	for i := range 10 {
		c := kvm.Config{Image: program(code{}.off()), Memory: 2 << 20, CPUs: 2}
		if i%2 == 1 {
			c.Image = kvm.Program{At: 1 << 40} // it fails to start
		}
		m, err := kvm.Start(t.Context(), &c)
		if err == nil {
			m.Wait()
		}
	}
	if n := count("/proc/self/fd"); n > fds {
		t.Errorf("%d descriptors, %d before", n, fds)
	}
	if n := maps(); n > mapped {
		t.Errorf("%d mappings, %d before", n, mapped)
	}
}

// TestConfig: what cannot be is refused before anything is made.
func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    kvm.Config
		want string
	}{
		{"no image", kvm.Config{Memory: 1 << 20}, "machine: no kernel"},
		{"no memory", kvm.Config{Image: program(nil)}, "machine: memory: 0 bytes"},
		{"odd memory", kvm.Config{Image: program(nil), Memory: 1<<20 + 4096}, "want a multiple of 1 MiB"},
		{"too many processors", kvm.Config{Image: program(nil), Memory: 1 << 20, CPUs: 65}, "65 processors"},
		{"too many devices", kvm.Config{Image: program(nil), Memory: 1 << 20, Devices: make([]kvm.Device, 65)}, "65 devices"},
	} {
		if _, err := kvm.Start(t.Context(), &tt.c); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Start = %v; want %s", tt.name, err, tt.want)
		}
	}
}

// TestManyAtOnce: machines do not know of each other.
func TestManyAtOnce(t *testing.T) {
	start(t, kvm.Config{Image: program(code{}.off())}).Wait()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			m, err := kvm.Start(t.Context(), &kvm.Config{Image: program(code{}.print(string(rune('a' + i))).off()), Memory: 2 << 20})
			if err != nil {
				t.Error(err)
				return
			}
			if err := m.Wait(); err != nil || m.Console() != string(rune('a'+i)) {
				t.Errorf("Wait = %v, console %q", err, m.Console())
			}
		})
	}
	all.Wait()
}

// TestDoorbell: a guest asks word by word and reads the answer, whose first byte it
// prints; accesses of another width are none.
func TestDoorbell(t *testing.T) {
	c := code{
		0x66, 0xba, 0xa0, 0x05, 0xb8, 6, 0, 0, 0, 0xef, 0xee, // MOV DX, 0x5a0; MOV EAX, 6; OUT DX, EAX; OUT DX, AL
		0x66, 0xba, 0xa4, 0x05, 0xb8, 'h', 'e', 'l', 'l', 0xef, 0x66, 0xef, // MOV DX, 0x5a4; MOV EAX, "hell"; OUT DX, EAX; OUT DX, AX
		0xb8, 'o', '!', 0, 0, 0xef, // MOV EAX, "o!"; OUT DX, EAX
		0x66, 0xba, 0xa0, 0x05, 0xed, 0xa3, 0, 0, 0x21, 0, 0, 0, 0, 0, // MOV DX, 0x5a0; IN EAX, DX; MOV [0x210000], EAX
		0x66, 0xba, 0xa4, 0x05, 0xed, 0x66, 0xba, 0xf8, 0x03, 0xee, // MOV DX, 0x5a4; IN EAX, DX; MOV DX, 0x3f8; OUT DX, AL
		0xa0, 0, 0, 0x21, 0, 0, 0, 0, 0, 0x04, '0', 0xee, // MOV AL, [0x210000]; ADD AL, '0'; OUT DX, AL
	}
	asked := make(chan string, 1)
	m := start(t, kvm.Config{Image: program(c.off()), Doorbell: func(r *kvm.Regs, request []byte) []byte {
		asked <- string(request)
		if r.CPU != 0 || r.CPL != 0 || r.CR3 != 0x9000 {
			t.Errorf("registers %+v", r)
		}
		return []byte("answer")
	}})
	if err := m.Wait(); err != nil || m.Console() != "a6" {
		t.Fatalf("Wait = %v, console %q", err, m.Console())
	}
	if got := <-asked; got != "hello!" {
		t.Errorf("asked %q", got)
	}
}
