package tap

// White box: a host without /dev/net/tun cannot be made here without taking it
// from everybody else.

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExplain(t *testing.T) {
	for _, tt := range []struct {
		err  error
		is   error
		want string
	}{
		{unix.ENOENT, ErrNoTUN, "no TUN device (no such file or directory): load the kernel module tun"},
		{unix.ENODEV, ErrNoTUN, "no TUN device (no such device)"},
		{unix.ENXIO, ErrNoTUN, "no TUN device"},
		{unix.EPERM, ErrPermission, "CAP_NET_ADMIN is missing (operation not permitted): run as root"},
		{unix.EACCES, ErrPermission, "CAP_NET_ADMIN is missing (permission denied)"},
		{unix.EBUSY, unix.EBUSY, "device or resource busy"},
	} {
		if got := explain(tt.err); !errors.Is(got, tt.is) || !strings.Contains(got.Error(), tt.want) {
			t.Errorf("explain(%v) = %v; want %q", tt.err, got, tt.want)
		}
	}
}
