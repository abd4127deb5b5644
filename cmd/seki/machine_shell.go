package main

import (
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sekimori/lifecycle"
	"sekimori/lifecycle/bundle"
)

func (a *app) shellCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "shell POD [COMMAND [ARG...]]",
		Short: "run a shell, or another program, in the kernel of a pod itself",
		Long: `Shell runs a program in the guest itself, as its root and outside all containers:
to look after the machine. It has the host's programs if a container of the pod
uses host_root(), and none otherwise.`,
		Example: "  seki machine shell web ps ax",
		Args:    args(1, -1, "a pod"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		e, err := a.lookup(args[0])
		if err != nil {
			return err
		}
		if r := describe(*e); r.Machine == string(bundle.MachineHost) {
			return usage("pod %q: runs on the host's own kernel", e.Name)
		}
		c, err := a.dial(e.Name)
		if err != nil {
			return err
		}
		defer c.Close()
		t := target{e.Name, lifecycle.MachineName}
		x := lifecycle.ExecConfig{Args: args[1:]}
		if len(x.Args) == 0 {
			x.Args = []string{"sh"}
		}
		if in := file(a.stdin); in != nil && file(a.stdout) != nil && term.IsTerminal(int(in.Fd())) {
			own, err := a.openTerminal(cmd.Context(), c, t.container)
			if err != nil {
				return err
			}
			defer own.Close()
			x.Stdio, x.Terminal = own.Stdio(), true
			return execute(cmd.Context(), c, t, x, own)
		}
		x.Stdio = [3]*os.File{file(a.stdin), file(a.stdout), file(a.stderr)}
		return execute(cmd.Context(), c, t, x, nil)
	}
	cmd.Flags().SetInterspersed(false) // what stands behind the pod is the program's
	cmd.ValidArgsFunction = a.completePods
	return cmd
}
