package lifecycle_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sekimori/lifecycle"
	"sekimori/lifecycle/agent"
	"sekimori/lifecycle/bundle"
)

// A hostileMachine has an agent whose containers never end, whatever he says.
type hostileMachine struct {
	host   *agent.Host
	client *agent.Client
	path   string
	silent bool // he does not even answer to be told to kill one

	mu     sync.Mutex
	killed string // why the machine was
	conns  []net.Conn
}

func (m *hostileMachine) Place(_ context.Context, c lifecycle.RuntimeConfig) (*agent.Client, agent.CreateConfig, error) {
	return m.client, agent.CreateConfig{Spec: c.Spec}, nil
}
func (m *hostileMachine) Agent() (*agent.Client, error)            { return m.client, nil }
func (m *hostileMachine) Cgroups(lifecycle.RuntimeConfig) []string { return nil }

// Kill ends the conversation, as a machine's end does.
func (m *hostileMachine) Kill(why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.killed = why
	for _, c := range m.conns {
		c.Close()
	}
}

func (m *hostileMachine) dial(first string) (net.Conn, error) {
	c, err := net.Dial("unix", m.path)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.conns = append(m.conns, c)
	m.mu.Unlock()
	_, err = fmt.Fprintln(c, first)
	return c, err
}

// A said is a message of the agent's conversation.
type said struct {
	ID   uint64          `json:"id,omitempty"`
	Verb string          `json:"verb,omitempty"`
	Body json.RawMessage `json:"body,omitempty"`
}

// serve plays the agent, until the conversation ends.
func (m *hostileMachine) serve() error {
	c, err := m.dial(`{"kind":"control"}`)
	if err != nil {
		return err
	}
	in := bufio.NewReader(c)
	secret, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	for {
		var size [4]byte
		if _, err := io.ReadFull(in, size[:]); err != nil {
			return nil
		}
		b := make([]byte, binary.LittleEndian.Uint32(size[:]))
		var call said
		if _, err := io.ReadFull(in, b); err != nil {
			return nil
		}
		if err := json.Unmarshal(b, &call); err != nil {
			return err
		}
		answer := said{ID: call.ID, Body: json.RawMessage("null")}
		switch call.Verb {
		case "create":
			if err := m.streams(call.Body, strings.TrimSpace(secret)); err != nil {
				return err
			}
			answer.Body = json.RawMessage(`{"pid":7}`)
		case "ignores":
			answer.Body = json.RawMessage("false")
		case "wait", "cancel":
			continue
		case "kill":
			if m.silent {
				continue
			}
		}
		if b, err = json.Marshal(answer); err != nil {
			return err
		}
		binary.LittleEndian.PutUint32(size[:], uint32(len(b)))
		if _, err := c.Write(append(size[:], b...)); err != nil {
			return nil
		}
	}
}

// streams opens those of a container, which the host waits for.
func (m *hostileMachine) streams(body []byte, secret string) error {
	var create struct {
		Stdio struct{ Streams []string }
	}
	if err := json.Unmarshal(body, &create); err != nil {
		return err
	}
	for _, name := range create.Stdio.Streams {
		if name == "" {
			continue
		}
		if _, err := m.dial(fmt.Sprintf(`{"secret":%q,"kind":"stream","name":%q}`, secret, name)); err != nil {
			return err
		}
	}
	return nil
}

// TestGuestLies: a pod is stopped although its guest does not end the container: it
// does not answer, or says that it has and has not. Its machine is ended.
func TestGuestLies(t *testing.T) {
	for _, silent := range []bool{false, true} {
		t.Run(fmt.Sprintf("silent %v", silent), func(t *testing.T) {
			t.Parallel()
			m := &hostileMachine{path: filepath.Join(t.TempDir(), "host"), silent: silent}
			l, err := net.Listen("unix", m.path)
			if err != nil {
				t.Fatal(err)
			}
			secret := [agent.SecretSize]byte{9}
			m.host = agent.Serve(l, agent.HostConfig{Secret: secret, Event: func(agent.Event) {}, Log: slog.New(slog.DiscardHandler)})
			defer m.host.Close()
			served := make(chan error, 1)
			go func() { served <- m.serve() }()
			if m.client, err = m.host.Agent(t.Context()); err != nil {
				t.Fatal(err)
			}
			cfg := lifecycle.PodConfig{Name: "pod", Root: filepath.Join(t.TempDir(), "seki"), Runtime: lifecycle.Guest(m), Detached: true}
			cfg.Containers = []lifecycle.Config{{Spec: bundle.Default("a"), StopTimeout: time.Millisecond}}
			p, err := lifecycle.Start(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			p.Kill()
			code, err := wait(t, p)
			if code == 0 || err == nil || !strings.Contains(err.Error(), "the machine is down") {
				t.Errorf("Wait() = %d, %v", code, err)
			}
			if err := <-served; err != nil {
				t.Error(err)
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			if !strings.Contains(m.killed, "told to kill") {
				t.Errorf("the machine was killed because %q", m.killed)
			}
		})
	}
}
