package uml_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/vmm/uml"
)

// ctx is a context that ends a hung machine before the test is killed.
func ctx(t testing.TB) context.Context {
	t.Helper()
	c, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return c
}

func TestBoot(t *testing.T) {
	k := requireKernel(t)
	initrd := archive(t, compile(t, "init.c"))
	tests := []struct {
		name    string
		words   []string
		verbose bool
		want    string // on the console
		err     string // "" for a guest that powers off
	}{
		{"powers off", nil, false, "init runs", ""},
		{"says all it has to say", nil, true, "Linux version", ""},
		{"a guest whose init ends", []string{"do=panic"}, false, "init runs", "the guest's kernel panicked"},
		// To start anew UML executes itself, which the filter does not allow.
		{"restarts", []string{"do=restart"}, false, "init runs", "system call filter"},
		{"no init", []string{"rdinit=/none", "init=/none"}, false, "", "no init"},
		{"writes more than is kept", []string{"do=flood"}, false, "019999 01234", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := config(k, initrd)
			c.Append, c.Verbose = tt.words, tt.verbose
			m, err := uml.Start(ctx(t), c)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			err = m.Wait()
			said := m.Console()
			if !strings.Contains(said, tt.want) {
				t.Errorf("the console has no %q:\n%s", tt.want, said)
			}
			if len(said) > 64<<10 {
				t.Errorf("%d bytes of console are kept", len(said))
			}
			var exit *uml.ExitError
			switch {
			case tt.err == "" && err != nil:
				t.Errorf("Wait = %v\n%s", err, said)
			case tt.err != "" && (!errors.As(err, &exit) || !strings.Contains(err.Error(), tt.err)):
				t.Errorf("Wait = %v; want %q", err, tt.err)
			}
		})
	}
}

// TestLargeArchive boots from an archive that takes a third of the memory: more
// than half of what is free while it is unpacked.
func TestLargeArchive(t *testing.T) {
	k := requireKernel(t)
	c := config(k, archive(t, compile(t, "init.c"), 20<<20))
	c.Append = []string{"--", "words"} // behind which the kernel does not see that UML names a root device
	m, err := uml.Start(ctx(t), c)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Wait(); err != nil {
		t.Errorf("Wait = %v", err)
	}
	if said := m.Console(); !strings.Contains(said, "init runs") {
		t.Errorf("the console: %s", said)
	}
}

// TestDevices: the kernel connects to each device, in order, and waits for it;
// a device that goes away instead of answering is not the end of the guest.
func TestDevices(t *testing.T) {
	k := requireKernel(t)
	c := config(k, archive(t, compile(t, "init.c")))
	c.Devices = []uml.Device{{ID: 1}, {ID: 19}}
	m, err := uml.Start(ctx(t), c)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for i := range c.Devices {
		conn, err := m.Accept(i)
		if err != nil {
			t.Fatalf("Accept(%d) = %v", i, err)
		}
		var head [12]byte // GET_FEATURES or SET_OWNER: request, flags, size
		if _, err := conn.Read(head[:]); err != nil || head[0] == 0 || head[4] != 1 {
			t.Errorf("device %d: %v, first message % x", i, err, head)
		}
		conn.Close()
		if _, err := m.Accept(i); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a second Accept(%d) = %v; want net.ErrClosed", i, err)
		}
	}
	m.Kill()
	m.Wait()
	if _, err := m.Accept(2); err == nil {
		t.Error("Accept of a device that is not there = nil")
	}
}

// TestAcceptEnds: nobody waits for a kernel that is dead.
func TestAcceptEnds(t *testing.T) {
	k := requireKernel(t)
	c := config(k, archive(t, compile(t, "init.c")))
	c.Devices = []uml.Device{{ID: 1}}
	c.Append = []string{"do=wait"}
	m, err := uml.Start(ctx(t), c)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	first, err := m.Accept(0)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	m.Close()
	if _, err := m.Accept(0); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept = %v; want net.ErrClosed", err)
	}
}

// TestBooted takes the archive out of the host's memory.
func TestBooted(t *testing.T) {
	k := requireKernel(t)
	c := config(k, archive(t, compile(t, "init.c")))
	c.Append = []string{"do=wait"}
	said := make(chan struct{}, 1)
	c.Console = signalOn("init runs", said)
	m, err := uml.Start(ctx(t), c)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	<-said
	for range 2 { // a second time changes nothing
		if err := m.Booted(); err != nil {
			t.Errorf("Booted = %v", err)
		}
	}
	m.Close()
	if err := m.Booted(); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("Booted of an ended machine = %v", err)
	}
}

