// Guest is PID 1 of the User-Mode Linux that TestUML boots: it brings eth0 up,
// echoes, floods on demand, and powers off when told to.
package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("guest:", err)
	}
	_ = unix.IoctlSetInt(1, unix.TCSBRK, 1) // tcdrain(3): a machine without power sends nothing
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() error {
	for {
		again, err := serve()
		if err != nil || !again {
			return err
		}
		if err := rebind(); err != nil {
			return err
		}
	}
}

// rebind takes the card from its driver and gives it back, as a reset would.
func rebind() error {
	if err := os.MkdirAll("/sys", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil && err != unix.EBUSY {
		return err
	}
	for _, what := range []string{"unbind", "bind"} {
		if err := os.WriteFile("/sys/bus/virtio/drivers/virtio_net/"+what, []byte("virtio0"), 0); err != nil {
			return err
		}
	}
	return nil
}

// serve does what the host asks for until it is told to quit, or to begin
// again.
func serve() (again bool, err error) {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return false, err
	}
	addr, err := netlink.ParseAddr("10.0.0.2/24")
	if err != nil {
		return false, err
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return false, err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return false, err
	}
	fmt.Println("guest: mac", link.Attrs().HardwareAddr, "mtu", link.Attrs().MTU)
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 7})
	if err != nil {
		return false, err
	}
	defer conn.Close()
	hello := &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 7}
	if _, err := conn.WriteToUDP([]byte("hello"), hello); err != nil {
		return false, err
	}
	buf := make([]byte, 65536)
	for {
		n, from, err := conn.ReadFromUDP(buf)
		if err != nil {
			return false, err
		}
		word, rest, _ := strings.Cut(string(buf[:n]), " ")
		switch word {
		case "quit":
			return false, nil
		case "rebind":
			return true, nil
		case "flood": // flood COUNT SIZE
			if err := flood(conn, from, rest); err != nil {
				return false, err
			}
		default:
			if _, err := conn.WriteToUDP(buf[:n], from); err != nil {
				return false, err
			}
		}
	}
}

func flood(conn *net.UDPConn, to *net.UDPAddr, args string) error {
	count, size, _ := strings.Cut(args, " ")
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	bytes, err := strconv.Atoi(size)
	if err != nil {
		return err
	}
	start := time.Now()
	payload := make([]byte, bytes)
	for i := range n {
		copy(payload, fmt.Sprintf("%08d", i))
		if _, err := conn.WriteToUDP(payload, to); err != nil {
			return err
		}
	}
	fmt.Fprintln(os.Stdout, "guest:", n, "sent in", time.Since(start))
	return nil
}
