// Package rule is the rule machine: the small computer that decides about
// every frame a container sends.
//
// # The machine
//
// A [Program] judges one parsed frame, a [frame.Key], and answers with a
// [Verdict] and the instruction that gave it. It has the fields of the frame,
// which it reads by number; eight registers of 64 bits, signed, for
// arithmetic on fields; and pools of constants, rows and tables. It has no
// stack, no calls, and it cannot change the frame.
//
// A program has one entry for each [frame.Class]. Instructions are 8 bytes
// ([Insn]); the operations are those of [Op]. A test goes on to the next
// instruction where it holds and skips Off instructions where it does not. A
// jump goes forward only, so that a program of n instructions ends in at most
// n steps. Every path ends in a RET, which names the verdict and its [Why].
//
// # Memory
//
// What a program knows of earlier frames is a [State] of its container. It asks
// four questions of it, each of which a map of the kernel could answer:
//
//	rate      limit K has a token: a map of one number a limit (see bucket)
//	flow      a map from a flow to when each side was last seen, oldest out
//	answered  the same map, of requests
//	lease     a map of two addresses and their ends
//
// It changes in two ways only: rate takes a token, once a frame, and what goes
// on is noted ([Moment.Passed]): a flow or a request, by its addresses, ports
// and kind; a DHCP transaction. A frame that drops leaves nothing but the
// tokens it took.
//
// # Verdicts
//
// [Drop] is the zero Verdict. [Audit] forwards what a predicate in audit mode
// would have dropped. A division by zero and a shift by less than 0 or
// more than 63 drop, at the instruction that did it. A frame of no class drops
// before any instruction.
//
// # Text
//
// [Assemble] reads and [Disassemble] writes the text form, one instruction a
// line:
//
//	; a comment, to the end of the line
//	.file "web.star"                   the first source file, and so on
//	.table prefix32 { 10.0.0.0/8 }     table t0, and so on
//	.limit "allow_udp 10/s" 100000000 5   limit l0: name, nanoseconds, burst
//	.entry arp ipv4-tcp                where frames of these classes begin
//		eq  arp.op, 1 else reply @ web.star:7:12
//		ret drop, predicate "allow_arp" (web.star:7:12)
//	reply:                             a label
//		ret forward, predicate "allow_arp" (web.star:8:12)
//
// Behind @ stands the source position of the instruction, in parentheses that
// of the why. Where frames on their way to the container begin, if they are
// judged, stands behind .ingress. Constants are numbers, MACs and addresses; masks are written
// 10.0.0.0/8 or 0x10&0xf0. Operands that live in pools are written where they
// are used; directives .const, .row and .why fill the pools beforehand where
// their order matters, and $3 is their entry 3.
//
// # Security considerations
//
// Programs cross a trust boundary: they are made on one side of it, travel as
// bytes and run on the other. So there is no unverified Program: the only ways
// to one are [Decode] and [New], which is an encoding and a Decode. Decode
// copies the bytes before it reads them and refuses whatever is not the one
// encoding of a program, in particular unknown operations, jumps past the end,
// paths without a return, unreachable instructions, registers read before
// they are written, and fields that some class of frames does not have where
// it reads them. What it allocates is bounded by the bytes it was given.
//
// The time of a run is bounded by [Program.MaxSteps] and does not depend on
// the frame's length, nor on what a state holds. A table is searched in bounded time whatever its values
// are ([Program.Run] measures tens of nanoseconds among 100,000). A run
// allocates nothing and does not fail; it takes no lock but, to ask for a flow,
// that of one in 64 parts of its container's own.
//
// Names of files and predicates are printable UTF-8, so that they can go into
// logs and onto terminals as they are.
package rule
