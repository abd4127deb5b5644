// Package witness finds frames on which two rule programs differ, or which one
// program forwards: the engine of seki diff and of some checks of seki lint.
//
// A program is read as a decision graph: its tests, with the values of a field
// for which each holds, and its verdicts; equal parts of two programs become
// one. The search walks both graphs at once and keeps, for each field, the set
// of values that leads there, so that a way no frame can take is never taken:
// what it walks is the space of all frames that parse, class by class, not a
// sample. Where the verdicts part it picks values, builds the frame, parses it
// and has both programs judge it: what is reported has been seen to differ.
//
//	report := witness.Diff(old, new, witness.Limits{})
//	for _, c := range report.Changes {
//		fmt.Println(c.Class, c.Old.Verdict, "->", c.New.Verdict)
//	}
//
// Two things can keep the search from being whole, and a [Report] says so: the
// limit of steps, and ways that hang on arithmetic with fields or on state,
// for which values are tried, not computed.
package witness
