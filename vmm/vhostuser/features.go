package vhostuser

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"sekimori/vmm/virtio"
)

// featureProtocol is VHOST_USER_F_PROTOCOL_FEATURES: the one feature bit that
// is the transport's own.
const featureProtocol = 1 << 30

// Protocol features, by their bit.
const (
	protocolReplyAck   = 1 << 3
	protocolBackendReq = 1 << 5 // SLAVE_REQ in Linux
	protocolConfig     = 1 << 9
	protocolInband     = 1 << 14

	protocolOffered  = protocolReplyAck | protocolBackendReq | protocolConfig | protocolInband
	protocolRequired = protocolReplyAck | protocolBackendReq | protocolInband
)

func (s *session) offered() uint64 {
	return s.cfg.Device.Features() | virtio.FeatureVersion1 | featureProtocol
}

func (s *session) setOwner(*message) error {
	if s.owned {
		return errors.New("sent twice")
	}
	s.owned = true
	return nil
}

func (s *session) getFeatures(*message) error { return s.answer(s.offered()) }

func (s *session) setFeatures(m *message) error {
	f := m.u64(0)
	switch {
	case s.running():
		return errors.New("sent while a queue runs")
	case f&^s.offered() != 0:
		return fmt.Errorf("features %#x were not offered", f&^s.offered())
	case f&virtio.FeatureVersion1 == 0:
		return errors.New("the guest's driver is a legacy one: it does not accept VIRTIO_F_VERSION_1")
	}
	s.features = f
	return nil
}

func (s *session) getProtocolFeatures(*message) error { return s.answer(protocolOffered) }

// setProtocolFeatures refuses a guest whose kicks would not be synchronous.
func (s *session) setProtocolFeatures(m *message) error {
	f := m.u64(0)
	switch {
	case s.running():
		return errors.New("sent while a queue runs")
	case f&^protocolOffered != 0:
		return fmt.Errorf("protocol features %#x were not offered", f&^protocolOffered)
	case f&protocolInband == 0:
		return errors.New("the guest does not accept INBAND_NOTIFICATIONS: with kicks by eventfd it runs on, and who sent a frame cannot be told")
	case f&protocolReplyAck == 0:
		return errors.New("the guest does not accept REPLY_ACK: it does not wait for the answer to its kicks, and who sent a frame cannot be told")
	case f&protocolBackendReq == 0:
		return errors.New("the guest does not accept SLAVE_REQ: there is no way to interrupt it")
	}
	s.protocol = f
	return nil
}

// setBackendReqFD takes the socket that interrupts go to.
func (s *session) setBackendReqFD(m *message) error {
	switch {
	case s.running():
		return errors.New("sent while a queue runs")
	case s.protocol == 0:
		return errors.New("sent before SET_PROTOCOL_FEATURES")
	case len(m.fds) != 1:
		return errors.New("no descriptor")
	}
	domain, err := unix.GetsockoptInt(m.fds[0], unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("not a socket: %w", err)
	}
	kind, err := unix.GetsockoptInt(m.fds[0], unix.SOL_SOCKET, unix.SO_TYPE)
	switch {
	case err != nil:
		return fmt.Errorf("not a socket: %w", err)
	case domain != unix.AF_UNIX || kind != unix.SOCK_STREAM:
		return fmt.Errorf("not a unix stream socket (domain %d, type %d)", domain, kind)
	}
	s.call.use(m.take(0))
	return nil
}

// answer replies with a number.
func (s *session) answer(v uint64) error {
	s.answered = true
	return s.wire.replyU64(v)
}

// maxConfig is the longest configuration space that is asked for
// (VHOST_USER_MAX_CONFIG_SIZE).
const maxConfig = 256

// A payload of GET_CONFIG and SET_CONFIG: offset, size and flags, 4 bytes
// each, then size bytes.
const configHead = 12

// config checks a payload with a part of the configuration space, and returns
// where it begins and its bytes.
func (s *session) config(m *message) (off uint32, b []byte, err error) {
	switch {
	case s.protocol&protocolConfig == 0:
		return 0, nil, errors.New("CONFIG was not negotiated")
	case len(m.payload) < configHead:
		return 0, nil, fmt.Errorf("payload of %d bytes, want %d or more", len(m.payload), configHead)
	}
	b = m.payload[configHead:]
	off, size := m.u32(0), m.u32(4)
	switch {
	case uint64(size) != uint64(len(b)):
		return 0, nil, fmt.Errorf("size %d with %d bytes", size, len(b))
	case off > maxConfig || size > maxConfig-off:
		return 0, nil, fmt.Errorf("[%d, +%d) is outside the configuration space", off, size)
	}
	return off, b, nil
}

func (s *session) getConfig(m *message) error {
	off, b, err := s.config(m)
	if err != nil {
		return err
	}
	out := s.wire.out[headerLen:]
	copy(out, m.payload[:configHead])
	s.cfg.Device.ReadConfig(off, out[configHead:configHead+len(b)])
	s.answered = true
	return s.wire.reply(configHead + len(b))
}

func (s *session) setConfig(m *message) error {
	off, b, err := s.config(m)
	if err != nil {
		return err
	}
	s.cfg.Device.WriteConfig(off, b)
	return nil
}
