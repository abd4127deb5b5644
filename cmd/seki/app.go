package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"sekimori/lifecycle"
	"sekimori/starlark/value"
)

// Exit codes. A container's own code takes their place for `run` and `exec`.
const (
	exitFine   = 0
	exitFailed = 1
	exitUsage  = 2 // wrong usage, or a .star file that is wrong
	exitTests  = 3 // a policy test failed
)

// An app is what a verb may touch of the process that it runs in.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            func(string) string // "" for what is not set

	args []string     // the command line
	root string       // state directory, from --root or SEKI_ROOT
	warm *warmMachine // that the command line was handed to; nil if none
}

// A codeError ends the process with a code; its err, if any, is printed.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *codeError) Unwrap() error { return e.err }

func usage(format string, args ...any) error {
	return &codeError{exitUsage, fmt.Errorf(format, args...)}
}

// run executes one command line and returns its exit code.
func (a *app) run(args []string) int {
	a.args = args
	root := a.command()
	root.SetArgs(args)
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitFine
	}
	code := exitFailed
	var ce *codeError
	if errors.As(err, &ce) {
		code = ce.code
		if ce.err == nil {
			return code
		}
	}
	a.complain(err)
	return code
}

// complain prints an error. Those of a .star file begin with their position,
// all others with the program's name.
func (a *app) complain(err error) {
	fmt.Fprintln(a.stderr, strings.TrimRight(explainText(err), "\n"))
}

// command builds the command line. It is built for each run, and start-up
// time is the first thing a user measures: nothing here may look at the machine.
func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "seki",
		Short: "containers whose every frame is judged",
		Long: `Seki runs containers that a Starlark file describes, and judges every
Ethernet frame that they send.`,
		Example:           "  seki run examples/arp_guard.star",
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              cobra.ArbitraryArgs,
		DisableAutoGenTag: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return usage("unknown command %q%s\n    seki --help lists them", args[0], meant(args[0], a.names()))
		},
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.PersistentFlags().StringVar(&a.root, "root", a.stateDir(), "state directory (or SEKI_ROOT)")
	root.SetFlagErrorFunc(flagError)
	all := a.verbs()
	asked := a.asked(all)
	for _, v := range asked {
		root.AddCommand(v.command())
	}
	root.CompletionOptions.DisableDefaultCmd = len(asked) < len(all)
	return root
}

// A verb is a command of seki.
type verb struct {
	name    string
	command func() *cobra.Command
}

func (a *app) verbs() []verb {
	return []verb{
		{"run", a.runCommand}, {"check", a.checkCommand}, {"plan", a.planCommand}, {"fmt", a.fmtCommand}, {"doc", a.docCommand}, {"lint", a.lintCommand}, {"repl", a.replCommand}, {"test", a.testCommand},
		{"explain", a.explainCommand}, {"diff", a.diffCommand}, {"disasm", a.disasmCommand}, {"ps", a.psCommand}, {"exec", a.execCommand},
		{"logs", a.logsCommand}, {"events", a.eventsCommand}, {"stats", a.statsCommand}, {"capture", a.captureCommand}, {"reload", a.reloadCommand}, {"shadow", a.shadowCommand}, {"stop", a.stopCommand},
		{"machine", a.machineCommand}, {"doctor", a.doctorCommand}, {"version", a.versionCommand},
	}
}

// asked are those of all verbs that the command line may mean: whose names are
// in it, or all if there is none. To set up all of them with their flags, for
// one to be used, takes 0.2 ms of a start.
func (a *app) asked(all []verb) []verb {
	some := slices.DeleteFunc(slices.Clone(all), func(v verb) bool { return !slices.Contains(a.args, v.name) })
	if len(some) > 0 {
		return some
	}
	return all
}

func (a *app) stateDir() string {
	if dir := a.env("SEKI_ROOT"); dir != "" {
		return dir
	}
	if os.Geteuid() == 0 {
		return lifecycle.DefaultRoot
	}
	// An ordinary user's pods are in machines of their own; what is said of
	// them goes with the session, as they do.
	if dir := a.env("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "seki")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("seki-%d", os.Geteuid()))
}

// args makes a cobra argument check out of a count; want says it in words.
func args(least, most int, want string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, got []string) error {
		if len(got) < least || most >= 0 && len(got) > most {
			return usage("%s: want %s, have %s\n    %s", cmd.Name(), want, count(len(got), "argument"), cmd.UseLine())
		}
		return nil
	}
}

// flagError says which flag was meant.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		var known []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, "--"+f.Name) })
		name := "--" + unknown.GetSpecifiedName()
		if unknown.GetSpecifiedShortnames() != "" {
			name = "-" + unknown.GetSpecifiedName()
		}
		return usage("%s: unknown flag %s%s\n    %s", cmd.Name(), name, meant(name, known), cmd.UseLine())
	}
	return usage("%s: %w\n    %s", cmd.Name(), err, cmd.UseLine())
}

// names are the words that may stand for a verb.
func (a *app) names() []string {
	names := []string{"help", "completion"}
	for _, v := range a.verbs() {
		names = append(names, v.name)
	}
	return names
}

// meant is " (did you mean x?)", or nothing.
func meant(name string, known []string) string {
	if s := value.Suggest(name, known); s != "" {
		return fmt.Sprintf(" (did you mean %s?)", s)
	}
	return ""
}

// file is v as a file, where a child process is to write to it or read from
// it directly; nil if v is none, as in tests.
func file(v any) *os.File {
	f, _ := v.(*os.File)
	return f
}
