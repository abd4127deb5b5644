package uml

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"sekimori/vmm/uml/kernel"
)

// A Config describes a machine.
type Config struct {
	Kernel string       // path of the image
	Info   *kernel.Info // what it says of itself, if that is known; else Start looks
	LPJ    uint64       // the kernel's delay loop on this host, 0 to have it measured at each boot (30 to 60 ms)
	Memory int64        // of the guest, in bytes; a multiple of a page, 16 MB at least

	// InitRD is the archive that the guest unpacks as its root, from the start
	// of the file; the caller closes it. Init is what it executes there, "/init"
	// if empty.
	InitRD *os.File
	Init   string
	// InitRDPath is the archive as a file that is shown to the machine where it
	// lies, read-only, instead of being copied: 15 MB cost 20 ms of CPU time. It
	// must be readable for the machine's user.
	InitRDPath string

	// OneCPU keeps the machine and every thread of this process on one processor,
	// another when others want that one. For a process that has nothing else to do
	// than to serve the machine.
	OneCPU bool

	Devices []Device
	Append  []string // more words of the kernel's command line, which every user of the host can read: no secrets
	Verbose bool     // the kernel says all it has to say on the console

	// Console gets what the guest writes to its console, from one goroutine. A
	// Write that blocks stops the guest at its next line, and Wait. May be nil;
	// the end of it is kept in any case ([Machine.Console]).
	Console io.Writer

	// UID and GID are the host's ids of the machine's processes, if the caller
	// is root: ids that nothing else on the host has. 0 is for nobody (65534).
	UID, GID int

	// Cgroup is a path below the host's hierarchies in which a control group
	// is made that bounds the machine, "" for none. It needs root, or a
	// delegated directory.
	Cgroup string
	CPUs   float64 // of the host, 0 for no limit; only with Cgroup
}

// A Device is one that the host serves by vhost-user.
type Device struct {
	ID int // of virtio: 1 is a network card, 19 a socket device
}

// Limits of a Config.
const (
	MinMemory  = 16 << 20
	MaxMemory  = 64 << 30
	maxDevices = 64
	nobody     = 65534
)

// check refuses what would fail later, or mean something else.
func (c *Config) check() error {
	switch {
	case c.Kernel == "":
		return errors.New("no kernel")
	case c.Memory < MinMemory || c.Memory > MaxMemory || c.Memory%4096 != 0:
		return fmt.Errorf("memory: %d bytes: want a multiple of 4096 from %d MB to %d GB", c.Memory, MinMemory>>20, int64(MaxMemory)>>30)
	case len(c.Devices) > maxDevices:
		return fmt.Errorf("%d devices, at most %d", len(c.Devices), maxDevices)
	case c.InitRD != nil && c.InitRDPath != "":
		return errors.New("two initial file systems")
	case c.UID < 0 || c.GID < 0:
		return fmt.Errorf("ids %d:%d", c.UID, c.GID)
	case c.CPUs < 0:
		return fmt.Errorf("cpus: %g", c.CPUs)
	}
	for _, w := range append([]string{c.Init}, c.Append...) {
		if err := checkWord(w); err != nil {
			return err
		}
	}
	return nil
}

// ours are the parameters that make the machine what it is.
var ours = []string{"mem", "initrd", "virtio_uml.device", "uml_dir", "umid", "seccomp", "hostfs", "con", "con0", "mode"}

// checkWord refuses a word that is more than one parameter, or one of ours:
// what is given twice is for the kernel to choose from.
func checkWord(w string) error {
	for _, r := range w {
		if r <= ' ' || r == 0x7f || r == '"' {
			return fmt.Errorf("command line: %q: one word, without quotes", w)
		}
	}
	name, _, _ := strings.Cut(w, "=")
	for _, o := range ours {
		if name == o && o == "seccomp" {
			return errors.New("command line: seccomp=: that mode of User-Mode Linux lets guest programs read and write all memory of the machine")
		}
		if name == o {
			return fmt.Errorf("command line: %q: it is set by the machine's own description", w)
		}
	}
	return nil
}

// Paths in the jail.
const (
	initrdPath = "/run/initrd"
	socketDir  = "/run/"
)

func socketName(i int) string { return "device" + strconv.Itoa(i) }

// commandLine is the kernel's; the first word is the name by which ps knows it.
func (c *Config) commandLine() []string {
	args := []string{"seki-uml", "mem=" + strconv.FormatInt(c.Memory>>10, 10) + "K", "uml_dir=/run/", "umid=m", "con=null", "con0=null,fd:1", "panic=-1"}
	if !c.Verbose {
		args = append(args, "quiet")
	}
	if c.LPJ != 0 {
		args = append(args, "lpj="+strconv.FormatUint(c.LPJ, 10))
	}
	if c.InitRD != nil || c.InitRDPath != "" {
		init := c.Init
		if init == "" {
			init = "/init"
		}
		// A ramfs: the tmpfs that the first root else is holds half of what is
		// free while the archive is in memory, and of 64 MB that is 17.
		args = append(args, "initrd="+initrdPath, "rdinit="+init, "rootfstype=ramfs")
	}
	for i, d := range c.Devices {
		args = append(args, fmt.Sprintf("virtio_uml.device=%s%s:%d", socketDir, socketName(i), d.ID))
	}
	return append(args, c.Append...)
}

// environment is all that the kernel finds there.
var environment = []string{
	"TMPDIR=/run",
	// A stub is a copy of the kernel's process whose memory is then unmapped,
	// the area that the C library registered for restartable sequences with
	// it: for a static kernel, that is; the host would kill each stub with
	// SIGSEGV at its first return to user mode.
	"GLIBC_TUNABLES=glibc.pthread.rseq=0",
}
