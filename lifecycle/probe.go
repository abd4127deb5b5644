package lifecycle

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// A Probe finds out whether a container is ready: exactly one of TCP and Exec.
type Probe struct {
	// TCP is a port on which something in the container must listen. Nothing is
	// sent: the kernel's table of sockets is read. A listener on a loopback
	// address counts only in a container without a network card.
	TCP uint16
	// Exec is a command that must succeed in the container.
	Exec []string
	// Interval between two tries; 0 is 100 ms.
	Interval time.Duration
	// Timeout after which the container is not going to be ready; it is then
	// stopped. 0 is 30 s.
	Timeout time.Duration
}

// ErrNotReady is in the error of a pod that was stopped because a container's
// probe did not succeed in time.
var ErrNotReady = errors.New("not ready in time")

func (p *Probe) validate() error {
	if p == nil {
		return nil
	}
	if (p.TCP != 0) == (len(p.Exec) != 0) {
		return fmt.Errorf("ready probe: want either a port or a command")
	}
	if p.Interval <= 0 {
		p.Interval = 100 * time.Millisecond
	}
	if p.Timeout <= 0 {
		p.Timeout = 30 * time.Second
	}
	return nil
}

// probe tries the container's probe until it succeeds. The channel gets one
// value: nil when the container is ready. stop ends the goroutine and waits.
func (c *Container) probe(ctx context.Context) (ready <-chan error, stop func()) {
	ch := make(chan error, 1)
	if c.cfg.Ready == nil {
		ch <- nil
		return ch, func() {}
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Ready.Timeout)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ch <- c.untilReady(ctx, c.cfg.Ready)
	}()
	return ch, func() { cancel(); <-done }
}

func (c *Container) untilReady(ctx context.Context, p *Probe) error {
	tick := time.NewTicker(p.Interval)
	defer tick.Stop()
	var err error // of the last try that had its time
	for {
		switch e := c.tryReady(ctx, p); {
		case e == nil:
			return nil
		case err == nil || ctx.Err() == nil:
			err = e
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w (%v): %w", ErrNotReady, p.Timeout, err)
		}
	}
}

func (c *Container) tryReady(ctx context.Context, p *Probe) error {
	if p.TCP != 0 {
		return c.listens(p.TCP)
	}
	// Ten tries a second are no events: only what comes of them is.
	res, err := c.output(ctx, p.Exec, func(Event) {})
	if err == nil && res.Status != 0 {
		err = fmt.Errorf("%s: exit status %d: %s", p.Exec[0], res.Status, strings.TrimSpace(cut(res.Stderr, 256)))
	}
	return err
}

// listens looks for a listener in the sockets of the container's network
// namespace. The pid is still the container's if it has not been waited for
// after the tables were read.
func (c *Container) listens(port uint16) error {
	pid := c.Pid()
	for _, table := range []string{"tcp", "tcp6"} {
		f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/net/" + table)
		if errors.Is(err, os.ErrNotExist) && table == "tcp6" {
			continue // a kernel without IPv6
		}
		if err != nil {
			return err
		}
		found := hasListener(f, port, c.cfg.Spec.NIC == nil)
		f.Close()
		if found && c.Pid() == pid {
			return nil
		}
	}
	return fmt.Errorf("nothing listens on tcp port %d", port)
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

// cut shortens s to at most n bytes.
func cut(s string, n int) string {
	if len(s) > n {
		return s[:n] + "..."
	}
	return s
}
