package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"sekimori/lifecycle/bundle"
	"sekimori/lifecycle/store"
)

func (a *app) machineListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "list the pods that run on a kernel of their own",
		Example: "  seki machine list --json",
		Args:    args(0, 0, "no arguments"),
	}
	cmd.RunE = func(*cobra.Command, []string) error {
		return a.listPods(asJSON, func(e store.Entry, r podReport) bool {
			return e.Live && r.Machine != string(bundle.MachineHost)
		})
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) consoleCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:     "console POD",
		Short:   "print what the kernel of a pod wrote to its console",
		Example: "  seki machine console -f web",
		Args:    args(1, 1, "one pod"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		e, err := a.lookup(args[0])
		if err != nil {
			return err
		}
		if r := describe(*e); r.Machine == string(bundle.MachineHost) {
			return usage("pod %q: runs on the host's own kernel, which has no console here", e.Name)
		}
		return a.console(cmd.Context(), e.Name, follow)
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the pod ends")
	cmd.ValidArgsFunction = a.completePods
	return cmd
}

func (a *app) console(ctx context.Context, pod string, follow bool) error {
	s, err := store.OpenExisting(a.root)
	if err != nil {
		return err
	}
	defer s.Close()
	err = a.follow(ctx, s, pod, follow, consoleLog, func(line []byte) error {
		_, err := a.stdout.Write(line)
		return err
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
