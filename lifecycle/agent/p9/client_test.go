package p9_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle/agent/p9"
)

// Message types, as in the kernel's header.
const (
	tStatfs      = 8
	tLOpen       = 12
	tLCreate     = 14
	tSymlink     = 16
	tMknod       = 18
	tRename      = 20
	tReadlink    = 22
	tGetattr     = 24
	tSetattr     = 26
	tXattrWalk   = 30
	tXattrCreate = 32
	tReaddir     = 40
	tFsync       = 50
	tLock        = 52
	tGetlock     = 54
	tLink        = 70
	tMkdir       = 72
	tRenameAt    = 74
	tUnlinkAt    = 76
	tVersion     = 100
	tAuth        = 102
	tAttach      = 104
	tFlush       = 108
	tWalk        = 110
	tRead        = 116
	tWrite       = 118
	tClunk       = 120
	tRemove      = 122

	noFid = 0xffffffff
	root  = 0 // the fid that dial attaches
)

// msg builds a payload: numbers by their size, strings with a length before
// them, []byte as it is.
func msg(fields ...any) []byte {
	var b []byte
	for _, f := range fields {
		switch v := f.(type) {
		case uint8:
			b = append(b, v)
		case uint16:
			b = binary.LittleEndian.AppendUint16(b, v)
		case uint32:
			b = binary.LittleEndian.AppendUint32(b, v)
		case int: // most are 4 bytes
			b = binary.LittleEndian.AppendUint32(b, uint32(v))
		case uint64:
			b = binary.LittleEndian.AppendUint64(b, v)
		case string:
			b = binary.LittleEndian.AppendUint16(b, uint16(len(v)))
			b = append(b, v...)
		case []byte:
			b = append(b, v...)
		default:
			panic(fmt.Sprintf("a bug in the test: field of type %T", f))
		}
	}
	return b
}

// A client is what a guest's kernel would be.
type client struct {
	t    testing.TB
	conn net.Conn
	next uint32 // fid
	in   []byte
}

// frame makes one message.
func frame(kind uint8, tag uint16, payload []byte) []byte {
	return append(msg(uint32(7+len(payload)), kind, tag), payload...)
}

func (c *client) send(kind uint8, tag uint16, payload []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(frame(kind, tag, payload)); err != nil {
		c.t.Fatalf("send message %d: %v", kind, err)
	}
}

func (c *client) recv() (kind uint8, tag uint16, payload []byte) {
	c.t.Helper()
	kind, tag, payload, err := c.tryRecv()
	if err != nil {
		c.t.Fatalf("receive: %v", err)
	}
	return kind, tag, payload
}

func (c *client) tryRecv() (kind uint8, tag uint16, payload []byte, err error) {
	var head [7]byte
	if _, err := io.ReadFull(c.conn, head[:]); err != nil {
		return 0, 0, nil, err
	}
	n := int(binary.LittleEndian.Uint32(head[:])) - 7
	if n < 0 || n > 16<<20 {
		return 0, 0, nil, fmt.Errorf("message of %d bytes", n+7)
	}
	if cap(c.in) < n {
		c.in = make([]byte, n)
	}
	payload = c.in[:n]
	_, err = io.ReadFull(c.conn, payload)
	return head[4], binary.LittleEndian.Uint16(head[5:]), payload, err
}

// call asks and returns the reply's payload, or the error that it is.
func (c *client) call(kind uint8, fields ...any) ([]byte, error) {
	c.t.Helper()
	c.send(kind, 1, msg(fields...))
	got, tag, payload := c.recv()
	switch {
	case tag != 1:
		c.t.Fatalf("reply to %d has tag %d; want 1", kind, tag)
	case got == 7 && len(payload) == 4:
		return nil, unix.Errno(binary.LittleEndian.Uint32(payload))
	case got != kind+1:
		c.t.Fatalf("reply to %d has type %d", kind, got)
	}
	return slices.Clone(payload), nil
}

// must is call where no error is expected.
func (c *client) must(kind uint8, fields ...any) []byte {
	c.t.Helper()
	b, err := c.call(kind, fields...)
	if err != nil {
		c.t.Fatalf("message %d: %v", kind, err)
	}
	return b
}

// refused is call where the error want is expected.
func (c *client) refused(want error, kind uint8, fields ...any) {
	c.t.Helper()
	if _, err := c.call(kind, fields...); !errors.Is(err, want) {
		c.t.Errorf("message %d: %v; want %v", kind, err, want)
	}
}

// walk walks from the root and returns the new fid.
func (c *client) walk(path string) (uint32, error) {
	c.t.Helper()
	return c.walkFrom(root, path)
}

func (c *client) walkFrom(fid uint32, path string) (uint32, error) {
	c.t.Helper()
	names := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
	c.next++
	fields := []any{fid, c.next, uint16(len(names))}
	for _, n := range names {
		fields = append(fields, n)
	}
	b, err := c.call(tWalk, fields...)
	if err != nil {
		return 0, err
	}
	if got := int(binary.LittleEndian.Uint16(b)); got != len(names) {
		return 0, unix.ENOENT
	}
	return c.next, nil
}

func (c *client) at(path string) uint32 {
	c.t.Helper()
	fid, err := c.walk(path)
	if err != nil {
		c.t.Fatalf("walk %s: %v", path, err)
	}
	return fid
}

