/*
 * An instruction of a guest's, carried out since it reaches a device: fetched and decoded
 * (arch/x86_64/insn/), its operands checked as the CPU checks them (operand.h), its accesses made
 * to memory or to the device.
 *
 * All places are reached before anything is read: a device that was asked cannot be asked back. A
 * device sees aligned accesses of 1, 2, 4 or 8 bytes; what is wider or not aligned comes in pieces
 * from the lowest address up. Memory between a locked instruction's read and its write is not
 * guarded against other CPUs.
 */
#ifndef QUIRE_ARCH_X86_64_MM_EMULATE_H
#define QUIRE_ARCH_X86_64_MM_EMULATE_H

#include "arch/x86_64/insn/execute.h"
#include "arch/x86_64/mm/operand.h"

struct emulate_cpu {
    struct operand_cpu access; /* whose reach() finds devices */
    struct operand_segment (*segment)(void *ctx, enum operand_register which);
    uint64_t (*read)(void *ctx, gpa_t at, unsigned bytes);
    void (*write)(void *ctx, gpa_t at, unsigned bytes, uint64_t value);
    void *ctx;
    const uint8_t *fetched;  /* what the CPU has fetched at RIP, ... */
    unsigned fetched_bytes;  /* ... so many bytes; 0: that is not known */
    struct insn_state state; /* the registers, before and afterwards */
    enum insn_mode mode;
};

/* What stopped an operand stops the instruction: those outcomes are the operand's. */
enum emulate_outcome {
    EMULATE_DONE = OPERAND_REACHED,        /* RIP is the next instruction's */
    EMULATE_EXCEPTION = OPERAND_EXCEPTION, /* place.fault says which */
    EMULATE_VIOLATION = OPERAND_VIOLATION, /* place.refused, as operand.h has it */
    EMULATE_ILLEGAL = OPERAND_ILLEGAL,
    EMULATE_AGAIN = OPERAND_AGAIN,
    EMULATE_REPEATS, /* one iteration is done, and others follow */
    EMULATE_UNKNOWN, /* the decoder does not know it: `why` has a sentence */
};

struct emulation {
    struct insn insn;
    unsigned places;                         /* of its accesses, ... */
    struct insn_place asked[INSN_PLACES];    /* ... in the CPU's order */
    struct operand_place place[INSN_PLACES]; /* where they reached, or [0]: why one did not */
    char why[INSN_TEXT];
};

/* Fetches what lies at RIP. EMULATE_DONE: out->insn is it. */
enum emulate_outcome emulate_decode(const struct emulate_cpu *cpu, struct emulation *out);

/* RIP as a linear address; and one of the instruction's places as the operand to be reached. */
uint64_t emulate_code_address(const struct emulate_cpu *cpu);
struct operand emulate_operand(const struct emulate_cpu *cpu, const struct insn_place *place);

/* Carries it out once; a repeated string: one iteration. Unless the outcome is DONE or REPEATS,
 * registers and memory are as they were. */
enum emulate_outcome emulate_step(struct emulate_cpu *cpu, struct emulation *out);

#endif
