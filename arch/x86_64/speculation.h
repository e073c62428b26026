/*
 * What a CPU does ahead of time, and what is done so that nothing of one guest, or of the host, is
 * learnt by another from it. Which of it applies is decided once from CPUID and
 * IA32_ARCH_CAPABILITIES; docs/THREAT-MODEL.md has the table.
 */
#ifndef QUIRE_ARCH_SPECULATION_H
#define QUIRE_ARCH_SPECULATION_H

#include <stdbool.h>
#include <stdint.h>

enum speculation_vendor { SPECULATION_OTHER, SPECULATION_INTEL, SPECULATION_AMD };

/* What is known of a CPU. */
struct speculation_facts {
    enum speculation_vendor vendor;
    unsigned family, model; /* as displayed: extended ones included */
    bool emulated;          /* by a program that runs nothing ahead of time */
    bool virtual;           /* a hypervisor is below, which deals with the CPU's errata */
    bool md_clear;          /* CPUID 7 EDX 10: VERW clears buffers */
    bool ibpb;              /* CPUID 7 EDX 26, or 80000008 EBX 12: IA32_PRED_CMD */
    bool flush_l1d;         /* CPUID 7 EDX 28: IA32_FLUSH_CMD */
    uint64_t capabilities;  /* IA32_ARCH_CAPABILITIES; 0 where there is none */
};

enum speculation_issue {
    ISSUE_L1TF, /* L1 terminal fault: what the L1 data cache holds is read past absent entries */
    ISSUE_MDS,  /* buffers between core and caches give old data (also TAA) */
    ISSUE_BRANCHES, /* targets that one guest trained are followed in another */
    ISSUE_RETURNS,  /* the return stack that a guest left is followed in the host */
    ISSUE_MULTIHIT, /* a large executable page that is split can stop the CPU (erratum) */
    ISSUE_COUNT
};

enum speculation_state {
    SPECULATION_UNAFFECTED,
    SPECULATION_DEFENDED,
    SPECULATION_OPEN, /* affected, and this CPU's microcode offers nothing */
};

struct speculation_plan {
    enum speculation_state state[ISSUE_COUNT];
    bool flush_l1d_at_entry, verw_at_entry, ibpb_between_guests, stuff_returns;
    bool small_leaves; /* second-level tables in pages of 4 KiB */
};

/* Pure: the same facts, the same plan. */
struct speculation_plan speculation_decide(const struct speculation_facts *facts);

const char *speculation_issue_name(enum speculation_issue issue);
/* What is done where this is defended, as a phrase. */
const char *speculation_defence(enum speculation_issue issue);
const char *speculation_state_name(enum speculation_state state);

/* Of this CPU. Once, before any guest is made; then the plan is known. */
void speculation_init(void);
const struct speculation_plan *speculation_plan(void);

/* Right before an entry; when another guest than the last gets the CPU, or ring 3 does. */
void speculation_before_entry(void);
void speculation_between_guests(void);

#endif
