package rule

import "sekimori/nicshadow/frame"

// A Unit is a program in the making: what the compiler and the assembler
// write and the disassembler shows. It is unchecked; [New] encodes it and
// decodes it again, and only what [Decode] verified is a [Program].
type Unit struct {
	// Entries holds, for each class, the pc where judging its frames begins.
	Entries [frame.NumClasses]uint32
	// Ingress holds the same for the frames that are on their way to the
	// container; nil where the program does not judge them. Index 0 is 0.
	Ingress []uint32
	Insns   []Insn
	Consts  []Const
	Rows    []Row
	Tables  []Table
	Whys    []Why
	Limits  []Limit
	// Files are the source files that positions refer to.
	Files []string
	// Lines holds the source position of each instruction; the zero Pos where
	// an instruction has none of its own (guards).
	Lines []Pos
}

// An Insn is one instruction, 8 bytes when encoded, little-endian:
//
//	byte 0   1   2   3   4   5   6   7
//	    op   a   off     k
//
// Off is the number of instructions to skip: the next pc is pc+1+Off.
type Insn struct {
	Op  Op
	A   uint8  // field or register
	Off uint16 // where to go when a test fails; 0 elsewhere
	K   uint32 // immediate, or index of a constant, row, table or why
}

// A Const is a 128-bit constant. Fields of up to 64 bits use Lo.
type Const struct{ Hi, Lo uint64 }

// A Row is up to MaxRow masked comparisons made at once: it holds when each
// field, masked, equals its value. All its fields are valid in every class
// that reaches it.
type Row []Match

// A Match is one masked comparison: field & Mask == Value.
type Match struct {
	Field       frame.Field
	Mask, Value Const
}

// A Table is a set of values or of prefixes of one kind, searched by one
// instruction.
type Table struct {
	Kind TableKind
	// Entries of an exact table; sorted and without duplicates when encoded.
	Values []Const
	// Entries of a prefix table.
	Prefixes []Prefix
}

// A TableKind is the shape of a table. The zero TableKind is invalid.
type TableKind uint8

// The kinds of tables.
const (
	TableInvalid   TableKind = iota
	TableExact64             // values of up to 64 bits
	TableExact128            // values of 128 bits
	TablePrefix32            // IPv4 prefixes: value in the low 32 bits
	TablePrefix128           // IPv6 prefixes
)

// A Prefix is an entry of a prefix table: the Bits high bits of Value.
type Prefix struct {
	Value Const
	Bits  uint8
}

// A Limit is a rate limit: a token bucket that holds Burst tokens, full at
// first, and gets one every Period. The bucket is part of a [State], which
// knows it by all three of these: a new program with an equal limit goes on
// with the bucket of the old one.
type Limit struct {
	// Name says whose it is: "allow_udp 100/s".
	Name   string
	Period uint64 // in nanoseconds, from 1 to MaxPeriod
	Burst  uint32 // from 1 to MaxBurst
}

// A Pos is a source position: an index into Unit.Files, a line and a column,
// both from 1. The zero Pos is unknown.
type Pos struct {
	File uint16
	Line uint32
	Col  uint16
}

// A Why is the reason of a verdict: what a RET instruction refers to.
type Why struct {
	Kind WhyKind
	// Name is the guard ("arp"), the predicate ("allow_arp") or, for
	// WhyUnspoken, what no predicate speaks for ("udp").
	Name string
	// Pos is the deciding line; the zero Pos where there is none.
	Pos Pos
}

// A WhyKind says what kind of thing decided. The zero WhyKind is invalid.
type WhyKind uint8

// The kinds of reasons.
const (
	WhyInvalid   WhyKind = iota
	WhyPredicate         // a predicate said yes or no, at Pos
	WhyGuard             // a guard of the NIC's identity
	WhyUnspoken          // no predicate of the policy judges such a frame
	WhyFragment          // a predicate asked for a field that a later fragment does not carry
)

// An Op is an operation code.
type Op uint8

// The operations. Tests fall through when they hold and skip Off instructions
// when they do not. f is the field A, rA the register A. Comparisons of
// fields are unsigned; registers are int64, compared signed.
const (
	OpInvalid Op = iota

	OpRet // RET A K          verdict A (0 drop, 1 forward) because of why K
	OpJmp // JMP Off          skip Off instructions

	// Field against an immediate; fields of at most 32 bits.
	OpTestEq    // f == K
	OpTestNe    // f != K
	OpTestLt    // f < K
	OpTestLe    // f <= K
	OpTestGt    // f > K
	OpTestGe    // f >= K
	OpTestRange // lo <= f <= hi, K = lo | hi<<16; fields of at most 16 bits

	// Field against the constant pool; fields of any width.
	OpTestEqC   // f == const[K]
	OpTestNeC   // f != const[K]
	OpTestMask  // f & const[K+1] == const[K]
	OpTestNMask // f & const[K+1] != const[K]

	// Field against field; both of the same width.
	OpTestEqF // f == field K
	OpTestNeF // f != field K

	// Many at once.
	OpTestRow  // row[K] holds
	OpTestIn   // f is in table[K]; kind of table and width of field agree
	OpTestNotI // f is not in table[K]

	// Registers, for arithmetic on fields. R0 to R7.
	OpLoadF // rA = field K (at most 48 bits)
	OpLoadI // rA = int32(K), sign-extended
	OpLoadC // rA = const[K].Lo
	OpMove  // rA = rK
	OpAdd   // rA += rK
	OpSub   // rA -= rK
	OpMul   // rA *= rK
	OpDiv   // rA = floor(rA / rK); a zero divisor drops
	OpMod   // rA = rA - rK*floor(rA/rK); a zero divisor drops
	OpAnd   // rA &= rK
	OpOr    // rA |= rK
	OpXor   // rA ^= rK
	OpShl   // rA <<= rK; a shift outside 0..63 drops
	OpShr   // rA >>= rK, arithmetic; a shift outside 0..63 drops
	OpNeg   // rA = -rA
	OpNot   // rA = ^rA

	// Tests of registers.
	OpTestREq // rA == rK
	OpTestRNe // rA != rK
	OpTestRLt // rA < rK
	OpTestRLe // rA <= rK
	OpTestRIn // rA is in table[K] (exact, 64 bits)

	// What a program remembers: see [State]. Without one none of these holds.
	OpTestRate     // limit[K] has a token; takes it. Asked again for one frame, the answer is the same
	OpTestFlow     // the frame belongs to a flow of which the other side has sent
	OpTestAnswered // the frame answers an ARP or NDP request of the other side
	OpTestLease    // f, an address, is the one leased by DHCP

	NumOps
)

// Limits of a program; [Decode] refuses what exceeds them.
const (
	MaxInsns   = 1 << 16
	MaxRow     = 4
	NumRegs    = 8
	MaxLimits  = 60
	MaxBurst   = 1 << 20
	MaxPeriod  = 1e9 * 86400 // a day
	MaxTable   = 1 << 20     // entries of one table
	MaxEncoded = 64 << 20
)
