package linux_test

import (
	"testing"

	"sekimori/lifecycle/linux"
)

func TestSupported(t *testing.T) {
	requireRoot(t)
	for _, f := range linux.Supported() {
		if f.Detail == "" {
			t.Errorf("%s: no detail", f.Name)
		}
		if f.Required && !f.OK {
			t.Errorf("%s: %s", f.Name, f.Detail)
		}
		t.Logf("%v %s: %s", f.OK, f.Name, f.Detail)
	}
}

// The filter at work: calls that are refused, and one that must not be.
func TestFilterInForce(t *testing.T) {
	s := sh(t, `python3 - <<'E'
import ctypes, errno, socket
libc = ctypes.CDLL(None, use_errno=True)
for name, nr, args in (("io_uring_setup", 425, (1, 0)), ("keyctl", 250, (0, -3, 0)), ("bpf", 321, (0, 0, 0)), ("userfaultfd", 323, (0,)),
        ("unshare", 272, (0x10000000,)), ("clone3", 435, (0, 0)), ("mount", 165, (0, 0, 0, 0, 0)), ("getpid", 39, ())):
    r = libc.syscall(nr, *args)
    print(name, errno.errorcode[ctypes.get_errno()] if r < 0 else "ok")
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
try:
    s.setsockopt(263, 5, b"\0" * 16)
except OSError as e:
    print("ring", errno.errorcode[e.errno])
try:
    socket.socket(socket.AF_VSOCK)
except OSError as e:
    print("vsock", errno.errorcode[e.errno])
E`)
	require(t, "python3", exists("/usr/bin/python3"))
	s.Root = hostRoot
	s.OCI.Process.Capabilities = withRaw()
	want(t, s, "io_uring_setup EPERM\nkeyctl EPERM\nbpf EPERM\nuserfaultfd EPERM\nunshare EPERM\nclone3 ENOSYS\nmount EPERM\ngetpid ok\nring EPERM\nvsock EAFNOSUPPORT\n")
}
