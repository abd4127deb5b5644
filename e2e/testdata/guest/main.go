// Guest is PID 1 of the kernels that TestAttribution boots: four containers
// share the one network card, and send all at once. Each has a network namespace
// of its own, and there a macvlan of the card or, with links=bridge, a veth that a
// bridge joins with it. The kernel's command line says how much is sent; see load.
//
// It loads the modules that lie in /modules, writes "member NUMBER INODE INODE"
// for each container, of its namespace and of its cgroup, then "ready", and waits
// for a frame of EtherType 0x88b6. When all have sent, one of them only computes for
// a while, and another is there to be asked for. At its end it writes "done" and
// powers off.
// Anything that fails it writes as "failed: ...".
package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	containers = 4
	goOn       = 0x88b6 // EtherType
	forged     = 0x88b5

	answers, computes = 2, 3            // containers, at the end
	alone             = 3 * time.Second // how long
)

// A load is how much each container sends.
type load struct {
	datagrams int // and the first forges two fifths as many frames
	stream    int // bytes, to and fro
}

// loadOf is what the command line says, or what a fast machine does in seconds.
func loadOf() load {
	number := func(name string, otherwise int) int {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
			return n
		}
		return otherwise
	}
	return load{datagrams: number("datagrams", 5000), stream: number("stream", 512<<10)}
}

func main() {
	if len(os.Args) == 4 && os.Args[1] == "flood" {
		n, _ := strconv.Atoi(os.Args[2])
		count, _ := strconv.Atoi(os.Args[3])
		if err := flood(byte(n), count); err != nil {
			fmt.Printf("failed: container %d: %v\n", n, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 2 && os.Args[1] == "hog" {
		hog()
		return
	}
	if len(os.Args) == 3 && os.Args[1] == "container" {
		n, _ := strconv.Atoi(os.Args[2])
		if err := container(byte(n)); err != nil {
			fmt.Printf("failed: container %d: %v\n", n, err)
			os.Exit(1)
		}
		return
	}
	if err := run(); err != nil {
		fmt.Println("failed:", err)
	} else {
		fmt.Println("done")
	}
	// tcdrain(3): a serial port sends what was written to it at its own pace, and a
	// machine without power not at all.
	_ = unix.IoctlSetInt(1, unix.TCSBRK, 1)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func macOf(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 1, n} }

func run() error {
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := modules(); err != nil {
		return err
	}
	if err := text(); err != nil {
		return err
	}
	// As few as there may be, so that they are given out again soon.
	if err := os.WriteFile("/proc/sys/kernel/pid_max", []byte("400"), 0); err != nil {
		return err
	}
	if err := unix.Mount("cgroup2", "/cgroup", "cgroup2", 0, ""); err != nil {
		return fmt.Errorf("mount /cgroup: %w", err)
	}
	card, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(card); err != nil {
		return err
	}
	parent, err := joint(card)
	if err != nil {
		return err
	}
	wait, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(swap(goOn)))
	if err != nil {
		return err
	}
	sent, err := newStage()
	if err != nil {
		return err
	}
	var all []*exec.Cmd
	var starts []io.WriteCloser
	for n := byte(1); n <= containers; n++ {
		cmd, start, err := spawn(parent, n, sent)
		if err != nil {
			return fmt.Errorf("container %d: %w", n, err)
		}
		all, starts = append(all, cmd), append(starts, start)
	}
	// A port of a bridge forwards some time after its other end is up, and what
	// comes earlier is lost: of a short load, all of it.
	if bridged() {
		for n, s := range starts {
			if _, err := s.Write([]byte("u")); err != nil {
				return err
			}
			if err := forwards(fmt.Sprint("v", n+1)); err != nil {
				return err
			}
		}
	}
	fmt.Println("ready")
	if _, _, err := unix.Recvfrom(wait, make([]byte, 64), 0); err != nil {
		return err
	}
	for _, s := range starts {
		s.Close()
	}
	if err := sent.all(); err != nil {
		return err
	}
	for n, cmd := range all {
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("container %d: %w", n+1, err)
		}
	}
	return kick()
}

// text says where the kernel lies.
func text() error {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if addr, ok := strings.CutSuffix(lines.Text(), " T _text"); ok {
			fmt.Println("text", addr)
			return nil
		}
	}
	return nil // User-Mode Linux has no such symbol
}

