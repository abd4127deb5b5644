package nested_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sekimori/e2e/nested"
)

// seki runs its containers in Debian's kernel, under its own virtual machine
// monitor. The file is the same for each kind of card: mallory says in ARP that
// bob's address is hers, and pings bob besides.
const podStar = `
machine("kvm", memory = "224MiB", nic = "%s", cpu = 1)

def only(own):
    def allow_arp(src_ip):
        return src_ip == own
    return policy(allow_arp, allow_ipv4 = lambda src_ip: src_ip == own, allow_icmp = True, guard = [])

def ready(ctx):
    ctx.log("a callback ran in the guest")

def member(name, addr, args):
    container(
        name = name, rootfs = dir("/root1"), args = ["sh", "-c", args], capabilities = ["NET_RAW"],
        nic = nic(ip = addr + "/24", policy = only(ip(addr))), on = {"ready": ready},
    )

member("bob", "10.77.0.3", "sleep 1000")
member("alice", "10.77.0.2", "ping -c 5 -i 0.2 10.77.0.3 && echo alice reached bob; sleep 1000")
member("mallory", "10.77.0.4", "%s ping -c 3 -i 0.2 10.77.0.3 && echo mallory reached bob; sleep 1000")
`

// watch waits until both have pinged, and then says what became of the pod.
const watch = `
set -e
trap 'seki stop p' EXIT
mkdir -p /root1/bin /root1/proc /root1/sys /root1/dev /root1/tmp /root1/etc
cp /bin/busybox /root1/bin/; for a in sh ping sleep echo arping; do ln -s busybox /root1/bin/$a; done
cd /
seki run -d --name p --kernel /guests/full/vmlinuz pod.star
for i in $(seq 120); do
	if [ "$(for c in alice mallory; do seki logs p/$c; done | grep -c 'reached bob')" = 2 ]; then break; fi
	sleep 1
done
for c in alice mallory; do seki logs p/$c; done
seki ps
seki stats p
seki exec p/bob sh -c 'read v < /proc/version; echo "exec: $v"'
seki events p > /tmp/events
echo callbacks: $(grep -c 'a callback ran in the guest' /tmp/events)
grep dropped /tmp/events || true
`

// TestSeki is the road of the README: seki run --machine kvm.
func TestSeki(t *testing.T) {
	l1 := nested.Require(t, "6.1")
	image, err := filepath.Glob(filepath.Join(nested.Dir(), "full", "6.12.*", "vmlinuz"))
	if err != nil || len(image) == 0 {
		t.Fatalf("no kernel for every machine (scripts/guest-kernels): %v", err)
	}
	files := []nested.File{
		{Name: "bin/seki", From: nested.Build(t, "sekimori/cmd/seki"), Mode: 0o755},
		{Name: "watch", Data: []byte(watch), Mode: 0o644},
		{Name: "guests/full/vmlinuz", From: image[0], Mode: 0o644},
	}
	modules := filepath.Join(filepath.Dir(image[0]), "modules")
	err = filepath.WalkDir(modules, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, nested.File{Name: "guests/full/modules" + strings.TrimPrefix(path, modules), From: path, Mode: 0o644})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	// On a card of her own mallory may send what she likes; of a shared one the
	// kernel of the guest makes her frames.
	own := fmt.Sprintf(podStar, "own", "arping -c 2 -U -I eth0 -s 10.77.0.3 10.77.0.3;")
	files = append(files, nested.File{Name: "own.star", Data: []byte(own), Mode: 0o644},
		nested.File{Name: "shared.star", Data: []byte(fmt.Sprintf(podStar, "shared", "")), Mode: 0o644})
	ctx, m := boot(t, nested.Config{Kernel: l1, Modules: []string{"kvm-amd", "tun"}, Files: files, Memory: 2048})
	for _, nic := range []string{"own", "shared"} {
		t.Run(nic, func(t *testing.T) {
			out := sh(ctx, t, m, "cp /"+nic+".star /pod.star; rm -rf /root1; sh -e /watch")
			for _, want := range []string{
				`alice reached bob`, `mallory reached bob`,
				`p +alice +running +kvm`, `exec: Linux version 6\.12\.`, `callbacks: 3`,
				`(?m)^bob +enforce +[1-9]`, `(?m)^alice +enforce +[1-9]`, `(?m)^mallory +enforce +[1-9]`,
			} {
				if !regexp.MustCompile(want).MatchString(out) {
					t.Errorf("no %q in what came of it", want)
				}
			}
		})
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

// sh runs a script in L1.
func sh(ctx context.Context, t *testing.T, m *nested.Machine, script string) string {
	t.Helper()
	var out bytes.Buffer
	status, err := m.Run(ctx, &out, "sh", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	if t.Logf("%s", out.String()); status != 0 {
		t.Errorf("exit status %d", status)
	}
	return out.String()
}
