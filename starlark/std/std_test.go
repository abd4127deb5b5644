package std_test

import (
	"strings"
	"testing"

	"sekimori/starlark/policytest"
)

// TestStandardLibrary runs the *_test.star files beside the modules.
func TestStandardLibrary(t *testing.T) {
	report, err := policytest.Run(t.Context(), []string{"."}, policytest.Options{Coverage: true})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := report.WriteText(&text, true); err != nil {
		t.Fatal(err)
	}
	if report.ExitCode() != 0 {
		t.Error(text.String())
	}
	for _, c := range report.Coverage {
		if strings.HasPrefix(c.File, "@seki//") && c.Covered < c.Branches {
			t.Errorf("%s: %d of %d branches tested, not all of line %v", c.File, c.Covered, c.Branches, c.Missing)
		}
	}
}
