package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sekimori/vmm/uml"
	"sekimori/vmm/uml/kernel"
)

func (a *app) machineCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "machine",
		Short:   "machines with a kernel of their own",
		Example: "  seki machine kernel build",
		Args:    args(0, 0, "a command"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.kernelCommand(), a.machineStartCommand(), a.machineListCommand(), a.consoleCommand(), a.shellCommand())
	return cmd
}

func (a *app) kernelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kernel",
		Short: "the kernels of User-Mode Linux machines",
		Long: `Kernels are kept in /var/cache/seki/kernels (root), ~/.cache/seki/kernels
(others, who find root's too), or SEKI_KERNELS.`,
		Example: "  seki machine kernel list",
		Args:    args(0, 0, "a command"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.kernelBuildCommand(), a.kernelListCommand(), a.kernelPathCommand(), a.kernelRmCommand())
	return cmd
}

func (a *app) kernelBuildCommand() *cobra.Command {
	var force bool
	var jobs int
	var source string
	cmd := &cobra.Command{
		Use:   "build",
		Short: "build the kernel of machine uml, once",
		Long: `Build makes a kernel from Debian's kernel source package with the
configuration of this program, unless the cache has it already, and prints its
path. It takes 4 GB of disk while it works, and some 9 minutes of two CPUs.

--source builds another version, of an archive as kernel.org and distributions
have them. It is run with --kernel and its name in seki machine kernel list.`,
		Example: "  seki machine kernel build --source linux-7.3.tar.xz",
		Args:    args(0, 0, "no arguments"),
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		dirs := kernel.Dirs(a.env)
		if own, err := kernel.List(dirs[0]); err == nil && len(own) == 0 && !force && source == "" {
			// Root's serves as well, and is renewed by root.
			if k, err := kernel.Find(dirs...); err == nil {
				fmt.Fprintln(a.stdout, k.Path)
				return nil
			}
		}
		p := progress{w: a.stderr, terminal: onTerminal(a.stderr)}
		k, err := kernel.Build(cmd.Context(), kernel.Options{Dir: dirs[0], Jobs: jobs, Force: force, Source: source, Progress: p.step})
		p.end()
		if err != nil {
			return err
		}
		if len(k.Lost) > 0 {
			fmt.Fprintf(a.stderr, "Linux %s does not have: %s\n", k.Release, strings.Join(k.Lost, ", "))
		}
		fmt.Fprintln(a.stdout, k.Path)
		if k.LPJ != 0 {
			return nil
		}
		// The first boot says whether it runs here, and measures what saves
		// later boots their delay calibration.
		r, err := uml.Probe(cmd.Context(), k.Path)
		if err != nil {
			return err
		}
		return k.SetLPJ(r.LPJ)
	}
	cmd.Flags().BoolVar(&force, "force", false, "build what is in the cache already")
	cmd.Flags().StringVar(&source, "source", "", "tar archive of the source of another Linux, 6.12 or newer (default: Debian's package)")
	cmd.Flags().IntVarP(&jobs, "jobs", "j", 0, "compilers at a time (default: one a CPU)")
	return cmd
}

// kernelReport is what `machine kernel list --json` prints.
type kernelReport struct {
	Kernels []kernelEntry `json:"kernels"`
}

type kernelEntry struct {
	kernel.Manifest
	Path    string `json:"path"`
	Current bool   `json:"current"` // the one that machines are started with
}

func (a *app) kernelListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "list the kernels that were built",
		Example: "  seki machine kernel list --json",
		Args:    args(0, 0, "no arguments"),
	}
	cmd.RunE = func(*cobra.Command, []string) error {
		dirs := kernel.Dirs(a.env)
		all, err := kernel.List(dirs...)
		if err != nil {
			return err
		}
		current, _ := kernel.Find(dirs...) // none is no error for a list
		report := kernelReport{Kernels: []kernelEntry{}}
		for _, k := range all {
			report.Kernels = append(report.Kernels, kernelEntry{k.Manifest, k.Path, k.Path == current.Path})
		}
		if asJSON {
			return a.printJSON(report)
		}
		t := newTable(a.stdout)
		t.row("KERNEL", "RELEASE", "SOURCE", "AGE", "")
		for _, k := range report.Kernels {
			mark := ""
			if k.Current {
				mark = "current"
			}
			t.row(k.Key, k.Release, k.SourceVersion, age(k.Built), mark)
		}
		return t.Flush()
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) kernelPathCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "path",
		Short:   "print the path of the kernel that machines are started with",
		Example: "  $(seki machine kernel path) --version",
		Args:    args(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			k, err := kernel.Find(kernel.Dirs(a.env)...)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.stdout, k.Path)
			return nil
		},
	}
}

func (a *app) kernelRmCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "rm KERNEL...",
		Short:   "remove kernels from the cache",
		Example: "  seki machine kernel rm 6.12.117-f0d4df072bb0",
		Args:    args(1, -1, "at least one kernel"),
		RunE: func(_ *cobra.Command, keys []string) error {
			for _, k := range keys {
				if err := kernel.Remove(kernel.Dirs(a.env)[0], k); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		all, _ := kernel.List(kernel.Dirs(a.env)[0])
		var keys []string
		for _, k := range all {
			keys = append(keys, k.Key)
		}
		return keys, cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}

func onTerminal(w io.Writer) bool {
	f := file(w)
	return f != nil && term.IsTerminal(int(f.Fd()))
}

// A progress prints how far something is: on a terminal one line that changes,
// elsewhere a line for each step and each tenth of the way.
type progress struct {
	w        io.Writer
	terminal bool
	start    time.Time
	last     string
	shown    int
	open     bool // the line on the terminal is not ended
}

func (p *progress) step(what string, percent int) {
	if p.start.IsZero() {
		p.start = time.Now()
	}
	if what == p.last && (percent == p.shown || !p.terminal && percent < p.shown+10) {
		return
	}
	p.last, p.shown = what, percent
	line := fmt.Sprintf("%3d%%  %4s  %s", percent, time.Since(p.start).Round(time.Second), what)
	if p.terminal {
		fmt.Fprintf(p.w, "\r%s%s", line, strings.Repeat(" ", max(0, 60-len(line))))
		p.open = true
		return
	}
	fmt.Fprintln(p.w, line)
}

func (p *progress) end() {
	if p.open {
		fmt.Fprintln(p.w)
	}
}
