package lifecycle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// A wire reads and writes the lines of one connection, at either end.
type wire struct {
	conn  *net.UnixConn
	max   int // longest line to read
	buf   []byte
	files []*os.File // received and not yet taken
}

// errTooLong reports a line beyond its bound.
var errTooLong = errors.New("message: too long")

// maxFiles is how many files may come with one request: standard input, output
// and error.
const maxFiles = 3

// read returns the next line, without its end, valid until the next read. The
// files that came along are in w.files.
func (w *wire) read() ([]byte, error) {
	for {
		if i := bytes.IndexByte(w.buf, '\n'); i >= 0 {
			line := w.buf[:i]
			w.buf = w.buf[i+1:]
			return line, nil
		}
		if len(w.buf) > w.max {
			return nil, errTooLong
		}
		if err := w.fill(); err != nil {
			return nil, err
		}
	}
}

func (w *wire) fill() error {
	var chunk [4096]byte
	oob := make([]byte, unix.CmsgSpace(maxFiles*4))
	n, oobn, flags, _, err := w.conn.ReadMsgUnix(chunk[:], oob)
	if err != nil {
		return err
	}
	if err := w.takeFiles(oob[:oobn]); err != nil {
		return err
	}
	if flags&unix.MSG_CTRUNC != 0 || len(w.files) > maxFiles {
		return fmt.Errorf("message: more than %d files", maxFiles)
	}
	if n == 0 {
		return io.EOF
	}
	w.buf = append(w.buf, chunk[:n]...)
	return nil
}

func (w *wire) takeFiles(oob []byte) error {
	if len(oob) == 0 {
		return nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return err
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue // not files
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			w.files = append(w.files, os.NewFile(uintptr(fd), "stdio"))
		}
	}
	return nil
}

// write sends v as a line, with files beside its first byte.
func (w *wire) write(v any, files ...*os.File) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	b = append(b, '\n')
	if len(files) > 0 {
		var fds []int
		for _, f := range files {
			fds = append(fds, int(f.Fd()))
		}
		n, _, err := w.conn.WriteMsgUnix(b, unix.UnixRights(fds...), nil)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	for len(b) > 0 {
		n, err := w.conn.Write(b)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// close closes the connection and the files nobody took.
func (w *wire) close() error {
	for _, f := range w.files {
		f.Close()
	}
	w.files = nil
	return w.conn.Close()
}

// peerUID is the user at the other end when it connected.
func peerUID(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) { cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if cerr != nil {
		return 0, cerr
	}
	return cred.Uid, nil
}
