package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// agentPort is the port of the host that the agent calls.
const agentPort = 1024

// root tries to get out of the guest, or at what is the agent's, and prints a
// line of what became of each try.
func root([]string) error {
	wrong := strings.Repeat("00", 32)
	try("hypercall", func() error { return call(agentPort, preamble(wrong, "hypercall", ""), hello()) })
	try("control", func() error { return call(agentPort, preamble(wrong, "control", ""), nil) })
	try("file", func() error { return call(agentPort, preamble(wrong, "file", "host"), version()) })
	try("no secret", func() error { return call(agentPort, []byte(`{"kind":"hypercall"}`+"\n"), hello()) })
	try("garbage", func() error { return call(agentPort, bytes.Repeat([]byte{0xff, 0, '{', '\r'}, 16<<10), nil) })
	try("no line", func() error { return call(agentPort, []byte(strings.Repeat("x", 2000)), nil) })
	for _, port := range []uint32{1, 22, 1023, 1025, 65535} {
		try("port "+strconv.Itoa(int(port)), func() error { return call(port, nil, nil) })
	}
	try("9p", func() error { return mount9p(preamble(wrong, "file", "host")) })
	for _, options := range []string{"", "/", "/../../../etc"} {
		try("hostfs "+options, func() error { return unix.Mount("none", "/mnt", "hostfs", 0, options) })
	}
	for _, path := range []string{"/seki.json", "/proc/1/root/seki.json", "/dev/mem", "/dev/kmem", "/dev/port", "/proc/kcore", "/dev/ubda"} {
		try(path, func() error { return read(path) })
	}
	for _, device := range []struct{ major, minor uint32 }{{1, 1}, {1, 2}, {98, 0}} { // mem, kmem, ubda
		path := fmt.Sprintf("/dev/device-%d-%d", device.major, device.minor)
		try("device "+path, func() error {
			if err := unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(device.major, device.minor))); err != nil {
				return err
			}
			defer os.Remove(path)
			return read(path)
		})
	}
	try("agent attached", func() error { return attach(1) })
	secret, err := stolen()
	if err != nil {
		fmt.Println("secret:", err)
		return nil
	}
	fmt.Println("secret: done")
	for _, kind := range []string{"hypercall", "control"} {
		try("stolen "+kind, func() error { return call(agentPort, preamble(secret, kind, ""), hello()) })
	}
	for _, export := range []string{"host", "ro0", "ro1", "rw0", "rw1", "..", "/etc", "../../etc"} {
		try("stolen file "+export, func() error { return call(agentPort, preamble(secret, "file", export), version()) })
	}
	try("stolen stream", func() error { return call(agentPort, preamble(secret, "stream", strings.Repeat("0", 32)), version()) })
	return nil
}

func try(name string, f func() error) {
	if err := f(); err != nil {
		fmt.Printf("%s: %v\n", name, err)
	} else {
		fmt.Printf("%s: done\n", name)
	}
}

func preamble(secret, kind, name string) []byte {
	return fmt.Appendf(nil, `{"secret":%q,"kind":%q,"name":%q}`+"\n", secret, kind, name)
}

// hello is what would be asked of a hypercall server that listened: anything.
func hello() []byte { return make([]byte, 64) }

// version is 9P's Tversion.
func version() []byte {
	const name = "9P2000.L"
	b := []byte{21, 0, 0, 0, 100, 0xff, 0xff, 0, 0, 2, 0, byte(len(name)), 0}
	return append(b, name...)
}

// call connects to a port of the host, says something and waits for an answer;
// that there is any is no error.
func call(port uint32, say ...[]byte) error {
	s, err := dial(port)
	if err != nil {
		return err
	}
	defer s.Close()
	for _, b := range say {
		if _, err := s.Write(b); err != nil {
			return fmt.Errorf("cut off: %w", err)
		}
	}
	n, err := s.Read(make([]byte, 256))
	if n > 0 {
		return nil
	}
	if errors.Is(err, unix.EAGAIN) {
		return errors.New("no answer")
	}
	return fmt.Errorf("cut off: %w", err)
}

func dial(port uint32) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	s := os.NewFile(uintptr(fd), "vsock")
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := unix.Connect(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: port}); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// mount9p mounts what answers on a connection of our own.
func mount9p(say []byte) error {
	s, err := dial(agentPort)
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.Write(say); err != nil {
		return err
	}
	return unix.Mount("none", "/mnt", "9p", 0, fmt.Sprintf("trans=fd,rfdno=%d,wfdno=%d,version=9p2000.L,aname=/", s.Fd(), s.Fd()))
}

// read reads a byte of a file.
func read(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Read(make([]byte, 1))
	return err
}

// attach traces a process, if it is the agent.
func attach(pid int) error {
	if who, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil {
		return err
	} else if who != "/seki" {
		return fmt.Errorf("process %d is %s", pid, filepath.Base(who))
	}
	return unix.PtraceSeize(pid) // until this program ends
}

var secretWord = []byte(`"secret":"`)

// stolen is the machine's secret, from the memory of the agent, if it is seen.
func stolen() (string, error) {
	all, err := filepath.Glob("/proc/[0-9]*/maps")
	if err != nil {
		return "", err
	}
	for _, maps := range all {
		if who, _ := os.Readlink(filepath.Dir(maps) + "/exe"); who == "/seki" {
			if m := search(maps); m != "" {
				return m, nil
			}
		}
	}
	return "", errors.New("no process has it")
}

// search looks through the memory of a process.
func search(maps string) string {
	regions, err := os.ReadFile(maps)
	if err != nil {
		return ""
	}
	mem, err := os.Open(filepath.Join(filepath.Dir(maps), "mem"))
	if err != nil {
		return ""
	}
	defer mem.Close()
	for line := range strings.Lines(string(regions)) {
		var from, to int64
		var perm string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &perm); n != 3 || !strings.HasPrefix(perm, "rw") || to-from > 64<<20 {
			continue
		}
		b := make([]byte, to-from)
		n, _ := mem.ReadAt(b, from) // what can be read of it
		for b = b[:n]; ; b = b[1:] {
			i := bytes.Index(b, secretWord)
			if i < 0 {
				break
			}
			b = b[i:]
			if w := b[min(len(secretWord), len(b)):min(len(secretWord)+64, len(b))]; isHex(w) {
				return string(w)
			}
		}
	}
	return ""
}

func isHex(b []byte) bool {
	_, err := hex.DecodeString(string(b))
	return err == nil && len(b) == 64
}
