// Guestfiles is PID 1 of the guest that TestGuestFiles boots: it mounts what the
// host exports over 9P, on vsock, does what programs do with files, tries what
// attackers do, measures, and says of each what came of it.
package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Ports of the host.
const (
	portFiles  = 564
	portReport = 1
	portSink   = 2 // reads all, then answers with one byte
	portSource = 3 // sends 64 MiB
	portEcho   = 4
	portGuest  = 5 // of the guest: echoes
)

var report io.Writer

func main() {
	if len(os.Args) > 1 && os.Args[1] == "exec" {
		fmt.Print("executed")
		return
	}
	if err := run(); err != nil {
		fmt.Println("guestfiles:", err)
	}
	_ = unix.IoctlSetInt(1, unix.TCSBRK, 1) // tcdrain(3): a machine without power sends nothing
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() error {
	f, err := dial(portReport)
	if err != nil {
		return err
	}
	report = f
	defer f.Close()
	for _, d := range []string{"/rw", "/ro", "/loose", "/big", "/tmp", "/merged"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	for fs, target := range map[string]string{"tmpfs": "/tmp", "devtmpfs": "/dev"} {
		if err := unix.Mount(fs, target, fs, 0, ""); err != nil {
			return err
		}
	}
	for _, m := range []struct{ target, name, more string }{
		{"/rw", "rw", "msize=131072"},
		{"/ro", "ro", "msize=131072,cache=loose"},
		{"/loose", "rw", "msize=131072,cache=mmap"},
		{"/big", "ro", "msize=524288,cache=loose"},
	} {
		begin := time.Now()
		err := mount(m.target, m.name, m.more)
		say("mount "+m.target, err, time.Since(begin).String())
		if err != nil {
			return err
		}
	}
	for _, c := range checks {
		detail, err := c.run()
		say(c.name, err, detail)
	}
	say("done", nil, "")
	// The host's word that it has read all.
	var b [1]byte
	_, _ = f.Read(b[:])
	return nil
}

func say(name string, err error, detail string) {
	if err != nil {
		fmt.Fprintf(report, "fail\t%s\t%v\n", name, err)
		return
	}
	fmt.Fprintf(report, "ok\t%s\t%s\n", name, detail)
}

// dial connects to a port of the host.
func dial(port uint32) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: port}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("connect to port %d: %w", port, err)
	}
	return os.NewFile(uintptr(fd), "vsock"), nil
}

func mount(target, name, more string) error {
	f, err := dial(portFiles)
	if err != nil {
		return err
	}
	defer f.Close() // the mount has its own reference
	data := fmt.Sprintf("trans=fd,rfdno=%d,wfdno=%d,version=9p2000.L,aname=%s,%s", f.Fd(), f.Fd(), name, more)
	return unix.Mount("seki", target, "9p", unix.MS_NODEV|unix.MS_NOSUID, data)
}

var checks = []struct {
	name string
	run  func() (string, error)
}{
	{"write and read", func() (string, error) { return "", writeAndRead("/rw/file") }},
	{"write and read, cache=mmap", func() (string, error) { return "", writeAndRead("/loose/file2") }},
	{"directories", directories},
	{"symlink leads to the guest", symlink},
	{"dots", dots},
	{"fifo", fifo},
	{"socket", socket},
	{"device", device},
	{"locks", locks},
	{"xattrs", xattrs},
	{"setuid", setuid},
	{"removed but open", removed},
	{"shared mmap", mmap},
	{"hidden", hidden},
	{"read-only", readOnly},
	{"overlay", overlay},
	{"exec", execute},
	{"connected from the host", accept},
	{"bench: 9P read of 64 MiB, msize=128K", func() (string, error) { return readAll("/ro/large") }},
	{"bench: 9P read of 64 MiB, msize=512K", func() (string, error) { return readAll("/big/large") }},
	{"bench: 9P write of 32 MiB, msize=128K", writeAll},
	{"bench: 9P ls -l of 300 files", listAll},
	{"bench: 9P read of 300 small files", readMany},
	{"bench: vsock out", sink},
	{"bench: vsock in", source},
	{"bench: vsock round trip", echo},
}
