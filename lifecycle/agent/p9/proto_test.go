package p9_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle/agent/p9"
)

func TestVersion(t *testing.T) {
	s := newServer(t, p9.Config{Exports: map[string]*p9.Export{"": export(t, t.TempDir(), writable)}, MaxMsize: 64 << 10})
	for _, tt := range []struct {
		name    string
		msize   uint32
		version string
		want    []byte // nil for the end of the connection
	}{
		{"less than we have", 8192, "9P2000.L", msg(8192, "9P2000.L")},
		{"more than we have", 1 << 30, "9P2000.L", msg(64<<10, "9P2000.L")},
		{"another dialect", 8192, "9P2000.u", msg(4096, "unknown")},
		{"too small", 4095, "9P2000.L", nil},
		{"zero", 0, "9P2000.L", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, ended := connect(t, s)
			c.send(tVersion, 0xffff, msg(tt.msize, tt.version))
			kind, _, b, err := c.tryRecv()
			if tt.want == nil {
				if err := ended(); err == nil {
					t.Errorf("answered %d, %q; want the connection to end", kind, b)
				}
				return
			}
			if err != nil || kind != tVersion+1 || !bytes.Equal(b, tt.want) {
				t.Errorf("Rversion = %d, %q, %v; want %q", kind, b, err, tt.want)
			}
		})
	}
}

// TestBroken: after these there is no telling what the next byte means, so the
// connection ends, with an error that says why.
func TestBroken(t *testing.T) {
	s := newServer(t, p9.Config{Exports: map[string]*p9.Export{"": export(t, t.TempDir(), writable)}, MaxMsize: 8192})
	version := frame(tVersion, 0xffff, msg(8192, "9P2000.L"))
	for _, tt := range []struct {
		name string
		in   []byte
		want string // "" for a clean end
	}{
		{"nothing", nil, ""},
		{"half a header", version[:5], "unexpected EOF"},
		{"half a message", version[:12], "unexpected EOF"},
		{"no version", frame(tAttach, 1, msg(0, uint32(noFid), "", "", 0)), "before Tversion"},
		{"shorter than a header", append(bytes.Clone(version), msg(6, uint8(tClunk), uint16(1))...), "message of 6 bytes"},
		{"size 0", append(bytes.Clone(version), make([]byte, 7)...), "message of 0 bytes"},
		{"longer than agreed", append(bytes.Clone(version), msg(8193, uint8(tClunk), uint16(1))...), "message of 8193 bytes"},
		{"4 GiB", append(bytes.Clone(version), msg(uint32(0xffffffff), uint8(tClunk), uint16(1))...), "message of 4294967295 bytes"},
		{"a long first message", msg(uint32(5000), uint8(tVersion), uint16(1)), "message of 5000 bytes"},
		{"Tversion with a tail", frame(tVersion, 0xffff, msg(8192, "9P2000.L", uint8(0))), "Tversion"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ours, theirs := pair(t)
			done := make(chan error, 1)
			go func() { done <- s.ServeConn(t.Context(), theirs) }()
			go io.Copy(io.Discard, ours)
			ours.Write(tt.in)
			ours.(*net.UnixConn).CloseWrite()
			err := <-done
			ours.Close()
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("ServeConn: %v; want %q", err, tt.want)
			}
		})
	}
}

// TestMalformed: every message, cut at every byte and with one more, is an
// error, and changes nothing.
func TestMalformed(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/f", "content")
	c := dial(t, dir, writable)
	opened, _ := c.open("f", unix.O_RDWR)
	list, _ := c.open("/", 0)
	before := snapshot(t, dir)
	for kind, payload := range map[uint8][]byte{
		tStatfs: msg(root), tLOpen: msg(c.at("f"), 0), tLCreate: msg(c.at("/"), "new", unix.O_RDWR, 0o644, 0),
		tSymlink: msg(root, "l", "t", 0), tMknod: msg(root, "n", unix.S_IFIFO, 0, 0, 0), tRename: msg(c.at("f"), root, "g"),
		tReadlink: msg(root), tGetattr: msg(root, uint64(1)), tSetattr: msg(opened, 8, 0, 0, 0, make([]byte, 40)),
		tXattrWalk: msg(root, 70, "user.x"), tXattrCreate: msg(c.at("f"), "user.x", uint64(3), 0), tReaddir: msg(list, uint64(0), 1000),
		tFsync: msg(opened, 0), tLock: msg(opened, uint8(1), 0, uint64(0), uint64(0), 1, "g"), tGetlock: msg(opened, uint8(0), uint64(0), uint64(0), 1, "g"),
		tLink: msg(root, c.at("f"), "h"), tMkdir: msg(root, "d", 0o755, 0), tRenameAt: msg(root, "f", root, "g"), tUnlinkAt: msg(root, "f", 0),
		tAttach: msg(71, uint32(noFid), "", "", 0), tFlush: msg(uint16(9)), tWalk: msg(root, 72, uint16(1), "f"), tRead: msg(opened, uint64(0), 10),
		tWrite: msg(opened, uint64(0), 4, []byte("evil")), tClunk: msg(opened), tRemove: msg(c.at("f")),
	} {
		for n := range payload {
			c.refused(unix.EINVAL, kind, payload[:n])
		}
		c.refused(unix.EINVAL, kind, append(bytes.Clone(payload), 0))
	}
	if after := snapshot(t, dir); len(after) != len(before) || after[dir+"/f"] != before[dir+"/f"] {
		t.Errorf("before %v\nafter %v", before, after)
	}
	c.must(tClunk, opened)
	for kind := range 256 {
		if kind == tVersion {
			continue
		}
		if _, err := c.call(uint8(kind), msg()); err == nil {
			t.Errorf("message %d with nothing in it was answered well", kind)
		}
	}
}

