// Command bench measures Sekimori beside its peers, in one run on one machine,
// and exits 1 when a bar is missed:
//
//   - judging a frame (parse and program): no allocation, and at most 1/4 of
//     the time of golang.org/x/net/bpf, 1/2 of wazero-compiled WebAssembly,
//     1/100 of calling the Starlark function for each frame;
//   - the program without the parser, by the interpreter and in the kernel as
//     eBPF: shown, without a bar;
//   - compiling a policy, from Starlark source to verified program: at most
//     4/10 of cel-go's Compile and Program;
//   - a reload is in force within a millisecond;
//   - in a thousand reloads while frames pass, on either data path, none is lost
//     and none judged by neither policy;
//   - between two containers whose frames programs of the kernel judge, TCP moves
//     at least 1/0.7 times as much as through this process, and as much as over
//     a bridge with the same rules in nftables, where a datagram takes no less;
//   - on machine uml the first word of hello comes within 150 ms, and no later
//     than that of gVisor's runsc; one more container within 50; and a frame that
//     is traced to its sender takes at most a quarter longer than one that need
//     not be;
//   - the first word of hello in a machine that waits for it, what a machine takes
//     of memory, and how fast its containers read and write files of the host over
//     9P: shown, without a bar;
//   - on KVM, to find out who sent a frame and to judge it takes at most a tenth
//     of what a small guest's kick of its card takes without, and no allocation;
//   - a container with NIC, policy, cgroup and seccomp starts and ends in less
//     time than crun takes for one without a NIC.
//
// Only ratios of the same run mean anything on a shared machine: engines take
// turns within each round. Where the clock is the processor time of this process,
// the smallest of all rounds counts. Where it is the wall's, it is the median of
// the rounds' ratios, and rounds go on, up to five times as many, while chance
// might decide whether the bar is met (the sign test, 1 %). A bar has a slack of
// 1.3, because the same code runs up to twice as slow while the other processor
// is busy.
//
// It is a module of its own, so that the peers never enter the product's
// go.mod. runsc is not even in this one: it is a program, built once from the Go
// module proxy, 80 MB in the user's cache (go install, a minute and a half of
// processor time). Where that cannot be had, the bar beside it is left out and the
// report says why.
//
//	cd bench && go run .            # all of it, a minute
//	cd bench && go run . -only judge,compile -rounds 30
package main
