package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// volume is how large the file is that a container reads and writes over 9P.
const volume = 64 << 20

// rates are how many megabytes a second a container reads from and writes to a
// directory of the host. The host has the file in memory, the guest has not.
func (m *machineBench) rates() (read, write float64, err error) {
	dir := filepath.Join(m.dir, "volume")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, 0, err
	}
	if err := os.WriteFile(filepath.Join(dir, "in"), make([]byte, volume), 0o644); err != nil {
		return 0, 0, err
	}
	c, err := m.command(`
machine("uml")
container(name = "files", rootfs = dir("rootfs"), args = ["/bin/bench", "files", "/volume"], mounts = [bind("volume", "/volume", readonly = False)])
`)
	if err != nil {
		return 0, 0, err
	}
	out, err := c.Output()
	if err != nil {
		return 0, 0, err
	}
	if _, err := fmt.Sscan(string(out), &read, &write); err != nil {
		return 0, 0, fmt.Errorf("files said %q: %w", out, err)
	}
	st, err := os.Stat(filepath.Join(dir, "out"))
	if err == nil && st.Size() != volume {
		err = fmt.Errorf("the container wrote %d bytes", st.Size())
	}
	return read, write, err
}

// filesAt is the program in the container: it prints how many megabytes a second
// it read and wrote.
func filesAt(dir string) error {
	in, err := os.Open(filepath.Join(dir, "in"))
	if err != nil {
		return err
	}
	defer in.Close()
	b := make([]byte, 1<<20)
	begin, n := time.Now(), 0
	for {
		k, err := in.Read(b)
		if n += k; err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	read := float64(n>>20) / time.Since(begin).Seconds()
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		return err
	}
	begin = time.Now()
	for range volume / len(b) {
		if _, err := out.Write(b); err != nil {
			return err
		}
	}
	if err := out.Close(); err != nil {
		return err
	}
	fmt.Println(read, float64(volume>>20)/time.Since(begin).Seconds())
	return nil
}

// memory is what a container that sleeps costs in a machine of its own, its
// supervisor included, in bytes: the proportional shares of all processes.
func (m *machineBench) memory() (int64, error) {
	c, err := m.command(`
machine("uml", memory = "64MiB")
container(name = "hello", rootfs = dir("rootfs"), args = ["/bin/busybox", "sleep", "60"])
`)
	if err != nil {
		return 0, err
	}
	if err := c.Start(); err != nil {
		return 0, err
	}
	defer func() {
		c.Process.Signal(os.Interrupt)
		c.Wait()
	}()
	for range 100 {
		out, err := exec.Command(m.seki, "--root", m.state, "ps", "--json").Output()
		if err == nil && strings.Count(string(out), `"running"`) == 2 { // the only pod here, and its container
			return shares(c.Process.Pid)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return 0, errors.New("the pod did not run within 10 s")
}

// shares adds up the proportional shares of a process and all below it.
func shares(pid int) (int64, error) {
	children := map[int][]int{}
	dirs, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	for _, name := range dirs {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		// pid (comm) state ppid ...; comm may have spaces and parentheses
		rest := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		parent, err := strconv.Atoi(rest[1])
		if err != nil {
			return 0, err
		}
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil {
			return 0, err
		}
		children[parent] = append(children[parent], child)
	}
	var total int64
	for all := []int{pid}; len(all) > 0; all = all[1:] {
		n, err := share(all[0])
		if err != nil {
			return 0, err
		}
		total += n
		all = append(all, children[all[0]]...)
	}
	return total, nil
}

// share is the proportional share of one process in bytes.
func share(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "Pss:" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("process %d: smaps_rollup has no Pss", pid)
}
