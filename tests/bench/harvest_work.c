/* What collects and clears what hardware has marked, and the loops that it is held against. See
 * mapper_work.h. */
#include "tests/bench/mapper_work.h"

#include <stddef.h>

#include "lib/panic.h"
#include "tests/bench/bench.h"

static uint64_t marks(void)
{
    return work.table.kind->accessed_bit | work.table.kind->dirty_bit;
}

static uint64_t pages(void)
{
    return work.size / PAGE_SIZE;
}

void set_marks(void)
{
    for (uint64_t i = 0; i < pages(); i++)
        work.leaf_tables[i / 512][i % 512] |= marks();
}

uint64_t work_harvest(void)
{
    struct flush_batch batch;

    flush_begin(&batch, &work.table);
    if (table_harvest(&work.table, work.base, work.size, HARVEST_CLEAR_A | HARVEST_CLEAR_D, NULL,
                      NULL, &batch) != 0)
        panic("harvest");
    flush_commit(&batch);
    return pages();
}

uint64_t loop_read(void)
{
    uint64_t all = 0;

    for (uint64_t i = 0; i < pages(); i++)
        all |= __atomic_load_n(&work.leaf_tables[i / 512][i % 512], __ATOMIC_RELAXED);
    bench_keep(all);
    return pages();
}

/* Hardware may mark an entry at the same moment. */
uint64_t loop_clear(void)
{
    uint64_t keep = ~marks();

    for (uint64_t i = 0; i < pages(); i++)
        __atomic_fetch_and(&work.leaf_tables[i / 512][i % 512], keep, __ATOMIC_ACQ_REL);
    return pages();
}
