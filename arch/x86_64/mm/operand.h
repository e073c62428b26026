/*
 * The memory operand of an instruction that is carried out for a guest: the checks that the CPU
 * leaves to whoever carries it out, in the CPU's order, and what the CPU does to memory.
 *
 *     segment:offset --segment--> linear --guest's tables--> guest-physical --second level--> byte
 *      #GP, #SS        #GP, #SS    #AC          #PF, A, D          violation, A, D
 *
 * INS and OUTS exit before these checks (SDM Vol. 3, 26.1.1 "Relative priority of faults and VM
 * exits"). Nothing is read or written before all of the operand is known to be within reach: an
 * element that crosses into a page that faults leaves the page before it as it was.
 */
#ifndef QUIRE_ARCH_X86_64_MM_OPERAND_H
#define QUIRE_ARCH_X86_64_MM_OPERAND_H

#include "arch/x86_64/mm/guest_walk.h"

/* In the order of their encoding in prefixes and in exit information. */
enum operand_register { OPERAND_ES, OPERAND_CS, OPERAND_SS, OPERAND_DS, OPERAND_FS, OPERAND_GS };

/* Of 48 bits: guests have no 57-bit linear addresses. */
static inline bool linear_is_canonical(uint64_t at)
{
    return (uint64_t)sign_extend(at, 48) == at;
}

struct operand_segment {
    uint64_t base;
    uint32_t limit;  /* in bytes, inclusive */
    uint16_t access; /* type .. P, AVL L D/B G: bits 8..23 of the descriptor's upper half */
    bool unusable;   /* a null selector was loaded */
};

/* The guest's CPU, as far as an access depends on it. */
struct operand_cpu {
    struct gva_context registers; /* read and ctx in it are not used */
    uint64_t rflags;
    bool user;        /* CPL 3 */
    bool code64;      /* 64-bit mode: EFER.LMA and CS.L */
    bool walks_write; /* reads of the guest's tables count as writes (EPT with A/D, 29.3.5) */

    /* The byte at a guest-physical address, for an access of this kind, and those behind it up to
     * the end of the page of 4 KiB; NULL where a device is. E_OK; E_ILLEGAL: the second level has
     * an entry that is none; else an error, with *allowed what the second level lets through. */
    int (*reach)(void *ctx, gpa_t at, unsigned access, uint8_t **bytes, unsigned *allowed);
    /* Sets A, and D for a write, where the second level keeps them. Only where reach() came to. */
    void (*mark)(void *ctx, gpa_t at, bool write);
    void *ctx;

    /* A page of a device's that the CPU itself has come to for this instruction, before it exited:
     * for such an access the guest's tables have let it through, and are marked. */
    struct {
        uint64_t linear;
        gpa_t gpa;
        unsigned access; /* RIGHT_NONE: there is none */
    } exited;
};

struct operand {
    enum operand_register which;
    struct operand_segment segment;
    uint64_t offset;
    uint8_t address_bytes; /* address size: 2, 4, 8 */
    uint8_t bytes;         /* 1, 2, 4, 8, 16 */
    unsigned access;       /* RIGHT_R, RIGHT_W, or both */
};

enum operand_outcome {
    OPERAND_REACHED,
    OPERAND_EXCEPTION, /* the guest's own fault */
    OPERAND_VIOLATION, /* the second level refuses */
    OPERAND_ILLEGAL,   /* the second level has an illegal entry */
    OPERAND_AGAIN,     /* the guest's tables changed meanwhile: let it try again */
};

struct operand_place {
    uint64_t linear;
    struct operand_piece { /* REACHED: the first page's bytes, then those of the next, if any */
        uint8_t *at;       /* NULL: a device's */
        gpa_t gpa;
        unsigned bytes;
    } piece[2];
    struct { /* EXCEPTION */
        uint8_t vector;
        uint32_t code;
        uint64_t address; /* #PF: for CR2 */
    } fault;
    struct { /* VIOLATION; ILLEGAL: gpa alone */
        gpa_t gpa;
        gva_t gva;
        bool walk; /* at an entry of the guest's own tables */
        unsigned access, allowed;
    } refused;
};

/* Does the segment lie above its limit (5.3)? */
static inline bool segment_expands_down(const struct operand_segment *segment)
{
    return (segment->access & 0xc) == 0x4; /* type: data, E */
}

/* The first of the steps alone, by segment: REACHED and out->linear, or EXCEPTION. */
enum operand_outcome operand_linear(const struct operand_cpu *cpu, const struct operand *operand,
                                    struct operand_place *out);

/* Changes A and D, the guest's and the second level's, as the CPU would; nothing else. */
enum operand_outcome operand_reach(const struct operand_cpu *cpu, const struct operand *operand,
                                   struct operand_place *out);

/* For a fetch by the code that runs: the bytes from a linear address on to the end of its page, at
 * most `most`, into `to`. *count: how many. The CPU has fetched them before: what it has marked on
 * the way is not marked again. */
enum operand_outcome operand_fetch(const struct operand_cpu *cpu, uint64_t linear, unsigned most,
                                   uint8_t *to, unsigned *count, struct operand_place *out);

/* What lies there, and back, after OPERAND_REACHED of memory alone. */
void operand_load(const struct operand_place *place, void *to);
void operand_store(const struct operand_place *place, const void *from);

#endif
