package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sekimori/lifecycle/bundle"
	"sekimori/starlark"
)

func (a *app) planCommand() *cobra.Command {
	var src source
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "plan FILE",
		Short: "print what running a .star file would make",
		Long: `Plan evaluates the file and prints the pod that it describes. It runs nothing.
The same file and parameters give the same plan, byte for byte.`,
		Example: "  seki plan --json examples/arp_guard.star",
		Args:    args(1, 1, "one FILE"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		pod, err := a.load(cmd.Context(), args[0], src)
		if err != nil {
			return err
		}
		if asJSON {
			b, err := pod.Plan()
			if err != nil {
				return err
			}
			_, err = a.stdout.Write(append(b, '\n'))
			return err
		}
		return a.printPlan(pod)
	}
	src.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON: everything, in the words of the OCI specification")
	return cmd
}

func (a *app) printPlan(pod *starlark.Pod) error {
	fmt.Fprintf(a.stdout, "pod %s: %s\n", pod.Name, count(len(pod.Containers), "container"))
	if u := pod.Uplink; u != nil {
		fmt.Fprintf(a.stdout, "uplink %s\n", list(u.Addrs))
	}
	for _, c := range pod.Containers {
		if err := a.printContainer(c); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) printContainer(c *starlark.Container) error {
	fmt.Fprintf(a.stdout, "\n%s\n", c.Spec.Name)
	t := newTable(a.stdout)
	oci := &c.Spec.OCI
	if oci.Process != nil {
		t.row("  command", strings.Join(oci.Process.Args, " "))
	}
	root := strings.TrimSpace(string(c.Spec.Root.Kind) + " " + c.Spec.Root.Path)
	if c.Spec.Root.Overlay {
		root += ", private writable layer over it"
	} else if oci.Root != nil && oci.Root.Readonly {
		root += ", read-only"
	}
	t.row("  root", strings.TrimSpace(root))
	p := c.Program
	if n := c.Spec.NIC; n != nil {
		addrs := list(n.Addrs)
		if n.DHCP {
			addrs += " address by dhcp"
		}
		if n.DHCP6 {
			addrs += " address by dhcp6"
		}
		addrs = strings.TrimSpace(addrs)
		if n.Datapath == bundle.DatapathKernel {
			addrs += ", judged in the kernel"
		}
		t.row("  card", fmt.Sprintf("%s %s %s", n.Name, n.MAC, addrs))
		if p == nil {
			t.row("  policy", "none: nothing passes")
		} else {
			hash := p.Hash()
			t.row("  policy", fmt.Sprintf("%s, %s, at most %s a frame, %x", c.Policy.Mode(), count(p.Len(), "instruction"), count(p.MaxSteps(), "step"), hash[:6]))
		}
	}
	if caps := oci.Process.Capabilities; caps != nil {
		t.row("  capabilities", strings.Join(caps.Bounding, " "))
	}
	if c.Ready != nil {
		t.row("  ready", "by probe")
	}
	for _, cb := range c.Callbacks {
		t.row("  "+cb.Point, fmt.Sprintf("%s (%s)", cb.Name, cb.Pos))
	}
	return t.Flush()
}

// list joins what has a text of its own by spaces.
func list[T fmt.Stringer](items []T) string {
	words := make([]string, len(items))
	for i, item := range items {
		words[i] = item.String()
	}
	return strings.Join(words, " ")
}
