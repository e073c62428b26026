/*
 * A guest's own page tables, read from outside: guest-virtual to guest-physical.
 *
 * The guest's tables are walked by the same walker as ours; only where an entry is read from
 * differs: each lies in guest-physical memory, which the caller reads through the second level.
 */
#ifndef QUIRE_ARCH_X86_64_MM_GUEST_WALK_H
#define QUIRE_ARCH_X86_64_MM_GUEST_WALK_H

#include "mm/paging/table.h"

enum paging_mode { PAGING_NONE, PAGING_32BIT, PAGING_PAE, PAGING_4LEVEL, PAGING_5LEVEL };
const char *paging_mode_name(enum paging_mode mode);

struct gva_context {
    uint64_t cr0, cr3, cr4, efer; /* as the guest sees them */
    /* PAE: the registers, as a VMCS holds them; or they are read from memory at each walk, as AMD's
     * CPUs do with nested paging (APM Vol. 2, 15.25.10). */
    uint64_t pdpte[4];
    bool pdpte_in_memory;
    uint8_t maxphyaddr; /* as the guest's CPUID tells it */
    bool page_1g;       /* the CPU has leaves of 1 GiB; else bit 7 of a PDPTE is reserved */
    /* Reads `size` bytes of guest-physical memory; false when they are not backed. */
    bool (*read)(void *ctx, gpa_t from, void *to, unsigned size);
    void *ctx;
};

enum paging_mode paging_mode_of(const struct gva_context *context);

struct gva_walk {
    enum paging_mode mode;
    /* steps[i].address is guest-physical here (its .v), entries of 4 bytes are zero-extended; the
     * mapping's .out likewise. error: as table_translate(); E_RANGE for a table that is not backed,
     * with steps[count - 1] the entry that pointed there. */
    struct walk walk;
    bool table_unbacked;
    gpa_t gpa; /* where the address ends up, when walk.error is E_OK */
};

/* Returns walk.error; E_UNSUPPORTED for 5-level guests. Changes nothing. */
int gva_walk(const struct gva_context *context, gva_t at, struct gva_walk *out);

/* The same answer without the steps: the mapping, whose .out is guest-physical. */
int gva_translate(const struct gva_context *context, gva_t at, struct mapping *out);

static inline gpa_t gva_mapped(const struct mapping *mapping, gva_t at)
{
    return gpa(mapping->out.v + (at.v - mapping->in));
}

#endif
