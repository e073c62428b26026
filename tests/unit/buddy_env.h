/*
 * A table environment for hosted tests that look at something else than frames and flushes: table
 * frames come from the buddy and go back to it, and no CPU holds anything to invalidate.
 */
#ifndef QUIRE_TESTS_UNIT_BUDDY_ENV_H
#define QUIRE_TESTS_UNIT_BUDDY_ENV_H

#include "lib/panic.h"
#include "mm/frames/buddy.h"
#include "mm/paging/table.h"

static int buddy_env_take(const struct table_env *env, struct table *table, hpa_t *out)
{
    (void)env;
    return buddy_alloc(0, table->purpose, table->owner, out);
}

static void buddy_env_give(const struct table_env *env, struct table *table, hpa_t frame)
{
    (void)env;
    invariant(buddy_free(frame, 0, table->owner) == E_OK);
}

static void buddy_env_flush(const struct table_env *env, struct table *table,
                            const struct flush_batch *batch)
{
    (void)env;
    (void)table;
    (void)batch;
}

static const struct table_env buddy_env = {.take = buddy_env_take,
                                           .give = buddy_env_give,
                                           .flush = buddy_env_flush,
                                           .frame_records = true};

#endif
