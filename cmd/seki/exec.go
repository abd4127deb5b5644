package main

import (
	"context"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"sekimori/lifecycle"
)

func (a *app) execCommand() *cobra.Command {
	var terminal, interactive bool
	var e lifecycle.ExecConfig
	cmd := &cobra.Command{
		Use:   "exec [POD/]CONTAINER -- COMMAND [ARG...]",
		Short: "run one more program in a container",
		Long: `Exec runs a program in a running container: in its namespaces, its cgroup, with
its capabilities and its seccomp filter; its frames are the container's frames.
The exit code is the program's, or 128+n if signal n killed it.`,
		Example: "  seki exec -it arp_guard/alice -- sh",
		Args:    args(2, -1, "a container and a command"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t, err := a.find(args[0])
		if err != nil {
			return err
		}
		e.Args = args[1:]
		if e.Args[0] == "--" {
			e.Args = e.Args[1:]
		}
		if len(e.Args) == 0 {
			return usage("exec: no command\n    %s", cmd.UseLine())
		}
		c, err := a.dial(t.pod)
		if err != nil {
			return err
		}
		defer c.Close()
		if terminal {
			own, err := a.openTerminal(cmd.Context(), c, t.container)
			if err != nil {
				return err
			}
			defer own.Close()
			e.Stdio, e.Terminal = own.Stdio(), true
			return execute(cmd.Context(), c, t, e, own)
		}
		e.Stdio = [3]*os.File{nil, file(a.stdout), file(a.stderr)}
		if interactive {
			e.Stdio[0] = file(a.stdin)
		}
		return execute(cmd.Context(), c, t, e, nil)
	}
	f := cmd.Flags()
	// What stands behind the container's name is the program's.
	f.SetInterspersed(false)
	f.BoolVarP(&terminal, "tty", "t", false, "give it a terminal")
	f.BoolVarP(&interactive, "interactive", "i", false, "give it standard input (implied by -t)")
	f.StringVarP(&e.Cwd, "cwd", "w", "", "working directory, inside")
	f.StringVarP(&e.User, "user", "u", "", "uid[:gid] to run as, inside")
	f.StringArrayVarP(&e.Env, "env", "e", nil, "KEY=value to add to the environment; may be repeated")
	cmd.ValidArgsFunction = a.completeContainers
	return cmd
}

// execute runs e to its end, on the terminal if there is one, and hands it the
// signals that this process gets.
func execute(ctx context.Context, c *lifecycle.Client, t target, e lifecycle.ExecConfig, terminal *lifecycle.Terminal) error {
	sigs := make(chan os.Signal, 8)
	signal.Notify(sigs, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH)
	defer signal.Stop(sigs)
	// The program gets the signal and decides; only its end is ours.
	p, err := c.Exec(context.WithoutCancel(ctx), t.container, e)
	if terminal != nil {
		terminal.Started()
	}
	if err != nil {
		return err
	}
	status, err := follow(p, sigs, func() {
		if terminal != nil {
			terminal.Resize(p)
		}
	})
	if err != nil {
		return err
	}
	if code := status.Status(); code != 0 {
		return &codeError{code: code}
	}
	return nil
}

// follow waits for p, and hands it what comes of sigs meanwhile; resized is for
// SIGWINCH.
func follow(p *lifecycle.RemoteProcess, sigs <-chan os.Signal, resized func()) (lifecycle.ExitStatus, error) {
	done := make(chan struct{})
	defer close(done)
	go func() { // ends when done is closed
		for {
			select {
			case s := <-sigs:
				if s == unix.SIGWINCH {
					resized()
				} else {
					_ = p.Signal(s.(unix.Signal)) // it may have ended meanwhile
				}
			case <-done:
				return
			}
		}
	}()
	return p.Wait()
}

// openTerminal makes the terminal of exec -t, joined to this process's own.
func (a *app) openTerminal(ctx context.Context, c *lifecycle.Client, container string) (*lifecycle.Terminal, error) {
	in, out := file(a.stdin), file(a.stdout)
	if in == nil || out == nil || !term.IsTerminal(int(in.Fd())) {
		return nil, usage("exec: -t wants a terminal as standard input and output\n    without -t: seki exec -i")
	}
	return c.OpenTerminal(ctx, container, in, out)
}
