package p9

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

// A session is one connection. One goroutine reads; each request has one of
// its own, so that a slow fsync holds up nobody; replies go out whole, in the
// order in which they come to be.
type session struct {
	s     *Server
	conn  io.ReadWriter
	stop  <-chan struct{} // ends with whoever serves
	msize int             // 0 until Tversion
	fids  fidTable
	locks lockTable
	attrs chan struct{} // one for each extended attribute held in memory

	slots chan struct{} // one for each request at work
	wg    sync.WaitGroup

	mu   sync.Mutex               // guards tags
	tags map[uint16]chan struct{} // requests at work; closed after the reply

	out sync.Mutex // held while a reply is written
}

// A request is one message of the client and the reply to it.
type request struct {
	*session
	kind  uint8
	tag   uint16
	in    *[]byte
	d     decoder
	reply *[]byte
	e     encoder
}

func newSession(s *Server, conn io.ReadWriter, stop <-chan struct{}) *session {
	return &session{
		s: s, conn: conn, stop: stop,
		fids:  fidTable{budget: &s.fids, m: map[uint32]*fid{}},
		locks: lockTable{budget: &s.fids},
		attrs: make(chan struct{}, maxAttrs),
		slots: make(chan struct{}, s.cfg.MaxRequests),
		tags:  map[uint16]chan struct{}{},
	}
}

// serve reads requests until it cannot.
func (c *session) serve() error {
	for {
		r, err := c.read()
		if err != nil {
			return err
		}
		if r.kind == tVersion {
			// Everything before it is over (version(5)), so it is answered
			// alone.
			c.wait()
			c.close()
			err = c.version(r)
			r.free()
			if err != nil {
				return err
			}
			continue
		}
		if c.msize == 0 {
			r.free()
			return fmt.Errorf("%w: message %d before Tversion", errProtocol, r.kind)
		}
		done, err := c.begin(r.tag)
		if err != nil {
			r.free()
			return err
		}
		c.slots <- struct{}{}
		c.wg.Go(func() {
			r.answer(done)
			r.free()
			<-c.slots
		})
	}
}

// read returns the next message.
func (c *session) read() (*request, error) {
	var head [headerLen]byte
	if _, err := io.ReadFull(c.conn, head[:]); err != nil {
		return nil, err
	}
	size, limit := binary.LittleEndian.Uint32(head[:]), c.msize
	if limit == 0 {
		limit = minMsize
	}
	if size < headerLen || size > uint32(limit) {
		return nil, fmt.Errorf("%w: message of %d bytes", errProtocol, size)
	}
	in, err := c.s.buffer(int(size), c.stop)
	if err != nil {
		return nil, err
	}
	r := &request{session: c, kind: head[4], tag: binary.LittleEndian.Uint16(head[5:]), in: in}
	r.d.b = (*r.in)[:size-headerLen]
	_, err = io.ReadFull(c.conn, r.d.b)
	if err == nil {
		err = r.room(0)
	}
	if err != nil {
		r.free()
		return nil, err
	}
	return r, nil
}

// room makes room for a reply of n bytes, and begins it. A request has one
// large buffer at most, the one that it came in or the one for its reply, so
// that those who wait for one wait for nobody who waits, too.
func (r *request) room(n int) error {
	if r.reply != nil && n+headerLen <= len(*r.reply) {
		return nil
	}
	next, err := r.s.buffer(n+headerLen, r.stop)
	if err != nil {
		return err
	}
	if r.reply != nil {
		r.s.giveBack(r.reply)
	}
	r.reply = next
	r.e.b = (*r.reply)[:headerLen]
	return nil
}

func (r *request) free() {
	r.s.giveBack(r.in)
	if r.reply != nil {
		r.s.giveBack(r.reply)
	}
}

// begin notes that tag is at work.
func (c *session) begin(tag uint16) (chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tags[tag] != nil {
		// Which of the two a Tflush means, nobody could say.
		return nil, fmt.Errorf("%w: tag %d is in use", errProtocol, tag)
	}
	done := make(chan struct{})
	c.tags[tag] = done
	return done, nil
}

