package hypercall

import (
	"bytes"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"sync"
)

// A Backend does what the calls ask. It is called by one goroutine at a time.
// Its errors are an [Error] that chooses the status, or anything else, which
// the caller sees as [StatusRefused]. A call that returns an error must have
// changed nothing.
type Backend interface {
	Register(Registration) error
	// Load verifies and stages a program. The bytes are the server's own copy
	// and the backend may keep them.
	Load(sender uint32, program []byte) (hash [HashSize]byte, err error)
	// Swap puts a staged program in force, and its mode, in one step.
	Swap(sender uint32, hash [HashSize]byte, mode Mode) error
	SetMode(sender uint32, mode Mode) error
	Stats(sender uint32) (Stats, error)
	Unregister(sender uint32) error
}

// A Server answers the calls of one channel. Its methods may be called from
// several goroutines; calls are answered one after the other.
type Server struct {
	backend    Backend
	secret     [SecretSize]byte
	maxRequest int

	// mu guards what follows.
	mu      sync.Mutex
	version uint16 // that hello settled; 0 before
	seq     uint64 // newest seen after hello
	refused [numStatuses]uint64
}

// NewServer returns a server that admits whoever knows secret. maxRequest is
// the longest request in bytes that it takes; 0 means [MaxRequest].
func NewServer(backend Backend, secret [SecretSize]byte, maxRequest int) *Server {
	if maxRequest <= 0 || maxRequest > MaxRequest {
		maxRequest = MaxRequest
	}
	return &Server{backend: backend, secret: secret, maxRequest: maxRequest}
}

// Refused returns how many calls were refused with each status.
func (s *Server) Refused() map[Status]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := make(map[Status]uint64)
	for i, n := range s.refused {
		if n > 0 {
			m[Status(i)] = n
		}
	}
	return m
}

// Call answers one request. It never panics, whatever req holds, and always
// returns an answer. req is copied before it is looked at.
func (s *Server) Call(req []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(req) > s.maxRequest {
		return s.refuse(Header{}, &Error{StatusTooLarge, ""})
	}
	h, payload, err := DecodeHeader(bytes.Clone(req))
	if err == nil && h.Status != 0 {
		err = malformed("status %d in a request", h.Status)
	}
	if err == nil {
		payload, err = s.dispatch(h, payload)
	}
	if err != nil {
		return s.refuse(h, err)
	}
	return Header{Version: h.Version, Call: h.Call, Seq: h.Seq, Status: StatusOK}.encode(payload)
}

// dispatch admits a call, then lets the backend do it.
func (s *Server) dispatch(h Header, payload []byte) ([]byte, error) {
	if h.Call == CallInvalid || h.Call >= numCalls {
		return nil, &Error{StatusUnknownCall, h.Call.String()}
	}
	if h.Call == CallHello {
		return s.hello(h, payload)
	}
	switch {
	case s.version == 0:
		return nil, &Error{StatusNoHello, h.Call.String()}
	case h.Version != s.version:
		return nil, &Error{StatusVersion, ""}
	case h.Seq <= s.seq:
		return nil, &Error{StatusReplayed, ""}
	}
	// Spent even if the call fails below: a number is good for one try.
	s.seq = h.Seq
	return s.do(h.Call, payload)
}

// hello settles the version. Whatever is wrong with it, a channel that was
// open before stays as it was: nobody but the agent can close it.
func (s *Server) hello(h Header, payload []byte) ([]byte, error) {
	c, err := decodeHello(payload)
	if err != nil {
		return nil, err
	}
	// The secret first: who does not know it learns nothing else.
	if subtle.ConstantTimeCompare(c.secret[:], s.secret[:]) != 1 {
		return nil, &Error{StatusSecret, ""}
	}
	if h.Version != 0 || c.min > Version {
		return nil, &Error{StatusVersion, ""}
	}
	if h.Seq <= s.seq {
		return nil, &Error{StatusReplayed, ""}
	}
	s.seq, s.version = h.Seq, min(c.max, Version)
	b := binary.LittleEndian.AppendUint16(nil, s.version)
	b = binary.LittleEndian.AppendUint16(b, 0)
	return binary.LittleEndian.AppendUint32(b, uint32(s.maxRequest)), nil
}

// do decodes the payload of an admitted call and hands it to the backend.
func (s *Server) do(c Call, payload []byte) ([]byte, error) {
	switch c {
	case CallRegister:
		g, err := decodeRegistration(payload)
		if err != nil {
			return nil, err
		}
		return nil, s.backend.Register(g)
	case CallLoad:
		sender, program, err := decodeSender(payload, 1, MaxProgram)
		if err != nil {
			return nil, err
		}
		hash, err := s.backend.Load(sender, program)
		return hash[:], err
	case CallSwap:
		sender, rest, err := decodeSender(payload, HashSize+1, HashSize+1)
		if err != nil {
			return nil, err
		}
		mode, err := decodeMode(rest[HashSize])
		if err != nil {
			return nil, err
		}
		return nil, s.backend.Swap(sender, [HashSize]byte(rest), mode)
	case CallMode:
		sender, rest, err := decodeSender(payload, 1, 1)
		if err != nil {
			return nil, err
		}
		mode, err := decodeMode(rest[0])
		if err != nil {
			return nil, err
		}
		return nil, s.backend.SetMode(sender, mode)
	}
	sender, _, err := decodeSender(payload, 0, 0)
	if err != nil {
		return nil, err
	}
	if c == CallUnregister {
		return nil, s.backend.Unregister(sender)
	}
	st, err := s.backend.Stats(sender)
	if err != nil {
		return nil, err
	}
	return st.encode(), nil
}

// refuse counts a refusal and encodes it.
func (s *Server) refuse(h Header, err error) []byte {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{StatusRefused, err.Error()}
	}
	if e.Status <= StatusOK || e.Status >= numStatuses {
		e = &Error{StatusRefused, e.Msg}
	}
	s.refused[e.Status]++
	return Header{Version: h.Version, Call: h.Call, Seq: h.Seq, Status: e.Status}.encode([]byte(cut(e.Msg, MaxMessage)))
}
