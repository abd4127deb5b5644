package lifecycle_test

import (
	"errors"
	"testing"

	"sekimori/lifecycle"
)

// TestStepErrorText: what a runtime says of the container is not said twice.
func TestStepErrorText(t *testing.T) {
	for _, tt := range []struct{ step, err, want string }{
		{"start", "start container pod/a: execute x: no such file or directory", `container "a": start: execute x: no such file or directory`},
		{"start", "start container", `container "a": start: start container`},
		{"create", "start container pod/a: x", `container "a": create: start container pod/a: x`},
		{"attach network", "open /dev/net/tun: no such device", `container "a": attach network: open /dev/net/tun: no such device`},
	} {
		if got := (&lifecycle.StepError{Container: "a", Step: tt.step, Err: errors.New(tt.err)}).Error(); got != tt.want {
			t.Errorf("step %q, error %q: %q; want %q", tt.step, tt.err, got, tt.want)
		}
	}
}
