package hypercall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// Stream returns the transport that carries calls over a byte stream, such as a
// vsock connection: a message says its own length, so they follow each other
// without anything between. The other end is [Server.Serve].
func Stream(conn io.ReadWriter) Transport {
	return func(req []byte) ([]byte, error) {
		if _, err := conn.Write(req); err != nil {
			return nil, err
		}
		return readMessage(conn, MaxAnswer)
	}
}

// Serve answers the calls that come over a byte stream, one after the other,
// until it ends. A message that is longer than the server takes, or is none,
// ends it as well: what would follow it cannot be told apart. A clean end is no
// error.
func (s *Server) Serve(conn io.ReadWriter) error {
	for {
		req, err := readMessage(conn, s.maxRequest)
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return nil
		}
		var bad *Error
		if errors.As(err, &bad) {
			s.mu.Lock()
			answer := s.refuse(Header{}, bad)
			s.mu.Unlock()
			_, werr := conn.Write(answer)
			return errors.Join(err, werr)
		}
		if err != nil {
			return err
		}
		if _, err := conn.Write(s.Call(req)); err != nil {
			return err
		}
	}
}

// readMessage reads a header and as many bytes as it announces, of limit bytes
// at the most in all. An end before the first byte is io.EOF, an [Error] says
// that what came is no message.
func readMessage(r io.Reader, limit int) ([]byte, error) {
	head := make([]byte, HeaderSize)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	if m := binary.LittleEndian.Uint32(head); m != Magic {
		return nil, malformed("magic %#x", m)
	}
	n := uint64(binary.LittleEndian.Uint32(head[16:]))
	if n > uint64(limit-HeaderSize) {
		return nil, &Error{StatusTooLarge, fmt.Sprintf("%d bytes", n)}
	}
	// Grown as it comes: a length alone must not cost 64 MiB.
	body, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err == nil && uint64(len(body)) != n {
		err = io.ErrUnexpectedEOF
	}
	return append(head, body...), err
}
