package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"sekimori/lifecycle/store"
)

// A logLine is one line of a container's log.
type logLine struct {
	Time    time.Time `json:"time"`
	Stream  string    `json:"stream"` // stdout or stderr
	Line    string    `json:"line"`
	Partial bool      `json:"partial"` // the line goes on in the next one
}

func (a *app) logsCommand() *cobra.Command {
	var follow, stamps bool
	cmd := &cobra.Command{
		Use:   "logs [POD/]CONTAINER",
		Short: "print what a container wrote",
		Long: `Logs prints what the container wrote: its standard output on standard output,
its standard error on standard error.`,
		Example: "  seki logs -f arp_guard/alice",
		Args:    args(1, 1, "one container"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t, err := a.find(args[0])
		if err != nil {
			return err
		}
		return a.logs(cmd.Context(), t, follow, stamps)
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the pod ends")
	cmd.Flags().BoolVarP(&stamps, "timestamps", "t", false, "begin each line with its time")
	cmd.ValidArgsFunction = a.completeContainers
	return cmd
}

func (a *app) logs(ctx context.Context, t target, follow, stamps bool) error {
	s, err := store.OpenExisting(a.root)
	if err != nil {
		return err
	}
	defer s.Close()
	middle := map[string]bool{} // streams that are within a line
	err = a.follow(ctx, s, t.pod, follow, store.LogName(t.container), func(line []byte) error {
		var l logLine
		if err := json.Unmarshal(line, &l); err != nil {
			return fmt.Errorf("log of %s: %w", t, err)
		}
		w := a.stdout
		if l.Stream == "stderr" {
			w = a.stderr
		}
		if stamps && !middle[l.Stream] {
			l.Line = l.Time.Local().Format("2006-01-02T15:04:05.000 ") + l.Line
		}
		if middle[l.Stream] = l.Partial; !l.Partial {
			l.Line += "\n"
		}
		_, err := io.WriteString(w, l.Line)
		return err
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
