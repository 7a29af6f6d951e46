#include "textflag.h"

// SIXTEEN shifts the bits of 16 more bytes into R8 (quotes), R9 (backslashes) and R10 (odd ones). Signed, bytes
// beyond ASCII are negative, so one comparison finds them and the control characters. The blanks in X2 are
// compared with, so they are copied each time.
#define SIXTEEN(offset) \
	MOVOU offset(SI), X3; \
	MOVO X3, X4; \
	MOVO X2, X5; \
	PCMPGTB X3, X5; \
	PCMPEQB X0, X3; \
	PCMPEQB X1, X4; \
	PMOVMSKB X3, AX; \
	PMOVMSKB X4, BX; \
	PMOVMSKB X5, DX; \
	SHLQ $16, R8; \
	SHLQ $16, R9; \
	SHLQ $16, R10; \
	ORQ AX, R8; \
	ORQ BX, R9; \
	ORQ DX, R10

// func mark(m []marks, text []byte)
//
// Only SSE2, which every amd64 has.
TEXT ·mark(SB), NOSPLIT, $0-48
	MOVQ m_base+0(FP), DI
	MOVQ m_len+8(FP), CX
	MOVQ text_base+24(FP), SI
	TESTQ CX, CX
	JZ done
	MOVQ $0x2222222222222222, AX // '"'
	MOVQ AX, X0
	PUNPCKLQDQ X0, X0
	MOVQ $0x5c5c5c5c5c5c5c5c, AX // '\\'
	MOVQ AX, X1
	PUNPCKLQDQ X1, X1
	MOVQ $0x2020202020202020, AX // ' '
	MOVQ AX, X2
	PUNPCKLQDQ X2, X2
block:
	XORQ R8, R8
	XORQ R9, R9
	XORQ R10, R10
	SIXTEEN(48)
	SIXTEEN(32)
	SIXTEEN(16)
	SIXTEEN(0)
	MOVQ R8, 0(DI)
	MOVQ R9, 8(DI)
	MOVQ R10, 16(DI)
	ADDQ $64, SI
	ADDQ $24, DI
	DECQ CX
	JNZ block
done:
	RET
