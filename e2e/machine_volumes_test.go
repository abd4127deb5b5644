package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// nobodyPrefix runs seki as an ordinary user.
var nobodyPrefix = []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"}

// ownerOf is who a file belongs to, and its mode.
func ownerOf(t *testing.T, path string) string {
	t.Helper()
	st, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	s := st.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d:%d %o", s.Uid, s.Gid, st.Mode().Perm())
}

// TestMachineVolumes: what a container writes to a volume is on the host when
// the pod has ended, and whose it is there; a volume that is read-only stays as
// it is.
func TestMachineVolumes(t *testing.T) {
	require(t, "root", "uml", "setpriv")
	for _, c := range []struct {
		name       string
		prefix     []string
		new, owned string // owner and mode of what is written, and of what is given away
	}{
		{"root", nil, "0:0 640", "1000:1001 600"},
		// An ordinary user owns all that his pods write; inside, it is root's.
		{"nobody", nobodyPrefix, "65534:65534 640", "65534:65534 600"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.prefix...)
			for _, dir := range []string{"rw", "ro"} {
				r.write(dir+"/old", "before\n")
				if len(c.prefix) > 0 {
					for _, p := range []string{dir, dir + "/old"} {
						if err := os.Chown(filepath.Join(r.dir, p), 65534, 65534); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			out := r.must("run", "-q", "--machine", "uml", r.write("v.star", `
container(
    name = "v", rootfs = host_root(), args = ["/t/inside", "write", "/rw", "/ro"],
    mounts = [bind("tools", "/t"), bind("rw", "/rw", readonly = False), bind("ro", "/ro")],
)
`))
			for _, name := range []string{"/ro/new", "/ro/owned", "/ro/old", "/ro/setuid", "/ro/device", "/ro/link"} {
				if !strings.Contains(out, name+": ") || strings.Contains(out, name+": done") || !strings.Contains(out, "read-only file system") {
					t.Errorf("writing %s: %s", name, out)
				}
			}
			if !strings.Contains(out, "/rw/new: done\n") || !strings.Contains(out, "/rw/old: done\n") {
				t.Errorf("writing to /rw: %s", out)
			}
			t.Logf("inside:\n%s", out)
			for name, want := range map[string]string{"rw/new": "written inside\n", "rw/old": "before\nappended inside\n", "ro/old": "before\n"} {
				if b, err := os.ReadFile(filepath.Join(r.dir, name)); err != nil || string(b) != want {
					t.Errorf("%s on the host: %q, %v; want %q", name, b, err, want)
				}
			}
			if got := ownerOf(t, filepath.Join(r.dir, "rw/new")); got != c.new {
				t.Errorf("rw/new belongs to %s; want %s", got, c.new)
			}
			if got := ownerOf(t, filepath.Join(r.dir, "rw/owned")); got != c.owned {
				t.Errorf("rw/owned, given away inside, belongs to %s; want %s", got, c.owned)
			}
			// What would be dangerous on the host is not made there.
			if st, err := os.Stat(filepath.Join(r.dir, "rw/setuid")); err == nil && st.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 {
				t.Errorf("rw/setuid is %v on the host", st.Mode())
			}
			if st, err := os.Lstat(filepath.Join(r.dir, "rw/device")); err == nil && st.Mode()&os.ModeDevice != 0 {
				t.Errorf("rw/device is %v on the host", st.Mode())
			}
			if to, err := os.Readlink(filepath.Join(r.dir, "rw/link")); err != nil || to != "/etc/passwd" {
				t.Errorf("rw/link leads to %q, %v", to, err)
			}
			if left, err := os.ReadDir(filepath.Join(r.dir, "ro")); err != nil || len(left) != 1 {
				t.Errorf("the read-only volume has %v, %v", left, err)
			}
		})
	}
}

// TestMachineVolumeLinks swaps a directory of a volume for a link out of it, on
// the host, as fast as it can, while the container writes through that name:
// nothing of the outside is read or written.
func TestMachineVolumeLinks(t *testing.T) {
	require(t, "root", "uml")
	r := newRig(t)
	secret := r.write("outside/file", "of the host\n")
	r.write("rw/dir/file", "of the volume\n")
	link := filepath.Join(r.dir, "rw/link")
	if err := os.Symlink("../outside", link); err != nil {
		t.Fatal(err)
	}
	r.start("links", `
machine("uml")
container(
    name = "v", rootfs = host_root(), args = ["/t/inside", "idle"], stop_timeout = "1s",
    mounts = [bind("tools", "/t"), bind("rw", "/rw", readonly = False)],
)
`)
	stop, stopped := make(chan struct{}), make(chan int)
	go func() { // ends when stop is closed
		swaps := 0
		defer func() { stopped <- swaps }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			if unix.Renameat2(unix.AT_FDCWD, filepath.Join(r.dir, "rw/dir"), unix.AT_FDCWD, link, unix.RENAME_EXCHANGE) == nil {
				swaps++
				time.Sleep(20 * time.Microsecond) // the machine is not ours alone
			}
		}
	}()
	out, errs, _ := r.seki("exec", "links/v", "--", "/t/inside", "race", "/rw/dir", "300")
	close(stop)
	swaps := <-stopped
	t.Logf("%d swaps; inside: %s%s", swaps, out, errs)
	if !strings.Contains(out, "of the volume") || swaps < 100 {
		t.Errorf("the race was none: %d swaps; inside: %s%s", swaps, out, errs)
	}
	if strings.Contains(out, "of the host") {
		t.Errorf("the container read a file of the host: %s", out)
	}
	if b, err := os.ReadFile(secret); err != nil || string(b) != "of the host\n" {
		t.Errorf("the host's file is now %q, %v", b, err)
	}
	if names, err := os.ReadDir(filepath.Dir(secret)); err != nil || len(names) != 1 {
		t.Errorf("outside the volume there are now %v, %v", names, err)
	}
}
