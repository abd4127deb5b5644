package guestmem

import "fmt"

// A RangeError reports an access to what is not RAM of the guest.
type RangeError struct {
	Addr GPA
	Len  uint64
	// RAM is the size of all of the guest's memory in bytes.
	RAM uint64
}

func (e *RangeError) Error() string {
	return fmt.Sprintf("guest memory [%#x, +%d): outside RAM of %d bytes", uint64(e.Addr), e.Len, e.RAM)
}

// An AlignError reports an access to a word at an address that is not a
// multiple of the word's size.
type AlignError struct {
	Addr GPA
	Len  uint64
}

func (e *AlignError) Error() string {
	return fmt.Sprintf("guest memory [%#x, +%d): not aligned", uint64(e.Addr), e.Len)
}

// A FaultError reports RAM that is not there: the guest shrank the file behind
// it, the host is out of memory for it, or the [Memory] was closed. The access
// may have been made in part.
type FaultError struct {
	Addr GPA
	Len  uint64
}

func (e *FaultError) Error() string {
	return fmt.Sprintf("guest memory [%#x, +%d): nothing behind it", uint64(e.Addr), e.Len)
}
