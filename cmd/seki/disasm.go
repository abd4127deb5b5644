package main

import (
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
		pod, err := a.load(cmd.Context(), args[0], src)
		if err != nil {
			return err
		}
		c, err := container(pod, name)
		if err != nil {
			return err
		}
		if c.Program == nil {
			return noProgram(c)
		}
		_, err = fmt.Fprint(a.stdout, rule.Disassemble(c.Program))
		return err
	}
	src.flags(cmd)
	cmd.Flags().StringVarP(&name, "container", "c", "", "the container whose policy it is; may be left out if there is one only")
	return cmd
}

// noProgram is the error where a container has no program to show.
func noProgram(c *starlark.Container) error {
	return fmt.Errorf("container %q: has no policy or no card: nothing passes", c.Spec.Name)
}
