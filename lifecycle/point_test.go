package lifecycle_test

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle"
)

func TestParsePoint(t *testing.T) {
	good := map[string]lifecycle.Point{
		"create_runtime":  lifecycle.CreateRuntime,
		"poststop":        lifecycle.PostStop,
		"signal:USR1":     "signal:USR1",
		"signal:sigusr1":  "signal:USR1",
		"signal:10":       "signal:USR1",
		"every:60s":       "every:1m0s",
		"after:250ms":     "after:250ms",
		"violation":       lifecycle.Violation,
		"memory_pressure": "",
		"":                "",
		"signal:":         "",
		"signal:0":        "",
		"signal:65":       "",
		"signal:10x":      "",
		"every:":          "",
		"every:0s":        "",
		"every:-1s":       "",
		"after:1":         "",
		"Ready":           "",
	}
	for in, want := range good {
		got, err := lifecycle.ParsePoint(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("ParsePoint(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	if got := lifecycle.SignalPoint(unix.SIGUSR2); got != "signal:USR2" {
		t.Errorf("SignalPoint(SIGUSR2) = %q", got)
	}
	if got := lifecycle.EveryPoint(90 * time.Second); got != "every:1m30s" {
		t.Errorf("EveryPoint(90s) = %q", got)
	}
}
