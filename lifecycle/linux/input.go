package linux

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// CopyInput copies until in ends or quit is readable, and returns the last byte
// ('\n' if there was none) and whether in has ended. A read from a terminal
// cannot be called off, so it only reads what is there.
func CopyInput(to io.Writer, in, quit *os.File) (last byte, ended bool) {
	last = '\n'
	fds := []unix.PollFd{{Fd: int32(in.Fd()), Events: unix.POLLIN}, {Fd: int32(quit.Fd()), Events: unix.POLLIN}}
	buf := make([]byte, 4096)
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return last, false
		}
		if fds[1].Revents != 0 {
			return last, false
		}
		if fds[0].Revents == 0 {
			continue
		}
		n, err := in.Read(buf)
		if err != nil {
			return last, true
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return last, false
		}
		if n > 0 {
			last = buf[n-1]
		}
	}
}
