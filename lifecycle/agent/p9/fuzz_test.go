package p9_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"maps"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle/agent/p9"
)

// FuzzSession sends any messages at all to an export that may be written. Each
// is kind[1] length[1] payload; the tags are counted, so that each message has
// an answer. What must hold: what lies beside the export is neither read nor
// changed, every message is answered by its reply or an error, nothing blocks,
// and no descriptor is left open.
func FuzzSession(f *testing.F) {
	seed := func(messages ...[]byte) { f.Add(bytes.Join(messages, nil)) }
	m := func(kind uint8, fields ...any) []byte {
		b := msg(fields...)
		return append([]byte{kind, byte(len(b))}, b...)
	}
	walk := func(id int, names ...string) []byte {
		fields := []any{root, id, uint16(len(names))}
		for _, n := range names {
			fields = append(fields, n)
		}
		return m(tWalk, fields...)
	}
	seed(walk(1, "sub", "file"), m(tLOpen, 1, unix.O_RDWR), m(tWrite, 1, uint64(0), 3, []byte("abc")), m(tRead, 1, uint64(0), 100), m(tFsync, 1, 0), m(tClunk, 1))
	seed(walk(1), m(tLOpen, 1, 0), m(tReaddir, 1, uint64(0), 4096), m(tGetattr, 1, uint64(0x7ff)), m(tStatfs, 1))
	seed(walk(1, "link"), m(tReadlink, 1), walk(2, "link", "file"), walk(3, "dots", "file"), m(tWalk, 1, 4, uint16(1), "file"))
	seed(walk(1, "sub"), m(tLCreate, 1, "new", unix.O_RDWR, 0o644, 0), walk(2, "sub"), m(tMkdir, 2, "d", 0o755, 0), m(tMknod, 2, "n", unix.S_IFIFO|0o644, 0, 0, 0))
	seed(walk(1, "sub"), m(tSymlink, 1, "s", "../../secret", 0), walk(2, "sub", "s"), m(tLink, 1, 2, "hard"), walk(3, "sub", "hard", "file"))
	seed(walk(1, "sub"), m(tRenameAt, root, "file", 1, "x"), m(tUnlinkAt, 1, "x", 0), walk(2, "sub", "file"), m(tRename, 2, root, "y"), m(tRemove, 2))
	seed(walk(1, "file"), m(tSetattr, 1, 0x1ff, 0o6777, 0, 0, uint64(5), uint64(1), uint64(1), uint64(1), uint64(1)), m(tXattrCreate, 1, "user.x", uint64(1), 0), m(tWrite, 1, uint64(0), 1, []byte("v")), m(tClunk, 1))
	seed(walk(1, "file"), m(tXattrWalk, 1, 2, ""), m(tRead, 2, uint64(0), 100), m(tXattrWalk, 1, 3, "security.capability"))
	seed(walk(1, "file"), m(tLOpen, 1, 2), m(tLock, 1, uint8(1), 0, uint64(0), uint64(0), 1, "g"), m(tGetlock, 1, uint8(0), uint64(0), uint64(9), 2, "g"), m(tLock, 1, uint8(2), 0, uint64(3), uint64(3), 1, "g"))
	seed(m(tFlush, uint16(1)), m(tAuth, 1, "root", "", 0), m(tAttach, 5, uint32(noFid), "root", "", 0), walk(6, "fifo"), m(tLOpen, 6, 0))

	f.Fuzz(func(t *testing.T, in []byte) {
		dir, secret := yard(t)
		for name, target := range map[string]string{"link": secret, "dots": "sub/../../secret", "proc": "/proc/self/root"} {
			if err := os.Symlink(target, dir+"/"+name); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.Mkfifo(dir+"/fifo", 0o666); err != nil {
			t.Fatal(err)
		}
		before := snapshot(t, secret)
		descriptors := openFiles(t)
		e, err := p9.Open(dir, p9.Options{Writable: true, Hide: []string{"sub/hidden"}})
		if err != nil {
			t.Fatal(err)
		}
		s := newServer(t, p9.Config{Exports: map[string]*p9.Export{"": e}, MaxMsize: 8192, MaxFids: 100, MaxRequests: 1})
		sent := session(t, s, in)
		e.Close()
		if after := snapshot(t, secret); !maps.Equal(before, after) {
			t.Errorf("the secret before %v\nafter %v", before, after)
		}
		if after := openFiles(t); after != descriptors {
			t.Errorf("%d messages: %d descriptors are open; %d were before", sent, after, descriptors)
		}
	})
}

func openFiles(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// session has one connection of s with the messages of in, and judges the
// answers.
func session(t testing.TB, s *p9.Server, in []byte) int {
	ours, theirs := net.Pipe()
	ours.SetDeadline(time.Now().Add(20 * time.Second))
	done := make(chan error, 1)
	go func() { done <- s.ServeConn(t.Context(), theirs) }()

	kinds := map[uint16]uint8{0xffff: tVersion, 0: tAttach}
	out := append(frame(tVersion, 0xffff, msg(8192, "9P2000.L")), frame(tAttach, 0, msg(root, uint32(noFid), "root", "", 0))...)
	for tag := uint16(1); len(in) >= 2 && tag < 200; tag++ {
		n := min(int(in[1]), len(in)-2)
		kind := in[0]
		if kind == tVersion {
			kind = tClunk // a second one is another test's
		}
		out = append(out, frame(kind, tag, in[2:2+n])...)
		kinds[tag] = kind
		in = in[2+n:]
	}
	go ours.Write(out)
	answered := map[uint16]bool{}
	c := &client{t: t, conn: ours}
	for len(answered) < len(kinds) {
		kind, tag, payload, err := c.tryRecv()
		if err != nil {
			t.Fatalf("%d of %d messages answered: %v", len(answered), len(kinds), err)
		}
		want, ok := kinds[tag]
		if !ok || answered[tag] || kind != want+1 && kind != 7 {
			t.Errorf("answer %d to tag %d, a message %d", kind, tag, want)
		}
		if kind == 7 && (len(payload) != 4 || binary.LittleEndian.Uint32(payload) == 0 || binary.LittleEndian.Uint32(payload) > 200) {
			t.Errorf("the error of message %d is %x", want, payload)
		}
		if bytes.Contains(payload, []byte(canary)) {
			t.Errorf("message %d reads the secret: %q", want, payload)
		}
		answered[tag] = true
	}
	ours.Close()
	if err := <-done; err != nil && err != io.EOF {
		t.Errorf("ServeConn: %v", err)
	}
	return len(kinds)
}
