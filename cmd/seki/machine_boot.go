package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle"
	"sekimori/lifecycle/agent"
	"sekimori/lifecycle/agent/p9"
	"sekimori/lifecycle/bundle"
	"sekimori/nicshadow"
	"sekimori/vmm/hypercall"
	"sekimori/vmm/uml"
	"sekimori/vmm/uml/kernel"
	"sekimori/vmm/virtio"
)

// bootTimeout is how long a guest may take from its start to the agent's call. A
// distribution's kernel on an emulated processor takes a minute.
var bootTimeout = map[bundle.MachineKind]time.Duration{bundle.MachineUML: 30 * time.Second, bundle.MachineKVM: 3 * time.Minute}

// A guest is a kernel that runs, of whichever kind.
type guest interface {
	Done() <-chan struct{} // closed when it has ended and nothing of it is left
	Running() bool
	Wait() error // why it ended, nil if it powered off
	Kill() error
	Close() error // kills it and waits
	Console() string
}

// A machine is a kernel with an agent in it, of one pod.
type machine struct {
	cfg    machineConfig
	pod    machinePod
	log    *slog.Logger
	secret [agent.SecretSize]byte
	nics   []*guestNIC
	shared *sharedNIC                       // the card of all of them; nil if each has its own
	bell   *bell                            // of machine kvm; nil if hypercalls come over the agent's channel
	calls  atomic.Pointer[hypercall.Server] // of the agent's channel, once it is open
	agent  channel
	files  atomic.Pointer[p9.Server] // nil until bind
	boot   sync.Once
	setup  sync.Once
	ctx    context.Context // of what serves the guest; ends with close
	cancel context.CancelFunc

	// What boot made, or why it did not.
	guest   guest
	host    *agent.Host
	client  *agent.Client
	console io.WriteCloser
	err     error // of boot
	unset   error // why setup failed

	serving sync.WaitGroup // of the devices and exports
	told    atomic.Bool    // what the machine died of
	policy  *guestPolicy
}

// A machineConfig is what a machine is made of before it knows its pod.
type machineConfig struct {
	kind      bundle.MachineKind
	kernel    string
	args      []string     // of the kernel
	lpj       uint64       // of machine uml, as info
	info      *kernel.Info // what the kernel says of itself, if that is known
	modules   []string     // of a distribution's kernel: files, in the order to load them
	memory    int64
	transport string // one of transports, "" for the first
	cache     string // directory to keep what is made once in
	cpus      float64
}

// A machinePod is what a machine is told of its pod.
type machinePod struct {
	name    string
	file    json.RawMessage // for the agent, to run callbacks; null for none
	exports *exports
	specs   map[string]guestSpec // by container
}

// newMachine makes the host's end of a machine that is not started and has no pod.
func newMachine(cfg machineConfig, nics []*guestNIC, log *slog.Logger) (_ *machine, err error) {
	m := &machine{cfg: cfg, log: log, nics: nics, policy: newGuestPolicy()}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	rand.Read(m.secret[:]) // never fails (crypto/rand, Go 1.24)
	m.agent, err = newChannel(cfg.transport, log)
	return m, err
}

// bind gives the machine its pod, which is what it serves from then on. The exports
// are the machine's to close then.
func (m *machine) bind(pod machinePod, table *nicshadow.Table, mode string) error {
	all := maps.Clone(pod.exports.opened)
	files, err := p9.NewServer(p9.Config{Exports: all, MaxConns: len(all) + 1, Log: m.log})
	if err != nil {
		return err
	}
	m.pod = pod
	m.policy.bind(table, mode)
	m.files.Store(files)
	return nil
}

// Agent is the machine's.
func (m *machine) Agent() (*agent.Client, error) {
	m.boot.Do(func() { m.err = errors.New("machine: not started") })
	return m.client, m.err
}

