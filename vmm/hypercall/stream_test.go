package hypercall_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"sekimori/vmm/hypercall"
)

// pipe is a server behind a connection, and the client's end of it.
func pipe(t *testing.T, s *hypercall.Server) (net.Conn, <-chan error) {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	served := make(chan error, 1)
	go func() { served <- s.Serve(theirs); theirs.Close() }()
	return ours, served
}

// TestStream makes calls over a connection: what comes out is what Direct gives.
func TestStream(t *testing.T) {
	b := newBackend()
	conn, served := pipe(t, hypercall.NewServer(b, secret, 0))
	c := hypercall.NewClient(hypercall.Stream(conn))
	if err := c.Hello(secret); err != nil {
		t.Fatal(err)
	}
	program := bytes.Repeat([]byte("program "), 100_000)
	if _, err := c.Load(7, program); err != nil {
		t.Fatal(err)
	}
	if err := c.SetMode(7, hypercall.ModeAudit); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Stats(7); err != nil {
		t.Fatal(err)
	}
	if len(b.calls) != 3 {
		t.Errorf("backend saw %q; want 3 calls", b.calls)
	}
	conn.Close()
	if err := <-served; err != nil {
		t.Errorf("Serve = %v; want nil at a clean end", err)
	}
}

// TestStreamMalformed sends what is no message: it is answered, counted, and
// ends the stream; the backend sees nothing.
func TestStreamMalformed(t *testing.T) {
	good := request(1, hypercall.CallStats, 2, senderPayload(7))
	long := bytes.Clone(good)
	copy(long[16:], []byte{0xff, 0xff, 0xff, 0xff})
	tests := []struct {
		name string
		send []byte
		want hypercall.Status
	}{
		{"no magic", bytes.Repeat([]byte{'x'}, hypercall.HeaderSize), hypercall.StatusMalformed},
		{"longer than the server takes", long[:hypercall.HeaderSize], hypercall.StatusTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBackend()
			s := hypercall.NewServer(b, secret, 1<<16)
			conn, served := pipe(t, s)
			if _, err := conn.Write(tt.send); err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(conn)
			if err != nil {
				t.Fatal(err)
			}
			if h, _, err := hypercall.DecodeHeader(answer); err != nil || h.Status != tt.want {
				t.Errorf("answer has status %v, %v; want %v", h.Status, err, tt.want)
			}
			var refused *hypercall.Error
			if err := <-served; !errors.As(err, &refused) || refused.Status != tt.want {
				t.Errorf("Serve = %v; want status %v", err, tt.want)
			}
			if s.Refused()[tt.want] != 1 || len(b.calls) != 0 {
				t.Errorf("refused %v, backend saw %q", s.Refused(), b.calls)
			}
		})
	}
}

// TestStreamCut ends a connection in the middle of a message.
func TestStreamCut(t *testing.T) {
	whole := request(1, hypercall.CallStats, 2, senderPayload(7))
	for n := 1; n < len(whole); n++ {
		b := newBackend()
		conn, served := pipe(t, hypercall.NewServer(b, secret, 0))
		conn.Write(whole[:n])
		conn.Close()
		if err := <-served; !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut after %d bytes: Serve = %v; want %v", n, err, io.ErrUnexpectedEOF)
		}
		if len(b.calls) != 0 {
			t.Fatalf("cut after %d bytes: backend saw %q", n, b.calls)
		}
	}
}
