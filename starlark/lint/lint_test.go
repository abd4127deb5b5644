package lint_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sekimori/starlark"
	"sekimori/starlark/lint"
)

func findings(t *testing.T, src string) []lint.Finding {
	t.Helper()
	path := filepath.Join(t.TempDir(), "p.star")
	if err := os.WriteFile(path, []byte(src), 0o644); err != nil {
		t.Fatal(err)
	}
	pod, err := starlark.Load(t.Context(), path, starlark.Options{})
	if err != nil {
		t.Fatal(err)
	}
	fs, err := lint.Pod(t.Context(), pod)
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// card is a container with the policy P and addresses of both IP versions.
const card = `
container(name = "c", nic = nic(ip = ["10.0.0.2/24", "fd00::2/64"], gateway = "10.0.0.1", policy = P))
`

func TestPod(t *testing.T) {
	for _, c := range []struct{ name, src, want string }{
		{"nothing", "P = policy(allow_arp = True, allow_ipv4 = True, allow_ipv6 = True)" + card, ""},

		{"dead branch", `
def allow_tcp(dst_port):
    if dst_port in (80, 443):
        return True
    if dst_port == 443:
        return False
    return dst_port == 22
P = policy(allow_tcp)
`, "6 dead-branch"},
		{"after an else", `
def allow_tcp(dst_port):
    if dst_port < 1024:
        return dst_port == 80
    elif dst_port >= 1024:
        return True
    return False
P = policy(allow_tcp)
`, "7 dead-branch"},
		{"alive for another card", `
def p(port):
    def allow_tcp(dst_port):
        if dst_port == port:
            return True
        if dst_port == 80:
            return False
        return dst_port == 1
    return policy(allow_tcp, allow_ipv4 = True, allow_arp = True)
container(name = "a", nic = nic(ip = "10.0.0.2/24", policy = p(80)))
container(name = "b", nic = nic(ip = "10.0.0.3/24", policy = p(443)))
`, ""},
		{"configured away", `
STRICT = False
def allow_tcp(dst_port):
    if STRICT:
        return False
    return dst_port == 80
P = policy(allow_tcp)
`, ""},
		{"alive in one IP version", `
def allow_icmp(type, ttl):
    if type == 128 and ttl == 255:
        return False
    return type != 8
P = policy(allow_icmp)
`, ""},
		{"always true", `
def allow_tcp(dst_port):
    return dst_port >= 0
P = policy(allow_tcp)
`, "2 constant-predicate"},
		{"always false", `
def allow_tcp(dst_port):
    return dst_port > 80 and dst_port < 22
P = policy(allow_tcp)
`, "2 constant-predicate"},
		{"forgotten return", `
def allow_tcp(dst_port):
    if dst_port == 80:
        pass
P = policy(allow_tcp)
`, "2 constant-predicate"},

		{"names", `
load("@seki//policy.star", "arp_pin", pin = "no_network")
def allow_tcp(dst_port, src_port):
    return dst_port == 80
def helper(x, _y, *rest, z = 1, **more):
    return [v for v in x]
def callback_of_nothing(ctx):
    pass
SORTED = sorted([1], key = lambda x: 1)
P = policy(allow_tcp)
`, "2 unused-load, 2 unused-load, 3 unused-parameter, 5 unused-parameter, 5 unused-parameter, 5 unused-parameter, 9 unused-parameter"},
		{"names that are used", `
load("@seki//policy.star", "arp_pin")
def make(port, extra = arp_pin("10.0.0.1")):
    def allow_tcp(dst_port):
        return dst_port == port
    return policy(allow_tcp, allow_arp = extra, allow_ipv4 = True)
P = make(port = 80)
`, ""},

		{"no ARP", "P = policy(allow_ipv4 = True)" + card, "1 unresolvable"},
		{"no NDP", "P = policy(allow_ipv6 = True, allow_tcp = True)" + card, "1 unresolvable"},
		{"narrower", `
def allow_ipv4(dst_ip):
    return dst_ip in (ip("10.0.0.3"), ip("10.0.0.4"))
P = policy(allow_ipv4, allow_arp = lambda dst_ip: dst_ip == ip("10.0.0.3"))` + card, "4 narrow-resolution"},
		{"pinned on purpose", `P = policy(allow_ipv4 = True, allow_arp = lambda dst_ip: dst_ip == ip("10.0.0.1"))` + card, ""},
		{"wider", `
def allow_ipv4(dst_ip):
    return dst_ip == ip("10.0.0.3")
P = policy(allow_ipv4, allow_arp = True)` + card, "4 wide-resolution"},
		{"a gateway is not too wide", `
def allow_ipv4(dst_ip):
    return dst_ip not in net("10.0.0.0/24")
P = policy(allow_ipv4, allow_arp = lambda dst_ip: dst_ip == ip("10.0.0.1"))` + card, ""},
		{"the gateway forgotten", `
def allow_ipv4(dst_ip):
    return dst_ip not in net("10.0.0.0/24") or dst_ip == ip("10.0.0.3")
P = policy(allow_ipv4, allow_arp = lambda dst_ip: dst_ip == ip("10.0.0.3"))` + card, "4 unresolvable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := findings(t, c.src)
			var got []string
			for _, f := range fs {
				got = append(got, fmt.Sprint(f.Line, " ", f.Rule))
				if f.Col == 0 || f.Message == "" || f.Hint == "" || !strings.Contains(f.String(), "p.star:"+fmt.Sprint(f.Line)) {
					t.Errorf("finding %+v", f)
				}
			}
			if strings.Join(got, ", ") != c.want {
				t.Errorf("got  %s\nwant %s\n%v", strings.Join(got, ", "), c.want, fs)
			}
		})
	}
}

// What this repository shows is clean.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../examples/*.star")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.star") {
			src, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if fs, err := lint.Source(name, src); err != nil || len(fs) > 0 {
				t.Errorf("%s: %v, %v", name, fs, err)
			}
			continue
		}
		pod, err := starlark.Load(t.Context(), name, starlark.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if fs, err := lint.Pod(t.Context(), pod); err != nil || len(fs) > 0 {
			t.Errorf("%s: %v, %v", name, fs, err)
		}
	}
}
