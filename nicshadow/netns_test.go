package nicshadow_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/nicshadow"
	"sekimori/nicshadow/rule"
	"sekimori/nicshadow/tap"
	"sekimori/nicshadow/tap/taptest"
)

// tools skips the test where a program that it runs is not installed.
func tools(t testing.TB, names ...string) {
	t.Helper()
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			taptest.Missing(t, n, err)
		}
	}
}

// cards makes a switch with n real cards, whose policies forward.
func cards(t testing.TB, cfg nicshadow.Config, n int) (*nicshadow.Table, *nicshadow.Switch, []*card) {
	t.Helper()
	table := nicshadow.NewTable()
	cfg.Table = table
	sw := nicshadow.NewSwitch(cfg)
	t.Cleanup(func() { sw.Close() })
	all := []*card{nil} // counted from 1
	for i := 1; i <= n; i++ {
		all = append(all, newCard(t, sw, i))
		put(t, table, nicshadow.Sender(i), program(t, rule.Forward, 1))
	}
	return table, sw, all
}

// TestPing is the whole road, with the kernel's own ARP and ICMP: a policy
// that forwards, one that drops, and audit.
func TestPing(t *testing.T) {
	tools(t, "ping")
	table, _, c := cards(t, nicshadow.Config{}, 3)
	if !c[1].ping(t, "10.0.0.2", 3) || !c[3].ping(t, "10.0.0.1", 3) {
		t.Errorf("with policies that forward, ping was lost: %+v", stats(t, table, 1))
	}
	put(t, table, 1, program(t, rule.Drop, 7))
	if c[1].ping(t, "10.0.0.2", 2) {
		t.Error("with a policy that drops, ping was answered")
	}
	st := stats(t, table, 1)
	if st.Dropped < 2 || len(st.Lines) != 1 || st.Lines[0].Line != 7 || st.Lines[0].Frames != st.Dropped {
		t.Errorf("Stats = %+v; want at least 2 dropped by line 7", st)
	}
	if err := table.SetMode(1, nicshadow.Audit); err != nil {
		t.Fatal(err)
	}
	if !c[1].ping(t, "10.0.0.2", 3) {
		t.Error("in audit mode, ping was lost")
	}
	if st := stats(t, table, 1); st.WouldDrop < 3 {
		t.Errorf("Stats = %+v; want at least 3 would drop", st)
	}
}

// TestClosedCard: a container whose policy is not in force yet neither sends
// nor receives.
func TestClosedCard(t *testing.T) {
	tools(t, "ping", "tcpdump")
	table := nicshadow.NewTable()
	sw := nicshadow.NewSwitch(nicshadow.Config{Table: table})
	defer sw.Close()
	a, b := newCard(t, sw, 1), newCard(t, sw, 2)
	put(t, table, 1, program(t, rule.Forward, 1))
	if err := table.Register(2, "b"); err != nil {
		t.Fatal(err)
	}
	if a.ping(t, "10.0.0.2", 2) || b.ping(t, "10.0.0.1", 2) {
		t.Error("ping of or by a container without a policy: answered")
	}
	if out, err := b.run("cat", "/proc/net/dev"); err != nil || received(t, out) != 0 {
		t.Errorf("container without a policy received: %v\n%s", err, out)
	}
	if n := reason(stats(t, table, 2), "no program"); n == 0 {
		t.Error("no program: 0 frames counted")
	}
	put(t, table, 2, program(t, rule.Forward, 1))
	// The kernels still wait for answers to the ARP requests that were dropped.
	eventually(t, "open", func() bool { return a.ping(t, "10.0.0.2", 1) && b.ping(t, "10.0.0.1", 1) })
}

