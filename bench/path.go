package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"sekimori/nicshadow"
	"sekimori/nicshadow/frame"
	inkernel "sekimori/nicshadow/kernel"
	"sekimori/nicshadow/tap"
	"sekimori/starlark/policy"
)

// slot is how long one measurement of a path takes a round.
const slot = 400 * time.Millisecond

// pathPolicy is what every path that filters holds both sides to: the default
// guards, and these predicates.
const pathPolicy = `
def allow_arp(dst_ip):
    return dst_ip in net("10.98.0.0/24")

def allow_ipv4(dst_ip):
    return dst_ip in net("10.98.0.0/24")

def allow_tcp(src_port, dst_port):
    return src_port == 5001 or dst_port == 5001

def allow_udp(src_port, dst_port):
    return src_port == 5002 or dst_port == 5002

result = policy(allow_arp, allow_ipv4, allow_tcp, allow_udp)
`

// pathRules are the same for a bridge, as near as nftables comes to it: it does
// not parse strictly.
const pathRules = `
table bridge bench {
  chain forward {
    type filter hook forward priority 0; policy drop;
    iifname "p1" ether saddr != 02:00:00:00:00:01 drop
    iifname "p2" ether saddr != 02:00:00:00:00:02 drop
    iifname "p1" ether type arp arp saddr ip != 10.98.0.1 drop
    iifname "p2" ether type arp arp saddr ip != 10.98.0.2 drop
    iifname "p1" ether type arp arp saddr ether != 02:00:00:00:00:01 drop
    iifname "p2" ether type arp arp saddr ether != 02:00:00:00:00:02 drop
    ether type arp arp daddr ip 10.98.0.0/24 accept
    iifname "p1" ether type ip ip saddr != 10.98.0.1 drop
    iifname "p2" ether type ip ip saddr != 10.98.0.2 drop
    ether type ip ip daddr != 10.98.0.0/24 drop
    ether type ip tcp sport 5001 accept
    ether type ip tcp dport 5001 accept
    ether type ip udp sport 5002 accept
    ether type ip udp dport 5002 accept
  }
}
`

// A track is two namespaces, 10.98.0.1 and 10.98.0.2, and what joins them.
type track struct {
	name  string
	ns    [2]*os.File
	table *nicshadow.Table // nil for a bridge
	close []func() error

	// The best: Gbit/s, datagrams a second, us of processor time of each, us.
	stream, rate, cost, trip float64
}

// path measures what a frame costs between two containers: through this
// process, through programs of the kernel, and through a bridge with and without
// the same rules. Ratios of one run mean something, and no more: the clock is the
// wall's, for the work is done wherever the kernel likes.
func path(w io.Writer, rounds int) ([]bar, error) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(w, "Data paths: not root: not measured")
		return nil, nil
	}
	rounds = max(3, rounds/3)
	var tracks []*track
	defer func() {
		for _, t := range tracks {
			t.end()
		}
	}()
	for _, m := range []struct {
		name string
		make func(*track) error
	}{
		{"this process, by TAP devices", (*track).user},
		{"programs of the kernel", (*track).kernel},
		{"bridge, the same rules in nftables", func(t *track) error { return t.bridge(false, pathRules) }},
		{"bridge, no rules", func(t *track) error { return t.bridge(false, "") }},
		{"bridge, no rules, offloads on", func(t *track) error { return t.bridge(true, "") }},
	} {
		t := &track{name: m.name}
		tracks = append(tracks, t)
		if err := m.make(t); err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
	}
	for range rounds {
		for _, t := range tracks {
			if err := t.round(); err != nil {
				return nil, fmt.Errorf("%s: %w", t.name, err)
			}
		}
	}
	fmt.Fprintf(w, "Two containers on one switch, best of %d rounds\n\n", rounds)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(tw, "data path\tTCP, Gbit/s\tshortest datagrams a second\tprocessor time of each, us\tround trip, us\t\n")
	for _, t := range tracks {
		fmt.Fprintf(tw, "%s\t%.2f\t%.0f\t%.2f\t%.1f\t\n", t.name, t.stream, t.rate, t.cost, t.trip)
	}
	tw.Flush()
	user, inKernel, nft := tracks[0], tracks[1], tracks[2]
	return []bar{
		{"TCP by this process: by programs of the kernel", user.stream / inKernel.stream, 0.7, false},
		{"processor time of a datagram by programs of the kernel: by a bridge with the same rules", inKernel.cost / nft.cost, 1, false},
		{"TCP by a bridge with the same rules: by programs of the kernel", nft.stream / inKernel.stream, 1, false},
	}, nil
}

