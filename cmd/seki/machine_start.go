package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"sekimori/lifecycle"
	"sekimori/lifecycle/bundle"
	"sekimori/lifecycle/store"
	"sekimori/nicshadow/frame"
	"sekimori/starlark/config"
	"sekimori/starlark/value"
)

// startOptions are the flags of machine start.
type startOptions struct {
	machine    string
	kernel     string
	kernelArgs []string
	memory     string
	cpus       float64
	nic        string
	cards      int
	mtu        int
}

func (a *app) machineStartCommand() *cobra.Command {
	var o startOptions
	cmd := &cobra.Command{
		Use:   "start NAME",
		Short: "boot a machine that waits for its containers",
		Long: `Start boots a machine, in the background, and returns when it is ready. The
containers come later, without waiting for a kernel: seki run --warm NAME FILE.
That is then a pod of this name like any other, and the machine ends with it: no
two pods ever share one. seki stop NAME ends a machine that is not needed.

A card of a machine is there from its boot: --cards says how many containers may
have one.`,
		Example: "  seki machine start --machine uml --cards 2 spare1",
		Args:    args(1, 1, "one NAME"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		name := args[0]
		if !store.ValidName(name) {
			return usage("machine start %q: want %s", name, store.NameRule)
		}
		spec, err := o.spec(a)
		if err != nil {
			return err
		}
		reporter := lifecycle.InBackground()
		if reporter == nil {
			return a.background(cmd.Context(), "machine "+name, name)
		}
		err = a.keepWarm(cmd.Context(), name, spec, o, reporter)
		if err == nil {
			return nil
		}
		if reporter.Failed(err, exitFailed) != nil {
			return err
		}
		return &codeError{code: exitFailed} // the foreground says the rest
	}
	f := cmd.Flags()
	f.StringVar(&o.machine, "machine", string(bundle.MachineUML), "kind of kernel: uml (User-Mode Linux) or kvm")
	f.StringVar(&o.kernel, "kernel", "", "image of the guest's kernel, or its name in seki machine kernel list (default: as seki run)")
	f.StringArrayVar(&o.kernelArgs, "kernel-arg", nil, "parameter of the guest's kernel on machine kvm; may be given again")
	f.StringVar(&o.memory, "memory", "256MiB", "memory of the guest")
	f.Float64Var(&o.cpus, "cpu", 0, "CPUs' worth of the host's time; on kvm its processors, a whole number (default: no limit)")
	f.StringVar(&o.nic, "nic", "own", "own: a card for each container; shared: one for all")
	f.IntVar(&o.cards, "cards", 4, "how many containers may have a card of their own")
	f.IntVar(&o.mtu, "mtu", config.DefaultMTU, "largest packet of a card, in bytes")
	oneOf(cmd, "machine", warmKinds...)
	oneOf(cmd, "nic", nicKinds...)
	return cmd
}

var warmKinds, nicKinds = []string{"uml", "kvm"}, []string{"own", "shared"}

// maxWarmCards bounds --cards: each is an interrupt of the guest and a socket of the
// host.
const maxWarmCards = 32

// spec checks the flags.
func (o *startOptions) spec(a *app) (bundle.Machine, error) {
	m := bundle.Machine{Kind: bundle.MachineKind(o.machine), CPUs: o.cpus, SharedNIC: o.nic == "shared"}
	memory, err := value.ParseBytes(o.memory)
	m.Memory = int64(memory)
	switch {
	case o.machine != "uml" && o.machine != "kvm":
		return m, usage("--machine %q: want uml or kvm%s", o.machine, meant(o.machine, warmKinds))
	case o.nic != "own" && o.nic != "shared":
		return m, usage("--nic %q: want own or shared%s", o.nic, meant(o.nic, nicKinds))
	case err != nil:
		return m, usage("--memory: %w", err)
	case memory < config.MinMachine || memory > 1<<62:
		return m, usage("--memory %s: want at least 32MiB", o.memory)
	case o.cards < 0 || o.cards > maxWarmCards:
		return m, usage("--cards %d: want 0 to %d", o.cards, maxWarmCards)
	case o.mtu < config.MinMTU || o.mtu > config.MaxMTU:
		return m, usage("--mtu %d: want %d to %d", o.mtu, config.MinMTU, config.MaxMTU)
	case o.cpus < 0:
		return m, usage("--cpu %g: want more than 0", o.cpus)
	}
	if o.kernel != "" {
		if m.Kernel, err = a.kernelImage(o.kernel); err != nil {
			return m, err
		}
	}
	m.KernelArgs = o.kernelArgs
	return m, errors.Join(checkKernelArgs(m), checkCPUs(m, "--cpu"))
}

// keepWarm is the life of a machine that waits: it boots, takes what containers it is
// ordered to run, and ends with them.
func (a *app) keepWarm(ctx context.Context, name string, spec bundle.Machine, o startOptions, reporter *lifecycle.Reporter) (err error) {
	if err := a.cleanUp(ctx); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(a.stderr, nil))
	mc, err := newMachineConfig(spec, overVsock, a.env)
	if err != nil {
		return err
	}
	spec.Kernel = mc.kernel
	spares, err := spareCards(spec, o)
	if err != nil {
		return err
	}
	m, err := newMachine(mc, spares, log)
	if err == nil && spec.SharedNIC {
		err = m.share(o.mtu)
	}
	if err != nil {
		return err
	}
	root, err := filepath.Abs(a.root) // an order changes the working directory
	if err != nil {
		return err
	}
	r, err := lifecycle.Reserve(ctx, lifecycle.PodConfig{Name: name, Machine: string(spec.Kind), Root: root, Runtime: lifecycle.Guest(m), Log: log})
	if err != nil {
		return errors.Join(err, m.close())
	}
	w := &warmMachine{machine: m, reserved: r, name: name, spec: spec, spares: spares, mtu: o.mtu}
	ready := false
	defer func() {
		if r.Used() {
			return
		}
		err = errors.Join(err, m.close())
		var why error
		if ready {
			why = err // nobody looks at the foreground any more
		}
		err = errors.Join(err, r.Close(why))
	}()
	if err := m.start(ctx, r.Machine()); err != nil {
		return err
	}
	own, err := r.SupervisorLog()
	if err != nil {
		return err
	}
	defer own.Close()
	if err := reporter.Started(own); err != nil {
		return err
	}
	ready = true
	return a.await(ctx, w, own)
}

// spareCards are the cards of a machine that waits.
func spareCards(spec bundle.Machine, o startOptions) ([]*guestNIC, error) {
	if spec.SharedNIC {
		return nil, nil
	}
	var all []*guestNIC
	for i := range o.cards {
		n, err := newGuestNIC(frame.MAC{0x02, 0x5e, 0x6b, 0x69, 1, byte(i)}, o.mtu)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

// await carries orders out, until one has been or the machine is to end. own is where
// this process's diagnostics go between orders.
func (a *app) await(ctx context.Context, w *warmMachine, own *os.File) error {
	for {
		select {
		case order := <-w.reserved.Orders():
			code, err := w.carryOut(order, a.env)
			if w.reserved.Used() {
				return &codeError{code: code, err: err}
			}
			if err := errors.Join(err, stdio(nil, nil, own)); err != nil {
				return err
			}
			w.reserved.Refused()
		case <-w.machine.guest.Done():
			why := w.machine.down()
			if why == nil {
				why = errors.New("it powered off")
			}
			return fmt.Errorf("machine %s ended while it waited for its containers: %w", w.name, why)
		case <-w.reserved.Stopped():
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}
