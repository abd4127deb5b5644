package uml_test

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/vmm/uml"
)

// BenchmarkBoot takes the time from the start to the first word of the guest's
// init, by turns without the jail and in it:
//
//	go test ./vmm/uml -run '^$' -bench Boot -benchtime 40x
func BenchmarkBoot(b *testing.B) {
	k := requireKernel(b)
	initrd := archive(b, compile(b, "init.c"))
	var bare, jailed []time.Duration
	for b.Loop() {
		bare = append(bare, bootBare(b, k.Path, initrd.Name()))
		c := config(k, initrd)
		w := &wordTime{start: time.Now()}
		c.Console = w
		m, err := uml.Start(ctx(b), c)
		if err != nil {
			b.Fatal(err)
		}
		if err := m.Wait(); err != nil {
			b.Fatal(err)
		}
		jailed = append(jailed, w.after)
	}
	report := func(name string, d []time.Duration) {
		slices.Sort(d)
		b.ReportMetric(float64(d[0].Microseconds())/1000, name+"-min-ms")
		b.ReportMetric(float64(d[len(d)/2].Microseconds())/1000, name+"-median-ms")
	}
	report("bare", bare)
	report("jailed", jailed)
}

// bootBare runs the kernel as a shell would.
func bootBare(b *testing.B, image, initrd string) time.Duration {
	b.Helper()
	runtime.LockOSThread() // a child has its thread's personality
	defer runtime.UnlockOSThread()
	was, _, _ := unix.Syscall(unix.SYS_PERSONALITY, 0xffffffff, 0, 0)
	unix.Syscall(unix.SYS_PERSONALITY, was|0x0040000, 0, 0) // ADDR_NO_RANDOMIZE
	defer unix.Syscall(unix.SYS_PERSONALITY, was, 0, 0)
	dir := b.TempDir()
	cmd := exec.Command(image, "mem=64M", "quiet", "lpj=12000000", "initrd="+initrd, "rdinit=/init", "con=null", "con0=null,fd:1", "uml_dir="+filepath.Clean(dir)+"/")
	cmd.Env = []string{"TMPDIR=/dev/shm", "GLIBC_TUNABLES=glibc.pthread.rseq=0"}
	w := &wordTime{start: time.Now()}
	cmd.Stdout = w
	if err := cmd.Run(); err != nil {
		b.Fatal(err)
	}
	return w.after
}

// wordTime takes the time of the init's first word.
type wordTime struct {
	start time.Time
	all   bytes.Buffer
	after time.Duration
}

func (w *wordTime) Write(p []byte) (int, error) {
	if w.all.Write(p); w.after == 0 && bytes.Contains(w.all.Bytes(), []byte("init runs")) {
		w.after = time.Since(w.start)
	}
	return len(p), nil
}
