package agent

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
)

// A noteHandler sends log lines to the host as notices.
type noteHandler struct {
	peer  *peer
	attrs []slog.Attr
}

func (h *noteHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (h *noteHandler) Handle(_ context.Context, r slog.Record) error {
	var text bytes.Buffer
	r.AddAttrs(h.attrs...)
	line := slog.NewTextHandler(&text, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{} // the host has its own
		}
		return a
	}})
	if err := line.Handle(context.Background(), r); err != nil {
		return err
	}
	return h.peer.notify(noteLog, Log{Level: int(r.Level), Text: strings.TrimSpace(text.String())})
}

func (h *noteHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &noteHandler{peer: h.peer, attrs: append(h.attrs[:len(h.attrs):len(h.attrs)], attrs...)}
}

func (h *noteHandler) WithGroup(string) slog.Handler { return h }
