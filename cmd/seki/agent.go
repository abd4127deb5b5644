package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle/agent"
	"sekimori/nicshadow/frame"
	"sekimori/nicshadow/tap"
	"sekimori/starlark"
	"sekimori/starlark/policy"
	"sekimori/vmm/hypercall"
)

// A guestPod is what the agent is told of the pod's file, to run its callbacks.
type guestPod struct {
	Path    string            `json:"path"` // of the file, as positions show it
	Params  map[string]string `json:"params,omitempty"`
	Sources map[string][]byte `json:"sources"`
	Digest  string            `json:"digest"`
}

// isAgent reports whether this process is a guest's first.
func isAgent(args []string) bool { return os.Getpid() == 1 && len(args) > 1 && args[1] == "agent" }

// runAgent is the life of a guest. It never returns: process 1 must not.
func runAgent() {
	err := serveGuest(context.Background(), os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "seki agent:", err)
		// tcdrain(3): what is not sent when the power goes never is, and these are
		// the words by which the host says what the machine died of.
		_ = unix.IoctlSetInt(2, unix.TCSBRK, 1)
	}
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	os.Exit(exitFailed) // where there is no power to turn off, the kernel panics
}

// serveGuest makes the guest ready and serves the host until it hangs up. The
// arguments say how the host is reached, see [dialer].
func serveGuest(ctx context.Context, args []string) error {
	// A guest has little memory, and the agent's own is a few megabytes: it is
	// better collected early than taken from the containers.
	debug.SetGCPercent(50)
	if err := loadModules(); err != nil {
		return fmt.Errorf("boot: %w", err)
	}
	err := agent.Boot()
	if err != nil {
		return fmt.Errorf("boot: %w", err)
	}
	if err := tap.SetLoopbackUp(); err != nil {
		return fmt.Errorf("boot: set lo up: %w", err)
	}
	dial, err := dialer(args)
	if err != nil {
		return fmt.Errorf("boot: %w", err)
	}
	g := &guestAgent{senders: map[string]guestCard{}}
	g.hypercalls = sync.OnceValues(func() (*hypercall.Client, error) { return g.openHypercalls(ctx, args) })
	cfg := agent.Config{Dial: dial, Setup: g.setup, Attach: g.attach, Hook: g.hook}
	if g.agent, err = agent.Dial(ctx, cfg); err != nil {
		return err
	}
	go g.hypercalls() // while the host thinks; setup waits for it
	return g.agent.Serve()
}

// openHypercalls opens the agent's connection for hypercalls.
func (g *guestAgent) openHypercalls(ctx context.Context, args []string) (*hypercall.Client, error) {
	transport, err := g.transport(ctx, args)
	if err != nil {
		return nil, err
	}
	c := hypercall.NewClient(transport)
	return c, c.Hello(g.agent.Secret())
}

// transport carries the agent's hypercalls, as its arguments say.
func (g *guestAgent) transport(ctx context.Context, args []string) (hypercall.Transport, error) {
	if slices.Contains(args, bellArg) {
		return ring()
	}
	conn, err := g.agent.Hypercalls(ctx)
	if err != nil {
		return nil, err
	}
	return hypercall.Stream(conn), nil
}

// A guestAgent is what the agent of a guest knows.
type guestAgent struct {
	agent *agent.Agent
	// hypercalls is the agent's connection for them, once it is open.
	hypercalls func() (*hypercall.Client, error)

	// loaded is the pod's file, evaluated; closed by load. Callbacks wait for it.
	loaded chan struct{}
	pod    *starlark.Pod
	err    error

	mu      sync.Mutex           // mu guards senders
	senders map[string]guestCard // by container
}

// A guestCard is a container's card, as hypercalls and policies know it.
type guestCard struct {
	sender   uint32
	identity policy.Identity
}

