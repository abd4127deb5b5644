// Package replay judges recorded frames with the very programs that would be
// put in force: it is the engine of seki test and seki explain. It needs no
// root and no network.
//
//	frames, err := replay.Open("attack.pcapng.gz")
//	for _, r := range replay.Judge(program, frames) {
//		fmt.Println(r.Frame.Number, r.Verdict(), r.Why())
//	}
//	err = replay.Explain(program, &frames[0], source).WriteText(os.Stdout)
//
// Captures are read by readers of our own, of 200 lines: those of gopacket
// v1.1.19 allocate what a length field says before they read, divide by zero
// on the interface option if_tsresol, and do not return packet comments.
package replay