// TestHugeFields: numbers at the ends of their range.
func TestHugeFields(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/f", "content")
	c := dial(t, dir, writable)
	fid, _ := c.open("f", unix.O_RDWR)
	list, _ := c.open("/", 0)
	const most = uint64(1<<64 - 1)
	c.refused(unix.EINVAL, tRead, fid, most, 10)
	c.refused(unix.EFBIG, tWrite, fid, most, 1, []byte("x"))
	c.refused(unix.EINVAL, tWrite, fid, uint64(0), uint32(0xffffffff), []byte("x"))
	c.refused(unix.EINVAL, tReaddir, list, most, 1000)
	if b := c.must(tRead, fid, uint64(0), uint32(0xffffffff)); string(b[4:]) != "content" {
		t.Errorf("a read of 4 GiB = %q", b[4:])
	}
	if b := c.must(tReaddir, list, uint64(0), uint32(0xffffffff)); len(b) < 50 {
		t.Errorf("a readdir of 4 GiB has %d bytes", len(b))
	}
	if _, err := c.call(tWrite, fid, uint64(1<<63-1), 1, []byte("x")); err == nil {
		t.Error("a write at 2^63-1 succeeded")
	}
}

// TestConcurrent: requests are answered as they are done, and a flush is
// answered behind what it flushes.
func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/f", strings.Repeat("x", 1<<20))
	c := dial(t, dir, writable)
	fid, _ := c.open("f", unix.O_RDWR)
	const n = 200
	go func() { // the client of a kernel does not wait for replies either
		for tag := range uint16(n) {
			switch tag % 4 {
			case 0:
				c.conn.Write(frame(tRead, tag, msg(fid, uint64(0), 64<<10)))
			case 1:
				c.conn.Write(frame(tFsync, tag, msg(fid, 0)))
			case 2:
				c.conn.Write(frame(tFlush, tag, msg(tag-1)))
			case 3:
				c.conn.Write(frame(tFlush, tag, msg(tag))) // itself
			}
		}
	}()
	at := map[uint16]int{}
	for i := range n {
		kind, tag, b := c.recv()
		if kind == 7 {
			t.Errorf("tag %d: error %d", tag, binary.LittleEndian.Uint32(b))
		}
		at[tag] = i
	}
	for tag := uint16(2); tag < n; tag += 4 {
		if at[tag] < at[tag-1] {
			t.Errorf("the flush of %d was answered before it", tag-1)
		}
	}
	if len(at) != n {
		t.Errorf("%d tags answered; want %d", len(at), n)
	}
}

// TestSameFid: of ten requests that open one fid at the same time one wins, and
// nothing is left of the others.
func TestSameFid(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/f", "content")
	c := dial(t, dir, writable)
	before := openFiles(t)
	for range 200 {
		fid := c.at("f")
		var all []byte
		for tag := range uint16(10) {
			all = append(all, frame(tLOpen, tag, msg(fid, unix.O_RDWR))...)
		}
		if _, err := c.conn.Write(all); err != nil {
			t.Fatal(err)
		}
		opened := 0
		for range 10 {
			if kind, _, _ := c.recv(); kind == tLOpen+1 {
				opened++
			}
		}
		if opened != 1 {
			t.Fatalf("%d of ten opens of one fid succeeded; want 1", opened)
		}
		c.must(tClunk, fid)
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors are open; %d were before", after, before)
	}
}

// TestSlow: a lease on the host makes whoever opens the file wait until its
// holder lets go; the server does not wait.
func TestSlow(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/f", "content")
	write(t, dir+"/leased", "content")
	f, err := os.Open(dir + "/leased")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		require(t, "leases", false)
	}
	c := dial(t, dir, writable)
	// Opening does not wait, for it is done without.
	if _, err := c.open("leased", unix.O_RDWR); err != unix.EWOULDBLOCK {
		t.Errorf("open of a leased file: %v; want EWOULDBLOCK at once", err)
	}
	if got, err := c.readFile("f"); got != "content" || err != nil {
		t.Errorf("read meanwhile = %q, %v", got, err)
	}
}