func (t *track) end() {
	for i := len(t.close) - 1; i >= 0; i-- {
		t.close[i]()
	}
}

// begin makes the namespaces.
func (t *track) begin() error {
	for i := range t.ns {
		ns, err := tap.NewNetNS()
		if err != nil {
			return err
		}
		t.ns[i] = ns
		t.close = append(t.close, ns.Close)
	}
	return nil
}

func pathMAC(i int) frame.MAC { return frame.MAC{2, 0, 0, 0, 0, byte(i + 1)} }

func pathCard(i int) tap.Config {
	return tap.Config{Name: "eth0", MAC: pathMAC(i), EndsWithNetNS: true, Addrs: []netip.Prefix{netip.PrefixFrom(pathAddr(i), 24)}}
}

func pathIdentity(i int) policy.Identity {
	return policy.Identity{MAC: pathMAC(i), Addrs: []netip.Addr{pathAddr(i)}}
}

func pathAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 98, 0, byte(i + 1)}) }

// judged makes a switch whose cards are plugged in by plug.
func (t *track) judged(plug func(sw *nicshadow.Switch, i int) error) error {
	if err := t.begin(); err != nil {
		return err
	}
	table := nicshadow.NewTable()
	t.table = table
	sw := nicshadow.NewSwitch(nicshadow.Config{Table: table})
	t.close = append(t.close, sw.Close)
	p, err := evaluate([]byte(pathPolicy), "result")
	if err != nil {
		return err
	}
	for i := range t.ns {
		program, err := p.Compile(pathIdentity(i))
		if err != nil {
			return err
		}
		s := nicshadow.Sender(i + 1)
		if err := table.Register(s, fmt.Sprint(i)); err != nil {
			return err
		}
		hash, err := table.Load(s, program.Bytes())
		if err == nil {
			err = table.Swap(s, hash, nicshadow.Enforce)
		}
		if err == nil {
			err = plug(sw, i)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *track) user() error {
	return t.judged(func(sw *nicshadow.Switch, i int) error {
		dev, err := tap.Open(t.ns[i], pathCard(i))
		if err != nil {
			return err
		}
		return sw.AddPort(nicshadow.PortConfig{Name: fmt.Sprint(i), Sender: nicshadow.Sender(i + 1), MAC: pathMAC(i), Device: dev})
	})
}

func (t *track) kernel() error {
	var k *inkernel.Switch
	return t.judged(func(sw *nicshadow.Switch, i int) (err error) {
		if k == nil {
			if k, err = inkernel.New(inkernel.Config{Ports: sw, Cards: len(t.ns)}); err != nil {
				return err
			}
			t.close = append([]func() error{k.Close}, t.close...) // behind the switch
		}
		return k.AddCard(inkernel.CardConfig{Name: fmt.Sprint(i), Sender: nicshadow.Sender(i + 1), NetNS: t.ns[i], Card: pathCard(i)})
	})
}

// bridge joins the namespaces by a bridge in a third.
func (t *track) bridge(offloads bool, rules string) error {
	if err := t.begin(); err != nil {
		return err
	}
	yard, err := tap.NewNetNS()
	if err != nil {
		return err
	}
	t.close = append(t.close, yard.Close)
	in := func(ns *os.File, stdin string, args ...string) error {
		return tap.In(ns, func() error {
			c := exec.Command(args[0], args[1:]...)
			c.Stdin = strings.NewReader(stdin)
			if out, err := c.CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
			}
			return nil
		})
	}
	if err := in(yard, "", "ip", "link", "add", "br0", "up", "type", "bridge"); err != nil {
		return err
	}
	for i := range t.ns {
		far := fmt.Sprint("p", i+1)
		if offloads {
			err = errors.Join(
				in(yard, "", "ip", "link", "add", far, "type", "veth", "peer", "name", "eth0", "address", pathMAC(i).String(),
					"netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), t.ns[i].Fd())),
				in(t.ns[i], "", "ip", "addr", "add", netip.PrefixFrom(pathAddr(i), 24).String(), "dev", "eth0"),
				in(t.ns[i], "", "ip", "link", "set", "eth0", "up"),
			)
		} else {
			err = plainPair(t.ns[i], yard, far, i)
		}
		if err == nil {
			err = in(yard, "", "ip", "link", "set", far, "master", "br0", "up")
		}
		if err != nil {
			return err
		}
	}
	if rules != "" {
		return in(yard, rules, "nft", "-f", "-")
	}
	return nil
}

// plainPair makes a card with a far end for a bridge, without offloads, as the
// other paths have it.
func plainPair(ns, yard *os.File, far string, i int) error {
	p, err := tap.OpenPair(ns, yard, far, pathCard(i))
	if err != nil {
		return err
	}
	return p.Up()
}

// round measures each thing once, and keeps the best.
func (t *track) round() error {
	stream, err := t.tcp()
	if err != nil {
		return err
	}
	rate, cost, err := t.flood()
	if err != nil {
		return err
	}
	trip, err := t.pingPong()
	if err != nil {
		return err
	}
	if t.trip == 0 {
		t.cost, t.trip = cost, trip
	}
	t.stream, t.rate = max(t.stream, stream), max(t.rate, rate)
	t.cost, t.trip = min(t.cost, cost), min(t.trip, trip)
	return nil
}

// in runs f in namespace i. What it opens stays there.
func (t *track) in(i int, f func() error) error { return tap.In(t.ns[i], f) }

// tcp is how many Gbit a second a stream moves.
func (t *track) tcp() (float64, error) {
	var l net.Listener
	if err := t.in(1, func() (err error) { l, err = net.Listen("tcp4", "10.98.0.2:5001"); return err }); err != nil {
		return 0, err
	}
	defer l.Close()
	got := make(chan int64, 1)
	go func() { // ends with the connection
		c, err := l.Accept()
		if err != nil {
			got <- 0
			return
		}
		defer c.Close()
		n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 256<<10))
		got <- n
	}()
	var c net.Conn
	if err := t.in(0, func() (err error) { c, err = net.DialTimeout("tcp4", "10.98.0.2:5001", 5*time.Second); return err }); err != nil {
		return 0, err
	}
	begin, buf := time.Now(), make([]byte, 256<<10)
	for time.Since(begin) < slot {
		if _, err := c.Write(buf); err != nil {
			c.Close()
			return 0, err
		}
	}
	c.Close()
	n := <-got
	return float64(n) * 8 / float64(time.Since(begin).Nanoseconds()), nil
}

