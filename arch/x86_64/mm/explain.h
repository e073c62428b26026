/*
 * Why an access goes through or does not: every memory reference of the walk in the CPU's order,
 * and the verdict that the CPU comes to.
 *
 *     gva --guest's PML4 .. PT--> gpa --second level's PML4 .. PT--> hpa
 *            each of these entries lies at a gpa, which the second level translates first:
 *            4 x (4 + 1) + 4 = 24 references at the most
 *
 * It asks the same walkers that map and translate (gva_walk(), table_walk()) and adds what they
 * leave to the CPU: which accesses the rights let through (SDM Vol. 3, 4.6 "Access Rights"), in
 * which order faults come (29.3.3.3; AMD APM Vol. 2, 15.25.6), with which code, and the memory type
 * that results. What the second level's kind asks beyond that stands in explain_ept.c and
 * explain_npt.c. It changes nothing and sets no accessed or dirty bit.
 */
#ifndef QUIRE_ARCH_X86_64_MM_EXPLAIN_H
#define QUIRE_ARCH_X86_64_MM_EXPLAIN_H

#include "arch/x86_64/mm/guest_walk.h"
#include "lib/format.h"

struct explain_query {
    /* The registers that the linear address `at` is translated by; read and ctx in it are not used.
     * NULL: `at` is a guest-physical address. */
    const struct gva_context *registers;
    /* The second-level table; NULL: what the first level leads to is host-physical. */
    struct table *second;
    uint64_t at;
    unsigned access; /* one of RIGHT_R, RIGHT_W, RIGHT_X */
    bool user;       /* made at privilege level 3 */
    uint64_t rflags; /* AC lifts SMAP */
    uint64_t pat;    /* IA32_PAT */
    bool advanced;   /* exits tell what the guest's tables say of the address (EPT, A.10) */
    /* Reads `size` bytes of physical memory, within one page; false when none are there. */
    bool (*load)(void *ctx, hpa_t from, void *to, unsigned size);
    void *ctx;
};

enum explain_outcome {
    EXPLAIN_ALLOWED,
    EXPLAIN_PAGE_FAULT, /* #PF with `code` */
    EXPLAIN_GENERAL,    /* #GP(0) */
    EXPLAIN_VIOLATION,  /* VM exit: the second level has nothing there, or refuses */
    EXPLAIN_MISCONFIG,  /* VM exit: an entry of the second level is illegal */
    EXPLAIN_UNKNOWN,    /* an entry could not be read, or the paging mode is not walked */
    EXPLAIN_OUTCOMES
};

enum explain_rule {
    EXPLAIN_RULE_NONE,
    EXPLAIN_NOT_PRESENT, /* an entry of the first level */
    EXPLAIN_ILLEGAL,     /* an entry of either level: explanation.entry_rule says which rule */
    EXPLAIN_SUPERVISOR,  /* ring 3 at a supervisor address */
    EXPLAIN_READ_ONLY,
    EXPLAIN_NO_EXECUTE,
    EXPLAIN_SMEP,
    EXPLAIN_SMAP,
    EXPLAIN_NOT_CANONICAL,
    EXPLAIN_BEYOND_32_BITS,
    EXPLAIN_SECOND_ABSENT,
    EXPLAIN_SECOND_BEYOND, /* the guest-physical address has more bits than the table translates */
    EXPLAIN_SECOND_NO_READ,
    EXPLAIN_SECOND_NO_WRITE,
    EXPLAIN_SECOND_NO_EXECUTE,
    EXPLAIN_SECOND_SUPERVISOR, /* an entry without U/S, where every access is a user access */
    EXPLAIN_SECOND_WALK,       /* a table of the guest's where the walk may not write */
    EXPLAIN_SECOND_UPDATE,     /* ... where A or D of the guest's entry is to be set */
    EXPLAIN_UNREADABLE,
    EXPLAIN_NOT_WALKED,
    EXPLAIN_RULES
};

enum explain_table { EXPLAIN_FIRST, EXPLAIN_REGISTER, EXPLAIN_SECOND };
struct second_level; /* explain_rules.h */