// Kill ends the machine.
func (m *machine) Kill(why string) {
	m.log.Warn("machine killed: " + why)
	m.guest.Kill()
}

// Cgroups are those that the machine is bounded by; an ordinary user has none.
func (m *machine) Cgroups(c lifecycle.RuntimeConfig) []string {
	if os.Geteuid() != 0 || m.cfg.kind != bundle.MachineUML {
		return nil // the host's end of a guest of KVM is this process
	}
	return uml.CgroupDirs(m.cgroup(c))
}

// cgroup is the machine's place below the hierarchies: of no container, and of
// no other state directory.
func (m *machine) cgroup(c lifecycle.RuntimeConfig) string {
	pod, _, _ := strings.Cut(c.ID, "/")
	return "/seki+" + pod + "+(machine)+" + c.Place // a + and parentheses are in no name
}

// Place starts the machine, if it does not run yet, and says what it has of a
// container.
func (m *machine) Place(ctx context.Context, c lifecycle.RuntimeConfig) (*agent.Client, agent.CreateConfig, error) {
	if err := m.start(ctx, c); err != nil {
		return nil, agent.CreateConfig{}, err
	}
	m.setup.Do(func() {
		ctx, cancel := m.patience(ctx)
		defer cancel()
		if err := m.client.Setup(ctx, agent.Setup{Pod: m.pod.name, Exports: m.pod.exports.sorted(), File: m.pod.file}); err != nil {
			m.unset = m.died(err)
		}
	})
	if m.unset != nil {
		return nil, agent.CreateConfig{}, m.unset
	}
	s, ok := m.pod.specs[c.Spec.Name]
	if !ok {
		return nil, agent.CreateConfig{}, fmt.Errorf("container %q: not of this machine", c.Spec.Name)
	}
	return m.client, agent.CreateConfig{Spec: s.spec, IDBase: s.idBase, Shifted: s.shifted}, nil
}

// consoleLog is the file of the pod's directory that has the guest's console.
const consoleLog = "console.log"

// start boots the machine, unless that has been tried. c is the first container, or
// stands for it.
func (m *machine) start(ctx context.Context, c lifecycle.RuntimeConfig) error {
	m.boot.Do(func() { m.err = m.bootUp(ctx, c) })
	return m.err
}

// bootUp boots the machine and returns when its agent has called.
func (m *machine) bootUp(ctx context.Context, c lifecycle.RuntimeConfig) (err error) {
	if m.console, err = c.Append(consoleLog); err != nil {
		return fmt.Errorf("machine: console: %w", err)
	}
	initrd, path, err := guestArchive(m.cfg.cache)
	if err != nil {
		return fmt.Errorf("machine: initramfs: %w", err)
	}
	if initrd != nil {
		defer initrd.Close()
	}
	l, err := m.agent.listen(ctx)
	if err != nil {
		return fmt.Errorf("machine: %w", err)
	}
	m.host = agent.Serve(l, agent.HostConfig{Secret: m.secret, Hypercall: m.hypercalls, File: m.file, Event: m.policy.event, Down: m.down, Log: m.log})
	// The machine outlives ctx, which is of its start.
	if m.cfg.kind == bundle.MachineKVM {
		err = m.startKVM(context.WithoutCancel(ctx), initrd, path)
	} else {
		err = m.startUML(context.WithoutCancel(ctx), c, initrd, path)
	}
	if err != nil {
		return err
	}
	ctx, cancel := m.patience(ctx)
	defer cancel()
	go func() { // ends with the machine
		<-m.guest.Done()
		m.host.Close()
	}()
	if m.client, err = m.host.Agent(ctx); err != nil {
		return m.died(err)
	}
	if u, ok := m.guest.(*uml.Machine); ok {
		if err := u.Booted(); err != nil {
			m.log.Debug("initramfs stays in the host's memory", "err", err)
		}
	}
	return nil
}

