package linux_test

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"

	"sekimori/lifecycle/linux"
)

// A container's first process is a copy of the supervisor without its heap:
// what is in there is none of the container's business. Afterwards whoever else
// forks gets the heap.
func TestNoHeapInChild(t *testing.T) {
	requireRoot(t)
	secret := new([64 << 10]byte)
	c, err := linux.Create(t.Context(), linux.Config{ID: "test/heap", Spec: spec(t, "true"), IDBase: idBase})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Destroy()
	if m := mapping(t, "self", secret); m == nil {
		t.Error("the supervisor's own heap is not found: this test proves nothing")
	} else if flags := m["VmFlags"]; flags == "" || strings.Contains(flags, " dc") {
		t.Errorf("flags of the supervisor's heap are %q: want some, and not dc, do not copy on fork", flags)
	}
	if m := mapping(t, fmt.Sprint(c.Pid()), secret); m != nil {
		t.Errorf("the child has the supervisor's heap: %v", m)
	}
}

// mapping returns what /proc/PID/smaps says of the mapping that at is in, nil
// if there is none.
func mapping(t *testing.T, pid string, at *[64 << 10]byte) map[string]string {
	t.Helper()
	var addr uint64
	if _, err := fmt.Sscanf(fmt.Sprintf("%p", at), "0x%x", &addr); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("/proc/" + pid + "/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var found map[string]string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var from, to uint64
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x ", &from, &to); n == 2 {
			if found != nil {
				break
			}
			if from <= addr && addr < to {
				found = map[string]string{"range": lines.Text()}
			}
		} else if key, value, ok := strings.Cut(lines.Text(), ":"); ok && found != nil {
			found[key] = value
		}
	}
	return found
}
