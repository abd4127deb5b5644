package value_test

import (
	"strings"
	"testing"
	"time"

	"sekimori/starlark/value"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// eval evaluates one expression with the builtins.
func eval(t *testing.T, expr string) (starlark.Value, error) {
	t.Helper()
	return starlark.EvalOptions(&syntax.FileOptions{Set: true}, new(starlark.Thread), "test.star", expr, value.Builtins())
}

func TestExpressions(t *testing.T) {
	for _, tt := range []struct{ expr, want string }{
		{`ip("10.0.0.1") == ip("10.0.0.1")`, "True"},
		{`ip("10.0.0.1") != ip("10.0.0.2")`, "True"},
		{`ip("10.0.0.9") < ip("10.0.0.10")`, "True"},
		{`ip("10.0.0.1") == ip("::ffff:10.0.0.1")`, "False"},
		{`ip("10.0.0.1") < ip("fd00::1")`, "False"},
		{`ip("10.0.0.1") > ip("fd00::1")`, "False"},
		{`ip("10.0.0.255") + 1`, "10.0.1.0"},
		{`ip("fd00::1") - 1`, "fd00::"},
		{`ip("10.0.0.1") in net("10.0.0.0/24")`, "True"},
		{`ip("fd00::1") in net("10.0.0.0/24")`, "False"},
		{`net("10.0.1.0/24") in net("10.0.0.0/16")`, "True"},
		{`net("10.0.0.0/8") in net("10.0.0.0/16")`, "False"},
		{`net(ip("10.0.0.77"), 24)`, "10.0.0.0/24"},
		{`net("10.0.0.0/23").last`, "10.0.1.255"},
		{`net("fd00::/64").last`, "fd00::ffff:ffff:ffff:ffff"},
		{`net("10.0.0.0/24").host(7)`, "10.0.0.7"},
		{`net("10.0.0.0/24").host(-2)`, "10.0.0.254"},
		{`net("10.0.0.0/24").first`, "10.0.0.0"},
		{`net("10.0.0.0/24").version`, "4"},
		{`net("10.0.0.0/24").prefix_len`, "24"},
		{`ip("224.0.0.1").is_multicast`, "True"},
		{`ip("fe80::1").is_link_local`, "True"},
		{`ip("172.32.0.1").is_private`, "False"},
		{`mac("02:00:00:00:00:01") == mac("02:00:00:00:00:01")`, "True"},
		{`mac("ff:ff:ff:ff:ff:ff").is_broadcast`, "True"},
		{`mac("01:00:5e:00:00:01").is_multicast`, "True"},
		{`mac("02:00:00:00:00:01").is_local`, "True"},
		{`mac("02:00:00:00:00:01") < mac("02:00:00:00:00:02")`, "True"},
		{`443 in ports("80,443")`, "True"},
		{`8500 in ports(80, "8000-8999")`, "True"},
		{`9000 in ports("8000-8999")`, "False"},
		{`ports("80,81,82-90") | ports(91)`, "80-91"},
		{`ports("80") == ports(80)`, "True"},
		{`bool(ports())`, "False"},
		{`{ip("10.0.0.1"): 1, net("10.0.0.0/8"): 2, mac("02:00:00:00:00:01"): 3, ports(1): 4}[ip("10.0.0.1")]`, "1"},
		{`sorted([ip("10.0.0.10"), ip("10.0.0.9")])[0]`, "10.0.0.9"},
		{`TCP`, "6"},
		{`ARP.REPLY`, "2"},
		{`ETHERTYPE.IPV6`, "34525"},
		{`str(ip("10.0.0.1")) + "/32"`, `"10.0.0.1/32"`},
	} {
		got, err := eval(t, tt.expr)
		if err != nil || got.String() != tt.want {
			t.Errorf("%s = %v, %v; want %s", tt.expr, got, err, tt.want)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, tt := range []struct{ expr, want string }{
		{`ip("10.0.0.0/8")`, `write net("10.0.0.0/8")`},
		{`ip("10.0.0.256")`, "not an IPv4 or IPv6 address"},
		{`ip("fe80::1%eth0")`, "has a zone"},
		{`ip(5)`, "got int"},
		{`net("10.0.0.1")`, `write net("10.0.0.1/32")`},
		{`net("10.0.0.5/8")`, `write net("10.0.0.0/8")`},
		{`net("x")`, "not a network"},
		{`net(ip("10.0.0.1"), 33)`, "prefix length 33"},
		{`net(ip("10.0.0.1"))`, "want a string"},
		{`net("10.0.0.0/30").host(4)`, "no address number 4"},
		{`mac("02:00")`, "six octets"},
		{`mac(1)`, "got int"},
		{`ports("80-70")`, "wrong way round"},
		{`ports("65536")`, "neither a port"},
		{`ports(-1)`, "not a port"},
		{`ports(1.5)`, "got float"},
		{`ports(x = 1)`, "unexpected keyword"},
		{`"80" in ports(80)`, "want an int"},
		{`ports(1) < ports(2)`, "not ordered"},
		{`"10.0.0.1" in net("10.0.0.0/8")`, `write ip("10.0.0.1")`},
		{`5 in net("10.0.0.0/8")`, "want an ip or a net"},
		{`ARP.REQEST`, "did you mean REQUEST"},
		{`ETHERTYPE.ZZZ`, "it has ARP, EAPOL"},
		{`ip("10.0.0.1").is_multicst`, "did you mean is_multicast"},
		{`ip("10.0.0.1") < "10.0.0.2"`, "not implemented"},
		{`ip("255.255.255.255") + 1`, "leaves the address space"},
		{`{ARP: 1}`, "unhashable"},
	} {
		_, err := eval(t, tt.expr)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v; want %q in it", tt.expr, err, tt.want)
		}
	}
}

// TestMixed holds the promise of the package: an address compared with a
// string is an error that says what to write.
func TestMixed(t *testing.T) {
	for _, tt := range []struct{ x, y, want string }{
		{`ip("10.0.0.1")`, `"10.0.0.1"`, `write ip("10.0.0.1")`},
		{`"10.0.0.1"`, `ip("10.0.0.1")`, `write ip("10.0.0.1")`},
		{`ip("10.0.0.1")`, `"10.0.0.0/8"`, "`in net(\"10.0.0.0/8\")`"},
		{`ip("10.0.0.1")`, `net("10.0.0.0/8")`, "write `in`"},
		{`mac("02:00:00:00:00:01")`, `"02:00:00:00:00:01"`, `write mac(`},
		{`("a", ip("10.0.0.1"))`, `("a", "10.0.0.1")`, `write ip("10.0.0.1")`},
		{`80`, `ports(80)`, "write `in`"},
		{`ip("10.0.0.1")`, `None`, ""},
		{`ip("10.0.0.1")`, `ip("10.0.0.2")`, ""},
		{`1`, `"1"`, ""},
	} {
		x, _ := eval(t, tt.x)
		y, _ := eval(t, tt.y)
		for _, op := range []syntax.Token{syntax.EQL, syntax.NEQ} {
			got, err := value.Compare(op, x, y)
			if tt.want == "" && (err != nil || got != (op == syntax.NEQ)) {
				t.Errorf("%s %s %s = %v, %v; want no error", tt.x, op, tt.y, got, err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%s %s %s: error %v; want %q in it", tt.x, op, tt.y, err, tt.want)
			}
		}
	}
}

func TestContains(t *testing.T) {
	for _, tt := range []struct{ x, y, want string }{
		{`ip("10.0.0.1")`, `[ip("10.0.0.1")]`, "true"},
		{`ip("10.0.0.1")`, `[net("10.0.0.0/8")]`, "true"},
		{`ip("10.0.0.1")`, `{net("10.0.0.0/8"): 1}`, "true"},
		{`ip("11.0.0.1")`, `set([net("10.0.0.0/8"), ip("11.0.0.2")])`, "false"},
		{`443`, `[80, ports("400-500")]`, "true"},
		{`5`, `range(10)`, "true"},
		{`ip("10.0.0.1")`, `["10.0.0.1"]`, "error"},
		{`ip("10.0.0.1")`, `{"10.0.0.1": 1}`, "error"},
		{`"10.0.0.1"`, `[ip("10.0.0.1")]`, "error"},
		{`"10.0.0.1"`, `{ip("10.0.0.1"): 1}`, "error"},
		{`"web"`, `[ip("10.0.0.1")]`, "false"},
		{`"b"`, `"abc"`, "true"},
		{`ip("10.0.0.1")`, `5`, "error"},
	} {
		x, _ := eval(t, tt.x)
		y, _ := eval(t, tt.y)
		got, err := value.Contains(x, y)
		s := map[bool]string{true: "true", false: "false"}[got]
		if err != nil {
			s = "error"
		}
		if s != tt.want {
			t.Errorf("%s in %s = %v, %v; want %s", tt.x, tt.y, got, err, tt.want)
		}
	}
}

func TestParseBytes(t *testing.T) {
	for s, want := range map[string]uint64{"64MiB": 64 << 20, "1.5GiB": 3 << 29, "0B": 0, "2kB": 2000} {
		if got, err := value.ParseBytes(s); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "64", "MiB", "-1MiB", "1e3B", "64 MiB", "64mib", "99999999TiB", "0x10B", "1.7976e308TiB", "NaNB"} {
		if got, err := value.ParseBytes(s); err == nil {
			t.Errorf("ParseBytes(%q) = %d; want an error", s, got)
		}
	}
}

func TestParseDuration(t *testing.T) {
	if got, err := value.ParseDuration("1m30s"); err != nil || got != 90*time.Second {
		t.Errorf(`ParseDuration("1m30s") = %v, %v; want 90s`, got, err)
	}
	for _, s := range []string{"", "0", "5", "-1s", "+1s", "1d"} {
		if got, err := value.ParseDuration(s); err == nil {
			t.Errorf("ParseDuration(%q) = %v; want an error", s, got)
		}
	}
}

func TestSuggest(t *testing.T) {
	known := []string{"src_ip", "dst_ip", "dst_port", "memory", "rlimits", "resources", "host_root"}
	for name, want := range map[string]string{
		"dst_pi": "dst_ip", "dstport": "dst_port", "Memory": "memory", "colour": "", "x": "", "": "",
		"limits": "resources", "rlimit": "rlimits", "image": "", "host": "host_root", "hos": "", "Host": "host_root",
	} {
		if got := value.Suggest(name, known); got != want {
			t.Errorf("Suggest(%q) = %q; want %q", name, got, want)
		}
	}
}
