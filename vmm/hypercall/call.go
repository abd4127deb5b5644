package hypercall

import "fmt"

// A Call is the number of a hypercall. The zero Call is invalid.
type Call uint16

// The calls. Their numbers are the ABI: append, never renumber.
const (
	CallInvalid Call = iota
	CallHello
	CallRegister
	CallLoad
	CallSwap
	CallMode
	CallStats
	CallUnregister

	numCalls
)

var callNames = [numCalls]string{"invalid", "hello", "register", "load", "swap", "mode", "stats", "unregister"}

// String returns the name of the call, or its number if it has none.
func (c Call) String() string {
	if c < numCalls {
		return callNames[c]
	}
	return fmt.Sprintf("call %d", uint16(c))
}

// A Status is the outcome of a call. The zero Status is invalid, so that an
// answer never written is not taken for success.
type Status uint32

// The outcomes. Their numbers are the ABI: append, never renumber.
const (
	StatusInvalid       Status = iota
	StatusOK                   // done
	StatusMalformed            // header, length or payload do not say what they must
	StatusTooLarge             // longer than the server takes
	StatusUnknownCall          // no such call
	StatusVersion              // no version in common, or not the one that was settled
	StatusNoHello              // a call before hello
	StatusSecret               // hello with another secret
	StatusReplayed             // seq did not grow
	StatusUnknownSender        // no such sender is registered
	StatusSenderExists         // register of a sender that is registered
	StatusBadProgram           // the program failed verification
	StatusNotLoaded            // swap to a program that was not loaded
	StatusRefused              // the backend refused for the reason given

	numStatuses
)

var statusNames = [numStatuses]string{
	"invalid", "ok", "malformed request", "request too large", "unknown call", "version not supported",
	"no hello before this call", "wrong secret", "sequence number replayed", "unknown sender",
	"sender exists", "program refused", "program not loaded", "refused",
}

// String returns what the status says, or its number if it has no name.
func (s Status) String() string {
	if s < numStatuses {
		return statusNames[s]
	}
	return fmt.Sprintf("status %d", uint32(s))
}

// An Error is a refused call. A [Backend] returns one to choose the status;
// any other error of a backend becomes [StatusRefused] with its text.
type Error struct {
	Status Status
	// Msg says more, with positions where a program was refused; may be empty.
	Msg string
}

// Error returns the status and the message.
func (e *Error) Error() string {
	if e.Msg == "" {
		return e.Status.String()
	}
	return e.Status.String() + ": " + e.Msg
}

// Is reports whether target is an [Error] of the same status, whatever its
// message.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Status == e.Status
}

// Errors to compare with by errors.Is, and for backends to return.
var (
	ErrMalformed     = &Error{Status: StatusMalformed}
	ErrTooLarge      = &Error{Status: StatusTooLarge}
	ErrUnknownCall   = &Error{Status: StatusUnknownCall}
	ErrVersion       = &Error{Status: StatusVersion}
	ErrNoHello       = &Error{Status: StatusNoHello}
	ErrSecret        = &Error{Status: StatusSecret}
	ErrReplayed      = &Error{Status: StatusReplayed}
	ErrUnknownSender = &Error{Status: StatusUnknownSender}
	ErrSenderExists  = &Error{Status: StatusSenderExists}
	ErrBadProgram    = &Error{Status: StatusBadProgram}
	ErrNotLoaded     = &Error{Status: StatusNotLoaded}
	ErrRefused       = &Error{Status: StatusRefused}
)

// A Mode says whether a sender's verdicts are enforced. The zero Mode is
// invalid on the wire.
type Mode uint8

// The modes.
const (
	ModeInvalid Mode = iota
	ModeEnforce      // drops are dropped
	ModeAudit        // drops are recorded and forwarded
)
