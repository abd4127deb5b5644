package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A card is eth0, with a packet socket on it.
type card struct {
	link   netlink.Link
	packet int
}

func openCard() (*card, error) {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return nil, err
	}
	c := &card{link: link}
	all := int(uint16(unix.ETH_P_ALL)<<8 | unix.ETH_P_ALL>>8)
	if c.packet, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all); err != nil {
		return nil, os.NewSyscallError("packet socket", err)
	}
	if err := unix.Bind(c.packet, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: link.Attrs().Index}); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	return c, unix.SetsockoptTimeval(c.packet, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000})
}

// station carries out a command a line, each answered by lines of its own and
// one with a full stop, or an exclamation mark and what went wrong.
func station([]string) error {
	c, err := openCard()
	if err != nil {
		return err
	}
	verbs := map[string]func([]string) error{"send": c.send, "until": c.until, "neigh": c.neighbours, "trick": c.trick, "speak": speakTo, "sink": sink}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		words := strings.Fields(in.Text())
		do, ok := verbs[words[0]]
		if !ok {
			return fmt.Errorf("%s: no such command", words[0])
		}
		if err := do(words[1:]); err != nil {
			fmt.Println("!", err)
		} else {
			fmt.Println(".")
		}
	}
	return in.Err()
}

// send sends frames, in order.
func (c *card) send(frames []string) error {
	for _, f := range frames {
		b, err := hex.DecodeString(f)
		if err != nil {
			return err
		}
		if err := unix.Sendto(c.packet, b, 0, &unix.SockaddrLinklayer{Ifindex: c.link.Attrs().Index}); err != nil {
			return fmt.Errorf("send %d bytes: %w", len(b), err)
		}
	}
	return nil
}

// until prints what arrives before a frame.
func (c *card) until(frame []string) error {
	marker, err := hex.DecodeString(frame[0])
	if err != nil {
		return err
	}
	b := make([]byte, 65536)
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		n, from, err := unix.Recvfrom(c.packet, b, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if l, ok := from.(*unix.SockaddrLinklayer); ok && l.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if bytes.Equal(b[:n], marker) {
			return nil
		}
		fmt.Println(hex.EncodeToString(b[:n]))
	}
	return errors.New("the frame did not come within 5 s")
}

// neighbours prints the table: address and card.
func (c *card) neighbours([]string) error {
	all, err := netlink.NeighList(c.link.Attrs().Index, unix.AF_UNSPEC)
	for _, e := range all {
		if len(e.HardwareAddr) == 6 && e.State&unix.NUD_NOARP == 0 {
			fmt.Println(e.IP, e.HardwareAddr)
		}
	}
	routes, rerr := netlink.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Protocol: unix.RTPROT_RA}, netlink.RT_FILTER_PROTOCOL)
	for _, r := range routes {
		fmt.Println("route", r.Dst)
	}
	return errors.Join(err, rerr)
}

// sink takes the datagrams of a port, so that the kernel does not answer them.
func sink(port []string) error {
	_, err := net.ListenPacket("udp", ":"+port[0])
	return err
}