// kick notifies the card from user mode, as root of a guest can: kick=ADDRESS
// says where its register is.
func kick() error {
	at, err := strconv.ParseInt(os.Getenv("kick"), 0, 64)
	if err != nil {
		return nil
	}
	if err := unix.Mknod("/dev/mem", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 1))); err != nil {
		return fmt.Errorf("/dev/mem: %w", err)
	}
	mem, err := os.OpenFile("/dev/mem", os.O_RDWR|os.O_SYNC, 0)
	if err != nil {
		return err
	}
	defer mem.Close()
	page, err := unix.Mmap(int(mem.Fd()), at&^4095, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mmap /dev/mem: %w", err)
	}
	const transmit = 1
	binary.LittleEndian.PutUint32(page[at&4095:], transmit)
	return unix.Munmap(page)
}

// modules loads what lies in /modules, in the order of the names.
func modules() error {
	files, err := os.ReadDir("/modules")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, f := range files {
		m, err := os.Open("/modules/" + f.Name())
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(m.Fd()), "", 0)
		m.Close()
		if err != nil {
			return fmt.Errorf("load %s: %w", f.Name(), err)
		}
	}
	return err
}

// forwards waits until a port of the bridge does.
func forwards(port string) error {
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("mount /sys: %w", err)
	}
	const forwarding = "3" // BR_STATE_FORWARDING
	for range 6000 {
		b, err := os.ReadFile("/sys/class/net/br0/brif/" + port + "/state")
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(b)) == forwarding {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("port %s does not forward", port)
}

func bridged() bool { return os.Getenv("links") == "bridge" }

// joint is what the containers' links hang on: the card, or a bridge.
func joint(card netlink.Link) (netlink.Link, error) {
	if !bridged() {
		return card, nil
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return nil, err
	}
	br, err := netlink.LinkByName("br0")
	if err == nil {
		err = errors.Join(netlink.LinkSetMaster(card, br), netlink.LinkSetUp(br))
	}
	return br, err
}

// plug makes link "mN" in the namespace of a process.
func plug(parent netlink.Link, n byte, pid int) error {
	attrs := netlink.NewLinkAttrs()
	if bridged() {
		attrs.Name, attrs.MasterIndex = fmt.Sprint("v", n), parent.Attrs().Index
		err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprint("m", n), PeerHardwareAddr: macOf(n), PeerNamespace: netlink.NsPid(pid)})
		if err != nil {
			return err
		}
		end, err := netlink.LinkByName(attrs.Name)
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(end)
	}
	attrs.Name, attrs.ParentIndex, attrs.HardwareAddr = fmt.Sprint("m", n), parent.Attrs().Index, macOf(n)
	attrs.Namespace = netlink.NsPid(pid)
	return netlink.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_VEPA})
}

// spawn makes a container, which begins when start is closed, and has its link up
// before that if something is written there.
func spawn(parent netlink.Link, n byte, sent *stage) (cmd *exec.Cmd, start io.WriteCloser, err error) {
	cmd = exec.Command("/proc/self/exe", "container", fmt.Sprint(n))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	cmd.ExtraFiles = []*os.File{sent.tell, sent.wait}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Setpgid: true}
	if start, err = cmd.StdinPipe(); err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	if err := plug(parent, n, cmd.Process.Pid); err != nil {
		return nil, nil, err
	}
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid))
	if err != nil {
		return nil, nil, err
	}
	id, err := join(fmt.Sprint("/cgroup/c", n), cmd.Process.Pid)
	if err != nil {
		return nil, nil, err
	}
	fmt.Printf("member %d %s %d\n", n, strings.Trim(ns, "net:[]"), id)
	return cmd, start, nil
}

// join puts a process into a new cgroup, and returns the inode of that.
func join(dir string, pid int) (uint64, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return 0, err
	}
	if err := os.WriteFile(dir+"/cgroup.procs", []byte(fmt.Sprint(pid)), 0); err != nil {
		return 0, err
	}
	var st unix.Stat_t
	err := unix.Stat(dir, &st)
	return st.Ino, err
}

// container is what runs in each.
func container(n byte) error {
	if err := send(n); err != nil {
		return err
	}
	if err := passed(); err != nil {
		return err
	}
	switch n {
	case computes:
		return exec.Command("/proc/self/exe", "hog").Run()
	case answers:
		time.Sleep(alone)
	}
	return nil
}

