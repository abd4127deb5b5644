package policy_test

import (
	"net/netip"
	"testing"

	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/rule"
	"sekimori/starlark/policy"
	"sekimori/starlark/value"

	"go.starlark.net/starlark"
)

var identity = policy.Identity{
	MAC:   frame.MAC{2, 0, 10, 0, 0, 5},
	Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.5")},
}

// load runs a file and returns its global P.
func load(t testing.TB, src string) *policy.Policy {
	t.Helper()
	s := policy.NewSources(value.Builtins())
	g, err := s.Exec(new(starlark.Thread), "p.star", src)
	if err != nil {
		t.Fatal(err)
	}
	return g["P"].(*policy.Policy)
}

const performance = `
NET = net("10.0.0.0/24")
def allow_arp(src_ip, dst_ip):
    return src_ip == ip("10.0.0.5") and dst_ip in NET and dst_ip != ip("10.0.0.1")
def allow_ipv4(src_ip, dst_ip, protocol):
    return src_ip == ip("10.0.0.5")
def allow_tcp(dst_ip, dst_port):
    return dst_ip in net("10.0.0.0/8") or dst_port in (80, 443)
def allow_udp(dst_ip, dst_port):
    return dst_ip in net("10.0.0.0/8") or dst_port == 53
P = policy(allow_arp, allow_ipv4, allow_tcp, allow_udp)
`

func TestSmoke(t *testing.T) {
	p := load(t, performance)
	prog, err := p.Compile(identity)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(rule.Disassemble(prog))
}