// answer does what r asks and sends the reply.
func (r *request) answer(done chan struct{}) {
	err := unix.EOPNOTSUPP
	if h := handlers[r.kind]; h != nil {
		err = errnoOf(h(r))
	}
	kind := r.kind + 1
	if err != 0 {
		kind = tLError + 1
		r.e.b = r.e.b[:headerLen]
		r.e.u32(uint32(err))
	}
	r.e.header(kind, r.tag)

	// The tag is free before the client can know it, and a Tflush that finds
	// it free has its reply behind this one.
	r.out.Lock()
	r.mu.Lock()
	delete(r.tags, r.tag)
	r.mu.Unlock()
	r.send()
	r.out.Unlock()
	close(done)
}

// send writes the reply. That the client is gone the reader sees.
func (r *request) send() { _, _ = r.conn.Write(r.e.b) }

// errnoOf returns the number that tells the client of err, 0 for nil. Linux's
// numbers are the guest's, too: it has the same architecture.
func errnoOf(err error) unix.Errno {
	var errno unix.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &errno) && errno != 0:
		return errno
	}
	return unix.EIO
}

// wait waits for all requests at work.
func (c *session) wait() { c.wg.Wait() }

// close lets go of all that the client has.
func (c *session) close() {
	c.fids.clear()
	c.locks.clear()
}

// Tversion: msize[4] version[s]; Rversion: the same.
func (c *session) version(r *request) error {
	msize, version := r.d.u32(), r.d.str()
	if r.d.end() != nil || msize < minMsize {
		return fmt.Errorf("%w: Tversion with %d bytes a message", errProtocol, msize)
	}
	c.msize = int(min(msize, uint32(c.s.cfg.MaxMsize)))
	if version != "9P2000.L" {
		// The other dialects have no numbers for errors, and no links.
		version, c.msize = "unknown", 0
		msize = min(msize, minMsize)
	} else {
		msize = uint32(c.msize)
	}
	r.e.u32(msize)
	r.e.str(version)
	r.e.header(tVersion+1, r.tag)
	r.send()
	return nil
}

// Tflush: oldtag[2]; Rflush. The request that is flushed is not stopped: half
// of its work might be done, and the client could not know which half. It gets
// its answer, and then the flush has its own, as flush(5) asks.
func (r *request) flush() error {
	old := r.d.u16()
	if err := r.d.end(); err != nil {
		return err
	}
	r.mu.Lock()
	done := r.tags[old]
	r.mu.Unlock()
	if done != nil && old != r.tag {
		<-done
	}
	return nil
}

// handlers has a method for each message that is answered.
var handlers [256]func(*request) error

func init() {
	handlers = [256]func(*request) error{
		tAuth:        (*request).auth,
		tAttach:      (*request).attach,
		tFlush:       (*request).flush,
		tWalk:        (*request).walk,
		tClunk:       (*request).clunk,
		tRemove:      (*request).remove,
		tLOpen:       (*request).lopen,
		tLCreate:     (*request).lcreate,
		tRead:        (*request).read,
		tWrite:       (*request).write,
		tFsync:       (*request).fsync,
		tReaddir:     (*request).readdir,
		tGetattr:     (*request).getattr,
		tSetattr:     (*request).setattr,
		tStatfs:      (*request).statfs,
		tReadlink:    (*request).readlink,
		tMkdir:       (*request).mkdir,
		tMknod:       (*request).mknod,
		tSymlink:     (*request).symlink,
		tLink:        (*request).link,
		tUnlinkAt:    (*request).unlinkAt,
		tRenameAt:    (*request).renameAt,
		tRename:      (*request).rename,
		tXattrWalk:   (*request).xattrWalk,
		tXattrCreate: (*request).xattrCreate,
		tLock:        (*request).lock,
		tGetlock:     (*request).getlock,
	}
}
