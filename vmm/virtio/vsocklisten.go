package virtio

import (
	"net"
	"sync"
	"syscall"
)

// A vsockListener is a port of the host.
type vsockListener struct {
	v     *Vsock
	addr  VsockAddr
	conns chan *vsockConn
	once  sync.Once
	done  chan struct{}
}

// Accept implements [net.Listener].
func (l *vsockListener) Accept() (net.Conn, error) {
	for {
		select {
		case <-l.done:
			return nil, &net.OpError{Op: "accept", Net: "vsock", Addr: l.addr, Err: net.ErrClosed}
		case c := <-l.conns:
			c.mu.Lock()
			gone := c.state == vsockGone && c.in.n == 0
			c.mu.Unlock()
			if !gone { // the guest has not thought better of it
				return c, nil
			}
		}
	}
}

// Close implements [net.Listener]. Connections that nobody accepted are reset.
func (l *vsockListener) Close() error {
	l.v.mu.Lock()
	if l.v.listeners[l.addr.Port] == l {
		delete(l.v.listeners, l.addr.Port)
	}
	l.v.mu.Unlock()
	l.shut()
	return nil
}

// shut ends l, which is out of the table, so that no connection comes any more.
func (l *vsockListener) shut() {
	l.once.Do(func() { close(l.done) })
	for {
		select {
		case c := <-l.conns:
			c.end(syscall.ECONNRESET)
		default:
			return
		}
	}
}

// Addr implements [net.Listener].
func (l *vsockListener) Addr() net.Addr { return l.addr }
