package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"sekimori/lifecycle"
	"sekimori/lifecycle/bundle"
	"sekimori/lifecycle/store"
	"sekimori/starlark"
)

// runOptions are the flags of run.
type runOptions struct {
	source
	detach     bool
	name       string
	mode       string // "" for what the file says
	pcap       string
	machine    string // "" for what the file says
	kernel     string
	kernelArgs []string
	agent      string // transport to a guest's agent
	bundle     string // OCI bundle in place of a file
	quiet      bool
	record     string // directory
	warm       string // name of a machine that waits; "" for none
}

func (a *app) runCommand() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run FILE | --bundle DIR",
		Short: "run the containers of a .star file, or an OCI bundle",
		Long: `Run starts the containers of the file and waits for them. Its exit code is that
of the container; of several, that of the first that failed by itself.

The first Ctrl-C stops the pod, the second kills it; closing the terminal stops
it, too.`,
		Example: "  seki run --set workers=5 --policy-mode audit --pcap drops.pcapng examples/two_tenants.star",
		Args:    args(0, 1, "one FILE"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 0 && o.bundle == "":
			return usage("run: want one FILE, have none\n    %s", cmd.UseLine())
		case len(args) == 1 && o.bundle != "":
			return usage("run: %s and --bundle: want one of them", args[0])
		case o.bundle != "":
			return a.runPod(cmd.Context(), o.bundle, o)
		}
		return a.runPod(cmd.Context(), args[0], o)
	}
	o.source.flags(cmd)
	f := cmd.Flags()
	f.BoolVarP(&o.detach, "detach", "d", false, "return once the containers run; their output goes to seki logs")
	f.StringVar(&o.name, "name", "", "name of the pod (default: that of the file)")
	f.StringVar(&o.mode, "policy-mode", "", "enforce or audit: the mode of every policy, whatever the file says")
	f.StringVar(&o.pcap, "pcap", "", "write the frames that drop to this pcapng file, each with its reason")
	f.StringVar(&o.record, "record", "", "keep frames, verdicts and callbacks in this directory, for seki test --replay")
	f.StringVar(&o.machine, "machine", "", "kernel that the containers run on: host, uml (User-Mode Linux), kvm or auto (default: what the file says, else auto)")
	f.StringVar(&o.kernel, "kernel", "", "image of the guest's kernel, or its name in seki machine kernel list (default: seki machine kernel path)")
	f.StringArrayVar(&o.kernelArgs, "kernel-arg", nil, "parameter of the guest's kernel on machine kvm, besides those of the file; may be given again")
	f.StringVar(&o.agent, "agent", overVsock, "how the guest's agent speaks with seki: vsock, or tcp on a card and a network of its own")
	oneOf(cmd, "agent", transports...)
	f.StringVar(&o.warm, "warm", "", "run in the machine of this name, which seki machine start has booted; the pod gets its name")
	_ = cmd.RegisterFlagCompletionFunc("warm", a.completePods) // see oneOf
	f.StringVar(&o.bundle, "bundle", "", "run the OCI bundle in this directory: config.json and a root file system")
	oneOf(cmd, "machine", machineKinds...)
	f.BoolVarP(&o.quiet, "quiet", "q", false, "do not report drops on standard error")
	return cmd
}

var machineKinds = []string{"auto", "host", "uml", "kvm"}

func (o *runOptions) check() error {
	if o.machine != "" && !slices.Contains(machineKinds, o.machine) {
		return usage("--machine %q: want auto, host, uml or kvm%s", o.machine, meant(o.machine, machineKinds))
	}
	if !slices.Contains(transports, o.agent) {
		return usage("--agent %q: want vsock or tcp%s", o.agent, meant(o.agent, transports))
	}
	if o.name != "" && !store.ValidName(o.name) {
		return usage("--name %q: want %s", o.name, store.NameRule)
	}
	switch o.mode {
	case "", lifecycle.Enforce, lifecycle.Audit:
		return nil
	}
	return usage("--policy-mode %q: want enforce or audit%s", o.mode, meant(o.mode, []string{"enforce", "audit"}))
}

