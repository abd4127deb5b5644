package kvm

import (
	"encoding/binary"
	"sync"

	"sekimori/vmm/hypercall/doorbell"
)

// A line is the host's side of package doorbell: what the guest has written of a
// request, and what it has not read of the answer.
//
// A process that has the ports can write into the request of another, but not
// unseen: what comes from another address space than the request began in ends
// it. Who may ask at all is for whoever answers to say, from the registers.
type line struct {
	serve func(r *Regs, request []byte) (answer []byte)

	mu      sync.Mutex // mu guards the fields below
	space   uint64     // page tables that the request began with
	want    int        // bytes of it; 0: none is being written
	request []byte
	answer  []byte // nil: there is none
	unread  []byte // of it
}

// cr3Space are the bits of CR3 that say whose page tables they are: not the process
// context identifier, nor bit 12, in which kernel and user tables of a process
// differ (arch/x86/include/asm/... PTI_USER_PGTABLE_BIT, v6.12).
const cr3Space = 0x000f_ffff_ffff_e000

// words is how many bytes n are on the way: whole words.
func words(n int) int { return (n + 3) &^ 3 }

// out takes whole words that the guest writes to one of the two ports.
func (l *line) out(r *Regs, port uint16, b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case port == doorbell.Port:
		l.answer, l.unread, l.request, l.want = nil, nil, nil, 0
		if n := binary.LittleEndian.Uint32(b); n > 0 && n <= doorbell.MaxRequest {
			l.want, l.space = int(n), r.CR3&cr3Space
		}
	case l.want == 0:
	case r.CR3&cr3Space != l.space || len(b) > words(l.want)-len(l.request):
		l.request, l.want = nil, 0
	default:
		// What is there is kept, rather than room set aside for what is claimed.
		if l.request = append(l.request, b...); len(l.request) >= l.want {
			l.request = l.request[:l.want]
			l.ask(r)
		}
	}
}

// ask has the request answered, on a goroutine of its own: to put a policy in force
// may take what no vCPU's thread may do. The vCPU stands in its exit meanwhile.
func (l *line) ask(r *Regs) {
	request, done := l.request, make(chan []byte)
	l.request, l.want = nil, 0
	go func() { done <- l.serve(r, request) }()
	if l.answer = <-done; len(l.answer) > doorbell.MaxAnswer {
		l.answer = nil
	}
	l.unread = l.answer
}

// in fills whole words with what the guest reads from one of the two ports.
func (l *line) in(r *Regs, port uint16, b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range b {
		b[i] = 0xff
	}
	if l.answer == nil || r.CR3&cr3Space != l.space {
		return
	}
	switch {
	case port == doorbell.Port:
		binary.LittleEndian.PutUint32(b, uint32(len(l.answer)))
	default:
		l.unread = l.unread[copy(b, l.unread):]
	}
}
