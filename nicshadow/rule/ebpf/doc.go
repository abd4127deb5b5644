// Package ebpf makes programs of the rule machine programs of the kernel.
//
// It is the third executor of a [rule.Program], beside the interpreter and
// go.starlark.net calling the predicates themselves: [Compile] translates the
// program instruction by instruction, with nothing taken from the interpreter
// or its prepared form, [Code.Load] has the kernel verify and compile it, and
// [Executor.Judge] runs it there (BPF_PROG_TEST_RUN) on the key of a parsed
// frame. The answer is a [rule.Outcome]: verdict and deciding instruction, so
// that reason and source line are the interpreter's.
//
// # The context
//
// The program is one of traffic control (BPF_PROG_TYPE_SCHED_CLS), and its
// packet is the key:
//
//	  0  128  the words of the key, in the byte order of the machine
//	128    8  now, in nanoseconds
//	136    8  1 for a frame on its way to the container, else 0
//
// It returns the deciding pc << 2 | verdict, or 3 where it had no such packet.
//
// # The parser
//
// The strict parser of package frame is written a second time, for the frames
// of a card that no program of ours reads: the same reason for what it refuses,
// the same key of what it accepts ([Parser]). Its loops over options are walks
// that bpf_loop makes, of which the verifier looks at one turn.
//
// # Cards
//
// A [Card] is a pair of devices at whose far end stand two programs of traffic
// control (tcx): one for what its container sends, of the parser, a rule program
// and the forwarding table, and one for what it is sent. Cards of one switch
// share a [Fabric]: the forwarding table, the counters, and a ring of events.
// Nothing of it is pinned.
//
// # Tables
//
// A table of up to eight entries becomes comparisons. A larger one becomes a
// map that programs cannot write to: a hash map for exact values, a trie for
// prefixes.
//
// # Memory
//
// What a program remembers is its Executor's own, and means what a [rule.State]
// means: token buckets, flows of which the one not seen for longest is put out,
// a lease. A frame that passes is noted before the program ends. It lies in
// arrays whose elements are changed under a lock each. Which flows share a set,
// and so which one is put out when all are full, is a secret of each State and
// each Executor, so there the two may differ: what was put out drops.
//
// # The verifier
//
// Jumps go forward only, and what is carried from one instruction to the next
// lies in memory that the verifier does not follow, so its work grows with the
// length of a program, not with the number of its paths. It gives up behind
// 8,192 conditional jumps on one path; such a program is [Unsupported]. It also
// gives up behind a million instructions looked at. Of the largest programs
// (65,536 instructions) those that test fields take it 6 each; only where most
// of one that large is divisions or questions to memory, [Code.Load] fails.
//
// Needs Linux 5.8 with CAP_BPF and CAP_NET_ADMIN, or root; for a program that
// becomes more than 32,767 instructions, and for cards, Linux 6.6.
package ebpf