func (a *app) runPod(ctx context.Context, path string, o runOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	switch {
	case a.warm != nil && o.detach:
		return a.foreground(ctx, path, o, a.warm.order.Reporter())
	case a.warm == nil && o.warm != "":
		return a.handOver(ctx, o)
	case !o.detach:
		return a.foreground(ctx, path, o, nil)
	}
	reporter := lifecycle.InBackground()
	if reporter == nil {
		return a.background(ctx, path, podName(path, o.name))
	}
	err := a.foreground(ctx, path, o, reporter)
	var ce *codeError
	if err == nil || errors.As(err, &ce) && ce.err == nil {
		return err // the containers' own code, long after the start
	}
	code := exitFailed
	if ce != nil {
		code = ce.code
	}
	if reporter.Failed(err, code) != nil {
		return err
	}
	return &codeError{code: code} // the foreground says the rest
}

// background has the same command line run by a process of its own, which starts
// what, and returns once that runs. It prints its name.
func (a *app) background(ctx context.Context, what, name string) error {
	defer a.slow("starting " + what)()
	_, err := lifecycle.Background(ctx, a.args)
	var be *lifecycle.BackgroundError
	if errors.As(err, &be) {
		return &codeError{be.Code, errors.New(be.Msg)}
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.stdout, name)
	return err
}

// foreground runs the pod in this process, which for -d is one that
// [lifecycle.Background] started; reporter is then not nil.
func (a *app) foreground(ctx context.Context, path string, o runOptions, reporter *lifecycle.Reporter) error {
	pod, err := a.describe(ctx, path, o)
	if err != nil {
		return err
	}
	machine, err := a.choose(pod, o)
	if err != nil {
		return err
	}
	if uid := os.Geteuid(); uid != 0 && machine.Kind == bundle.MachineHost {
		return fmt.Errorf("machine host needs root for cgroups, mounts and TAP devices, this is uid %d\n    sudo seki run %s, or seki run --machine uml %[2]s", uid, path)
	}
	if err := a.cleanUp(ctx); err != nil {
		return err
	}
	level := slog.LevelWarn
	if reporter != nil {
		level = slog.LevelInfo
	}
	w := wire{log: slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: level})), mode: o.mode, pcap: o.pcap, env: a.env}
	if !o.quiet && reporter == nil {
		w.tell = a.stderr
	}
	if o.record != "" {
		if w.record, err = newRecording(o.record, pod, path, o.mode); err != nil {
			return err
		}
		defer w.record.close(a)
	}
	cfg, err := w.pod(pod)
	if err != nil {
		return err
	}
	if machine.Kind != bundle.MachineHost {
		if err := w.machine(&cfg, pod, machine, o, a.warm); err != nil {
			if cfg.Network != nil {
				err = errors.Join(err, cfg.Network.Close())
			}
			return err
		}
	}
	cfg.Root = a.root
	cfg.Detached, cfg.Keep = reporter != nil, reporter != nil
	cfg.Stdio = lifecycle.Stdio{In: file(a.stdin), Out: file(a.stdout), Err: file(a.stderr)}
	if a.warm != nil {
		cfg.Signals = a.warm.order.Signals
	}
	started := a.slow("starting " + pod.Name)
	code, err := lifecycle.Run(ctx, cfg, func(p *lifecycle.Pod) {
		started()
		w.started(p)
		if reporter != nil {
			w.detach(p, reporter)
		}
	})
	started()
	if err != nil {
		return &codeError{max(code, exitFailed), err}
	}
	if code != 0 {
		return &codeError{code: code}
	}
	return nil
}

// describe is what is to be run.
func (a *app) describe(ctx context.Context, path string, o runOptions) (*starlark.Pod, error) {
	load := func() (*starlark.Pod, error) { return a.load(ctx, path, o.source) }
	if o.bundle != "" {
		load = func() (*starlark.Pod, error) { return a.loadBundle(path) }
	}
	pod, err := load()
	if err == nil {
		pod.Name = podName(path, cmp.Or(o.warm, o.name))
	}
	return pod, err
}

// cleanUp removes what supervisors that were killed have left.
func (a *app) cleanUp(ctx context.Context) error {
	removed, err := lifecycle.CleanUp(ctx, lifecycle.CleanUpConfig{Root: a.root, Network: cleanUpNetwork})
	for _, name := range removed {
		fmt.Fprintf(a.stderr, "seki: pod %q: its supervisor was killed; removed what it left\n", name)
	}
	return err
}

// podName is the name of the pod of a file: its own, unless one was given.
func podName(path, given string) string {
	if given != "" {
		return given
	}
	return starlark.PodName(path)
}

// slow says on standard error that something goes on, if it takes more than a
// second. The function it returns ends that; it may be called twice.
func (a *app) slow(what string) func() {
	t := time.AfterFunc(time.Second, func() { fmt.Fprintf(a.stderr, "seki: %s ...\n", what) })
	return func() { t.Stop() }
}
