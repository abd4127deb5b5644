package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/containerd/console"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

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
			return a.execTerminal(cmd.Context(), c, t, e)
		}
		e.Stdio = [3]*os.File{nil, file(a.stdout), file(a.stderr)}
		if interactive {
			e.Stdio[0] = file(a.stdin)
		}
		return wait(cmd.Context(), c, t, e)
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

// wait runs e to its end, and hands it the signals that this process gets.
func wait(ctx context.Context, c *lifecycle.Client, t target, e lifecycle.ExecConfig) error {
	sigs := make(chan os.Signal, 8)
	signal.Notify(sigs, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(sigs)
	// The program gets the signal and decides; only its end is ours.
	p, err := c.Exec(context.WithoutCancel(ctx), t.container, e)
	if err != nil {
		return fmt.Errorf("exec in %s: %w", t, err)
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case s := <-sigs:
				_ = p.Signal(s.(unix.Signal)) // it may have ended meanwhile
			case <-done:
				return
			}
		}
	}()
	status, err := p.Wait()
	if err != nil {
		return fmt.Errorf("exec in %s: %w", t, err)
	}
	if code := status.Status(); code != 0 {
		return &codeError{code: code}
	}
	return nil
}

// execTerminal runs e on a terminal of its own, whose other end is ours.
func (a *app) execTerminal(ctx context.Context, c *lifecycle.Client, t target, e lifecycle.ExecConfig) error {
	stdin := file(a.stdin)
	if stdin == nil {
		return usage("exec: -t wants a terminal as standard input")
	}
	ours, err := console.ConsoleFromFile(stdin)
	if err != nil {
		return usage("exec: -t wants a terminal as standard input: %w", err)
	}
	theirs, path, err := console.NewPty()
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	defer theirs.Close()
	slave, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	e.Terminal, e.Stdio = true, [3]*os.File{slave, slave, slave}

	resize := make(chan os.Signal, 1)
	resize <- unix.SIGWINCH // the size it begins with
	signal.Notify(resize, unix.SIGWINCH)
	defer signal.Stop(resize)
	go func() {
		for range resize {
			_ = theirs.ResizeFrom(ours)
		}
	}()

	if err := ours.SetRaw(); err != nil {
		slave.Close()
		return err
	}
	defer ours.Reset()
	go io.Copy(theirs, ours) // ends with this process
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		io.Copy(a.stdout, theirs) // ends when the last holder of the slave is gone
	}()
	err = wait(ctx, c, t, e)
	err = errors.Join(err, slave.Close())
	<-shown
	return err
}
