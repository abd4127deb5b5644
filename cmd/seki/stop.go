package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"sekimori/lifecycle"
)

func (a *app) stopCommand() *cobra.Command {
	var timeout time.Duration
	var kill bool
	cmd := &cobra.Command{
		Use:   "stop POD...",
		Short: "stop pods and forget them",
		Long: `Stop ends the containers of each pod, last in the file first: by the stop
signal, and by SIGKILL when the timeout has passed. It returns when nothing is
left of them. Of a pod that was started with -d and has ended by itself, it
removes the records.`,
		Example: "  seki stop --timeout 2s arp_guard",
		Args:    args(1, -1, "at least one POD"),
	}
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		var errs []error
		for _, name := range names {
			errs = append(errs, a.stop(cmd.Context(), name, timeout, kill))
		}
		return errors.Join(errs...)
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "how long each container may take (default: what it says itself, or 10s)")
	cmd.Flags().BoolVar(&kill, "kill", false, "kill at once")
	cmd.ValidArgsFunction = a.completePods
	return cmd
}

func (a *app) stop(ctx context.Context, name string, timeout time.Duration, kill bool) error {
	e, err := a.lookup(name)
	if err != nil {
		return err
	}
	if e.Live {
		defer a.slow("stopping " + name)()
		c, err := lifecycle.Dial(a.root, name)
		if err != nil {
			return err
		}
		defer c.Close()
		if kill {
			err = c.Kill(ctx)
		} else {
			err = c.Stop(ctx, timeout)
		}
		if err != nil {
			return fmt.Errorf("stop %s: %w", name, err)
		}
	} else if err := a.cleanUp(ctx); err != nil {
		return err
	}
	return a.forget(name)
}
