package vhostuser

import (
	"encoding/binary"
	"math/bits"
	"sync"

	"golang.org/x/sys/unix"
)

// backendVringCall is VHOST_USER_BACKEND_VRING_CALL (SLAVE_VRING_CALL in
// Linux): "an interrupt for queue index".
const backendVringCall = 4

// A caller interrupts the guest: it writes messages to the socket that the
// guest gave us for that, and nobody waits for them to be read.
//
//	| 4 | version | 8 | index | 0 |     4 bytes each
//
// While a kick is being served the guest stands still in a read of another
// socket. A message would only wake it to find that it has to go on waiting, so
// calls are held until the kick is answered.
type caller struct {
	// mu guards what follows. It is a leaf: nothing is waited for under it.
	mu     sync.Mutex
	fd     int    // -1 for none
	held   bool   // a kick is being served
	due    uint64 // queues with a call that was not sent yet, by bit
	behind bool   // catchUp runs: the socket was full
	buf    [headerLen + 8]byte

	done sync.WaitGroup // catchUp
}

func newCaller() *caller {
	c := &caller{fd: -1}
	put32(c.buf[0:], backendVringCall)
	put32(c.buf[4:], version)
	put32(c.buf[8:], 8)
	return c
}

func put32(b []byte, v uint32) { binary.LittleEndian.PutUint32(b, v) }

// use makes fd the socket to write to, and closes the one before.
func (c *caller) use(fd int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop()
	c.fd = fd
}

func (c *caller) drop() {
	if c.fd >= 0 {
		_ = unix.Close(c.fd) // a unix socket: nothing to flush, nobody to tell
	}
	c.fd = -1
}

func (c *caller) ready() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fd >= 0
}

// call interrupts the guest for queue i, now or as soon as that is possible.
func (c *caller) call(i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.due |= 1 << (i & 63)
	c.flush()
}

// hold keeps calls back until release.
func (c *caller) hold() {
	c.mu.Lock()
	c.held = true
	c.mu.Unlock()
}

func (c *caller) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = false
	c.flush()
}

// flush sends what is due, as far as the socket takes it. It is called with mu
// held.
func (c *caller) flush() {
	for c.due != 0 && c.fd >= 0 && !c.held {
		i := bits.TrailingZeros64(c.due)
		put32(c.buf[12:], uint32(i))
		n, err := unix.SendmsgN(c.fd, c.buf[:], nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch {
		case err == unix.EAGAIN:
			// There are hundreds of messages that the guest has not read.
			if !c.behind {
				c.behind = true
				c.done.Go(c.catchUp)
			}
			return
		case err == unix.EINTR:
		case err != nil || n != len(c.buf):
			// The peer closed it, or it is not what it was: there is nobody to
			// interrupt any more. The connection's end comes by the other socket.
			c.drop()
		default:
			c.due &^= 1 << i
		}
	}
}

// catchUp is a goroutine that lives while the socket is full, and sends what is
// due as soon as there is room. close ends it.
func (c *caller) catchUp() {
	for {
		c.mu.Lock()
		c.flush()
		fd := c.fd
		if c.due == 0 || fd < 0 || c.held { // release flushes
			c.behind = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		// Room, or a hang-up, wakes it at once. The limit is for a socket that
		// was closed or replaced meanwhile.
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 100)
	}
}

// close gives the socket back; calls that come later go nowhere.
func (c *caller) close() {
	c.mu.Lock()
	c.drop()
	c.mu.Unlock()
	c.done.Wait()
}