struct explain_step {
    enum explain_table table; /* EXPLAIN_REGISTER: a PDPTE, which is no memory reference */
    uint8_t reference;        /* 1 .. 24; 0 for a register */
    uint8_t allowed; /* first level: what the second lets through at the entry's own address */
    uint8_t type;    /* of a leaf: first level, the PAT's byte (7: UC-); second, enum mem_type */
    hpa_t hpa;       /* where the entry lies; entry.address says where the guest sees it */
    struct walk_step entry;
    uint64_t
        to; /* of a present entry: the next table or the frame, guest-physical in the first level */
};

/* Five levels of the guest's, each behind five of the second, and five more. */
#define EXPLAIN_STEPS (MAX_LEVELS * (MAX_LEVELS + 1) + MAX_LEVELS)

struct explanation {
    bool linear, two_levels;           /* as asked: `at` is linear, there is a second level, ... */
    const struct second_level *second; /* ... whose rules are these */
    enum paging_mode mode;
    unsigned count;
    unsigned references;
    struct explain_step step[EXPLAIN_STEPS];

    enum explain_outcome outcome;
    enum explain_rule rule;
    enum rule entry_rule; /* of EXPLAIN_ILLEGAL */
    unsigned decided;     /* the step that decided; `count` when it was none of them */
    /* What the CPU tells with it: the error code of #PF or of a nested page fault (EXITINFO1), or
     * the qualification of an EPT violation. */
    bool has_code, has_qualification;
    uint64_t code, qualification;
    bool during_walk; /* an exit at an entry of the guest's tables */
    gpa_t exit_gpa;   /* of an exit: the guest-physical address that it tells */

    uint64_t at;
    unsigned access;
    bool user;
    bool has_gpa, has_hpa; /* the walk got that far */
    gpa_t gpa;
    hpa_t hpa;
    uint64_t page;   /* bytes of the smaller of both levels' pages; 0: none was reached */
    unsigned rights; /* RIGHT_R, W, X: what an access of this kind (user or not) may do there */
    unsigned type;   /* effective memory type: MTRRs taken as write-back */
};

void explain(const struct explain_query *query, struct explanation *out);

/* Why the rights that a first-level table gives refuse an access; EXPLAIN_RULE_NONE: they do not.
 */
enum explain_rule paging_refusal(const struct gva_context *registers, bool user, uint64_t rflags,
                                 unsigned access, unsigned rights);

/* Table 12-7 of 12.5.2.2: the effective type by MTRR (or, in a guest, EPT) type and PAT entry. */
unsigned effective_memory_type(unsigned mtrr, unsigned pat);
/* The type in the byte of IA32_PAT that a leaf of a first-level table selects (12.12.3); 7: UC-. */
unsigned pat_of_leaf(uint64_t pat, uint64_t leaf, unsigned level);
/* As mem_type_name(), with "UC-" for 7. */
const char *pat_type_name(unsigned type);

/* Words. Each returns its buffer, but for names. */
#define EXPLAIN_TEXT 200
const char *explain_outcome_name(const struct explanation *e); /* "#PF", "EPT violation" */
/* Is it an exit to whoever runs the guest? */
bool explain_exits(const struct explanation *e);
const char *explain_rule_text(char buffer[EXPLAIN_TEXT], const struct explanation *e);
const char *explain_section(const struct explanation *e);
/* "supervisor write to GVA 0x1000" */
const char *explain_access_text(char buffer[EXPLAIN_TEXT], const struct explanation *e);
/* "guest PT entry 5", "EPT PD entry 3, at the guest's PML4 entry 0"; "" when no entry decided. */
const char *explain_decided_text(char buffer[EXPLAIN_TEXT], const struct explanation *e);
/* "present, write, user; at the final address", of an error code */
const char *explain_code_text(char buffer[EXPLAIN_TEXT], uint64_t code);
/* "write; the table gives r-x; at the final address" */
const char *explain_qualification_text(char buffer[EXPLAIN_TEXT], uint64_t qualification);
/* "guest", "EPT", "NPT", "host" */
const char *explain_table_name(const struct explanation *e, const struct explain_step *step);

/* The whole explanation as lines of text: a line a reference, then the verdict. */
void explain_print(struct sink *to, const struct explanation *e);

#endif
