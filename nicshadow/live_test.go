package nicshadow_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"sekimori/nicshadow"
	"sekimori/nicshadow/replay"
	"sekimori/nicshadow/rule"
)

// live begins a live capture, and returns what ends it and reads it back.
func live(t *testing.T, b *bench, cfg nicshadow.LiveConfig, size int64) func() (comments []string, missed uint64) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "live.pcapng")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Capture, err = nicshadow.NewCapture(nicshadow.CaptureConfig{File: f, Size: size}); err != nil {
		t.Fatal(err)
	}
	end, err := b.sw.Live(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return func() (comments []string, missed uint64) {
		t.Helper()
		end()
		if err := cfg.Capture.Close(); err != nil {
			t.Fatal(err)
		}
		frames, err := replay.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range frames {
			comments = append(comments, f.Interface+" "+f.Comment)
		}
		return comments, cfg.Capture.Missed()
	}
}

func TestLive(t *testing.T) {
	b := newBench(t, nicshadow.Config{}, 2)
	put(t, b.table, 1, program(t, rule.Drop, 42))
	send := func() {
		b.send(t, 1, udp(2, 1, 0))
		b.send(t, 2, udp(1, 2, 0))
	}
	drop := "c1 drop: policy: predicate allow_all at a.star:42:5: udp 10.0.0.1:4096 -> 10.0.0.2:8192 length 50"
	pass := "c2 forward: predicate allow_all at a.star:1:5: udp 10.0.0.2:4096 -> 10.0.0.1:8192 length 50"
	for _, c := range []struct {
		name string
		cfg  nicshadow.LiveConfig
		want []string
	}{
		{"all", nicshadow.LiveConfig{}, []string{drop, pass}},
		{"drops", nicshadow.LiveConfig{Drops: true}, []string{drop}},
		{"one container", nicshadow.LiveConfig{Container: "c2"}, []string{pass}},
		{"drops of one", nicshadow.LiveConfig{Container: "c2", Drops: true}, nil},
	} {
		end := live(t, b, c.cfg, 0)
		if _, err := b.sw.Live(nicshadow.LiveConfig{}); !errors.Is(err, nicshadow.ErrCapturing) {
			t.Errorf("%s: a second capture: %v", c.name, err)
		}
		send()
		got, missed := end()
		send() // nobody looks any more
		if !slices.Equal(got, c.want) || missed != 0 {
			t.Errorf("%s: %q, %d missed; want %q", c.name, got, missed, c.want)
		}
	}

	// Full: what comes is counted, and the file stays one that can be read.
	end := live(t, b, nicshadow.LiveConfig{}, 1)
	send()
	if got, missed := end(); len(got) != 0 || missed != 2 {
		t.Errorf("a full capture: %q, %d missed; want none, 2", got, missed)
	}
}
