package nicshadow_test

import (
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"sekimori/nicshadow"
	"sekimori/nicshadow/rule"
	"sekimori/nicshadow/tap"
	"sekimori/nicshadow/tap/taptest"
	"sekimori/nicshadow/uplink"
)

// hostAddr is the host's end of the uplink.
const hostAddr = "10.0.0.254"

// newUplink makes a "host" and opens an uplink there.
func newUplink(t testing.TB, sw *nicshadow.Switch, masquerade bool) (host *card) {
	t.Helper()
	taptest.TUN(t)
	host = &card{ns: taptest.NetNS(t)}
	u, err := uplink.Open(uplink.Config{
		Table: "seki-test", Name: "seki0", MAC: macOf(254), NetNS: host.ns, Masquerade: masquerade,
		Addrs: []netip.Prefix{netip.MustParsePrefix(hostAddr + "/24")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := sw.AddPort(nicshadow.PortConfig{Name: "uplink", MAC: macOf(254), Device: u, Trusted: true}); err != nil {
		t.Fatal(err)
	}
	return host
}

// TestUplink: the host and the containers reach each other, as the policy
// allows, and the host cannot pass for a container.
func TestUplink(t *testing.T) {
	tools(t, "ping", "ip")
	table, sw, c := cards(t, nicshadow.Config{}, 2)
	host := newUplink(t, sw, false)
	if !c[1].ping(t, hostAddr, 2) || !host.ping(t, "10.0.0.2", 2) {
		t.Error("ping between host and containers: lost")
	}
	put(t, table, 1, program(t, rule.Drop, 1))
	if c[1].ping(t, hostAddr, 1) || host.ping(t, "10.0.0.1", 1) {
		t.Error("ping of a container whose policy drops: answered")
	}
	m2 := macOf(2)
	if out, err := host.run("ip", "link", "set", "seki0", "address", m2.String()); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if host.ping(t, "10.0.0.2", 1) {
		t.Error("ping by the host as container 2: answered")
	}
	if st, err := sw.TrustedStats("uplink"); err != nil || reason(st, "identity mismatch") == 0 {
		t.Errorf("TrustedStats = %+v, %v; want identity mismatches", st, err)
	}
}

// TestMasquerade: a container reaches a third host behind the host, which sees
// the host's address.
func TestMasquerade(t *testing.T) {
	tools(t, "ping", "ip", "tcpdump", "nft")
	table := nicshadow.NewTable()
	sw := nicshadow.NewSwitch(nicshadow.Config{Table: table})
	defer sw.Close()
	host := newUplink(t, sw, true)
	outside := &card{ns: taptest.NetNS(t)}
	wire(t, host.ns, outside.ns)
	taptest.TUN(t)
	c := &card{ns: taptest.NetNS(t)}
	dev, err := tap.Open(c.ns, tap.Config{
		Name: "eth0", MAC: macOf(1), EndsWithNetNS: true, Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")},
		Gateways: []netip.Addr{netip.MustParseAddr(hostAddr)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := sw.AddPort(nicshadow.PortConfig{Name: "c1", Sender: 1, MAC: macOf(1), Device: dev}); err != nil {
		t.Fatal(err)
	}
	put(t, table, 1, program(t, rule.Forward, 1))
	dump := exec.Command("tcpdump", "-n", "-l", "-c", "1", "-i", "eth0", "icmp")
	var out strings.Builder
	dump.Stdout = &out
	stderr, err := dump.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := tap.In(outside.ns, dump.Start); err != nil {
		t.Fatal(err)
	}
	stderr.Read(make([]byte, 1)) // it says when it listens
	time.Sleep(50 * time.Millisecond)
	if !c.ping(t, "192.0.2.2", 2) {
		t.Error("ping of a host behind the host: lost")
	}
	timer := time.AfterFunc(5*time.Second, func() { dump.Process.Kill() })
	defer timer.Stop()
	dump.Wait()
	if !strings.Contains(out.String(), "IP 192.0.2.1 > 192.0.2.2: ICMP echo request") {
		t.Errorf("outside saw %q; want the host's address", out.String())
	}
	if err := sw.RemovePort("uplink"); err != nil { // closes the uplink
		t.Error(err)
	}
	if got, err := host.run("sh", "-c", "nft list ruleset; ip -o link show seki0 2>/dev/null"); got != "" {
		t.Errorf("left behind on the host: %s, %v", got, err)
	}
}

// wire joins two namespaces by a pair of virtual cards.
func wire(t testing.TB, a, b *os.File) {
	t.Helper()
	in := func(ns *os.File, cmd string) {
		t.Helper()
		var out []byte
		if err := tap.In(ns, func() (err error) {
			out, err = exec.Command("sh", "-ec", cmd).CombinedOutput()
			return err
		}); err != nil {
			t.Fatalf("%s: %v: %s", cmd, err, out)
		}
	}
	hold := exec.Command("sleep", "60") // so that ip can name the namespace
	if err := tap.In(b, hold.Start); err != nil {
		t.Fatal(err)
	}
	defer func() { hold.Process.Kill(); hold.Wait() }()
	in(a, "ip link add wan type veth peer name eth0 netns "+strconv.Itoa(hold.Process.Pid))
	in(a, "ip addr add 192.0.2.1/24 dev wan; ip link set wan up")
	in(b, "ip addr add 192.0.2.2/24 dev eth0; ip link set eth0 up; ip link set lo up")
}
