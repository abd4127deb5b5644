package agent_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sekimori/lifecycle/agent"
	"sekimori/lifecycle/bundle"
)

var secret = [agent.SecretSize]byte{1, 2, 3, 31: 4}

// A rig is both ends of a machine's conversation, over a socket; the agent makes
// its containers on this kernel.
type rig struct {
	path   string
	host   *agent.Host
	client *agent.Client
	agent  *agent.Agent
	served chan error
}

// dial connects to the rig's host.
func (r *rig) dial(ctx context.Context) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", r.path)
}

// newRig starts a host without an agent.
func newRig(t *testing.T, cfg agent.HostConfig) *rig {
	t.Helper()
	r := &rig{path: filepath.Join(t.TempDir(), "host"), served: make(chan error, 1)}
	l, err := net.Listen("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Secret = secret
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Event == nil {
		cfg.Event = func(agent.Event) {}
	}
	r.host = agent.Serve(l, cfg)
	t.Cleanup(func() { r.host.Close() })
	return r
}

// connect starts the agent.
func (r *rig) connect(t *testing.T, cfg agent.Config) {
	t.Helper()
	cfg.Dial = r.dial
	if cfg.Setup == nil {
		cfg.Setup = func(context.Context, agent.Setup) error { return nil }
	}
	var err error
	if r.agent, err = agent.Dial(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	go func() { r.served <- r.agent.Serve() }()
	t.Cleanup(func() {
		r.host.Close()
		if err := <-r.served; err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
	if r.client, err = r.host.Agent(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.client.Setup(t.Context(), agent.Setup{Pod: "p"}); err != nil {
		t.Fatal(err)
	}
}

// full is a rig whose agent can make containers.
func full(t *testing.T) *rig {
	t.Helper()
	require(t, "root", os.Geteuid() == 0)
	r := newRig(t, agent.HostConfig{})
	r.connect(t, agent.Config{})
	return r
}

// spec is a container that runs a shell script with the host's programs.
func spec(script string) *bundle.Spec {
	s := bundle.Default("c")
	s.Root = bundle.RootFS{Kind: bundle.RootHost, Overlay: true}
	s.OCI.Process.Args = []string{"sh", "-c", script}
	return s
}

const idBase = 1 << 20

// create makes a container; it is destroyed when the test ends.
func (r *rig) create(t *testing.T, s *bundle.Spec, stdio [3]*os.File) *agent.Container {
	t.Helper()
	k, err := r.client.Create(t.Context(), agent.CreateConfig{Name: "c", ID: "agent-test/c", Spec: s, IDBase: idBase, Stdio: stdio})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Destroy(); err != nil {
			t.Errorf("Destroy() = %v", err)
		}
	})
	return k
}

// run makes a container and starts its workload.
func (r *rig) run(t *testing.T, s *bundle.Spec, stdio [3]*os.File) *agent.Container {
	t.Helper()
	k := r.create(t, s, stdio)
	if err := k.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := k.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return k
}

// pipe is a pipe whose ends are closed when the test ends.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// text is all that comes out of a pipe, within some seconds.
func text(t *testing.T, r *os.File) string {
	t.Helper()
	r.SetReadDeadline(time.Now().Add(10 * time.Second))
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read output: %v, after %q", err, b)
	}
	return string(b)
}

// require skips the test where this machine lacks feature, unless
// SEKI_TEST_REQUIRE lists it: then that is a failure.
func require(t testing.TB, feature string, have bool) {
	t.Helper()
	if have {
		return
	}
	if slices.Contains(strings.Split(os.Getenv("SEKI_TEST_REQUIRE"), ","), feature) {
		t.Fatalf("this machine lacks %s, which SEKI_TEST_REQUIRE asks for", feature)
	}
	t.Skipf("needs %s", feature)
}