// send sends all that the container has to, at the same time as the others.
func send(n byte) error {
	start := bufio.NewReader(os.Stdin)
	_, early := start.ReadByte() // an error: the pipe is closed
	link, err := netlink.LinkByName(fmt.Sprint("m", n))
	if err != nil {
		return err
	}
	for _, a := range []string{fmt.Sprintf("10.0.0.1%d/24", n), fmt.Sprintf("fd00::1%d/64", n)} {
		addr, err := netlink.ParseAddr(a)
		if err == nil {
			err = netlink.AddrAdd(link, addr)
		}
		if err != nil {
			return err
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	if early == nil {
		start.ReadByte() // ends with the pipe
	}
	errs := make(chan error)
	work := []func() error{func() error { return flood(n, loadOf().datagrams) }, func() error { return evade(n) }, func() error { return storm(n) }}
	if bridged() {
		// What the kernel itself says through a bridge proves nothing, and
		// drops: the neighbour has to be known, and no answer finds its way.
		err = netlink.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: net.IPv4(10, 0, 0, 1), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}, State: netlink.NUD_PERMANENT})
	} else {
		err = acquaint(n, link)
		work = append(work, func() error { return stream(n) }, func() error { return sixes(n) })
	}
	if err != nil {
		return err
	}
	if n == 1 {
		work = append(work, func() error { return forge(link) })
	}
	for _, w := range work {
		go func() { errs <- w() }()
	}
	for range work {
		if e := <-errs; e != nil && err == nil { // the first of them
			err = e
		}
	}
	return err
}

// acquaint waits until the peer's address is known: what is sent before waits for
// it, and leaves in a softirq, which of a short load is half.
func acquaint(n byte, link netlink.Link) error {
	c, err := net.Dial("udp4", "10.0.0.1:7")
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte{'R', n}); err != nil {
		return err
	}
	for range 3000 {
		known, err := netlink.NeighList(link.Attrs().Index, netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		for _, k := range known {
			if k.State&netlink.NUD_REACHABLE != 0 {
				return nil
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("the peer does not answer")
}

// evade floods from a process that leaves its container's process group and
// session, as anybody may.
func evade(n byte) error { return fork(n, loadOf().datagrams/4) }

// storm sends from one short-lived process after the other, in all containers at
// once: their numbers, their structs and what lies behind are used again by the
// next, of whichever container.
func storm(n byte) error {
	for range loadOf().datagrams / 100 {
		if err := fork(n, 1); err != nil {
			return err
		}
	}
	return nil
}

func fork(n byte, count int) error {
	cmd := exec.Command("/proc/self/exe", "flood", fmt.Sprint(n), fmt.Sprint(count))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd.Run()
}

// flood sends datagrams that say who sends them.
func flood(n byte, datagrams int) error {
	c, err := net.Dial("udp4", "10.0.0.1:7")
	if err != nil {
		return err
	}
	defer c.Close()
	payload := binary.LittleEndian.AppendUint32([]byte{'U', n}, uint32(os.Getpid()))
	for i := range datagrams {
		for {
			_, err := c.Write(binary.LittleEndian.AppendUint32(payload, uint32(i)))
			if err == nil {
				break
			}
			time.Sleep(time.Millisecond) // no buffers; the neighbour is not known yet
		}
	}
	return nil
}

// stream sends and receives by TCP, so that acknowledgements of one container
// come while another runs.
func stream(n byte) error {
	c, err := net.DialTimeout("tcp4", "10.0.0.1:9", 20*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	data := make([]byte, loadOf().stream)
	go c.Write(data)
	if _, err := io.ReadFull(c, data); err != nil {
		return fmt.Errorf("tcp: %w", err)
	}
	return nil
}

// sixes sends by IPv6, as soon as its address is known to be free.
func sixes(n byte) error {
	var c net.Conn
	var err error
	for range 100 {
		if c, err = net.Dial("udp6", "[fd00::1]:7"); err == nil {
			if _, err = c.Write([]byte{'6', n}); err == nil {
				break
			}
			c.Close()
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("ipv6: %w", err)
	}
	defer c.Close()
	for range loadOf().datagrams / 25 {
		if _, err := c.Write([]byte{'6', n}); err != nil {
			return fmt.Errorf("ipv6: %w", err)
		}
	}
	return nil
}

// forge sends frames in the name of container 2, which sends at the same time:
// half of them by a system call each, half by a ring that the kernel empties.
func forge(link netlink.Link) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	frame := append([]byte{2, 0, 0, 0, 0, 1}, macOf(2)...)
	frame = append(frame, forged>>8, forged&0xff)
	frame = append(frame, make([]byte, 46)...)
	to := &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index}
	half := loadOf().datagrams / 5
	for range half {
		for unix.Sendto(fd, frame, 0, to) != nil {
			time.Sleep(time.Millisecond)
		}
	}
	return forgeRing(frame, half, to)
}

func swap(v uint16) uint16 { return v<<8 | v>>8 }
