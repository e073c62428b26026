/*
 * Where the hypervisor's page tables get their frames: from the early allocator until the buddy
 * stands, from the buddy ever after. Both send flushes to this machine's CPUs (tlb.h).
 */
#ifndef QUIRE_ARCH_X86_64_MM_TABLE_ENVS_H
#define QUIRE_ARCH_X86_64_MM_TABLE_ENVS_H

#include "mm/frames/early.h"
#include "mm/paging/table.h"

/* Frames by buddy_alloc(0, table->purpose, table->owner). For every table made after the hand-over,
 * and for those that table_adopt() moves to it. */
extern const struct table_env buddy_table_env;

/* The environment that takes frames from `early` for as long as that is open. There is one; a later
 * call replaces the allocator behind it. No frame records are kept. */
const struct table_env *early_table_env(struct early *early);

#endif
