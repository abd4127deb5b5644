package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"

	"golang.org/x/sys/unix"

	"sekimori/lifecycle"
	"sekimori/lifecycle/bundle"
	"sekimori/starlark"
)

// A warmMachine has booted and waits for its containers.
type warmMachine struct {
	machine  *machine
	reserved *lifecycle.Reservation
	name     string
	spec     bundle.Machine // with the kernel's path
	spares   []*guestNIC    // nil if its containers share one card
	mtu      int            // of each card
	order    *lifecycle.Order
}

// spare is the card of the i-th container that has one; fits has seen to it that it
// is there. A shared card has no spares.
func (w *warmMachine) spare(i int) *guestNIC {
	if w.spec.SharedNIC {
		return nil
	}
	return w.spares[i]
}

// fits says why the pod cannot run on the machine.
func (w *warmMachine) fits(p *starlark.Pod) error {
	no := func(want, has any) error {
		return fmt.Errorf("%s: wants %v, and machine %s has %v\n    seki machine start says what a machine has", p.Path, want, w.name, has)
	}
	shared := false
	if m := p.Machine; m != nil {
		shared = m.SharedNIC
		switch {
		case m.Kind != bundle.MachineAuto && m.Kind != w.spec.Kind:
			return no("a kernel of machine "+m.Kind, "one of machine "+w.spec.Kind)
		case m.Kernel != "" && m.Kernel != w.spec.Kernel:
			return no("kernel "+m.Kernel, w.spec.Kernel)
		case len(m.KernelArgs) > 0 && !slices.Equal(m.KernelArgs, w.spec.KernelArgs):
			return no(fmt.Sprintf("a kernel with %q", m.KernelArgs), fmt.Sprintf("%q", w.spec.KernelArgs))
		case m.Memory != 0 && m.Memory != w.spec.Memory:
			return no(fmt.Sprintf("%d MiB of memory", m.Memory>>20), w.spec.Memory>>20)
		case m.CPUs != 0 && m.CPUs != w.spec.CPUs:
			return no(fmt.Sprintf("cpu = %g", m.CPUs), w.spec.CPUs)
		}
	}
	cards := 0
	for _, c := range p.Containers {
		if n := c.Spec.NIC; n != nil {
			cards++
			if n.MTU > w.mtu {
				return no(fmt.Sprintf("a card with mtu = %d", n.MTU), w.mtu)
			}
		}
	}
	switch {
	case cards > 0 && shared && !w.spec.SharedNIC:
		return no(`nic = "shared"`, "a card for each container")
	case cards > 0 && !shared && w.spec.SharedNIC:
		return no("a card for each container", "one for all")
	case !shared && cards > len(w.spares):
		return no(count(cards, "card"), len(w.spares))
	}
	return nil
}

// carryOut runs the command line of an order as if this process had been started for
// it, and tells the client how it ended.
func (w *warmMachine) carryOut(order *lifecycle.Order, env func(string) string) (int, error) {
	err := stdio(order.Stdio[:]...)
	for _, f := range order.Stdio {
		f.Close()
	}
	if err != nil {
		return exitFailed, errors.Join(err, order.Done(exitFailed))
	}
	b := app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, env: env, warm: w}
	if err := os.Chdir(order.Dir); err != nil { // of another user, who may go where this one may not
		b.complain(fmt.Errorf("machine %s: %w", w.name, err))
		_ = order.Done(exitFailed)
		return exitFailed, nil
	}
	w.order = order
	code := b.run(order.Args)
	// A client that has gone, or was told before that its pod runs, hears nothing.
	_ = order.Done(code)
	return code, nil
}

// stdio makes the files this process's standard input, output and error; nil is
// /dev/null.
func stdio(files ...*os.File) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd, f := range files {
		if f == nil {
			f = null
		}
		if err := unix.Dup3(int(f.Fd()), fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	return nil
}

// handOver has the command line carried out by the process of the machine of that
// name, in place of this one.
func (a *app) handOver(ctx context.Context, o runOptions) error {
	switch {
	case o.machine != "" || o.kernel != "" || len(o.kernelArgs) > 0:
		return usage("--warm: the machine has its kernel: without --machine, --kernel and --kernel-arg")
	case o.agent != overVsock:
		return usage("--warm: the machine's agent is there, over vsock: without --agent")
	case o.name != "" && o.name != o.warm:
		return usage("--name %s: the pod of a warm machine has the machine's name: --warm %[1]s, or without --name", o.name)
	}
	if _, err := a.lookup(o.warm); err != nil {
		return fmt.Errorf("%w\n    seki machine start %s", err, o.warm)
	}
	c, err := a.dial(o.warm)
	if err != nil {
		return err
	}
	defer c.Close()
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	sigs := make(chan os.Signal, 8)
	signal.Notify(sigs, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGTERM, unix.SIGWINCH)
	defer signal.Stop(sigs)
	// The pod gets the signals and decides; only its end is ours.
	p, err := c.Run(context.WithoutCancel(ctx), [3]*os.File{file(a.stdin), file(a.stdout), file(a.stderr)}, dir, a.args)
	if err != nil {
		return err
	}
	status, err := follow(p, sigs, func() { _ = p.Signal(unix.SIGWINCH) })
	if err != nil {
		return err
	}
	if code := status.Status(); code != 0 {
		return &codeError{code: code} // the other process has said why
	}
	if o.detach {
		fmt.Fprintln(a.stdout, o.warm)
	}
	return nil
}
