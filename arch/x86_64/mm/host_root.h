/*
 * The root register of the host kinds: CR3 (SDM Vol. 3, 2.5 and 4.10.1).
 */
#ifndef QUIRE_ARCH_X86_64_MM_HOST_ROOT_H
#define QUIRE_ARCH_X86_64_MM_HOST_ROOT_H

#include <stddef.h>

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/mm/shootdown.h"
#include "lib/error.h"
#include "mm/paging/table.h"

/* The frame of the current root table, without CR3's attribute bits. */
static inline hpa_t host_root_current(void)
{
    return hpa(read_cr3() & BITS(51, 12));
}

static inline bool host_root_is_current(const struct table *table)
{
    return host_root_current().v == table->root.v;
}

/* Makes `table` current, under its PCID where PCIDs are on; what the PCID had cached is dropped.
 * E_INVAL for a table that CR3 cannot take. */
static inline int host_root_set(struct table *table)
{
    if (table->kind->id != KIND_KERNEL && table->kind->id != KIND_USER)
        return E_INVAL;
    bool program = table->kind->id == KIND_USER;
    uint64_t pcid = read_cr4() & CR4_PCIDE ? table->tag & CR3_PCID : 0;

    /* A flush that comes before the load of CR3 finds nothing; one that comes after it reaches this
     * CPU, for as long as the table is published. What is left cached under the PCID behind that is
     * dropped by the next load, which never keeps anything. */
    if (program)
        shootdown_load(CONTEXT_PROGRAM, table, NULL);
    write_cr3(table->root.v | pcid);
    if (!program)
        shootdown_load(CONTEXT_PROGRAM, NULL, NULL);
    return E_OK;
}

#endif
