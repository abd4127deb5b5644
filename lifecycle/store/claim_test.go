package store_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sekimori/lifecycle/store"
)

func TestNameInUse(t *testing.T) {
	s := open(t)
	p := claim(t, s, state("web", 1))
	defer p.Remove()
	_, err := s.Claim(state("web", 1), nil)
	var used *store.NameError
	if !errors.As(err, &used) || used.Pid != os.Getpid() || used.Since.IsZero() {
		t.Fatalf("Claim() = %v; want a NameError", err)
	}
	want := fmt.Sprintf(`pod "web": name in use by process %d since %s`, os.Getpid(), used.Since.Format(time.RFC3339))
	if err.Error() != want {
		t.Errorf("Claim() = %v; want %s", err, want)
	}
	if _, _, err := s.Adopt("web"); !errors.As(err, &used) {
		t.Errorf("Adopt() of a living pod = %v; want a NameError", err)
	}
}

// TestHolderKilled: only the death of the process frees the name, and then the
// pod is dead until it is adopted.
func TestHolderKilled(t *testing.T) {
	s := open(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "SEKI_STORE_TEST_HOLD="+s.Path())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	buf := make([]byte, 64)
	if n, _ := out.Read(buf); string(buf[:n]) != "<nil>\n" {
		t.Fatalf("the holder says %q", buf[:n])
	}
	e, err := s.Lookup("held")
	if err != nil || !e.Live || e.State.Supervisor != cmd.Process.Pid {
		t.Fatalf("Lookup() = %+v, %v; want a living pod", e, err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if e, err := s.Lookup("held"); err != nil || e.Live || e.State == nil {
		t.Fatalf("Lookup() = %+v, %v; want a dead pod", e, err)
	}
	var dead *store.DeadError
	if _, err := s.Claim(state("held", 1), nil); !errors.As(err, &dead) {
		t.Errorf("Claim() = %v; want a DeadError", err)
	}
	if e, err := s.Lookup("held"); err != nil || e.State == nil {
		t.Errorf("after the refused claim: %+v, %v; want the record still there", e, err)
	}
	// Its ids stay taken: processes may still run under them.
	other := state("other", 1)
	defer claim(t, s, other).Remove()
	if e, err := s.Lookup("held"); err != nil || other.Containers[0].IDBase == e.State.Containers[0].IDBase {
		t.Error("a new pod got the ids of a dead one")
	}
	p, st, err := s.Adopt("held")
	if err != nil || st == nil || st.Name != "held" {
		t.Fatalf("Adopt() = %+v, %v", st, err)
	}
	if err := p.Remove(); err != nil {
		t.Error(err)
	}
	if _, _, err := s.Adopt("held"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Adopt() again = %v; want fs.ErrNotExist", err)
	}
}

// TestConcurrent has many take and give the same few names, and others look on:
// never two have one name, never one range of ids is given twice, and a list is
// never broken.
func TestConcurrent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seki")
	var holders [3]atomic.Int32
	var ids sync.Map
	var claims atomic.Int32
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			s, err := store.Open(path)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			for i := range 60 {
				n := (w + i) % len(holders)
				st := state(fmt.Sprint("pod", n), 2)
				p, err := s.Claim(st, nil)
				var used *store.NameError
				if errors.As(err, &used) {
					if used.Pid != os.Getpid() && used.Pid != 0 {
						t.Error(err)
					}
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				claims.Add(1)
				if holders[n].Add(1) != 1 {
					t.Error("two hold one name")
				}
				for _, c := range st.Containers {
					if _, dup := ids.LoadOrStore(c.IDBase, true); dup {
						t.Errorf("ids %d given twice", c.IDBase)
					}
				}
				st.Source = "changed"
				if err := p.Save(st); err != nil {
					t.Error(err)
				}
				for _, c := range st.Containers {
					ids.Delete(c.IDBase)
				}
				holders[n].Add(-1)
				if err := p.Remove(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 2 {
		wg.Go(func() { // looks on, and cleans up what seems dead, of which there is nothing
			s, err := store.Open(path)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			for i := range 200 {
				p, st, err := s.Adopt(fmt.Sprint("pod", i%len(holders)))
				if err == nil {
					if st != nil {
						t.Errorf("adopted a living pod: %+v", st)
					}
					if err := p.Remove(); err != nil {
						t.Error(err)
					}
				}
				list, err := s.List()
				if err != nil {
					t.Error(err)
				}
				for _, e := range list {
					// Between the lock and the first state there is none.
					if e.Err != nil && !errors.Is(e.Err, fs.ErrNotExist) {
						t.Errorf("%s: %v", e.Name, e.Err)
					}
				}
			}
		})
	}
	wg.Wait()
	if n := claims.Load(); n < 20 {
		t.Errorf("only %d claims succeeded", n)
	}
	if left, _ := os.ReadDir(filepath.Join(path, "pods")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// TestPlaces: state directories that know nothing of each other give out other
// ids, and names for what the host has once.
func TestPlaces(t *testing.T) {
	places, ids := map[string]bool{}, map[uint32]bool{}
	for range 8 {
		s := open(t)
		place, err := s.Place()
		if err != nil || place == "" {
			t.Fatalf("Place() = %q, %v", place, err)
		}
		st := state("web", 1)
		defer claim(t, s, st).Remove()
		places[place], ids[st.Containers[0].IDBase] = true, true
	}
	// By chance two of eight may begin at one of the 4094 ranges, hardly four.
	if len(places) != 8 || len(ids) < 6 {
		t.Errorf("8 state directories have %d names and %d ranges of ids", len(places), len(ids))
	}
}
