/*
 * One page-table entry, by the Intel SDM: is it absent, a table, a page, or one that the CPU
 * refuses? And what does it say?
 *
 * An oracle for tests. Written from the manual's tables, bit number by bit number, and sharing
 * nothing with the product: no header of it is included here. Volume 3: 4.5.4, tables 4-14 to 4-20
 * (4-level and 5-level paging); 29.3.2, tables 29-1 to 29-7, and 29.3.3.1 (EPT). Nested tables by
 * AMD's APM, volume 2, 5.3.3, 5.3.4 and 15.25.5.
 */
#ifndef QUIRE_TESTS_PROPERTY_SDM_RULES_H
#define QUIRE_TESTS_PROPERTY_SDM_RULES_H

#include <stdbool.h>
#include <stdint.h>

enum sdm_format { SDM_HOST, SDM_EPT, SDM_NPT };

/* The CPU and the controls that an entry's meaning depends on. */
struct sdm_cpu {
    unsigned maxphyaddr;
    bool page_2m, page_1g;
    bool nxe;          /* host: IA32_EFER.NXE */
    bool execute_only; /* EPT: execute-only translations are supported */
    bool user_execute; /* EPT: "mode-based execute control" is 1 */
};

enum sdm_class { SDM_ABSENT, SDM_TABLE, SDM_PAGE, SDM_BAD };

struct sdm_entry {
    enum sdm_class class;
    const char *why;  /* of SDM_BAD */
    uint64_t address; /* of the table or of the page's first byte */
    bool read, write, execute;
    bool user;   /* host: user-mode access; EPT: user-mode execution */
    bool global; /* host, of a page */
    bool accessed, dirty;
    unsigned type; /* of a page, as the PAT's and the EPT's number: 0 UC, 1 WC, 4 WT, 5 WP, 6 WB */
};

/* `level`: 1 for the entry that maps 4 KiB, up to 5. */
struct sdm_entry sdm_judge(enum sdm_format format, const struct sdm_cpu *cpu, unsigned level,
                           uint64_t entry);

static inline bool sdm_bit(uint64_t value, unsigned n)
{
    return (value >> n) & 1;
}

/* The bits that hardware sets: A in any present entry, D in a page. */
static inline uint64_t sdm_accessed(enum sdm_format format)
{
    return UINT64_C(1) << (format == SDM_EPT ? 8 : 5);
}

static inline uint64_t sdm_dirty(enum sdm_format format)
{
    return UINT64_C(1) << (format == SDM_EPT ? 9 : 6);
}

static inline uint64_t sdm_page_bytes(unsigned level)
{
    return UINT64_C(1) << (12 + 9 * (level - 1));
}

#endif
