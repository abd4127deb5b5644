package rule

import "fmt"

// A VerifyError says why a program was refused.
type VerifyError struct {
	PC     int // of the instruction, or -1 where none is to blame
	Op     Op
	Reason string
}

func (e *VerifyError) Error() string {
	if e.PC < 0 {
		return "rule: " + e.Reason
	}
	if !e.Op.Valid() {
		return fmt.Sprintf("rule: insn %d (op %#02x): %s", e.PC, uint8(e.Op), e.Reason)
	}
	return fmt.Sprintf("rule: insn %d (%s): %s", e.PC, e.Op, e.Reason)
}

// refuse is a VerifyError that blames no instruction.
func refuse(format string, args ...any) *VerifyError {
	return &VerifyError{PC: -1, Reason: fmt.Sprintf(format, args...)}
}

// blame is a VerifyError about the instruction in at pc.
func blame(pc int, in Insn, format string, args ...any) *VerifyError {
	return &VerifyError{PC: pc, Op: in.Op, Reason: fmt.Sprintf(format, args...)}
}

type errString string

func (e errString) Error() string { return string(e) }
