package main

import (
	"context"
	"fmt"
	"io"

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
	a.completeContainerOf(cmd, &src)
	return cmd
}

// judged loads a file and finds the container of that name, which must have a
// program.
func (a *app) judged(ctx context.Context, file string, src source, name string) (*starlark.Pod, *starlark.Container, error) {
	pod, err := a.load(ctx, file, src)
	if err != nil {
		return nil, nil, err
	}
	c, err := judgedBy(pod, name)
	return pod, c, err
}

// judgedBy is the container of that name, which must have a program.
func judgedBy(pod *starlark.Pod, name string) (*starlark.Container, error) {
	c, err := container(pod, name)
	if err != nil {
		return nil, err
	}
	if c.Program == nil {
		return nil, fmt.Errorf("container %q: has no policy or no card: nothing passes", c.Spec.Name)
	}
	return c, nil
}

// completeContainerOf completes --container with those of the FILE.
func (a *app) completeContainerOf(cmd *cobra.Command, src *source) {
	// The error is that of a flag that does not exist: a bug that tests meet.
	_ = cmd.RegisterFlagCompletionFunc("container", func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		quiet := *a
		quiet.stderr = io.Discard
		pod, err := quiet.load(cmd.Context(), args[0], *src)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, c := range pod.Containers {
			names = append(names, c.Spec.Name)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	})
}
