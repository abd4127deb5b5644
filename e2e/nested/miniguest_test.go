package nested_test

import (
	"encoding/binary"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/bobuhiro11/gokvm/kvm"
	"golang.org/x/sys/unix"
)

// TestMiniGuest runs a guest of eight instructions, on any /dev/kvm that there
// is: it counts down to port 0x10, and halts.
func TestMiniGuest(t *testing.T) {
	dev, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		if slices.Contains(strings.Split(os.Getenv("SEKI_TEST_REQUIRE"), ","), "kvm") {
			t.Fatal(err)
		}
		t.Skip("needs kvm: ", err)
	}
	defer dev.Close()
	vm := must(kvm.CreateVM(dev.Fd()))(t)
	defer unix.Close(int(vm))
	ram := must(unix.Mmap(-1, 0, 0x1000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS))(t)
	defer unix.Munmap(ram)
	copy(ram, []byte{
		0xb8, 0x03, 0x00, // mov ax, 3
		0xe7, 0x10, // out 0x10, ax
		0x48,       // dec ax
		0x75, 0xfb, // jnz -5
		0xf4, // hlt
	})
	region := kvm.UserspaceMemoryRegion{GuestPhysAddr: 0x1000, MemorySize: 0x1000, UserspaceAddr: uint64(reflect.ValueOf(ram).Pointer())}
	if err := kvm.SetUserMemoryRegion(vm, &region); err != nil {
		t.Fatal(err)
	}
	cpu := must(kvm.CreateVCPU(vm, 0))(t)
	defer unix.Close(int(cpu))
	run := must(unix.Mmap(int(cpu), 0, int(must(kvm.GetVCPUMMmapSize(dev.Fd()))(t)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))(t)
	defer unix.Munmap(run)
	sregs := must(kvm.GetSregs(cpu))(t)
	sregs.CS.Base, sregs.CS.Selector = 0, 0
	if err := kvm.SetSregs(cpu, sregs); err != nil {
		t.Fatal(err)
	}
	if err := kvm.SetRegs(cpu, &kvm.Regs{RIP: 0x1000, RFLAGS: 2}); err != nil {
		t.Fatal(err)
	}
	var said []uint16
	for range 10 {
		if err := kvm.Run(cpu); err != nil {
			t.Fatal(err)
		}
		// struct kvm_run (include/uapi/linux/kvm.h): exit_reason at 8; of an
		// access to a port, the port at 34, where its data lies at 40.
		switch reason := kvm.ExitType(binary.LittleEndian.Uint32(run[8:])); reason {
		case kvm.EXITIO:
			if port := binary.LittleEndian.Uint16(run[34:]); port != 0x10 {
				t.Fatalf("port %#x", port)
			}
			said = append(said, binary.LittleEndian.Uint16(run[binary.LittleEndian.Uint64(run[40:]):]))
		case kvm.EXITHLT:
			if !slices.Equal(said, []uint16{3, 2, 1}) {
				t.Errorf("it said %d; want 3, 2, 1", said)
			}
			return
		default:
			t.Fatalf("exit %v after %d", reason, said)
		}
	}
	t.Errorf("it did not halt, after %d", said)
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
