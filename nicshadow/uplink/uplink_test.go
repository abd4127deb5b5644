package uplink_test

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/tap"
	"sekimori/nicshadow/tap/taptest"
	"sekimori/nicshadow/uplink"
)

func run(t testing.TB, ns *os.File, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(args[0]); err != nil {
		taptest.Missing(t, args[0], err)
	}
	var out []byte
	if err := tap.In(ns, func() (err error) {
		out, err = exec.Command(args[0], args[1:]...).CombinedOutput()
		return err
	}); err != nil {
		t.Fatalf("%q: %v: %s", args, err, out)
	}
	return string(out)
}

func config(ns *os.File) uplink.Config {
	return uplink.Config{
		Table: "seki-web", Name: "seki0", MAC: frame.MAC{2, 0, 0, 0, 0, 0xfe}, NetNS: ns,
		Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.254/24")}, Masquerade: true,
	}
}

// TestOpenClose looks at the host's namespace before, during and after.
func TestOpenClose(t *testing.T) {
	taptest.TUN(t)
	ns := taptest.NetNS(t)
	run(t, ns, "ip", "link", "set", "lo", "up")
	state := func() string {
		return run(t, ns, "ip", "-o", "addr") + run(t, ns, "ip", "-o", "link") + run(t, ns, "nft", "list", "ruleset")
	}
	before := state()
	u, err := uplink.Open(config(ns))
	if err != nil {
		t.Fatal(err)
	}
	want := `table inet seki-web {
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 10.0.0.0/24 oifname != "seki0" masquerade
	}
}
`
	if got := run(t, ns, "nft", "list", "ruleset"); got != want {
		t.Errorf("ruleset:\n%s; want\n%s", got, want)
	}
	if got := run(t, ns, "ip", "-o", "addr", "show", "seki0"); !strings.Contains(got, "inet 10.0.0.254/24") {
		t.Errorf("addresses: %s", got)
	}
	if got := run(t, ns, "cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/lo/disable_ipv6"); got != "1\n0\n" {
		t.Errorf("ip_forward, IPv6 of lo off = %q; want 1 and 0", got)
	}
	if err := u.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	if err := u.Close(); err != nil {
		t.Errorf("Close again = %v", err)
	}
	if after := state(); after != before {
		t.Errorf("left behind:\n%s; before:\n%s", after, before)
	}
}

// TestNewTable: two pods of one name, from two state directories, have two
// tables.
func TestNewTable(t *testing.T) {
	if a, b := uplink.NewTable("web"), uplink.NewTable("web"); a == b || !strings.HasPrefix(a, "seki-web-") {
		t.Errorf("NewTable(web) = %q, then %q", a, b)
	}
}

// TestRemoveTable removes one pod's table and no other.
func TestRemoveTable(t *testing.T) {
	ns := taptest.NetNS(t)
	run(t, ns, "nft", "add", "table", "inet", "seki-web")
	run(t, ns, "nft", "add", "table", "inet", "seki-web2")
	run(t, ns, "nft", "add", "table", "ip", "seki-web")
	for range 2 { // the second time there is nothing to remove
		if err := uplink.RemoveTable(ns, "seki-web"); err != nil {
			t.Errorf("RemoveTable = %v", err)
		}
	}
	if got, want := run(t, ns, "nft", "list", "tables"), "table inet seki-web2\ntable ip seki-web\n"; got != want {
		t.Errorf("tables: %q; want %q", got, want)
	}
}

func TestOpenErrors(t *testing.T) {
	taptest.TUN(t)
	table := func(c *uplink.Config) { c.Table = "a b" }
	name := func(c *uplink.Config) { c.Name = "sixteen-bytes-xx" }
	six := func(c *uplink.Config) { c.Addrs = append(c.Addrs, netip.MustParsePrefix("fd00::fe/64")) }
	for what, tt := range map[string]struct {
		edit func(*uplink.Config)
		want string
	}{
		"table name":              {table, `uplink: table name "a b"`},
		"interface name":          {name, `uplink: tap: interface name "sixteen-bytes-xx"`},
		"IPv6 without forwarding": {six, "set net.ipv6.conf.all.forwarding to 1"},
	} {
		ns := taptest.NetNS(t)
		cfg := config(ns)
		tt.edit(&cfg)
		u, err := uplink.Open(cfg)
		if err == nil {
			u.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Open = %v; want %q", what, err, tt.want)
		}
		if got := run(t, ns, "ip", "-o", "link") + run(t, ns, "nft", "list", "ruleset"); strings.Contains(got, "seki") {
			t.Errorf("%s: left behind: %s", what, got)
		}
	}
}
