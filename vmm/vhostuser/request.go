package vhostuser

import (
	"errors"
	"fmt"
	"io"
)

// Requests of the front end, with the names of the vhost-user specification.
const (
	getFeatures         = 1
	setFeatures         = 2
	setOwner            = 3
	setMemTable         = 5
	setVringNum         = 8
	setVringAddr        = 9
	setVringBase        = 10
	getVringBase        = 11
	setVringKick        = 12
	setVringCall        = 13
	setVringErr         = 14
	getProtocolFeatures = 15
	setProtocolFeatures = 16
	setVringEnable      = 18
	setBackendReqFD     = 21
	getConfig           = 24
	setConfig           = 25
	vringKick           = 35
)

// varies is the size of a payload that its own request checks.
const varies = -1

// requests says what is served: the size of the payload, how many descriptors
// may come with it, and what is done. A request that is not here was not
// negotiated, or is no request.
var requests = [...]struct {
	name string
	size int
	fds  int
	do   func(*session, *message) error
}{
	getFeatures:         {"GET_FEATURES", 0, 0, (*session).getFeatures},
	setFeatures:         {"SET_FEATURES", 8, 0, (*session).setFeatures},
	setOwner:            {"SET_OWNER", 0, 0, (*session).setOwner},
	setMemTable:         {"SET_MEM_TABLE", varies, maxRegions, (*session).setMemTable},
	setVringNum:         {"SET_VRING_NUM", 8, 0, (*session).setVringNum},
	setVringAddr:        {"SET_VRING_ADDR", 40, 0, (*session).setVringAddr},
	setVringBase:        {"SET_VRING_BASE", 8, 0, (*session).setVringBase},
	getVringBase:        {"GET_VRING_BASE", 8, 0, (*session).getVringBase},
	setVringKick:        {"SET_VRING_KICK", 8, 1, (*session).refuseEvent},
	setVringCall:        {"SET_VRING_CALL", 8, 1, (*session).refuseEvent},
	setVringErr:         {"SET_VRING_ERR", 8, 1, (*session).refuseEvent},
	getProtocolFeatures: {"GET_PROTOCOL_FEATURES", 0, 0, (*session).getProtocolFeatures},
	setProtocolFeatures: {"SET_PROTOCOL_FEATURES", 8, 0, (*session).setProtocolFeatures},
	setVringEnable:      {"SET_VRING_ENABLE", 8, 0, (*session).setVringEnable},
	setBackendReqFD:     {"SET_SLAVE_REQ_FD", 0, 1, (*session).setBackendReqFD},
	getConfig:           {"GET_CONFIG", varies, 0, (*session).getConfig},
	setConfig:           {"SET_CONFIG", varies, 0, (*session).setConfig},
	vringKick:           {"VRING_KICK", 8, 0, (*session).kick},
}

// A ProtocolError reports a peer that broke the protocol, or that does not
// speak enough of it. It ended the connection.
type ProtocolError struct {
	// Request is the message it happened at, by its name; "" if none was read.
	Request string
	Err     error
}

func (e *ProtocolError) Error() string {
	if e.Request == "" {
		return fmt.Sprintf("vhost-user: %v", e.Err)
	}
	return fmt.Sprintf("vhost-user %s: %v", e.Request, e.Err)
}

func (e *ProtocolError) Unwrap() error { return e.Err }

// serve does what m asks for, and answers. An error ends the connection; the
// peer that asked for an answer has got one then, too. io.EOF is a peer that
// hung up before it was answered.
func (s *session) serve(m *message) error {
	if uint64(m.request) >= uint64(len(requests)) || requests[m.request].do == nil {
		return s.refuse(m, fmt.Sprint(m.request), errors.New("no such request, or not negotiated"))
	}
	r := &requests[m.request]
	if r.size != varies && len(m.payload) != r.size {
		return s.refuse(m, r.name, fmt.Errorf("payload of %d bytes, want %d", len(m.payload), r.size))
	}
	if len(m.fds) > r.fds {
		return s.refuse(m, r.name, fmt.Errorf("%d descriptors, want at most %d", len(m.fds), r.fds))
	}
	s.answered, s.status = false, 0
	err := r.do(s, m)
	switch {
	case s.answered && err != nil: // the answer itself went wrong
		return ended(r.name, err)
	case err != nil:
		return s.refuse(m, r.name, err)
	case m.needReply && !s.answered:
		return ended(r.name, s.wire.replyU64(s.status))
	}
	return nil
}

// refuse says no to whoever waits for an answer. Whether he hears it is his
// affair.
func (s *session) refuse(m *message, name string, err error) error {
	if m.needReply {
		_ = s.wire.replyU64(1)
	}
	return &ProtocolError{Request: name, Err: err}
}

// ended is the error of an answer, if there is one.
func ended(name string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &ProtocolError{Request: name, Err: err}
}