// signalOn sends once when what is written to it contains text.
func signalOn(text string, c chan<- struct{}) writerFunc {
	var all strings.Builder
	return func(b []byte) (int, error) {
		if all.Write(b); strings.Contains(all.String(), text) {
			select {
			case c <- struct{}{}:
			default:
			}
		}
		return len(b), nil
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// TestContext: a machine ends with its context.
func TestContext(t *testing.T) {
	k := requireKernel(t)
	c := config(k, archive(t, compile(t, "init.c")))
	c.Append = []string{"do=wait"}
	cx, cancel := context.WithCancel(ctx(t))
	m, err := uml.Start(cx, c)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	var exit *uml.ExitError
	if err := m.Wait(); !errors.As(err, &exit) || exit.Status.Signal() != unix.SIGKILL {
		t.Errorf("Wait = %v; want killed", err)
	}
	if _, err := uml.Start(cx, c); !errors.Is(err, context.Canceled) {
		t.Errorf("Start = %v; want canceled", err)
	}
}

// TestTogether starts many at once: what one is handed no other one gets.
func TestTogether(t *testing.T) {
	k := requireKernel(t)
	initrd := archive(t, compile(t, "init.c"))
	var group sync.WaitGroup
	for i := range 12 {
		group.Go(func() {
			c := config(k, initrd)
			c.Append = []string{fmt.Sprintf("tag=%d", i)}
			m, err := uml.Start(ctx(t), c)
			if err != nil {
				t.Errorf("machine %d: %v", i, err)
				return
			}
			defer m.Close()
			err = m.Wait()
			if said := m.Console(); err != nil || strings.Count(said, "I am") != 1 || !strings.Contains(said, fmt.Sprintf("I am %d.", i)) {
				t.Errorf("machine %d: %v, %q", i, err, said)
			}
		})
	}
	group.Wait()
}

func TestProbe(t *testing.T) {
	k := requireKernel(t)
	r, err := uml.Probe(ctx(t), k.Path)
	if err != nil {
		t.Fatal(err)
	}
	if r.Info.Release != k.Release || r.LPJ == 0 || r.Boot <= 0 {
		t.Errorf("Probe = %+v", r)
	}
	if _, err := uml.Probe(ctx(t), "/bin/sh"); err == nil || !strings.Contains(err.Error(), "no User-Mode Linux kernel") {
		t.Errorf("Probe of a program = %v", err)
	}
}

func TestRefused(t *testing.T) {
	c := uml.Config{Kernel: "/none", Memory: 64 << 20}
	tests := []struct {
		name   string
		change func(*uml.Config)
		want   string
	}{
		{"no kernel", func(c *uml.Config) { c.Kernel = "" }, "no kernel"},
		{"kernel not there", func(c *uml.Config) {}, "no such file"},
		{"little memory", func(c *uml.Config) { c.Memory = 4096 }, "memory"},
		{"half a page", func(c *uml.Config) { c.Memory++ }, "memory"},
		{"negative memory", func(c *uml.Config) { c.Memory = -4096 }, "memory"},
		{"the mode that is no boundary", func(c *uml.Config) { c.Append = []string{"seccomp=on"} }, "read and write all memory"},
		{"ours twice", func(c *uml.Config) { c.Append = []string{"mem=1G"} }, "machine's own"},
		{"a device by the back door", func(c *uml.Config) { c.Append = []string{"virtio_uml.device=/x:1"} }, "machine's own"},
		{"two words", func(c *uml.Config) { c.Append = []string{"quiet seccomp=on"} }, "one word"},
		{"a quote", func(c *uml.Config) { c.Append = []string{`"a`} }, "one word"},
		{"init with a space", func(c *uml.Config) { c.Init = "/init seccomp=on" }, "one word"},
		{"too many devices", func(c *uml.Config) { c.Devices = make([]uml.Device, 65) }, "65 devices"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := c
			tt.change(&c)
			m, err := uml.Start(t.Context(), &c)
			if err == nil {
				m.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Start = %v; want %q", err, tt.want)
			}
		})
	}
}
