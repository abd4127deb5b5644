package uml_test

import (
	"strings"
	"testing"

	"os"

	"sekimori/vmm/uml"
	"sekimori/vmm/uml/kernel"
)

func TestSupported(t *testing.T) {
	requireKernel(t)
	for _, f := range uml.Supported(ctx(t), kernel.Dirs(os.Getenv)) {
		if !f.OK || f.Detail == "" {
			t.Errorf("%s: %v, %s", f.Name, f.OK, f.Detail)
		}
		if f.Name == "uml kernel" && !strings.Contains(f.Detail, "boots in") {
			t.Errorf("uml kernel: %s; want how long it takes to boot", f.Detail)
		}
	}
	missing := uml.Supported(ctx(t), []string{t.TempDir()})
	last := missing[len(missing)-1]
	if last.OK || !strings.Contains(last.Hint, "seki machine kernel build") {
		t.Errorf("without a kernel: %+v", last)
	}
}
