package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle"
)

// background plays a program started by lifecycle.Background, or one that
// starts another so.
func background() {
	r := lifecycle.InBackground()
	if r == nil {
		pid, err := lifecycle.Background(context.Background(), nil)
		var be *lifecycle.BackgroundError
		switch {
		case errors.As(err, &be):
			fmt.Printf("failed %d %s\n", be.Code, be.Msg)
		case err != nil:
			fmt.Println("error", err)
		default:
			fmt.Println("pid", pid)
		}
		return
	}
	switch os.Getenv("PLAY") {
	case "fine":
		r.Started(nil)
		time.Sleep(time.Minute)
	case "fails":
		r.Failed(errors.New("container \"a\": create: no luck"), 3)
		os.Exit(3)
	}
	os.Exit(9) // without a word
}

func TestBackground(t *testing.T) {
	tests := []struct{ play, want string }{
		{"fails", "failed 3 container \"a\": create: no luck"},
		{"dies", "error the background process ended without a word: exit status 9"},
	}
	for _, tt := range tests {
		out, err := role("background", "PLAY="+tt.play).Output()
		if got := strings.TrimSpace(string(out)); got != tt.want || err != nil {
			t.Errorf("%s: %q, %v; want %q", tt.play, got, err, tt.want)
		}
	}
}

func TestBackgroundStarted(t *testing.T) {
	// Output reads to the end: it also proves that the background has let go
	// of the output it inherited.
	out, err := role("background", "PLAY=fine").Output()
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscanf(string(out), "pid %d", &pid); err != nil {
		t.Fatalf("foreground said %q", out)
	}
	if !processLives(pid) {
		t.Errorf("the background process %d is gone", pid)
	}
	if sid, err := unix.Getsid(pid); err != nil || sid != pid {
		t.Errorf("session of %d: %d, %v; want its own", pid, sid, err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}
