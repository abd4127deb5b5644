// Package virtq is the device side of a split virtqueue: pure arithmetic over
// a guest's memory. It knows no device, no transport, no goroutine.
//
//	driver                                                    device
//	  │ descriptor table   {addr len flags next} × size          │
//	  │ available ring     {flags idx} head head head … ────────▶│ Pop
//	  │ used ring          {flags idx} {head len} …     ◀────────│ Push
//
// [Queue.Pop] takes the next chain of descriptors and checks all of it before
// anybody uses any of it; the [Chain] copies bytes between the guest's buffers
// and private ones; [Queue.Push] gives the chain back; [Queue.NeedInterrupt]
// says whether the driver wants to hear of it.
//
//	for range q.Size() { // what is added meanwhile has a kick of its own
//		ok, err := q.Pop(&chain)
//		if !ok {
//			return err
//		}
//		n, err := chain.CopyOut(buf, 0)
//		// … check buf, use buf …
//		if err := q.Push(chain.Head, 0); err != nil {
//			return err
//		}
//	}
//
// # Security considerations
//
// Every word comes from a driver that may be an attacker's, and that changes
// it while we look.
//
//   - Each field is read once, into a local, and what was checked is what is
//     used. Nothing is ever read again.
//   - Each loop over what the driver wrote ends after the queue's size: a chain
//     that links to itself, an index that runs ahead and a ring that is refilled
//     while it is drained end as quickly as honest ones.
//   - A ring or a chain that breaks a rule of the specification breaks the
//     queue: the error is a [*ChainError] or a [*RingError], every later call
//     returns it again, and nothing but a reset mends it. What the driver meant
//     cannot be known, and guessing has been every hypervisor's bug.
//   - Buffers are not part of the ring: one that lies outside RAM is an error of
//     the copy, [*guestmem.RangeError], and costs that chain only.
//
// The order of layers is virtio 1.2; sections are quoted where they are
// enforced. Indirect descriptors, packed rings and VIRTIO_F_EVENT_IDX are not
// offered.
package virtq
