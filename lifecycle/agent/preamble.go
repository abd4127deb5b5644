package agent

import (
	"bytes"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// SecretSize is the length of the secret that the agent is told, in bytes.
const SecretSize = 32

// The kinds of connections.
const (
	kindControl   = "control"
	kindHypercall = "hypercall"
	kindFile      = "file"
	kindStream    = "stream"
)

// maxPreamble bounds the first line of a connection; preambleTimeout is how
// long it may take to come.
const (
	maxPreamble     = 1 << 10
	preambleTimeout = 5 * time.Second
)

// A preamble is the first line of a connection. Name says which export or
// stream it is for. The control connection has no secret yet: its answer is the
// secret, in hexadecimal on a line.
type preamble struct {
	Secret string `json:"secret,omitempty"`
	Kind   string `json:"kind"`
	Name   string `json:"name,omitempty"`
}

var errSecret = errors.New("wrong secret")

// open writes the preamble of a connection.
func (p preamble) open(conn net.Conn) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	_, err = conn.Write(append(b, '\n'))
	return err
}

// readPreamble reads the first line of a connection and checks the secret. It
// takes no byte beyond the line: what follows belongs to whoever the
// connection is for.
func readPreamble(conn net.Conn, secret [SecretSize]byte) (preamble, error) {
	conn.SetReadDeadline(time.Now().Add(preambleTimeout))
	defer conn.SetReadDeadline(time.Time{})
	line, err := readLine(conn, maxPreamble)
	if err != nil {
		return preamble{}, fmt.Errorf("preamble: %w", err)
	}
	var p preamble
	if err := decodeStrict(line, &p); err != nil {
		return preamble{}, fmt.Errorf("preamble: %w", err)
	}
	if p.Kind == kindControl && p.Secret == "" {
		return p, nil // there is one, and who is first gets it
	}
	given, err := hex.DecodeString(p.Secret)
	if err != nil || subtle.ConstantTimeCompare(given, secret[:]) != 1 {
		return preamble{}, errSecret
	}
	return p, nil
}

// readLine reads byte by byte up to a line's end, which is not returned.
func readLine(r io.Reader, limit int) ([]byte, error) {
	var line []byte
	var b [1]byte
	for len(line) < limit {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return nil, err
		}
		if b[0] == '\n' {
			return line, nil
		}
		line = append(line, b[0])
	}
	return nil, fmt.Errorf("longer than %d bytes", limit)
}

// decodeStrict refuses fields it does not know, and anything after the object.
func decodeStrict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the object")
	}
	return nil
}
