package main

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"sekimori/introspect"
	"sekimori/vmm/guestmem"
	"sekimori/vmm/hypercall"
	"sekimori/vmm/hypercall/doorbell"
	"sekimori/vmm/kvm"
)

// bellArg is the agent's argument for hypercalls by the doorbell.
const bellArg = "hypercalls=doorbell"

// A bell answers the doorbell of a guest of KVM whose memory is read: the host looks
// who rings, and has the agent's calls answered, nobody else's. There is one call at
// a time.
type bell struct {
	server *hypercall.Server
	log    *slog.Logger
	memory func() *guestmem.Memory
	reader reader

	once    sync.Once
	guest   *introspect.Guest // nil, and err, if it cannot be read
	err     error
	refused atomic.Uint64
}

// maxRefusals is how many that were turned away are logged: who may ring can ring
// as often as he likes.
const maxRefusals = 10

// serve implements kvm.Config's Doorbell.
func (b *bell) serve(r *kvm.Regs, request []byte) []byte {
	b.once.Do(func() { b.guest, b.err = b.reader(b.memory(), introspect.NewMembers()) })
	regs := introspectRegisters(r)
	if err := b.agent(&regs); err != nil {
		if b.refused.Add(1) <= maxRefusals {
			b.log.Warn("hypercall refused: not the agent's", "err", err)
		}
		return nil
	}
	return b.server.Call(request)
}

// agent tells whether the process that rings is the guest's first, in user mode,
// where the kernel says that it runs.
func (b *bell) agent(r *introspect.Registers) error {
	switch {
	case b.err != nil:
		return b.err
	case !r.User:
		return errors.New("rung by the guest's kernel")
	}
	b.guest.Enter(r)
	task, err := b.guest.Running()
	if err != nil {
		return err
	}
	if task.TGID != 1 || task.Kernel || task.Context != introspect.ContextProcess {
		return fmt.Errorf("rung by process %d, %q", task.TGID, task.Comm)
	}
	return nil
}

// introspectRegisters are the registers as package introspect wants them.
func introspectRegisters(r *kvm.Regs) introspect.Registers {
	regs := introspect.Registers{CR3: r.CR3, CR4: r.CR4, GSBase: r.GSBase, RSP: r.RSP, TaskState: r.TRBase, User: r.CPL == 3}
	if regs.User {
		// An error leaves 0, where no kernel has its data: nobody is found.
		regs.KernelGSBase, _ = r.KernelGSBase()
	}
	return regs
}

// ring makes the guest's hypercalls by the doorbell.
func ring() (hypercall.Transport, error) {
	line, err := doorbell.Open()
	if err != nil {
		return nil, err
	}
	return line.Call, nil
}
