package kvm

import "sync"

// Registers of a 16550 UART, by their offset, and their bits.
const (
	uartData    = 0 // or the divisor's low half
	uartIER     = 1 // or its high half
	uartIIR     = 2 // FCR when written
	uartLCR     = 3
	uartMCR     = 4
	uartLSR     = 5
	uartMSR     = 6
	uartScratch = 7

	ierTHRI  = 1 << 1
	iirNone  = 1
	iirTHRE  = 2
	iirFIFO  = 3 << 6
	fcrFIFO  = 1 << 0
	lcrDLAB  = 1 << 7
	mcrOUT2  = 1 << 3
	mcrLoop  = 1 << 4
	lsrReady = 1<<5 | 1<<6        // holding register and shifter are empty
	msrLines = 1<<4 | 1<<5 | 1<<7 // CTS, DSR, DCD
)

// A serial is the guest's console: a 16550 that sends at once and receives
// nothing. Its interrupt identification tells the truth: one that says
// "pending" for ever made a boot cost 44,000 exits instead of 3,250.
type serial struct {
	out       func(line []byte) // which keeps it
	interrupt func()

	mu                     sync.Mutex // mu guards the registers
	ier, lcr, mcr, scratch byte
	divisor                [2]byte
	fifo                   bool
	thre                   bool   // the holding register became empty, and nobody was told
	line                   []byte // not passed on yet
}

// read returns register i.
func (s *serial) read(i uint16) byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case i <= uartIER && s.lcr&lcrDLAB != 0:
		return s.divisor[i]
	case i == uartIER:
		return s.ier
	case i == uartIIR:
		id := byte(iirNone)
		if s.thre && s.ier&ierTHRI != 0 {
			id, s.thre = iirTHRE, false
		}
		if s.fifo {
			id |= iirFIFO
		}
		return id
	case i == uartLCR:
		return s.lcr
	case i == uartMCR:
		return s.mcr
	case i == uartLSR:
		return lsrReady
	case i == uartMSR && s.mcr&mcrLoop != 0:
		// RTS, DTR, OUT1 and OUT2 come back as CTS, DSR, RI and DCD.
		return s.mcr&2<<3 | s.mcr&1<<5 | s.mcr&4<<4 | s.mcr&8<<4
	case i == uartMSR:
		return msrLines
	case i == uartScratch:
		return s.scratch
	}
	return 0 // nothing was received
}

// write sets register i.
func (s *serial) write(i uint16, v byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case i <= uartIER && s.lcr&lcrDLAB != 0:
		s.divisor[i] = v
	case i == uartData && s.mcr&mcrLoop != 0:
		// It would come back, and nobody reads it.
	case i == uartData:
		if s.line = append(s.line, v); v == '\n' || len(s.line) == lineMax {
			s.pass()
		}
		s.empty()
	case i == uartIER:
		was := s.ier
		s.ier = v & 0x0f
		if was&ierTHRI == 0 {
			s.empty()
		}
	case i == uartIIR:
		s.fifo = v&fcrFIFO != 0
	case i == uartLCR:
		s.lcr = v
	case i == uartMCR:
		s.mcr = v & 0x1f
	case i == uartScratch:
		s.scratch = v
	}
}

// lineMax is how long a line may get before it is passed on.
const lineMax = 256

// pass passes the line on, with mu held.
func (s *serial) pass() {
	if len(s.line) > 0 {
		s.out(s.line)
	}
	s.line = nil
}

// flush passes on what is not a whole line.
func (s *serial) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pass()
}

// empty interrupts for the holding register, which is empty again.
func (s *serial) empty() {
	s.thre = true
	if s.ier&ierTHRI != 0 {
		s.interrupt()
	}
}
