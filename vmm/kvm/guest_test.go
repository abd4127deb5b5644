package kvm_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"sekimori/vmm/hypercall/doorbell"
)

// TestMain is also the guest of TestLinux: this program is its process 1.
func TestMain(m *testing.M) {
	if os.Getpid() == 1 {
		if err := inGuest(); err != nil {
			fmt.Println("guest:", err)
		}
		_ = unix.IoctlSetInt(1, unix.TCSBRK, 1) // tcdrain(3): a machine without power sends nothing
		unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
	os.Exit(m.Run())
}

// inGuest does what the host says.
func inGuest() error {
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	modules, err := filepath.Glob("/modules/*")
	if err != nil {
		return err
	}
	for _, name := range modules {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	packets, err := openCard()
	if err != nil {
		return fmt.Errorf("card: %w", err)
	}
	host, err := vsock.Dial(vsock.Host, guestPort, nil)
	if err != nil {
		return err
	}
	cpus, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return err
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return err
	}
	fmt.Fprintf(host, "ready %d processors\nmemory %d\n", strings.Count(string(cpus), "processor\t"), info.Totalram)
	for orders := bufio.NewScanner(host); orders.Scan(); {
		if err := obey(orders.Text(), host, packets); err != nil {
			return err
		}
	}
	return errors.New("the host hung up")
}

func obey(order string, host net.Conn, packets int) error {
	switch order {
	case "send":
		for i := range 50 {
			f := append([]byte("\xff\xff\xff\xff\xff\xff"+guestMAC+etherType), make([]byte, 46)...)
			f[14] = byte(i)
			if _, err := unix.Write(packets, f); err != nil {
				return err
			}
		}
		fmt.Fprintln(host, "sent")
	case "receive":
		fmt.Fprintln(host, "listening")
		b := make([]byte, 2048)
		for n := 0; n < 50; {
			if k, err := unix.Read(packets, b); err != nil {
				return err
			} else if k >= 60 && b[14] == byte(n) && b[11] == 8 { // of the host, in order
				n++
			}
		}
		fmt.Fprintln(host, "received 50")
	case "ring":
		line, err := doorbell.Open()
		if err != nil {
			return err
		}
		defer line.Close()
		answer, err := line.Call(ringing())
		if err != nil {
			return err
		}
		if want := append(ringing(), ringing()...); !bytes.Equal(answer, want) {
			return fmt.Errorf("answered %d bytes, of which some are wrong", len(answer))
		}
		fmt.Fprintf(host, "answered %d bytes\n", len(answer))
	case "restart":
		return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	case "panic":
		os.Exit(1)
	case "hang":
		fmt.Fprintln(host, "hanging")
		for {
			unix.Getpid() // until it is killed
		}
	default:
		_ = unix.IoctlSetInt(1, unix.TCSBRK, 1)
		return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
	return nil
}

// openCard brings the card up, and returns a socket for its frames of the
// experimental type.
func openCard() (int, error) {
	const protocol = 0xb588 // etherType, in the network's order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, protocol)
	if err != nil {
		return -1, err
	}
	req := struct {
		name  [16]byte
		flags uint16
		_     [22]byte
	}{flags: unix.IFF_UP}
	copy(req.name[:], "eth0")
	// SAFETY: the kernel reads the struct ifreq.
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return -1, errno
	}
	eth, err := net.InterfaceByName("eth0")
	if err != nil {
		return -1, err
	}
	return fd, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: eth.Index})
}