// udp opens a socket on each side, connected to the other.
func (t *track) udp() (from, to *net.UDPConn, err error) {
	at := func(i, port int) *net.UDPAddr { return &net.UDPAddr{IP: pathAddr(i).AsSlice(), Port: port} }
	err = errors.Join(
		t.in(0, func() (err error) { from, err = net.DialUDP("udp4", at(0, 5003), at(1, 5002)); return err }),
		t.in(1, func() (err error) { to, err = net.DialUDP("udp4", at(1, 5002), at(0, 5003)); return err }),
	)
	return from, to, err
}

// flood is how many of the shortest datagrams a second arrive at the other card,
// and what each costs from the sender's call on: all who move them are in this
// process, or run in its calls.
func (t *track) flood() (rate, cost float64, err error) {
	from, to, err := t.udp()
	if err != nil {
		return 0, 0, err
	}
	defer from.Close()
	defer to.Close()
	before, err := t.arrived()
	if err != nil {
		return 0, 0, err
	}
	spent := cpuTime()
	begin, b := time.Now(), make([]byte, 18)
	for time.Since(begin) < slot {
		for range 64 {
			if _, err := from.Write(b); err != nil && !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ENOBUFS) {
				return 0, 0, err
			}
		}
	}
	spent = cpuTime() - spent
	after, err := t.arrived()
	n := float64(after - before)
	return n / time.Since(begin).Seconds(), us(spent) / n, err
}

// arrived is how many frames the card of the second namespace took in.
func (t *track) arrived() (n uint64, err error) {
	err = t.in(1, func() error {
		b, err := os.ReadFile("/proc/thread-self/net/dev")
		if err != nil {
			return err
		}
		_, line, ok := strings.Cut(string(b), "eth0:")
		if f := strings.Fields(line); ok && len(f) > 1 {
			_, err = fmt.Sscan(f[1], &n)
			return err
		}
		return errors.New("no eth0 in /proc/net/dev")
	})
	return n, err
}

// pingPong is how long a datagram takes there and back, in us.
func (t *track) pingPong() (float64, error) {
	from, to, err := t.udp()
	if err != nil {
		return 0, err
	}
	defer from.Close()
	defer to.Close()
	go func() { // ends when its socket is closed
		for b := make([]byte, 18); ; {
			n, err := to.Read(b)
			if err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
				return
			}
			to.Write(b[:n])
		}
	}()
	n, begin, b := 0, time.Now(), make([]byte, 18)
	for ; time.Since(begin) < slot/2; n++ {
		from.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := from.Write(b); err != nil {
			return 0, err
		}
		if _, err := from.Read(b); err != nil {
			return 0, err
		}
	}
	return us(time.Since(begin)) / float64(n), nil
}
