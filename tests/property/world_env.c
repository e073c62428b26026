/* Frames and flushes, as a table asks its environment for them. */
#include "tests/property/world_internal.h"

static int take(const struct table_env *env, struct table *table, hpa_t *out)
{
    (void)env;
    if (w.fail_in == 0)
        return E_NOMEM;
    if (w.fail_in != UINT64_MAX)
        w.fail_in--;
    int error = buddy_alloc(0, table->purpose, table->owner, out);
    if (!error) {
        memset(table_at(out->v), 0xa5, PAGE_SIZE); /* the mapper must not lean on what is there */
        w.taken++;
    }
    return error;
}

/* All or none, and nothing but what it says when it is none. */
static void give(const struct table_env *env, struct table *table, hpa_t frame)
{
    const struct shadow *shadow = shadow_of(frame.v);

    (void)env;
    if (shadow) {
        if (!shadow->dead && !op.destroying)
            wrong("table %#lx given back while the tables reach it", frame.v);
        check_undisturbed(frame.v);
        drop_shadow(frame.v);
    }
    check_not_walked(frame.v, PAGE_SIZE);
    memset(table_at(frame.v), 0xff, PAGE_SIZE);
    int error = buddy_free(frame, 0, table->owner);
    if (error)
        wrong("table %#lx given back: %d", frame.v, error);
    w.taken--;
}

static void flush(const struct table_env *env, struct table *table, const struct flush_batch *batch)
{
    (void)env;
    if (table != &w.table) {
        forget_dead(false, batch);
        return;
    }
    w.flushes++;
    w.needless += !op.owes;
    op.owes = false;
    must(batch->count <= FLUSH_RANGES);
    for (unsigned i = 0; i < batch->count; i++)
        must(batch->range[i].first <= batch->range[i].last);
    cpus_invalidate(batch);
    forget_dead(true, batch);
}

int world_buddy_free(hpa_t head, unsigned order, owner_t owner);
int world_buddy_free(hpa_t head, unsigned order, owner_t owner)
{
    check_unreachable(head.v, PAGE_SIZE << order);
    return buddy_free(head, order, owner);
}

static void give_many(const struct table_env *env, struct table *table, const hpa_t *frames,
                      unsigned count)
{
    must(count);
    for (unsigned i = 0; i < count; i++)
        give(env, table, frames[i]);
}

struct table_env world_env = {.take = take, .give = give, .flush = flush, .frame_records = true};

void choose_env(uint64_t seed)
{
    world_env.give_many = seed & 2 ? give_many : NULL;
}
