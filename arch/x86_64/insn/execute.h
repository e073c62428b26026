/*
 * Carries out a decoded instruction on registers that it is given; memory is behind two callbacks.
 *
 *     insn_decode()     bytes -> struct insn
 *     insn_places()     where it will read and write: for checks, before anything happens
 *     insn_execute()    read, compute, write, and then the registers: all or nothing
 *
 * It knows offsets within segments and no more: bases, limits, paging and the faults of both are
 * the caller's (arch/x86_64/mm/operand.h for memory, in the order of the places). What an
 * instruction does is what SDM Vol. 2 says in its "Operation" and "Flags affected".
 *
 * Flags that the manual leaves undefined: AF is cleared by AND, OR, XOR and TEST, and kept by
 * shifts; OF after a shift or rotate by more than 1 is what the rule for 1 would give; of BT and
 * its relatives all but CF are kept.
 */
#ifndef QUIRE_ARCH_X86_64_INSN_EXECUTE_H
#define QUIRE_ARCH_X86_64_INSN_EXECUTE_H

#include "arch/x86_64/insn/decode.h"

struct insn_state {
    uint64_t gpr[INSN_REGISTERS]; /* by their encoding: RAX RCX RDX RBX RSP RBP RSI RDI R8 .. */
    uint64_t rip;                 /* of the instruction; then of the next, or of the same */
    uint64_t rflags;              /* RF and TF are the caller's affair, and so is a shadow of STI */
    uint8_t stack_bytes;          /* SS.B: 2 or 4; 8 in 64-bit mode */
    uint32_t code_limit;          /* of CS, inclusive; of no meaning in 64-bit mode */
};

enum { INSN_READ = 1, INSN_WRITE = 2 };

struct insn_place {
    enum insn_segment segment;
    uint8_t bytes;         /* 1, 2, 4, 8, 16 */
    uint8_t address_bytes; /* 2, 4, 8: the offset has no bits above */
    uint8_t access;        /* INSN_READ, INSN_WRITE, or both: then both rights are wanted at once */
    bool aligned;          /* the linear address must be a multiple of `bytes`, or #GP(0) */
    uint64_t offset;
};

/* The offset of the memory operand in its segment, cut to the address size: base, index and
 * displacement, and what a register adds that numbers a bit (BT, BTS, BTR, BTC). */
uint64_t insn_offset(const struct insn *insn, const struct insn_state *state);

/* What one call of insn_execute() would access, in that order. Returns how many: 0 for a repeated
 * string whose count is 0, else 1 or 2. */
#define INSN_PLACES 2
unsigned insn_places(const struct insn *insn, const struct insn_state *state,
                     struct insn_place place[INSN_PLACES]);

/* Bytes in memory as a little-endian number in the low bits; of 16 bytes in two. What a read
 * leaves above its bytes does not count. A negative value
 * means that it could not be done, and ends the instruction. A place with both accesses is first
 * read, then written: if that has to be atomic (insn.lock, XCHG), the callbacks see to it. */
struct insn_bus {
    int (*read)(void *ctx, const struct insn_place *place, uint64_t value[2]);
    int (*write)(void *ctx, const struct insn_place *place, const uint64_t value[2]);
    void *ctx;
};

enum insn_outcome {
    INSN_DONE,       /* rip is the next instruction's */
    INSN_REPEATS,    /* one iteration of a repeated string is done; rip is still the same */
    INSN_PROTECTION, /* #GP(0): a jump or call to where no code can be; nothing has changed */
};

/* Only for what insn_decode() called DECODED. Returns an outcome, or the callback's negative value:
 * then the registers are as they were, and nothing was written. Each call writes to memory once at
 * most, and last. */
int insn_execute(const struct insn *insn, struct insn_state *state, const struct insn_bus *bus);

#endif
