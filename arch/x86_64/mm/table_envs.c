/* See table_envs.h. */
#include "arch/x86_64/mm/table_envs.h"

#include "arch/x86_64/mm/shootdown.h"
#include "lib/list.h"
#include "lib/panic.h"

static int take_from_buddy(const struct table_env *env, struct table *table, hpa_t *out)
{
    (void)env;
    return buddy_alloc(0, table->purpose, table->owner, out);
}

/* The mapper gives back what it took, once: anything else means that its tables are broken. */
static _Noreturn void refused(const struct table *table, hpa_t frame, int error)
{
    panic("table frame %#lx of %s: the buddy refuses it: %s", frame.v, table->kind->name,
          error_text(error));
}

static void give_to_buddy(const struct table_env *env, struct table *table, hpa_t frame)
{
    int error = buddy_free(frame, 0, table->owner);

    (void)env;
    if (error != E_OK)
        refused(table, frame, error);
}

static void give_many_to_buddy(const struct table_env *env, struct table *table,
                               const hpa_t *frames, unsigned count)
{
    int error = buddy_free_frames(frames, count, table->owner);

    (void)env;
    if (error != E_OK)
        refused(table, frames[0], error);
}

static void flush_everywhere(const struct table_env *env, struct table *table,
                             const struct flush_batch *batch)
{
    (void)env;
    shootdown_flush(table, batch);
}

const struct table_env buddy_table_env = {
    .take = take_from_buddy,
    .give = give_to_buddy,
    .give_many = give_many_to_buddy,
    .flush = flush_everywhere,
    .frame_records = true,
};

struct early_env {
    struct table_env env;
    struct early *early;
};

static struct early *early_of(const struct table_env *env)
{
    return container_of(env, const struct early_env, env)->early;
}

static int take_early(const struct table_env *env, struct table *table, hpa_t *out)
{
    return early_alloc(early_of(env), PAGE_SIZE, PAGE_SIZE, table->purpose, out);
}

/* A frame that an operation took and could not use, because the next one was not to be had. */
static void give_early(const struct table_env *env, struct table *table, hpa_t frame)
{
    int error = early_free(early_of(env), frame, PAGE_SIZE, table->purpose);

    if (error != E_OK)
        panic("table frame %#lx of %s: the early allocator refuses it: %s", frame.v,
              table->kind->name, error_text(error));
}

const struct table_env *early_table_env(struct early *early)
{
    static struct early_env instance = {
        .env = {.take = take_early,
                .give = give_early,
                .flush = flush_everywhere,
                .frame_records = false},
    };

    instance.early = early;
    return &instance.env;
}