// TestTags: a tag that is at work cannot be used for something else.
func TestTags(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/f", "")
	s := newServer(t, p9.Config{Exports: map[string]*p9.Export{"": export(t, dir, writable)}, MaxRequests: 2})
	c, ended := connect(t, s)
	c.version(msize)
	c.must(tAttach, root, uint32(noFid), "root", "", 0)
	// In sequence it can, at once: the reply frees it.
	for range 1000 {
		c.must(tGetattr, root, uint64(0x7ff))
	}
	one := frame(tGetattr, 5, msg(root, uint64(0x7ff)))
	go io.Copy(io.Discard, c.conn)
	for range 10000 { // sooner or later two of them meet
		if _, err := c.conn.Write(bytes.Repeat(one, 10)); err != nil {
			break
		}
	}
	if err := ended(); err == nil || !strings.Contains(err.Error(), "tag 5 is in use") {
		t.Errorf("the connection ended with %v; want tag 5 to be in use", err)
	}
}

// TestStalled: a client that reads no replies holds up itself, and is let go
// with its connection.
func TestStalled(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/f", strings.Repeat("x", 1<<20))
	s := newServer(t, p9.Config{Exports: map[string]*p9.Export{"": export(t, dir, writable)}, MaxRequests: 4})
	ctx, cancel := context.WithCancel(t.Context())
	ours, theirs := pair(t)
	defer ours.Close()
	done := make(chan error, 1)
	go func() { done <- s.ServeConn(ctx, theirs) }()
	c := &client{t: t, conn: ours, next: 100}
	c.version(msize)
	c.must(tAttach, root, uint32(noFid), "root", "", 0)
	fid, _ := c.open("f", 0)
	ours.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	n := uint16(0)
	for ; n < 60000; n++ {
		if _, err := ours.Write(frame(tRead, n, msg(fid, uint64(0), 100000))); err != nil {
			break
		}
	}
	if n == 60000 {
		t.Error("60,000 requests were taken without one reply read")
	}
	d := dialTo(t, s)
	if got, err := d.readFile("f"); len(got) != 1<<20 || err != nil {
		t.Errorf("another client reads %d bytes, %v", len(got), err)
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("ServeConn after its context: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the stalled connection outlives its context")
	}
}

// TestBuffers: whoever holds the large buffers and does not let go holds up
// large messages of others, but not small ones, and only until it ends.
func TestBuffers(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/f", strings.Repeat("x", 1<<20))
	s := newServer(t, p9.Config{Exports: map[string]*p9.Export{"": export(t, dir, writable)}, MaxBuffers: 2})
	ctx, cancel := context.WithCancel(t.Context())
	ours, theirs := pair(t)
	defer ours.Close()
	done := make(chan error, 1)
	go func() { done <- s.ServeConn(ctx, theirs) }()
	c := &client{t: t, conn: ours, next: 100}
	c.version(512 << 10)
	c.must(tAttach, root, uint32(noFid), "root", "", 0)
	fid, _ := c.open("f", 0)
	for tag := range uint16(8) { // more replies than the socket holds
		c.send(tRead, tag, msg(fid, uint64(0), 500000))
	}
	d := dialTo(t, s)
	fid, _ = d.open("f", 0)
	for range 100 {
		d.must(tGetattr, fid, uint64(0x7ff))
		d.must(tRead, fid, uint64(0), 1000)
	}
	d.send(tRead, 1, msg(fid, uint64(0), 100000))
	d.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, _, _, err := d.tryRecv(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a large read while all buffers are held: %v; want it to wait", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	d.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if kind, _, b := d.recv(); kind != tRead+1 || len(b) != 4+100000 {
		t.Errorf("then the reply is %d with %d bytes", kind, len(b))
	}
}

func TestServe(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/f", "content")
	s := newServer(t, p9.Config{Exports: map[string]*p9.Export{"": export(t, dir, writable)}, MaxConns: 2})
	l, err := net.Listen("unix", t.TempDir()+"/9p")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	var clients []*client
	for range 2 {
		conn, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		c := &client{t: t, conn: conn, next: 100}
		c.version(msize)
		c.must(tAttach, root, uint32(noFid), "", "", 0)
		clients = append(clients, c)
	}
	third, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	third.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := third.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the third connection of two: %v; want its end", err)
	}
	if got, err := clients[1].readFile("f"); got != "content" || err != nil {
		t.Errorf("read = %q, %v", got, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestConfig(t *testing.T) {
	for _, cfg := range []p9.Config{{MaxMsize: 4095}, {MaxMsize: 1 << 30}, {MaxRequests: -1}, {MaxConns: 5000}, {MaxBuffers: -1}, {MaxFids: -1}} {
		if _, err := p9.NewServer(cfg); err == nil {
			t.Errorf("NewServer(%+v) took it", cfg)
		}
	}
}