// setup evaluates the pod's file, if it has callbacks, while containers are
// being made.
func (g *guestAgent) setup(_ context.Context, s agent.Setup) error {
	// The host takes one connection for hypercalls, and it must be ours: as yet
	// there is no other process here that could open it.
	if _, err := g.hypercalls(); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(s.Pod)); err != nil {
		return os.NewSyscallError("sethostname", err)
	}
	if string(s.File) == "" || string(s.File) == "null" {
		return nil
	}
	var p guestPod
	if err := json.Unmarshal(s.File, &p); err != nil {
		return fmt.Errorf("the pod's file: %w", err)
	}
	g.loaded = make(chan struct{})
	go func() {
		defer close(g.loaded)
		g.pod, g.err = load(p)
	}()
	return nil
}

// load evaluates the file as the host did, from the same sources: what it means
// cannot differ, and if it did the two would not agree on what a callback is.
func load(p guestPod) (*starlark.Pod, error) {
	pod, err := starlark.Load(context.Background(), p.Path, starlark.Options{Params: p.Params, Sources: p.Sources})
	if err != nil {
		return nil, err
	}
	if pod.Digest != p.Digest {
		return nil, fmt.Errorf("%s: the guest has another version of it", p.Path)
	}
	return pod, nil
}

// attach puts the policy of a container in force, then gives it its card.
func (g *guestAgent) attach(_ context.Context, a agent.Attach, netns *os.File) (err error) {
	mac, err := frame.ParseMAC(a.NIC.MAC)
	if err != nil {
		return err
	}
	reg := hypercall.Registration{Sender: a.Sender, Name: a.Container, MAC: mac, NetNS: inode(netns)}
	if k := g.agent.Container(a.Container); k != nil {
		reg.Cgroup = k.CgroupID()
	}
	calls, err := g.hypercalls()
	if err != nil {
		return err
	}
	if err := calls.Register(reg); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, calls.Unregister(a.Sender))
		}
	}()
	mode := hypercall.ModeEnforce
	if a.Audit {
		mode = hypercall.ModeAudit
	}
	if err := g.load(a.Sender, a.Program, mode); err != nil {
		return err
	}
	id := policy.Identity{MAC: mac, DHCP4: a.NIC.DHCP, DHCP6: a.NIC.DHCP6}
	for _, p := range a.NIC.Addrs {
		id.Addrs = append(id.Addrs, p.Addr())
	}
	g.mu.Lock()
	g.senders[a.Container] = guestCard{a.Sender, id}
	g.mu.Unlock()
	cfg := tap.Config{Name: a.NIC.Name, MAC: mac, MTU: a.NIC.MTU, Addrs: a.NIC.Addrs, IPv6: a.NIC.DHCP6, Gateways: a.NIC.Gateways}
	card, err := frame.ParseMAC(a.Card)
	if err != nil {
		return err
	}
	if a.Shared {
		return tap.Link(netns, card, cfg)
	}
	return tap.Adopt(netns, card, cfg)
}

// load puts a program and a mode in force.
func (g *guestAgent) load(sender uint32, program []byte, mode hypercall.Mode) error {
	calls, err := g.hypercalls()
	if err != nil {
		return err
	}
	hash, err := calls.Load(sender, program)
	if err != nil {
		return err
	}
	return calls.Swap(sender, hash, mode)
}

// hook runs a callback of the pod's file.
func (g *guestAgent) hook(ctx context.Context, h agent.HookCall) error {
	if g.loaded == nil {
		return errors.New("the pod has no callbacks")
	}
	select {
	case <-g.loaded:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if g.err != nil {
		return g.err
	}
	c, err := container(g.pod, h.Container)
	if err != nil {
		return err
	}
	if h.Index < 0 || h.Index >= len(c.Callbacks) {
		return fmt.Errorf("container %q: has %d callbacks, not %d", h.Container, len(c.Callbacks), h.Index+1)
	}
	ctxOf, err := g.contextOf(h)
	if err != nil {
		return err
	}
	return c.Callbacks[h.Index].Call(ctx, ctxOf)
}
