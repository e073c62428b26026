/*
 * The kind of vtd.c at work: a device is shown 1 GiB of memory, in one entry, and a ring of
 * descriptors that it may only read.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/panic.h"
#include "mm/frames/buddy.h"
#include "vtd.h"

#define RAM (16 * MiB)

_Noreturn void panic(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    abort();
}

static int take(const struct table_env *env, struct table *table, hpa_t *out)
{
    (void)env;
    return buddy_alloc(0, table->purpose, table->owner, out);
}

static void give(const struct table_env *env, struct table *table, hpa_t frame)
{
    (void)env;
    invariant(buddy_free(frame, 0, table->owner) == E_OK);
}

/* A driver writes an IOTLB invalidation to the unit's queue here, and waits for it. */
static void flush(const struct table_env *env, struct table *table, const struct flush_batch *batch)
{
    (void)env;
    (void)table;
    (void)batch;
}

static const struct table_env env = {.take = take,
                                     .give = give,
                                     .flush = flush,
                                     .frame_records = true};
static const struct table_caps caps = {.maxphyaddr = 39,
                                       .leaf_top = 3,
                                       .accessed_dirty = true,
                                       .mem_types = 1u << MEM_WB};

static int map(struct table *table, uint64_t in, uint64_t out, uint64_t size, unsigned rights)
{
    struct flush_batch batch;

    flush_begin(&batch, table);
    int error = table_map(table, in, hpa(out), size, attrs_of(rights, MEM_WB), MAP_DEFAULT, &batch);
    flush_commit(&batch);
    return error;
}

static int print_run(void *ctx, const struct mapping *run)
{
    char rights[RIGHTS_TEXT];

    (void)ctx;
    printf("0x%lx..0x%lx to 0x%lx %s by %s: 0x%lx\n", run->in, run->last, run->out.v,
           rights_text(rights, run->attrs.rights), level_name(run->level), run->raw);
    return 0;
}

int main(void)
{
    uint64_t records = align_up(buddy_metadata_size(RAM), PAGE_SIZE);
    void *arena = aligned_alloc(PAGE_SIZE, RAM);
    struct buddy_stats before, after;
    struct table table;

    direct_base = (uint64_t)(uintptr_t)arena;
    invariant(arena != NULL && buddy_init(arena, records, RAM) == E_OK);
    invariant(buddy_add(hpa(records), RAM - records) == E_OK);
    buddy_stats(&before);
    invariant(table_init(&table, &vtd_kind, &caps, &env, PURPOSE_EPT_TABLE, OWNER_HOST) == E_OK);
    invariant(map(&table, 0, 4 * GiB, GiB, RIGHT_RW) == E_OK);
    invariant(map(&table, 0x40000000, 0x123000, PAGE_SIZE, RIGHT_R) == E_OK);
    printf("executable: %s\n", error_text(map(&table, 0x40001000, 0, PAGE_SIZE, RIGHT_RX)));
    printf("beyond 39 bits: %s\n", error_text(map(&table, GiB, BIT(39), PAGE_SIZE, RIGHT_R)));
    table_visit(&table, 0, vtd_kind.input_last, VISIT_RUNS, print_run, NULL);
    invariant(table_destroy(&table) == E_OK);
    buddy_stats(&after);
    printf("frames free: before %lu, after %lu\n", before.free_frames, after.free_frames);
    return before.free_frames != after.free_frames;
}
