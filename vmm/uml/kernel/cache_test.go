package kernel_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sekimori/vmm/uml/kernel"
)

func TestDirs(t *testing.T) {
	env := func(vars map[string]string) func(string) string { return func(k string) string { return vars[k] } }
	system := "/var/cache/seki/kernels"
	tests := []struct {
		name string
		vars map[string]string
		want []string // of an ordinary user; root has only the system's
	}{
		{"named", map[string]string{"SEKI_KERNELS": "/k", "HOME": "/h"}, []string{"/k"}},
		{"cache", map[string]string{"XDG_CACHE_HOME": "/c", "HOME": "/h"}, []string{"/c/seki/kernels", system}},
		{"home", map[string]string{"HOME": "/h"}, []string{"/h/.cache/seki/kernels", system}},
		{"a relative one counts for nothing", map[string]string{"XDG_CACHE_HOME": "c", "HOME": "h"}, []string{system}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := tt.want
			if os.Geteuid() == 0 && tt.vars["SEKI_KERNELS"] == "" {
				want = []string{system}
			}
			if got := kernel.Dirs(env(tt.vars)); !reflect.DeepEqual(got, want) {
				t.Errorf("Dirs = %q; want %q", got, want)
			}
		})
	}
}

// put writes a kernel of that key to dir, as Build would.
func put(t *testing.T, dir string, m kernel.Manifest) {
	t.Helper()
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, m.Key), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"linux": []byte("x"), "manifest.json": data} {
		if err := os.WriteFile(filepath.Join(dir, m.Key, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func keys(ks []kernel.Kernel) (names []string) {
	for _, k := range ks {
		names = append(names, k.Key)
	}
	return names
}

func TestCache(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	config, patch := kernel.Sums()
	day := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	put(t, dir, kernel.Manifest{Key: "old", Built: day, SourcePackage: kernel.SourcePackage, ConfigSHA256: config, PatchSHA256: patch})
	put(t, dir, kernel.Manifest{Key: "new", Built: day.Add(time.Hour), SourcePackage: kernel.SourcePackage, ConfigSHA256: config, PatchSHA256: patch})
	put(t, dir, kernel.Manifest{Key: "foreign", Built: day.Add(2 * time.Hour), ConfigSHA256: "of another program", PatchSHA256: patch})
	put(t, dir, kernel.Manifest{Key: "chosen", Built: day.Add(4 * time.Hour), SourcePackage: "linux-7.3.tar.xz", ConfigSHA256: config, PatchSHA256: patch})
	put(t, other, kernel.Manifest{Key: "theirs", Built: day.Add(3 * time.Hour), SourcePackage: kernel.SourcePackage, ConfigSHA256: config, PatchSHA256: patch})
	if err := os.Mkdir(filepath.Join(dir, "build-123"), 0o755); err != nil { // a build that goes on
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "half"), 0o755); err != nil { // no manifest
		t.Fatal(err)
	}

	all, err := kernel.List(dir, other, filepath.Join(dir, "nowhere"))
	if want := []string{"chosen", "foreign", "new", "old", "theirs"}; err != nil || !slices.Equal(keys(all), want) {
		t.Fatalf("List = %v, %v; want %v", keys(all), err, want)
	}
	k, err := kernel.Find(dir, other)
	if err != nil || k.Key != "new" || k.Path != filepath.Join(dir, "new", "linux") {
		t.Fatalf("Find = %q at %s, %v; want the newest of this program's", k.Key, k.Path, err)
	}
	if err := k.SetLPJ(12263424); err != nil {
		t.Fatal(err)
	}
	if k, err = kernel.Find(dir); err != nil || k.LPJ != 12263424 {
		t.Errorf("after SetLPJ: %d, %v", k.LPJ, err)
	}
	for _, key := range []string{"new", "old"} {
		if err := kernel.Remove(dir, key); err != nil {
			t.Errorf("Remove(%s) = %v", key, err)
		}
	}
	if _, err := kernel.Find(dir); !errors.Is(err, kernel.ErrNone) {
		t.Errorf("Find = %v; want ErrNone", err)
	}
	if k, err = kernel.Find(dir, other); err != nil || k.Key != "theirs" {
		t.Errorf("Find = %q, %v; want the other directory's", k.Key, err)
	}
}

// TestDescribe: the manifest is believed for the image that it lies beside, and
// for no other.
func TestDescribe(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, kernel.Manifest{Key: "k", Info: kernel.Info{Release: "6.12.0-known"}})
	info, err := kernel.Describe(filepath.Join(dir, "k", "linux"))
	if err != nil || info.Release != "6.12.0-known" {
		t.Errorf("Describe = %+v, %v; want what the manifest says", info, err)
	}
	other := filepath.Join(dir, "k", "other")
	if err := os.WriteFile(other, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if info, err := kernel.Describe(other); err == nil {
		t.Errorf("Describe of another file there = %+v; want it read and refused", info)
	}
	put(t, dir, kernel.Manifest{Key: "old"}) // by a program that wrote no Info
	if info, err := kernel.Describe(filepath.Join(dir, "old", "linux")); err == nil {
		t.Errorf("Describe without Info = %+v; want it read and refused", info)
	}
}

// TestRemoveStays has no key leave the cache.
func TestRemoveStays(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	put(t, dir, kernel.Manifest{Key: "out"})
	cache := filepath.Join(dir, "cache")
	put(t, cache, kernel.Manifest{Key: "k"})
	for _, key := range []string{"", ".", "..", "../out", out, "nothing", "k/"} {
		if err := kernel.Remove(cache, key); err == nil {
			t.Errorf("Remove(%q) = nil; want an error", key)
		}
	}
	for _, p := range []string{out, filepath.Join(cache, "k")} {
		if _, err := os.Stat(filepath.Join(p, "linux")); err != nil {
			t.Errorf("a refused Remove took %s", p)
		}
	}
}

// TestDropped: make leaves out in silence what it cannot set.
func TestDropped(t *testing.T) {
	want := "# a word\nCONFIG_A=y\nCONFIG_B=n\nCONFIG_C=\"x\"\n# CONFIG_D is not set\n"
	for _, tt := range []struct{ have, lost, on string }{
		{"CONFIG_A=y\nCONFIG_C=\"x\"\n", "", ""},
		{"CONFIG_A=m\nCONFIG_C=\"x\"\n", "CONFIG_A=y", ""},
		{"CONFIG_A=y\nCONFIG_C=\"x\"\nCONFIG_D=y\n", "", "# CONFIG_D is not set"},
	} {
		lost, on := kernel.Dropped([]byte(want), []byte(tt.have))
		if got := strings.Join(lost, " "); got != tt.lost {
			t.Errorf("of %q lost: %q; want %q", tt.have, got, tt.lost)
		}
		if got := strings.Join(on, " "); got != tt.on {
			t.Errorf("of %q came on: %q; want %q", tt.have, got, tt.on)
		}
	}
}
