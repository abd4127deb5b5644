package kvm

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"sekimori/vmm/landlock"
)

// inThread runs f on a contained thread, which ends with it.
func inThread(t *testing.T, f func()) {
	t.Helper()
	w, err := newNamespaces()
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	onOwnThread(func() {
		if err = contain(w); err == nil {
			f()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestOnOwnThread: of many that want a thread at once none gets the process's first,
// and afterwards the process is where it was.
func TestOnOwnThread(t *testing.T) {
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			onOwnThread(func() {
				if unix.Gettid() == unix.Getpid() {
					t.Error("f runs on the process's first thread")
				}
			})
		})
	}
	all.Wait()
}

// TestContained: a vCPU's thread opens, connects, traces and maps nothing that
// runs, and has no capability; the threads beside it go on as they were.
func TestContained(t *testing.T) {
	inThread(t, func() {
		if _, err := os.Open("/"); !errors.Is(err, unix.EPERM) {
			t.Errorf("open: %v", err)
		}
		if _, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); !errors.Is(err, unix.EPERM) {
			t.Errorf("socket: %v", err)
		}
		if _, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); !errors.Is(err, unix.EPERM) {
			t.Errorf("mmap of code: %v", err)
		}
		if err := unix.Kill(os.Getppid(), 0); !errors.Is(err, unix.EPERM) {
			t.Errorf("kill: %v", err)
		}
		if err := unix.Tgkill(1, 1, 0); !errors.Is(err, unix.EPERM) {
			t.Errorf("tgkill: %v", err)
		}
		if _, err := ioctl(0, unix.TIOCSTI, nil); !errors.Is(err, unix.EPERM) {
			t.Errorf("ioctl: %v", err)
		}
		if _, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); !errors.Is(err, unix.EPERM) {
			t.Errorf("prctl: %v", err)
		}
	})
	// Seen from outside: capset of its own thread is not for it any more.
	tids, end, ended := make(chan int), make(chan bool), make(chan bool)
	go func() {
		defer close(ended)
		inThread(t, func() {
			tids <- unix.Gettid()
			<-end
		})
	}()
	task := "/proc/self/task/" + strconv.Itoa(<-tids)
	status, err := os.ReadFile(task + "/status")
	if os.Geteuid() == 0 {
		for _, name := range namespaceNames {
			own, err := os.Readlink("/proc/self/ns/" + name)
			its, ierr := os.Readlink(task + "/ns/" + name)
			if err != nil || ierr != nil || its == own {
				t.Errorf("namespace %s: %s, %v; of the process: %s, %v", name, its, ierr, own, err)
			}
		}
		if files, err := os.ReadDir(task + "/root/"); err != nil || len(files) > 0 {
			t.Errorf("its root: %v, %v", files, err)
		}
		if files, err := os.ReadDir(task + "/cwd/"); err != nil || len(files) > 0 {
			t.Errorf("its working directory: %v, %v", files, err)
		}
	}
	close(end)
	<-ended
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(string(status), want+"\n") {
			t.Errorf("no %q in its status:\n%s", want, status)
		}
	}
	if f, err := os.Open("/"); err != nil {
		t.Errorf("another thread: open: %v", err)
	} else {
		f.Close()
	}
	if err := exec.Command("/proc/self/exe", "-test.run=^$").Run(); err != nil {
		t.Errorf("another thread: exec: %v", err)
	}
}

// TestRestrictFiles: without the list of system calls there is still no file, for a
// user who can have no namespaces either.
func TestRestrictFiles(t *testing.T) {
	if _, err := landlock.Version(); err != nil {
		t.Skip("no Landlock: ", err)
	}
	onOwnThread(func() {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			t.Error(err)
		}
		if err := restrictFiles(); err != nil {
			t.Error(err)
		}
		for _, path := range []string{"/proc/self/exe", "/dev/null", "/"} {
			if f, err := os.Open(path); !errors.Is(err, unix.EACCES) {
				t.Errorf("open %s: %v, %v", path, f, err)
			}
		}
	})
}

// TestDeadly: a call that only an attacker makes is the end of the process.
func TestDeadly(t *testing.T) {
	const child = "SEKI_TEST_CHILD"
	if os.Getenv(child) != "" {
		inThread(t, func() { unix.Exec("/proc/self/exe", []string{"seki"}, nil) })
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestDeadly$")
	cmd.Env = append(os.Environ(), child+"=1")
	err := cmd.Run()
	var e *exec.ExitError
	if !errors.As(err, &e) || e.Sys().(syscall.WaitStatus).Signal() != unix.SIGSYS {
		t.Errorf("a thread that executes a program: %v; want SIGSYS", err)
	}
}

// TestRuntimeContained: what the Go runtime does on such a thread, it may: memory
// grows and is collected, goroutines are started and waited for, the thread sleeps,
// wakes others, and ends.
func TestRuntimeContained(t *testing.T) {
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			inThread(t, func() {
				var held [][]byte
				for i := range 200 {
					held = append(held, make([]byte, 64<<10))
					done := make(chan bool)
					for range 4 {
						go func() { done <- len(make([]byte, 32<<10)) > 0 }()
					}
					for range 4 {
						<-done
					}
					if i%20 == 0 {
						runtime.GC()
						debug.FreeOSMemory()
						held = nil
					}
				}
				_ = held
			})
		})
	}
	all.Wait()
}
