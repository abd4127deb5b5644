package nested_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sekimori/e2e/nested"
	"sekimori/vmm/bzimage"
)

// seki runs its containers in Debian's kernel, under its own virtual machine
// monitor. The file is the same for each kind of card, but for what mallory does
// before she pings bob, and whether she may.
const podStar = `
machine("kvm", memory = "224MiB", kernel_args = ["printk.time=0"], nic = "%s", cpu = 1)

def only(own, ping = True):
    def allow_arp(src_ip):
        return src_ip == own
    return policy(allow_arp, allow_ipv4 = lambda src_ip: src_ip == own, allow_icmp = ping, guard = ["arp"])

def ready(ctx):
    ctx.log("a callback ran in the guest")

def member(name, addr, args, more = [], ping = True):
    container(
        name = name, rootfs = dir("/root1"), args = ["sh", "-c", args], capabilities = ["NET_RAW"] + more,
        nic = nic(ip = addr + "/24", policy = only(ip(addr), ping)), on = {"ready": ready},
    )

member("bob", "10.77.0.3", "sleep 1000")
member("alice", "10.77.0.2", "ping -c 40 -i 0.05 10.77.0.3; echo alice is done; sleep 1000")
member("mallory", "10.77.0.4", "%s ping -c 40 -i 0.05 10.77.0.3; echo mallory is done; sleep 1000", %s)
`

// lie has mallory say that bob's address is hers, on a card of her own that she may
// administer.
const lie = "ip addr add 10.77.0.3/32 dev eth0; arping -c 2 -U -I eth0 10.77.0.3; ip addr del 10.77.0.3/32 dev eth0;"

// root1 is the containers' root file system.
const root1 = `
mkdir -p /root1/bin /root1/proc /root1/sys /root1/dev /root1/tmp /root1/etc
cp /bin/busybox /root1/bin/; for a in sh ip ping sleep echo arping; do ln -s busybox /root1/bin/$a; done
`

// watch waits until both have pinged, and then says what became of the pod.
const watch = `
set -e
trap 'seki stop p' EXIT
cd /tmp
seki run -d --name p --kernel /guests/full/$KERNEL --kernel-arg $SEKI_TEST_KERNEL_ARG /$FILE
echo "it runs"
for i in $(seq 120); do
	if [ "$(for c in alice mallory; do seki logs p/$c; done | grep -c 'is done')" = 2 ]; then break; fi
	sleep 1
done
for c in alice mallory; do seki logs p/$c | sed "s/^/$c | /"; done
seki ps
seki stats p
seki exec p/bob sh -c 'read v < /proc/version; echo "exec: $v"; read v < /proc/cmdline; echo "booted: $v"'
seki events p > /tmp/events
echo callbacks: $(grep -c 'a callback ran in the guest' /tmp/events)
grep drop /tmp/events | head -3
`

// TestSeki is the road of the README, on each of Debian's kernels: seki run --machine
// kvm, as root and as somebody, of the kernel as it is installed and unpacked; and
// the demo.
func TestSeki(t *testing.T) {
	t.Parallel()
	for _, series := range []string{"6.1", "6.12"} {
		t.Run(series, func(t *testing.T) {
			t.Parallel()
			m, ctx := bootSeki(t, series, demoFiles(t)...)
			pings(ctx, t, m, series)
			t.Run("demo", func(t *testing.T) { sh(ctx, t, m, demo) })
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// pings runs the pod on either kind of card.
func pings(ctx context.Context, t *testing.T, m *nested.Machine, series string) {
	for _, tt := range []struct {
		nic  string
		how  string
		want []string
	}{
		{"own", "KERNEL=vmlinuz FILE=own.star sh /watch", []string{
			`drop.*arp.*10\.77\.0\.3.*own\.star:6`, `mallory +\| 40 packets transmitted, 40 packets received`,
		}},
		{"shared", "chmod 666 /dev/kvm; rm /tmp/events; su -s /bin/sh nobody -c 'HOME=/tmp SEKI_ROOT=/tmp/seki KERNEL=vmlinux FILE=shared.star sh /watch'", []string{
			`mallory +\| 40 packets transmitted, 0 packets received`, `(?m)^mallory +enforce +\d+ +\S+ \S+ +\d+ +40 +0 `,
		}},
	} {
		t.Run(tt.nic, func(t *testing.T) {
			out := sh(ctx, t, m, tt.how)
			for _, want := range append(tt.want,
				`alice +\| 40 packets transmitted, 40 packets received`, `p +alice +running +kvm`, `exec: Linux version `+regexp.QuoteMeta(series)+`\.`, `booted: .* printk\.time=0 nohz=off rdinit=`, `callbacks: 3`,
				`(?m)^bob +enforce +[1-9]`, `(?m)^alice +enforce +[1-9]`, `(?m)^mallory +enforce +[1-9]`,
			) {
				if !regexp.MustCompile(want).MatchString(out) {
					t.Errorf("no %q in what came of it", want)
				}
			}
		})
	}
}

// bootSeki boots an L1 that has seki, a kernel of that series for its machines, and
// more.
func bootSeki(t *testing.T, series string, more ...nested.File) (*nested.Machine, context.Context) {
	t.Helper()
	l1 := nested.Require(t, "6.1")
	image := nested.RequireFull(t, series)
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	vmlinux, err := bzimage.Unpack(f)
	if err != nil {
		t.Fatal(err)
	}
	files := append(more, []nested.File{
		{Name: "bin/seki", From: nested.Build(t, "sekimori/cmd/seki"), Mode: 0o755},
		{Name: "watch", Data: []byte(watch), Mode: 0o644},
		{Name: "etc/passwd", Data: []byte("root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"), Mode: 0o644},
		{Name: "own.star", Data: fmt.Appendf(nil, podStar, "own", lie, `["NET_ADMIN"]`), Mode: 0o644},
		// What may be administered is no shared card. There mallory pings while alice
		// does, may not, and every single frame is hers or alice's.
		{Name: "shared.star", Data: fmt.Appendf(nil, podStar, "shared", "", "ping = False"), Mode: 0o644},
		{Name: "guests/full/vmlinuz", From: image, Mode: 0o644},
		{Name: "guests/full/vmlinux", Data: vmlinux, Mode: 0o644},
	}...)
	modules := filepath.Join(filepath.Dir(image), "modules")
	err = filepath.WalkDir(modules, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, nested.File{Name: "guests/full/modules" + strings.TrimPrefix(path, modules), From: path, Mode: 0o644})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, m := boot(t, nested.Config{Kernel: l1, Modules: []string{"kvm-amd", "tun"}, Files: files, Memory: 2048})
	sh(ctx, t, m, root1)
	return m, ctx
}

// sh runs a script in L1.
func sh(ctx context.Context, t *testing.T, m *nested.Machine, script string) string {
	t.Helper()
	var out bytes.Buffer
	status, err := m.Run(ctx, &out, "sh", "-c", script)
	t.Logf("%s", out.String())
	if err != nil {
		t.Fatal(err)
	}
	if status != 0 {
		t.Errorf("exit status %d", status)
	}
	return out.String()
}
