package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"sekimori/nicshadow/rule"
	"sekimori/starlark"
)

func (a *app) disasmCommand() *cobra.Command {
	var src source
	var name string
	cmd := &cobra.Command{
		Use:   "disasm FILE",
		Short: "print the program that a policy compiles to",
		Long: `Disasm prints the rule program that judges the frames of one container, as the
assembler takes it, each instruction with the line of the file it comes from.`,
		Example: "  seki disasm examples/arp_guard.star --container mallory",
		Args:    args(1, 1, "one FILE"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		_, c, err := a.judged(cmd.Context(), args[0], src, name)
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(a.stdout, rule.Disassemble(c.Program))
		return err
	}
	src.flags(cmd)
	cmd.Flags().StringVarP(&name, "container", "c", "", "the container whose policy it is; may be left out if there is one only")
	return cmd
}

// judged loads a file and finds the container of that name, which must have a
// program.
func (a *app) judged(ctx context.Context, file string, src source, name string) (*starlark.Pod, *starlark.Container, error) {
	pod, err := a.load(ctx, file, src)
	if err != nil {
		return nil, nil, err
	}
	c, err := container(pod, name)
	if err != nil {
		return nil, nil, err
	}
	if c.Program == nil {
		return nil, nil, fmt.Errorf("container %q: has no policy or no card: nothing passes", c.Spec.Name)
	}
	return pod, c, nil
}
