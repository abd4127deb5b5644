// Package kernel moves a pod's frames in the kernel: the card of each container
// is one end of a pair of devices, at whose other end programs of the kernel
// judge what passes, count it, and hand it on.
//
//	container's namespace        the yard                  another container's
//	  eth0 ───────────────▶ c1 ▶ out: parse, judge, ─┐
//	                                 count, forward  ├▶ in: judge ▶ c2 ──▶ eth0
//	                                                 └▶ …
//
// What the programs mean is package nicshadow's: [rule.Program] by [ebpf.Card],
// the same reasons, the same counters, the same forwarding table that learns
// nothing. The table of senders stays where it is, and hands each program over
// before it is in force ([nicshadow.Path]); drops and captures are told through
// a ring, and go to the same drop log and the same files.
//
// # Security considerations
//
//   - The yard is a network namespace in which nothing answers: no address, no
//     route, nobody inside. A frame that no program takes goes nowhere, so a card
//     without its programs is a card without a network.
//
//   - Nothing is pinned. Programs, maps and yard are the supervisor's files: when
//     it is killed they end together, and the container's card with them.
//
//   - What is judged is what is sent: a frame made of pages that its sender still
//     writes to is copied first. A checksum or a segmentation that the sender's
//     kernel left to be done drops as "bad offload header", for a container that
//     may administer its card can switch offloads on again.
//
//   - A tag that the kernel took out of the frame counts as part of it.
//
//   - A container may do with its end what it likes. It is not told of the other.
//
// # What differs
//
// A tagged frame of fewer than 20 bytes is dropped by the kernel before a program
// sees it, uncounted (skb_vlan_untag, net/core/skbuff.c v6.18). Frames for a card that is full or down count as delivered:
// the programs are not told what becomes of what they hand on.
package kernel
