/*
 * The kinds that stand for a guest's own paging modes (SDM Vol. 3, chapter 4): 32-bit (4.3), PAE
 * (4.4) and 4-level (4.5). Their tables are read, never written, and their nodes lie in
 * guest-physical memory.
 */
#ifndef QUIRE_ARCH_X86_64_MM_GUEST_KINDS_H
#define QUIRE_ARCH_X86_64_MM_GUEST_KINDS_H

#include "arch/x86_64/mm/guest_walk.h"
#include "mm/paging/cursor.h"

extern const struct table_kind guest32_kind, guestpae_kind, guest64_kind;

struct guest_table {
    struct table table; /* .root is guest-physical */
    const struct gva_context *context;
    struct walk *steps; /* each is noted there; NULL: the leaf is all that is asked for */
    bool unbacked;      /* an entry could not be read */
    /* 32-bit paging alone. */
    bool large_pages;         /* CR4.PSE */
    uint64_t directory_entry; /* the PDE as memory holds it */
};

/* The entry, zero-extended. What cannot be read counts as absent, and is noted. */
uint64_t guest_load(const struct table_cursor *c, uint64_t node, unsigned index);

#endif
