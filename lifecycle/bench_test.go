package lifecycle_test

import (
	"context"
	"path/filepath"
	"testing"

	"sekimori/lifecycle"
)

// BenchmarkHostRun is a pod of one container that runs /bin/true, from Start to
// the end of Wait; BenchmarkHostRun/fake is what of it is the supervisor's own.
func BenchmarkHostRun(b *testing.B) {
	requireRoot(b)
	cfg := lifecycle.PodConfig{Name: "lifecyclebench", Root: filepath.Join(b.TempDir(), "seki"), Detached: true,
		Containers: []lifecycle.Config{{Spec: busybox(b, "a", "true")}}}
	for b.Loop() {
		p, err := lifecycle.Start(context.Background(), cfg)
		if err != nil {
			b.Fatal(err)
		}
		if code, err := p.Wait(); code != 0 || err != nil {
			b.Fatal(code, err)
		}
	}
}

// BenchmarkSupervisor is the same without a container: what the supervisor adds.
func BenchmarkSupervisor(b *testing.B) {
	tp := &tape{}
	rt := &fakeRuntime{tape: tp, live: make(map[string]*fakeInstance), all: make(map[string]*fakeInstance)}
	rt.onCreate = func(i *fakeInstance) {
		i.onStart = func(i *fakeInstance) { i.exit(lifecycle.ExitStatus{}) }
	}
	cfg := lifecycle.PodConfig{Name: "lifecyclebench", Root: filepath.Join(b.TempDir(), "seki"), Detached: true, Runtime: rt,
		Containers: []lifecycle.Config{{Spec: busybox(b, "a", "true")}}}
	b.ReportAllocs()
	for b.Loop() {
		tp.calls = nil
		p, err := lifecycle.Start(context.Background(), cfg)
		if err != nil {
			b.Fatal(err)
		}
		p.Wait()
	}
}
