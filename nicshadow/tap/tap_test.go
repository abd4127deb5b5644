package tap_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/tap"
	"sekimori/nicshadow/tap/taptest"
)

var mac = frame.MAC{2, 0, 0, 0, 0, 9}

func config(addrs ...string) tap.Config {
	cfg := tap.Config{Name: "eth0", MAC: mac}
	for _, a := range addrs {
		cfg.Addrs = append(cfg.Addrs, netip.MustParsePrefix(a))
	}
	return cfg
}

// in runs a command in a namespace and returns what it wrote.
func in(t testing.TB, ns *os.File, args ...string) string {
	t.Helper()
	var out []byte
	if err := tap.In(ns, func() (err error) {
		out, err = exec.Command(args[0], args[1:]...).CombinedOutput()
		return err
	}); err != nil {
		t.Fatalf("%q: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// links are the names of a namespace's links.
func links(t testing.TB, ns *os.File) (names []string) {
	t.Helper()
	if err := tap.In(ns, func() error {
		ifs, err := net.Interfaces()
		for _, i := range ifs {
			names = append(names, i.Name)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return names
}

// TestOpen looks at the card from inside: of our own namespaces and of one
// that belongs to another user namespace.
func TestOpen(t *testing.T) {
	taptest.TUN(t)
	cfg := config("10.0.0.2/24", "10.9.0.2/32", "fd00::2/64")
	cfg.MTU = 1400
	cfg.Gateways = []netip.Addr{netip.MustParseAddr("10.7.0.1"), netip.MustParseAddr("fd00::1")}
	cfg.Ping = true
	for name, ns := range map[string]*os.File{"own": taptest.NetNS(t), "another user namespace": userNetNS(t)} {
		t.Run(name, func(t *testing.T) {
			d, err := tap.Open(ns, cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			check := func(want string, got string) {
				t.Helper()
				for w := range strings.SplitSeq(want, "|") {
					if !strings.Contains(got, w) {
						t.Errorf("%s\n; want %q in it", got, w)
					}
				}
			}
			check("02:00:00:00:00:09|mtu 1400|,UP", in(t, ns, "ip", "link", "show", "eth0"))
			check(",UP", in(t, ns, "ip", "link", "show", "lo"))
			check("inet 10.0.0.2/24|inet 10.9.0.2/32|inet6 fd00::2/64|inet6 fe80::ff:fe00:9/64", in(t, ns, "ip", "addr", "show", "eth0"))
			check("default via 10.7.0.1 dev eth0 onlink", in(t, ns, "ip", "route"))
			check("default via fd00::1 dev eth0", in(t, ns, "ip", "-6", "route"))
			// The kernel makes the link-local address usable in a work queue of its
			// own; duplicate detection would take a second or more.
			addrs, begin := in(t, ns, "ip", "-6", "addr"), time.Now()
			for strings.Contains(addrs, "tentative") && time.Since(begin) < 700*time.Millisecond {
				time.Sleep(10 * time.Millisecond)
				addrs = in(t, ns, "ip", "-6", "addr")
			}
			if strings.Contains(addrs, "tentative") {
				t.Errorf("an address is tentative:\n%s", addrs)
			}
			for _, kv := range []string{"ipv6/conf/eth0/accept_ra 0", "ipv6/conf/eth0/disable_ipv6 0", "ipv4/ping_group_range 0\t2147483647"} {
				name, want, _ := strings.Cut(kv, " ")
				if got := in(t, ns, "cat", "/proc/sys/net/"+name); got != want {
					t.Errorf("%s = %q; want %q", name, got, want)
				}
			}
		})
	}
}

// userNetNS is a network namespace of a new user namespace, which ends with
// the test.
func userNetNS(t *testing.T) *os.File {
	t.Helper()
	c := exec.Command("sleep", "60")
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1 << 20, Size: 65536}}
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids,
		Pdeathsig: syscall.SIGKILL,
	}
	if err := c.Start(); err != nil {
		taptest.Missing(t, "userns", err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", c.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// TestSilent: a card with IPv4 addresses alone sends nothing of its own: no
// router solicitation, no multicast listener report.
func TestSilent(t *testing.T) {
	taptest.TUN(t)
	ns := taptest.NetNS(t)
	d, err := tap.Open(ns, config("10.0.0.2/24"))
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(300*time.Millisecond, func() { d.Close() })
	buf := make([]byte, 2000)
	if n, err := d.Read(buf); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Read = %x, %v; want %v", buf[:n], err, os.ErrClosed)
	}
	if got := in(t, ns, "cat", "/proc/sys/net/ipv6/conf/lo/disable_ipv6"); got != "1" {
		t.Errorf("IPv6 of lo is on")
	}
}

// TestIPv6 has a card without an address whose container asks for one by DHCPv6:
// it has the link-local address of its MAC to ask from.
func TestIPv6(t *testing.T) {
	taptest.TUN(t)
	ns := taptest.NetNS(t)
	d, err := tap.Open(ns, tap.Config{Name: "eth0", MAC: frame.MAC{2, 0, 0, 0, 0, 7}, IPv6: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if got := in(t, ns, "ip", "-6", "-o", "addr", "show", "dev", "eth0"); !strings.Contains(got, "fe80::ff:fe00:7/64") || strings.Count(got, "inet6") != 1 {
		t.Errorf("addresses: %s; want the link-local one", got)
	}
}

// TestFrames passes a frame each way: what is written is read, byte for byte.
func TestFrames(t *testing.T) {
	taptest.TUN(t)
	ns := taptest.NetNS(t)
	d, err := tap.Open(ns, config("10.0.0.2/24"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	// Who has 10.0.0.2, tell 10.0.0.1.
	ask := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1},
		2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2)
	if n, err := d.Write(ask); n != len(ask) || err != nil {
		t.Fatalf("Write = %d, %v", n, err)
	}
	buf := make([]byte, 2000)
	n, err := d.Read(buf)
	want := append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2},
		2, 0, 0, 0, 0, 9, 10, 0, 0, 2, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1)
	if err != nil || string(buf[:n]) != string(want) {
		t.Errorf("Read = %x, %v; want %x", buf[:n], err, want)
	}
	if n := testing.AllocsPerRun(100, func() {
		d.Write(ask)
		d.Read(buf)
	}); n != 0 {
		t.Errorf("Write and Read allocate %v times", n)
	}
	in(t, ns, "ip", "link", "set", "eth0", "down")
	if _, err := d.Write(ask); !errors.Is(err, unix.EIO) {
		t.Errorf("Write to a card that is down = %v; want %v", err, unix.EIO)
	}
	in(t, ns, "ip", "link", "del", "eth0")
	if _, err := d.Write(ask); !errors.Is(err, unix.EBADFD) {
		t.Errorf("Write to a card that was deleted = %v; want %v", err, unix.EBADFD)
	}
	if _, err := d.Read(buf); !errors.Is(err, unix.EBADFD) {
		t.Errorf("Read of a card that was deleted = %v; want %v", err, unix.EBADFD)
	}
}

// TestClose: after Close the card is gone; with EndsWithNetNS it stays, without
// its other end, until its namespace ends.
func TestClose(t *testing.T) {
	taptest.TUN(t)
	ns := taptest.NetNS(t)
	d, err := tap.Open(ns, config("10.0.0.2/24"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	if _, err := d.Write(make([]byte, 60)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write after Close = %v; want %v", err, os.ErrClosed)
	}
	if got := links(t, ns); !slices.Equal(got, []string{"lo"}) {
		t.Errorf("links after Close: %q", got)
	}
	cfg := config("10.0.0.2/24")
	cfg.EndsWithNetNS = true
	if d, err = tap.Open(ns, cfg); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	if got := links(t, ns); !slices.Equal(got, []string{"lo", "eth0"}) {
		t.Errorf("links after Close: %q", got)
	}
}

func TestOpenErrors(t *testing.T) {
	taptest.TUN(t)
	long := config("10.0.0.2/24")
	long.Name = "sixteen-bytes-xx"
	none := config()
	none.Name = ""
	slash := config("10.0.0.2/24")
	slash.Name = "a/b"
	group := config("10.0.0.2/24")
	group.MAC = frame.MAC{1}
	mtu := config("10.0.0.2/24")
	mtu.MTU = 1 << 20
	gateway := config("10.0.0.2/24")
	gateway.Gateways = []netip.Addr{netip.MustParseAddr("fd00::1")}
	for name, tt := range map[string]struct {
		cfg  tap.Config
		want string
	}{
		"long name":          {long, `tap: interface name "sixteen-bytes-xx": want 1 to 15 bytes`},
		"no name":            {none, `tap: interface name "": want 1 to 15 bytes`},
		"name with a slash":  {slash, `tap: create a/b: invalid argument`},
		"group mac":          {group, `tap: set mac 01:00:00:00:00:00 of eth0`},
		"mtu":                {mtu, `tap: set mtu 1048576 of eth0`},
		"gateway of no addr": {gateway, `tap: route by fd00::1 on eth0`},
		"address twice":      {config("10.0.0.2/24", "10.0.0.2/24"), `tap: add 10.0.0.2/24 to eth0: file exists`},
	} {
		ns := taptest.NetNS(t)
		d, err := tap.Open(ns, tt.cfg)
		if err == nil {
			d.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Open = %v; want %q", name, err, tt.want)
		}
		if got := links(t, ns); !slices.Equal(got, []string{"lo"}) {
			t.Errorf("%s: left behind: %q", name, got)
		}
	}
	ns := taptest.NetNS(t)
	d, err := tap.Open(ns, config("10.0.0.2/24"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := tap.Open(ns, config("10.0.0.3/24")); err == nil || !strings.Contains(err.Error(), "create eth0: device or resource busy") {
		t.Errorf("Open twice = %v", err)
	}
	file, err := os.Open(filepath.Join(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := tap.Open(file, config("10.0.0.2/24")); err == nil || !strings.Contains(err.Error(), "enter network namespace") {
		t.Errorf("Open in a directory = %v", err)
	}
}

// TestIn: the caller's thread is where it was, and so is every other, even
// when f fails.
func TestIn(t *testing.T) {
	ns := taptest.NetNS(t)
	own := netnsID(t)
	boom := errors.New("boom")
	for range 50 {
		var inside string
		err := tap.In(ns, func() error { inside = netnsID(t); return boom })
		if err != boom || inside == own {
			t.Fatalf("In = %v in %s; want %v elsewhere than %s", err, inside, boom, own)
		}
	}
	done := make(chan string)
	for range 20 {
		go func() { done <- netnsID(t) }()
	}
	for range 20 {
		if id := <-done; id != own {
			t.Errorf("a goroutine runs in %s; want %s", id, own)
		}
	}
}

func netnsID(t *testing.T) string {
	id, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Error(err)
	}
	return id
}

// BenchmarkOpen is a card made, configured and set up in a new namespace, and
// what it costs to let go of it: in ms, create and close.
func BenchmarkOpen(b *testing.B) {
	taptest.TUN(b)
	for _, ends := range []bool{true, false} {
		b.Run(fmt.Sprintf("EndsWithNetNS=%t", ends), func(b *testing.B) {
			cfg := config("10.0.0.2/24")
			cfg.Gateways = []netip.Addr{netip.MustParseAddr("10.0.0.1")}
			cfg.EndsWithNetNS = ends
			var created, closed time.Duration
			for b.Loop() {
				ns := taptest.NetNS(b)
				start := time.Now()
				d, err := tap.Open(ns, cfg)
				if err != nil {
					b.Fatal(err)
				}
				created += time.Since(start)
				ns.Close()
				start = time.Now()
				d.Close()
				closed += time.Since(start)
			}
			b.ReportMetric(float64(created.Microseconds())/1e3/float64(b.N), "ms/create")
			b.ReportMetric(float64(closed.Microseconds())/1e3/float64(b.N), "ms/close")
		})
	}
}
