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
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() error {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr("10.0.0.2/24")
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	fmt.Println("guest: mac", link.Attrs().HardwareAddr, "mtu", link.Attrs().MTU)
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 7})
	if err != nil {
		return err
	}
	hello := &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 7}
	if _, err := conn.WriteToUDP([]byte("hello"), hello); err != nil {
		return err
	}
	buf := make([]byte, 65536)
	for {
		n, from, err := conn.ReadFromUDP(buf)
		if err != nil {
			return err
		}
		word, rest, _ := strings.Cut(string(buf[:n]), " ")
		switch word {
		case "quit":
			return nil
		case "flood": // flood COUNT SIZE
			if err := flood(conn, from, rest); err != nil {
				return err
			}
		default:
			if _, err := conn.WriteToUDP(buf[:n], from); err != nil {
				return err
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
