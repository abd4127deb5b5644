#include "go_asm.h"
#include "textflag.h"

#define SYS_read       0
#define SYS_write      1
#define SYS_exit_group 231
#define SYS_execveat   322
#define SYS_clone3     435
#define EINTR          4

// ARG loads argument i of the op at R14: its word, or the slot that takes the
// word's place.
#define ARG(i, reg) \
	MOVQ    (op_args+8*i)(R14), reg          \
	MOVWLZX (op_from+2*i)(R14), CX           \
	TESTL   CX, CX                           \
	JEQ     2(PC)                            \
	MOVQ    (board_slots-8)(BX)(CX*8), reg

// BRANCH goes on where branch i of the op at R14 says, if it is for errno AX.
#define BRANCH(i) \
	MOVQ (op_on+branch__size*i+branch_errno)(R14), CX \
	LEAQ (op_on+branch__size*i)(R14), DI              \
	CMPQ CX, AX                                       \
	JEQ  branch                                       \
	CMPQ CX, $-1                                      \
	JEQ  branch

// func cloneScript(args *cloneArgs, ops *op, n uintptr, b *board) (pid, errno uintptr)
//
// The child has one thread and no Go runtime; neither the heap nor the stack of
// the caller is in its memory. So it uses registers alone: R12 the ops, R13 how
// many there are, R15 which is being carried out, R14 its address, BX the board.
TEXT ·cloneScript(SB), NOSPLIT, $0-48
	MOVQ args+0(FP), DI
	MOVQ $cloneArgs__size, SI
	MOVQ ops+8(FP), R12
	MOVQ n+16(FP), R13
	MOVQ b+24(FP), BX
	MOVQ $SYS_clone3, AX
	SYSCALL
	TESTQ AX, AX
	JEQ  child
	CMPQ AX, $0xfffffffffffff001
	JCC  failed
	MOVQ AX, pid+32(FP)
	MOVQ $0, errno+40(FP)
	RET

failed:
	NEGQ AX
	MOVQ $0, pid+32(FP)
	MOVQ AX, errno+40(FP)
	RET

child:
	XORL R15, R15

next:
	CMPQ  R15, R13
	JCC   fail
	MOVQ  R15, board_pc(BX)
	IMUL3Q $op__size, R15, R14
	ADDQ  R12, R14
	ARG(0, DI)
	ARG(1, SI)
	ARG(2, DX)
	ARG(3, R10)
	ARG(4, R8)
	ARG(5, R9)
	MOVQ  op_nr(R14), AX
	CMPQ  AX, $const_opGate
	JCC   pseudo

call:
	SYSCALL
	CMPQ  AX, $0xfffffffffffff001
	JCC   error

success:
	MOVWLZX op_out(R14), CX
	TESTL CX, CX
	JEQ   advance
	MOVQ  AX, (board_slots-8)(BX)(CX*8)

advance:
	INCQ  R15
	JMP   next

error:
	NEGQ  AX
	BRANCH(0)
	BRANCH(1)
	BRANCH(2)
	MOVQ  AX, board_errno(BX)

fail:
	MOVQ  $124, DI
	JMP   exit

branch:
	MOVQ  branch_pc(DI), R15
	JMP   next

pseudo:
	CMPQ  AX, $const_opJump
	JEQ   jump
	CMPQ  AX, $const_opFork
	JEQ   fork
	CMPQ  AX, $const_opExec
	JEQ   exec

	// opGate or opWait: the first says that the child is here.
	LEAQ  board_byte(BX), SI
	MOVB  $'.', (SI)
	MOVQ  $1, DX
	CMPQ  AX, $const_opWait
	JEQ   wait
	MOVQ  $SYS_write, AX
	SYSCALL

wait:
	MOVQ  $SYS_read, AX
	SYSCALL
	CMPQ  AX, $-EINTR
	JEQ   wait
	CMPQ  AX, $1
	JEQ   advance
	MOVQ  $125, DI // the parent is gone, or has given up
	JMP   exit

jump:
	MOVQ  DI, R15
	JMP   next

exec:
	MOVQ  $SYS_execveat, AX
	JMP   call

fork:
	MOVQ  $SYS_clone3, AX
	SYSCALL
	TESTQ AX, AX
	JEQ   success // the second process goes on
	CMPQ  AX, $0xfffffffffffff001
	JCC   error
	XORL  DI, DI

exit:
	MOVQ  $SYS_exit_group, AX
	SYSCALL
	JMP   exit
