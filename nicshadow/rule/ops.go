package rule

import "sekimori/nicshadow/frame"

// An operand says what a field of an instruction holds, and so how it is
// verified, printed and read back.
type operand uint8

const (
	opNone     operand = iota // must be zero
	opVerdict                 // A: 0 drop, 1 forward, 2 audit
	opField                   // A or K: a field valid in every class that gets here
	opReg                     // A or K: a register written on every path that gets here
	opRegOut                  // A: a register, written
	opImm                     // K: a number no wider than field A, of at most 32 bits
	opRange                   // K: lo | hi<<16, field A of at most 16 bits
	opInt32                   // K: a signed number
	opConst                   // K: index of a constant no wider than field A
	opConst64                 // K: index of a constant of 64 bits
	opPair                    // K: index of a value and, behind it, its mask
	opPeer                    // K: a field of the width of field A
	opRow                     // K: index of a row
	opTable                   // K: index of a table that fits field A
	opTableReg                // K: index of an exact table of 64 bits
	opWhy                     // K: index of a why
	opLimit                   // K: index of a limit
	opAddr                    // A: a field that is an IP address, valid as opField
)

// A flow says where control goes behind an instruction.
type flow uint8

const (
	flowNext flow = iota // on to the next one
	flowTest             // to the next one, or past Off more
	flowJump             // past Off more
	flowEnd              // nowhere
)

// An opDef is all there is to know about an operation but what it computes,
// which [Program.Trace] does, one case each.
type opDef struct {
	name string
	a, k operand
	flow flow
}

// opDefs is the one table of operations; what it does not name is unknown.
var opDefs = [256]opDef{
	OpRet: {"ret", opVerdict, opWhy, flowEnd},
	OpJmp: {"jmp", opNone, opNone, flowJump},

	OpTestEq:    {"eq", opField, opImm, flowTest},
	OpTestNe:    {"ne", opField, opImm, flowTest},
	OpTestLt:    {"lt", opField, opImm, flowTest},
	OpTestLe:    {"le", opField, opImm, flowTest},
	OpTestGt:    {"gt", opField, opImm, flowTest},
	OpTestGe:    {"ge", opField, opImm, flowTest},
	OpTestRange: {"range", opField, opRange, flowTest},

	OpTestEqC:   {"eqc", opField, opConst, flowTest},
	OpTestNeC:   {"nec", opField, opConst, flowTest},
	OpTestMask:  {"mask", opField, opPair, flowTest},
	OpTestNMask: {"nmask", opField, opPair, flowTest},

	OpTestEqF: {"eqf", opField, opPeer, flowTest},
	OpTestNeF: {"nef", opField, opPeer, flowTest},

	OpTestRow:  {"row", opNone, opRow, flowTest},
	OpTestIn:   {"in", opField, opTable, flowTest},
	OpTestNotI: {"notin", opField, opTable, flowTest},

	OpLoadF: {"ldf", opRegOut, opField, flowNext},
	OpLoadI: {"ldi", opRegOut, opInt32, flowNext},
	OpLoadC: {"ldc", opRegOut, opConst64, flowNext},
	OpMove:  {"mov", opRegOut, opReg, flowNext},
	OpAdd:   {"add", opReg, opReg, flowNext},
	OpSub:   {"sub", opReg, opReg, flowNext},
	OpMul:   {"mul", opReg, opReg, flowNext},
	OpDiv:   {"div", opReg, opReg, flowNext},
	OpMod:   {"mod", opReg, opReg, flowNext},
	OpAnd:   {"and", opReg, opReg, flowNext},
	OpOr:    {"or", opReg, opReg, flowNext},
	OpXor:   {"xor", opReg, opReg, flowNext},
	OpShl:   {"shl", opReg, opReg, flowNext},
	OpShr:   {"shr", opReg, opReg, flowNext},
	OpNeg:   {"neg", opReg, opNone, flowNext},
	OpNot:   {"not", opReg, opNone, flowNext},

	OpTestREq: {"req", opReg, opReg, flowTest},
	OpTestRNe: {"rne", opReg, opReg, flowTest},
	OpTestRLt: {"rlt", opReg, opReg, flowTest},
	OpTestRLe: {"rle", opReg, opReg, flowTest},
	OpTestRIn: {"rin", opReg, opTableReg, flowTest},

	OpTestRate:     {"rate", opNone, opLimit, flowTest},
	OpTestFlow:     {"flow", opNone, opNone, flowTest},
	OpTestAnswered: {"answered", opNone, opNone, flowTest},
	OpTestLease:    {"lease", opAddr, opNone, flowTest},
}

// Valid reports whether op is an operation.
func (op Op) Valid() bool { return opDefs[op].name != "" }

// IsTest reports whether op is a test: it may skip Off instructions.
func (op Op) IsTest() bool { return op.Valid() && opDefs[op].flow == flowTest }

// String is the name of the operation, as assembly writes it.
func (op Op) String() string {
	if op.Valid() {
		return opDefs[op].name
	}
	return "invalid"
}

// maxReadable is the widest field that fits a signed register.
const maxReadable = 48

// fits reports whether c is no wider than width bits.
func (c Const) fits(width int) bool {
	switch {
	case width >= 128:
		return true
	case width >= 64:
		return c.Hi == 0
	}
	return c.Hi == 0 && c.Lo>>width == 0
}

// suits reports whether a table of kind k can hold values of field f.
func (k TableKind) suits(f frame.Field) bool {
	switch k {
	case TableExact64:
		return f.Width() <= 64
	case TableExact128, TablePrefix128:
		return f.Width() == 128
	case TablePrefix32:
		return f.Kind() == frame.KindIPv4
	}
	return false
}
