package linux

import (
	"bufio"
	"encoding/hex"
	"errors"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// Listens reports whether something in the container's network namespace
// listens on a TCP port. A listener on a loopback address counts only if
// loopback says so. Nothing is sent: the kernel's table of sockets is read.
func (c *Container) Listens(port uint16, loopback bool) (bool, error) {
	for _, table := range []string{"tcp", "tcp6"} {
		f, err := os.Open("/proc/" + strconv.Itoa(c.proc.pid) + "/net/" + table)
		if errors.Is(err, os.ErrNotExist) && table == "tcp6" {
			continue // a kernel without IPv6
		}
		if err != nil {
			return false, err
		}
		found := hasListener(f, port, loopback)
		f.Close()
		if found {
			// The id is still the container's if its process can be signalled now.
			return c.proc.signal(0) == nil, nil
		}
	}
	return false, nil
}

// listenState is TCP_LISTEN (include/net/tcp_states.h).
const listenState = "0A"

// hasListener reads /proc/net/tcp or tcp6: after a headline, lines of
//
//	sl local_address rem_address st ...
//
// with an address as hexadecimal 32-bit words in host order, a colon and the
// port in hexadecimal.
func hasListener(table io.Reader, port uint16, loopback bool) bool {
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 4 || f[3] != listenState {
			continue
		}
		addr, hexPort, _ := strings.Cut(f[1], ":")
		n, err := strconv.ParseUint(hexPort, 16, 16)
		if err != nil || uint16(n) != port {
			continue
		}
		if ip, ok := parseProcAddr(addr); ok && (loopback || !ip.IsLoopback()) {
			return true
		}
	}
	return false
}

// parseProcAddr undoes the byte order of /proc/net/tcp on a little-endian host,
// the only kind that seki runs on.
func parseProcAddr(s string) (netip.Addr, bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b)%4 != 0 {
		return netip.Addr{}, false
	}
	for w := b; len(w) > 0; w = w[4:] {
		w[0], w[1], w[2], w[3] = w[3], w[2], w[1], w[0]
	}
	ip, ok := netip.AddrFromSlice(b)
	return ip.Unmap(), ok
}
