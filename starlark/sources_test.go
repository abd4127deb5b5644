package starlark_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sekimori/lifecycle/bundle"
	"sekimori/starlark"
)

// TestSources loads a pod once more from what it was made from, where its files
// are not: the guest of a machine does so.
func TestSources(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"pod.star":     "load(\"lib/net.star\", \"own\")\nmachine(\"uml\", memory = \"64MiB\", kernel = \"k\")\nN = param(\"n\", default = 1)\n[container(name = \"c%d\" % i, rootfs = host_root(), args = [\"true\"], nic = nic(\"10.0.0.%d/24\" % (i + 2), policy = own)) for i in range(N)]\n",
		"lib/net.star": "load(\"@seki//policy.star\", \"clean_traffic\")\nown = policy(allow_arp = True, allow_ipv4 = True, allow_icmp = True)\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	params := map[string]string{"n": "2"}
	path := filepath.Join(dir, "pod.star")
	want, err := starlark.Load(context.Background(), path, starlark.Options{Params: params})
	if err != nil {
		t.Fatal(err)
	}
	if m := want.Machine; m == nil || !cmp.Equal(*m, bundle.Machine{Kind: bundle.MachineUML, Kernel: filepath.Join(dir, "k"), Memory: 64 << 20}) {
		t.Errorf("Machine = %+v", m)
	}
	sources := want.Sources()
	if len(sources) != 2 {
		t.Errorf("Sources() has %d files; want pod.star and lib/net.star", len(sources))
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	got, err := starlark.Load(context.Background(), path, starlark.Options{Params: params, Sources: sources})
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest != want.Digest {
		t.Errorf("digest %s; want %s", got.Digest, want.Digest)
	}
	a, err := want.Plan()
	if err != nil {
		t.Fatal(err)
	}
	b, err := got.Plan()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(a), string(b)); diff != "" {
		t.Errorf("plan differs (-first +again):\n%s", diff)
	}
	delete(sources, "lib/net.star")
	if _, err := starlark.Load(context.Background(), path, starlark.Options{Params: params, Sources: sources}); err == nil {
		t.Error("a module that is not among the sources was found")
	}
}