// received is the number of packets eth0 received, by /proc/net/dev.
func received(t testing.TB, dev string) (n int) {
	t.Helper()
	for line := range strings.Lines(dev) {
		if name, rest, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "eth0" {
			if _, err := fmt.Sscan(strings.Fields(rest)[1], &n); err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no eth0 in %s", dev)
	return 0
}

// listen opens a UDP socket on the card.
func (c *card) listen(t testing.TB, addr string) *net.UDPConn {
	t.Helper()
	var conn net.PacketConn
	if err := tap.In(c.ns, func() (err error) {
		conn, err = net.ListenPacket("udp4", addr)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.UDPConn)
}

// TestReloadUnderTraffic sends numbered datagrams from container to container
// while the sender's policy is reloaded: none may be lost, and none judged by a
// program that is not in force.
func TestReloadUnderTraffic(t *testing.T) {
	table, _, c := cards(t, nicshadow.Config{}, 2)
	from, to := c[1].listen(t, "10.0.0.1:9"), c[2].listen(t, "10.0.0.2:9")
	// The kernel keeps and reorders datagrams while it resolves the address.
	if _, err := from.WriteTo([]byte("resolve!"), to.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	if _, err := to.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	const n = 20_000
	var got atomic.Uint64
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 8)
		for want := uint64(0); want < n; want++ {
			to.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := to.Read(buf); err != nil || binary.LittleEndian.Uint64(buf) != want {
				t.Errorf("datagram %d: %d, %v", want, binary.LittleEndian.Uint64(buf), err)
				got.Store(n)
				return
			}
			got.Add(1)
		}
	})
	done := make(chan struct{})
	var swaps int
	wg.Go(func() {
		ps := [2]*rule.Program{program(t, rule.Forward, 1), program(t, rule.Forward, 2)}
		for ; ; swaps++ {
			select {
			case <-done:
				return
			default:
				put(t, table, 1, ps[swaps%2])
			}
		}
	})
	for i := uint64(0); i < n; i++ {
		for i > got.Load()+32 { // so that no queue of the kernel overflows
			time.Sleep(10 * time.Microsecond)
		}
		if _, err := from.WriteTo(binary.LittleEndian.AppendUint64(nil, i), to.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	wg.Wait()
	t.Logf("%d datagrams, %d reloads", n, swaps)
	if st := stats(t, table, 1); st.Dropped != 0 || st.Undelivered != 0 || swaps < 100 {
		t.Errorf("%d reloads, Stats = %+v", swaps, st)
	}
}

// TestHostileAdmin is a container with CAP_NET_ADMIN over its card: whatever it
// does to it, the others go on, and the switch does not spin.
func TestHostileAdmin(t *testing.T) {
	tools(t, "ip", "ping")
	for _, attack := range []string{
		"ip link set eth0 down",
		"ip link del eth0",
		"ip link set eth0 address 02:00:00:00:00:02",
		"ip link set eth0 mtu 65000",
		"ip link set eth0 name lost",
		"ip tuntap add dev eth0 mode tap", // a second descriptor
		"ip tuntap add dev eth0 mode tap multi_queue",
	} {
		t.Run(attack, func(t *testing.T) {
			_, sw, c := cards(t, nicshadow.Config{}, 3)
			out, err := c[1].run(strings.Fields(attack)...)
			if second := strings.Contains(attack, "tuntap"); second != (err != nil) {
				t.Errorf("%s: %v: %s", attack, err, out)
			}
			if strings.Contains(attack, "mtu") {
				c[1].run("ping", "-c1", "-W1", "-s", "3000", "10.0.0.2")
			}
			if !c[2].ping(t, "10.0.0.3", 3) {
				t.Error("the others' ping was lost")
			}
			var before, after unix.Rusage
			unix.Getrusage(unix.RUSAGE_SELF, &before)
			time.Sleep(100 * time.Millisecond)
			unix.Getrusage(unix.RUSAGE_SELF, &after)
			if spent := cpu(after) - cpu(before); spent > 50*time.Millisecond {
				t.Errorf("idle for 100 ms cost %v of CPU", spent)
			}
			if err := sw.RemovePort("c1"); err != nil {
				t.Errorf("RemovePort = %v", err)
			}
		})
	}
}

func cpu(u unix.Rusage) time.Duration {
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestLongFrame sends frames longer than the port's limit from a card whose
// MTU was raised: too long, not cut and forwarded.
func TestLongFrame(t *testing.T) {
	tools(t, "ip")
	table, _, c := cards(t, nicshadow.Config{}, 2)
	if out, err := c[1].run("ip", "link", "set", "eth0", "mtu", "9000"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	from, to := c[1].listen(t, "10.0.0.1:9"), c[2].listen(t, "10.0.0.2:9")
	for _, n := range []int{1472, 1481, 3000} { // 1500 of IP, one more than with two tags, more
		if _, err := from.WriteTo(make([]byte, n), to.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "two too long", func() bool { return reason(stats(t, table, 1), "too long") == 2 })
	buf := make([]byte, 9000)
	to.SetReadDeadline(time.Now().Add(time.Second))
	if n, err := to.Read(buf); n != 1472 || err != nil {
		t.Errorf("received %d bytes, %v; want 1472", n, err)
	}
}

// TestRemovePortReal removes a real port while the other floods it.
func TestRemovePortReal(t *testing.T) {
	table, sw, c := cards(t, nicshadow.Config{}, 2)
	from := c[1].listen(t, "10.0.0.1:9")
	to := &net.UDPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 9}
	if _, err := from.WriteTo([]byte("resolve"), to); err != nil {
		t.Fatal(err)
	}
	eventually(t, "resolved", func() bool { return stats(t, table, 1).Forwarded >= 2 })
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				from.WriteTo([]byte("x"), to)
			}
		}
	})
	time.Sleep(10 * time.Millisecond)
	start := time.Now()
	if err := sw.RemovePort("c2"); err != nil {
		t.Error(err)
	}
	took := time.Since(start)
	eventually(t, "unknown destination", func() bool { return reason(stats(t, table, 1), "unknown destination") > 0 })
	close(stop)
	wg.Wait()
	if took > 100*time.Millisecond {
		t.Errorf("RemovePort took %v", took)
	}
}