// patience bounds what the agent is waited for.
func (m *machine) patience(ctx context.Context) (context.Context, context.CancelFunc) {
	timeout := bootTimeout[m.cfg.kind]
	return context.WithTimeoutCause(ctx, timeout, fmt.Errorf("machine: no word of the agent within %v", timeout))
}

// died is err, or what the machine died of, if that is why.
func (m *machine) died(err error) error {
	if !errors.Is(err, agent.ErrGone) {
		m.guest.Kill()
		return fmt.Errorf("machine: %w%s", err, m.lastWords())
	}
	if cause := m.guest.Wait(); cause != nil {
		return cause
	}
	return fmt.Errorf("machine: it powered off before its agent was ready%s", m.lastWords())
}

// endTimeout is how long a machine may go on whose agent is gone.
const endTimeout = time.Second

// down waits for the end of a machine whose agent is gone, and says what it died
// of. Connections break before the kernel's process has ended.
func (m *machine) down() error {
	select {
	case <-m.guest.Done():
		m.told.Store(true)
		return m.guest.Wait()
	case <-time.After(endTimeout):
		m.guest.Kill() // nobody is left there who could end its containers
		return nil
	}
}

// lastWords are the last lines of the guest's console.
func (m *machine) lastWords() string {
	lines := strings.Split(strings.TrimSpace(m.guest.Console()), "\n")
	if len(lines) == 1 && lines[0] == "" {
		return ""
	}
	return "\n    its console: " + strings.Join(lines[max(0, len(lines)-3):], "\n    ")
}

// cards are the network devices of the machine.
func (m *machine) cards() []virtio.Device {
	if m.shared != nil {
		return []virtio.Device{m.shared}
	}
	var all []virtio.Device
	for _, n := range m.nics {
		all = append(all, n.device)
	}
	return all
}

// hypercalls answers the agent's.
func (m *machine) hypercalls(conn net.Conn) {
	defer conn.Close()
	if m.bell != nil {
		m.log.Warn("hypercalls over the agent's channel are refused: it has a doorbell")
		return
	}
	s := hypercall.NewServer(m.policy, m.secret, 0)
	m.calls.Store(s)
	if err := s.Serve(conn); err != nil && !m.ending(err) {
		m.log.Warn("hypercalls ended", "err", err)
	}
}

// refused counts the hypercalls that were.
func (m *machine) refused() (n uint64) {
	s := m.calls.Load()
	if m.bell != nil {
		s, n = m.bell.server, m.bell.refused.Load()
	}
	if s != nil {
		for _, k := range s.Refused() {
			n += k
		}
	}
	return n
}

// file serves an export.
func (m *machine) file(name string, conn net.Conn) bool {
	files := m.files.Load()
	if files == nil || m.pod.exports.opened[name] == nil {
		return false
	}
	if err := files.ServeConn(m.ctx, conn); err != nil && !m.ending(err) {
		m.log.Warn("export ended", "export", name, "err", err)
	}
	return true
}

// ending says that a connection broke because the machine ends, which others
// tell of with the reason.
func (m *machine) ending(err error) bool {
	return !m.guest.Running() || errors.Is(err, unix.ECONNRESET)
}

// close ends the machine. Its error is what the machine died of, if not of us.
func (m *machine) close() error {
	m.boot.Do(func() { m.err = errors.New("machine: closed") })
	m.cancel()
	var err error
	ended := m.guest != nil && !m.guest.Running()
	if m.host != nil {
		m.host.Close() // the guest has nothing more to say
	}
	if m.guest != nil {
		if cerr := m.guest.Close(); cerr != nil {
			err = cerr
		}
		if ended && !m.told.Load() {
			err = errors.Join(err, m.guest.Wait())
		}
	}
	m.serving.Wait()
	if m.console != nil {
		m.console.Close()
	}
	if m.pod.exports != nil {
		err = errors.Join(err, m.pod.exports.close())
	}
	return errors.Join(err, m.agent.close())
}