func (c *client) open(path string, flags int) (uint32, error) {
	c.t.Helper()
	fid, err := c.walk(path)
	if err != nil {
		return 0, err
	}
	_, err = c.call(tLOpen, fid, flags)
	return fid, err
}

func (c *client) readFile(path string) (string, error) {
	c.t.Helper()
	fid, err := c.open(path, 0)
	if err != nil {
		return "", err
	}
	defer c.call(tClunk, fid)
	var all []byte
	for {
		b, err := c.call(tRead, fid, uint64(len(all)), 1<<16)
		if err != nil {
			return "", err
		}
		if len(b) == 4 {
			return string(all), nil
		}
		all = append(all, b[4:]...)
	}
}

type dirent struct {
	name string
	kind uint8
	path uint64
}

// list reads a directory, count bytes a message.
func (c *client) list(path string, count int) ([]dirent, error) {
	c.t.Helper()
	fid, err := c.open(path, 0)
	if err != nil {
		return nil, err
	}
	defer c.call(tClunk, fid)
	var all []dirent
	var offset uint64
	for {
		b, err := c.call(tReaddir, fid, offset, count)
		if err != nil {
			return nil, err
		}
		if len(b) == 4 {
			return all, nil
		}
		if len(b)-4 > count {
			c.t.Errorf("%d bytes of entries; want at most %d", len(b)-4, count)
		}
		for b = b[4:]; len(b) > 0; {
			n := int(binary.LittleEndian.Uint16(b[22:]))
			all = append(all, dirent{string(b[24 : 24+n]), b[21], binary.LittleEndian.Uint64(b[5:])})
			offset = binary.LittleEndian.Uint64(b[13:])
			b = b[24+n:]
		}
	}
}

// names is list, without the dots and sorted by nobody.
func (c *client) names(path string) map[string]bool {
	c.t.Helper()
	all, err := c.list(path, 8192)
	if err != nil {
		c.t.Fatalf("list %s: %v", path, err)
	}
	m := map[string]bool{}
	for _, e := range all {
		if e.name != "." && e.name != ".." {
			m[e.name] = true
		}
	}
	return m
}

type stat struct {
	qid               [13]byte
	mode, uid, gid    uint32
	nlink, rdev, size uint64
	mtime             uint64
}

func (c *client) stat(fid uint32) stat {
	c.t.Helper()
	b := c.must(tGetattr, fid, uint64(0x7ff))
	if len(b) != 153 {
		c.t.Fatalf("Rgetattr has %d bytes; want 153", len(b))
	}
	u32, u64 := binary.LittleEndian.Uint32, binary.LittleEndian.Uint64
	return stat{[13]byte(b[8:]), u32(b[21:]), u32(b[25:]), u32(b[29:]), u64(b[33:]), u64(b[41:]), u64(b[49:]), u64(b[89:])}
}

// setattr sets what valid says.
func (c *client) setattr(fid uint32, valid, mode, uid, gid int, size uint64, mtime ...uint64) error {
	c.t.Helper()
	t := append(mtime, 0, 0, 0, 0)
	_, err := c.call(tSetattr, fid, valid, mode, uid, gid, size, t[0], t[1], t[2], t[3])
	return err
}

// pair returns two ends of a stream of the kernel.
func pair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "9p")
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return ends[0], ends[1]
}

func newServer(t testing.TB, cfg p9.Config) *p9.Server {
	t.Helper()
	s, err := p9.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func export(t testing.TB, dir string, opts p9.Options) *p9.Export {
	t.Helper()
	e, err := p9.Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// connect serves one connection of s and returns the other end, before any
// message, and how it ended.
func connect(t testing.TB, s *p9.Server) (c *client, ended func() error) {
	t.Helper()
	ours, theirs := pair(t)
	done := make(chan error, 1)
	go func() { done <- s.ServeConn(t.Context(), theirs) }()
	ended = sync.OnceValue(func() error {
		ours.Close()
		select {
		case err := <-done:
			return err
		case <-time.After(20 * time.Second):
			return errors.New("the connection is still served 20 s after its end")
		}
	})
	t.Cleanup(func() { ended() })
	ours.SetDeadline(time.Now().Add(time.Minute))
	return &client{t: t, conn: ours, next: 100}, ended
}

const msize = 128 << 10

func (c *client) version(msize uint32) {
	c.t.Helper()
	c.send(tVersion, 0xffff, msg(msize, "9P2000.L"))
	if kind, tag, b := c.recv(); kind != tVersion+1 || tag != 0xffff || !bytes.HasSuffix(b, msg("9P2000.L")) {
		c.t.Fatalf("Rversion is %d, tag %d, %q", kind, tag, b)
	}
}

// dial serves the directory and attaches to it as the guest's root.
func dial(t testing.TB, dir string, opts p9.Options) *client {
	t.Helper()
	return dialTo(t, newServer(t, p9.Config{Exports: map[string]*p9.Export{"": export(t, dir, opts)}}))
}

func dialTo(t testing.TB, s *p9.Server) *client {
	t.Helper()
	c, _ := connect(t, s)
	c.version(msize)
	c.must(tAttach, root, uint32(noFid), "root", "", 0)
	return c
}
