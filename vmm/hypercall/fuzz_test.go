package hypercall_test

import (
	"bytes"
	"testing"

	"sekimori/vmm/hypercall"
)

// FuzzServer sends requests to a server that has seen hello and to one that
// has not. It must answer each, never panic, and never let the closed one
// reach the backend.
func FuzzServer(f *testing.F) {
	f.Add(request(1, hypercall.CallLoad, 10, senderPayload(7, []byte("program")...)))
	f.Add(request(1, hypercall.CallSwap, 11, senderPayload(7, append(make([]byte, 32), 1)...)))
	f.Add(request(1, hypercall.CallMode, 12, senderPayload(7, 1)))
	f.Add(request(1, hypercall.CallRegister, 13, append(make([]byte, 40), 1, 0, 'a')))
	f.Add(request(0, hypercall.CallHello, 14, helloPayload(1, 1, [32]byte{})))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, req []byte) {
		closed, opened := newBackend(), newBackend()
		for _, b := range []*backend{closed, opened} {
			s := hypercall.NewServer(b, secret, 1<<16)
			if b == opened {
				s.Call(request(0, hypercall.CallHello, 1, helloPayload(1, 1, secret)))
			}
			before := bytes.Clone(req)
			h, _, err := hypercall.DecodeHeader(s.Call(req))
			if err != nil || h.Status == hypercall.StatusInvalid {
				t.Fatalf("answer: status %v, %v", h.Status, err)
			}
			if !bytes.Equal(before, req) {
				t.Fatal("the request was written to")
			}
			var refused uint64
			for _, n := range s.Refused() {
				refused += n
			}
			if (h.Status == hypercall.StatusOK) == (refused == 1) {
				t.Fatalf("status %v, %d refused", h.Status, refused)
			}
		}
		if len(closed.calls) != 0 && !bytes.Contains(req, secret[:]) {
			t.Fatalf("without hello: %q", closed.calls)
		}
	})
}

// FuzzAnswer gives the client answers: an error or a value, never a panic.
func FuzzAnswer(f *testing.F) {
	b := newBackend()
	b.stats.Lines = []hypercall.LineCount{{File: "a", Kind: "b", Name: "c"}}
	s := hypercall.NewServer(b, secret, 0)
	s.Call(request(0, hypercall.CallHello, 1, helloPayload(1, 1, secret)))
	f.Add(s.Call(request(1, hypercall.CallStats, 2, senderPayload(7))))
	f.Fuzz(func(t *testing.T, answer []byte) {
		if len(answer) > 16 {
			copy(answer[8:16], []byte{1, 0, 0, 0, 0, 0, 0, 0}) // the number asked for
		}
		c := func() *hypercall.Client {
			return hypercall.NewClient(func([]byte) ([]byte, error) { return answer, nil })
		}
		_, _ = c().Stats(7)
		_, _ = c().Load(7, []byte("x"))
		_ = c().Hello(secret)
	})
}
