package starlark_test

import (
	"testing"

	"sekimori/starlark"
)

// BenchmarkLoad is what every seki run, check and plan pays before anything
// else: evaluating a file and compiling its policies.
func BenchmarkLoad(b *testing.B) {
	for _, file := range []string{"arp_guard", "two_tenants", "web"} {
		b.Run(file, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := starlark.Load(b.Context(), "../examples/"+file+".star", starlark.Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
