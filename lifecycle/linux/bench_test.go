package linux_test

import (
	"testing"

	"sekimori/lifecycle/bundle"
	"sekimori/lifecycle/linux"
)

// runOnce is the whole life of a container.
func runOnce(b *testing.B, s *bundle.Spec) {
	c, err := linux.Create(b.Context(), linux.Config{ID: "bench/run", Spec: s, IDBase: idBase})
	if err != nil {
		b.Fatal(err)
	}
	if err := c.Prepare(b.Context()); err != nil {
		b.Fatal(err)
	}
	if err := c.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	if _, err := c.Wait(); err != nil {
		b.Fatal(err)
	}
	if err := c.Destroy(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRun is create, prepare, start, wait and destroy of a busybox that
// says hello: all seven namespaces, six cgroup controllers, default mounts,
// seccomp, capabilities.
func BenchmarkRun(b *testing.B) {
	b.Run("dir", func(b *testing.B) {
		s := spec(b, "echo", "hello")
		s.Root.Overlay = false
		for b.Loop() {
			runOnce(b, s)
		}
	})
	b.Run("overlay", func(b *testing.B) {
		s := spec(b, "echo", "hello")
		for b.Loop() {
			runOnce(b, s)
		}
	})
	b.Run("reaper", func(b *testing.B) {
		s := spec(b, "echo", "hello")
		s.Reaper = true
		for b.Loop() {
			runOnce(b, s)
		}
	})
	b.Run("host", func(b *testing.B) {
		s := spec(b, "/usr/bin/true")
		s.Root = bundle.RootFS{Kind: bundle.RootHost, Overlay: true}
		for b.Loop() {
			runOnce(b, s)
		}
	})
}
