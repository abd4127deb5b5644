package e2e_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sekimori/nicshadow/tap"
	"sekimori/nicshadow/tap/taptest"
)

// world is a network namespace that plays the host, whose own address is of
// TEST-NET-1 (RFC 5737), with a server over TCP and one over UDP there, one on its
// loopback, and ping for everybody.
func world(t *testing.T) *os.File {
	t.Helper()
	ns := taptest.NetNS(t)
	err := tap.In(ns, func() error {
		if err := tap.SetLoopbackUp(); err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		own, err := netlink.ParseAddr("192.0.2.1/32")
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(lo, own); err != nil {
			return err
		}
		if err := tap.Sysctl("ipv4/ping_group_range", "0 2147483647"); err != nil {
			return err
		}
		for _, addr := range []string{"192.0.2.1:7000", "127.0.0.1:7000", "192.0.2.1:53"} {
			l, err := net.Listen("tcp4", addr)
			if err != nil {
				return err
			}
			t.Cleanup(func() { l.Close() })
			go serveTCP(l)
		}
		for _, addr := range []string{"192.0.2.1:7001", "192.0.2.1:53"} {
			u, err := net.ListenPacket("udp4", addr)
			if err != nil {
				return err
			}
			t.Cleanup(func() { u.Close() })
			go serveUDP(u)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

// serveTCP says how much it was told.
func serveTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			n, _ := io.Copy(io.Discard, c)
			fmt.Fprintf(c, "%d bytes", n)
		}()
	}
}

func serveUDP(u net.PacketConn) {
	b := make([]byte, 1500)
	for {
		n, from, err := u.ReadFrom(b)
		if err != nil {
			return
		}
		u.WriteTo(append([]byte("heard "), b[:n]...), from)
	}
}

// TestMachineUplink is the way out of an ordinary user: connections of the user's
// own, for several containers; what is not theirs to reach is refused, and the
// gateway takes no address but its own.
func TestMachineUplink(t *testing.T) {
	requireMachine(t, "root", "netns", ordinaryUser()[0], "ping", "ip")
	ns := world(t)
	prefix := append([]string{"nsenter", fmt.Sprintf("--net=/proc/%d/fd/%d", os.Getpid(), ns.Fd())}, ordinaryUser()...)
	r := newRig(t, prefix...)
	r.write("resolv.conf", "nameserver 192.0.2.1\n")
	r.start("out", "machine("+ownKernel()+")"+`
uplink(ip = "10.9.0.1/24", masquerade = True)
P = policy(allow_arp = True, allow_ipv4 = True, allow_icmp = True, allow_tcp = True, allow_udp = True)
[container(
    name = name, rootfs = host_root(), args = ["sleep", "1000"], mounts = [bind("tools", "/t")], stop_timeout = "1s",
    capabilities = DEFAULT_CAPABILITIES + ["NET_RAW"], # busybox's ping wants it
    nic = nic(addr, gateway = ip("10.9.0.1"), policy = P),
) for name, addr in (("a", "10.9.0.2/24"), ("b", "10.9.0.3/24"))]
`)
	for _, c := range []string{"out/a", "out/b"} {
		out := r.must("exec", c, "--", "/t/inside", "reach", "tcp 192.0.2.1:7000", "udp 192.0.2.1:7001", "tcp 192.0.2.1:9", "tcp 127.9.9.9:7000",
			"tcp 169.254.169.254:80", "tcp 10.9.0.1:7000", "udp 10.9.0.1:7001", "udp 255.255.255.255:7001")
		want := `tcp 192.0.2.1:7000: 1048576 bytes
udp 192.0.2.1:7001: heard hello
tcp 192.0.2.1:9: refused
tcp 127.9.9.9:7000: refused
tcp 169.254.169.254:80: refused
tcp 10.9.0.1:7000: refused
udp 10.9.0.1:7001: no answer
udp 255.255.255.255:7001: no answer
`
		if out != want {
			t.Errorf("%s reaches\n%s; want\n%s", c, out, want)
		}
		for addr, answers := range map[string]bool{"192.0.2.1": true, "10.9.0.1": true, "192.0.2.9": false} {
			if _, _, code := r.seki("exec", c, "--", "ping", "-c", "1", "-W", "2", addr); (code == 0) != answers {
				t.Errorf("%s: ping %s: exit code %d; want an answer: %v", c, addr, code, answers)
			}
		}
	}
	// The one still is the other's neighbour, under its own address.
	r.must("exec", "out/a", "--", "ping", "-c", "1", "-W", "5", "10.9.0.3")
	card := strings.TrimSpace(r.must("exec", "out/b", "--", "cat", "/sys/class/net/eth0/address"))
	if out := r.must("exec", "out/a", "--", "ip", "neigh", "show", "10.9.0.3"); !strings.Contains(out, "lladdr "+card) {
		t.Errorf("a says of b: %s; want %s", out, card)
	}
	gateways := func() int { return countProcesses(t, filepath.Join(built.dir, "seki-net")) }
	if n := gateways(); n != 1 {
		t.Errorf("%d processes of seki-net; want 1", n)
	}
	r.must("stop", "out")
	if n := gateways(); n != 0 {
		t.Errorf("%d processes of seki-net are left", n)
	}

	// Root's word is not to be had: the user's network cannot be routed to.
	file := r.write("routed.star", "machine("+ownKernel()+")\nuplink(ip = \"10.9.0.1/24\")\n"+`container(name = "a", rootfs = host_root(), args = ["true"])`)
	if _, errs, code := r.seki("run", file); code == 0 || !strings.Contains(errs, "masquerade = True") {
		t.Errorf("an uplink without masquerade: exit code %d, %s", code, errs)
	}
}

// TestMachineUplinkKilled: the gateway of a supervisor that was killed ends by
// itself.
func TestMachineUplinkKilled(t *testing.T) {
	require(t, "root", "netns", "uml", "setpriv")
	ns := world(t)
	r := newRig(t, append([]string{"nsenter", fmt.Sprintf("--net=/proc/%d/fd/%d", os.Getpid(), ns.Fd())}, nobodyPrefix...)...)
	r.start("out", `
machine("uml")
uplink(ip = "10.9.0.1/24", masquerade = True)
container(name = "a", rootfs = host_root(), args = ["sleep", "1000"], nic = nic("10.9.0.2/24", policy = policy(allow_arp = True)))
`)
	procs, err := supervisor(r, "out")
	if err != nil || len(procs) == 0 {
		t.Fatalf("supervisor: %v, %v", procs, err)
	}
	if err := unix.Kill(procs[0].pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !within(10*time.Second, func() bool { return countProcesses(t, filepath.Join(built.dir, "seki-net")) == 0 }) {
		t.Error("seki-net goes on")
	}
	r.must("run", "-q", r.write("next.star", "machine(\"uml\")\n"+`container(name = "n", rootfs = host_root(), args = ["true"])`)) // which cleans up
}

// countProcesses counts those of a program.
func countProcesses(t *testing.T, program string) (n int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, exe := range all {
		if path, err := os.Readlink(exe); err == nil && path == program {
			n++
		}
	}
	return n
}
