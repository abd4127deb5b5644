// Package introspect finds out, from a guest's memory alone, whose a frame is
// and who runs: no agent is asked, and nothing in the guest can forge the
// answer but its kernel.
//
//	descriptor ─▶ driver's state ─▶ sk_buff ─▶ socket ─▶ namespace, cgroup ─▶ member
//	registers  ─▶ current ─▶ task ─▶ process group, namespaces, cgroup
//
//	kernel, err := introspect.ReadUML(image)                      // while the guest boots
//	guest, err := kernel.Guest(ram, pid, members)                 // vhost-user: SET_MEM_TABLE
//	queue, err := guest.Queue(introspect.Ring{MAC: mac, Desc: q.Desc(), Count: 256})
//	owner := queue.Owner(head, len(frame))                        // for each frame, before the kick is answered
//
// A virtual machine on x86-64 is read through its page tables, from the registers
// of the vCPU that kicked; each vCPU has a Guest of its own:
//
//	kernel, err := introspect.ReadX86(vmlinux, modules...)
//	guest, err := kernel.Guest(ram, members)
//	guest.Enter(&introspect.Registers{CR3: …, GSBase: …})         // at each exit
//	owner := queue.Owner(head, len(frame))
//	task, err := guest.Running()
//
// A [Guest] reads structs of the kernel through a [Memory], at the offsets of a
// layout.Layout. A [Queue] follows a frame from its descriptor to the socket
// that it was written into: [Queue.Owner]. That is the proof of who sent it.
// [Guest.Running] says which task the CPU runs, which is not the same: a softirq
// and a kernel thread send for somebody else, and so does a process that empties
// a queueing discipline. Measured under User-Mode Linux, 1 to 22 % of TCP
// segments left while another was current; on KVM, of datagrams through a bridge,
// all. Its answer says in which context the
// CPU was, and is for telling people; where a driver is not known it is the next
// best proof, in process context only ([Members.OfTask]).
//
// # Security considerations
//
//   - A guest's kernel that is owned can lie about which of its containers sent
//     a frame. It cannot reach beyond the guest: package nicshadow holds each
//     frame against the envelope of whoever was named.
//
//   - No pointer is trusted: each is checked to lie in the kernel's half and to
//     be mapped, by the [Memory], before a byte behind it is used. What is read
//     is read once. Every loop has a bound.
//
//   - Nothing is kept about an address from one exit to the next but where the
//     queue's state and the kernel's image lie, and those are held against the
//     ring's own address and the image's banner before each use. Objects are
//     freed and their addresses used again at once, so that a cache by address
//     would charge a new container for an old one.
//
//   - Where no proof is found the answer is nobody, and says why: the frame
//     drops.
package introspect
