/*
 * The interface between a ring-3 program and Quire.
 *
 * A program is a static ELF64 executable for x86-64 with its segments between 4 KiB and 64 KiB
 * below the end of the lower half, none of them writable and executable at once. It starts at its
 * entry with every general register 0 except RSP, which points at the end of its 64 KiB stack
 * (16-byte aligned). It has no x87, SSE or AVX registers: their instructions stop it, as does every
 * fault.
 *
 * System call: INT 80h, the number in RAX, arguments in RDI and RSI, the answer in RAX. Every other
 * register comes back as it was.
 */
#ifndef QUIRE_GUESTS_USER_ABI_H
#define QUIRE_GUESTS_USER_ABI_H

#define QUIRE_USER_VECTOR 0x80

/* Ends the program. RDI: its result, of which 0 means success. Does not return. */
#define QUIRE_USER_EXIT 1
/* Prints RSI bytes from address RDI, at most QUIRE_USER_WRITE_MAX of them. Every byte must lie in
 * memory that the program itself may read, or nothing is printed. Answers with RSI. */
#define QUIRE_USER_WRITE 2

#define QUIRE_USER_WRITE_MAX 4096

/* Answers that are errors. */
#define QUIRE_USER_E_UNKNOWN -1 /* no such system call */
#define QUIRE_USER_E_FAULT -2   /* not the program's memory */
#define QUIRE_USER_E_RANGE -3   /* more than QUIRE_USER_WRITE_MAX */

#endif
