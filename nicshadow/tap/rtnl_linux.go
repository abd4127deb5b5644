package tap

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// An rtnl is a socket to the network configuration of the namespace in which
// it was opened. The messages are the library's; the exchange is not, because
// a card is made at each start of a container: the library receives into a
// buffer of 64 KiB on the stack and asks for the whole of a link to learn its
// index, which took 0.8 ms, of which this takes 0.1.
type rtnl struct {
	fd  int
	buf [1024]byte // an answer is a header, an errno and the header it is about
}

func openRTNL() (*rtnl, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	return &rtnl{fd: fd}, nil
}

func (n *rtnl) close() { unix.Close(n.fd) }

// do has the kernel carry out one request, and returns its verdict. The kernel
// has answered when it has taken the request, so nothing is waited for: an
// answer that is not there will not come.
func (n *rtnl) do(kind, flags int, data ...nl.NetlinkRequestData) error {
	req := nl.NewNetlinkRequest(kind, flags|unix.NLM_F_ACK)
	for _, d := range data {
		req.AddData(d)
	}
	if err := unix.Sendto(n.fd, req.Serialize(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	size, from, err := unix.Recvfrom(n.fd, n.buf[:], unix.MSG_DONTWAIT)
	if err != nil {
		return fmt.Errorf("netlink answer: %w", err)
	}
	if sa, ok := from.(*unix.SockaddrNetlink); !ok || sa.Pid != 0 {
		return fmt.Errorf("netlink answer: not from the kernel")
	}
	// struct nlmsghdr: length (4), type (2), flags (2), sequence (4), port (4);
	// then, for NLMSG_ERROR, the errno (4), negative, or 0.
	b := n.buf[:size]
	if size < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(b[4:]) != unix.NLMSG_ERROR || binary.NativeEndian.Uint32(b[8:]) != req.Seq {
		return fmt.Errorf("netlink answer: %d bytes that are no answer to request %d", size, req.Seq)
	}
	if errno := -int32(binary.NativeEndian.Uint32(b[unix.SizeofNlMsghdr:])); errno != 0 {
		return unix.Errno(errno)
	}
	return nil
}

// index returns the number of the interface of that name.
func (n *rtnl) index(name string) (int, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(n.fd, unix.SIOCGIFINDEX, ifr); err != nil {
		return 0, err
	}
	return int(ifr.Uint32()), nil
}

// setLink changes attributes of an interface.
func (n *rtnl) setLink(index int, attrs ...nl.NetlinkRequestData) error {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	return n.do(unix.RTM_SETLINK, 0, append([]nl.NetlinkRequestData{msg}, attrs...)...)
}

// up changes attributes of an interface and then sets it up.
func (n *rtnl) up(index int, attrs ...nl.NetlinkRequestData) error {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index, msg.Flags, msg.Change = int32(index), unix.IFF_UP, unix.IFF_UP
	return n.do(unix.RTM_NEWLINK, 0, append([]nl.NetlinkRequestData{msg}, attrs...)...)
}

// addAddr gives an interface an address, an IPv4 one with the broadcast address
// of its net, if that has one (RFC 3021).
func (n *rtnl) addAddr(index int, a netip.Prefix) error {
	msg := nl.NewIfAddrmsg(family(a.Addr()))
	msg.Index, msg.Prefixlen = uint32(index), uint8(a.Bits())
	ip := a.Addr().AsSlice()
	data := []nl.NetlinkRequestData{msg, nl.NewRtAttr(unix.IFA_LOCAL, ip), nl.NewRtAttr(unix.IFA_ADDRESS, ip)}
	switch {
	case a.Addr().Is6():
		// Addresses are assigned, so no other card has them: usable at once
		// instead of after a second of duplicate detection.
		msg.IfAddrmsg.Flags = unix.IFA_F_NODAD
	case a.Bits() < 31:
		data = append(data, nl.NewRtAttr(unix.IFA_BROADCAST, broadcast(a)))
	}
	return n.do(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, data...)
}

// broadcast is the last address of an IPv4 net.
func broadcast(a netip.Prefix) []byte {
	ip := binary.BigEndian.Uint32(a.Addr().AsSlice())
	return binary.BigEndian.AppendUint32(nil, ip|^uint32(0)>>a.Bits())
}

// addDefault makes gw the default route by an interface. onLink says that the
// gateway is reached by it although it is in none of its nets.
func (n *rtnl) addDefault(index int, gw netip.Addr, onLink bool) error {
	msg := nl.NewRtMsg()
	msg.Family = uint8(family(gw))
	if onLink {
		msg.Flags = unix.RTNH_F_ONLINK
	}
	return n.do(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		msg, nl.NewRtAttr(unix.RTA_GATEWAY, gw.AsSlice()), nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))
}

func family(a netip.Addr) int {
	if a.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}
