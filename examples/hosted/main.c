/*
 * The memory manager in an ordinary program. An arena plays the machine's physical memory. The
 * buddy hands it out, and the mapper builds a guest's EPT in it. At the end every frame is back.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "arch/x86_64/mm/ept.h"
#include "lib/panic.h"
#include "mm/frames/buddy.h"
#include "mm/paging/table.h"

#define RAM (64 * MiB)
#define GUEST OWNER_FIRST_GUEST

/* From here to caps: what the library asks of its host. It calls panic() for broken invariants. */
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

/* No CPU walks this table. A hypervisor executes INVEPT here, on every CPU. */
static void flush(const struct table_env *env, struct table *table, const struct flush_batch *batch)
{
    (void)env;
    (void)batch;
    printf("flush of the %s table\n", table->kind->name);
}

static const struct table_env env = {.take = take,
                                     .give = give,
                                     .flush = flush,
                                     .frame_records = true};

/* What the CPU offers. A hypervisor reads it from IA32_VMX_EPT_VPID_CAP and CPUID. */
static const struct table_caps caps = {.maxphyaddr = 46,
                                       .leaf_top = 3,
                                       .nx = true,
                                       .accessed_dirty = true,
                                       .mem_types = 1u << MEM_WB};

static void must(int error, const char *what)
{
    if (error != E_OK)
        panic("%s: %s\n", what, error_text(error));
}

/* The first frames of the arena hold the allocator's own records. */
static void start_memory(void)
{
    uint64_t records = align_up(buddy_metadata_size(RAM), PAGE_SIZE);
    void *arena = aligned_alloc(2 * MiB, RAM);

    must(arena == NULL ? E_NOMEM : E_OK, "the arena");
    direct_base = (uint64_t)(uintptr_t)arena;
    must(buddy_init(arena, records, RAM), "buddy_init");
    must(buddy_record(hpa(0), records, FRAME_RESERVED, PURPOSE_FRAME_DB, OWNER_HOST), "records");
    must(buddy_add(hpa(records), RAM - records), "buddy_add");
}

static void map(struct table *table, uint64_t in, hpa_t out, uint64_t size, unsigned rights)
{
    struct flush_batch batch;

    flush_begin(&batch, table);
    must(table_map(table, in, out, size, attrs_of(rights, MEM_WB), MAP_DEFAULT, &batch), "map");
    flush_commit(&batch);
}

static void print_walk(struct table *table, uint64_t in)
{
    static const char *const class[] = {"absent", "table", "leaf", "bad"};
    char rights[RIGHTS_TEXT];
    struct walk walk;

    table_walk(table, in, &walk);
    printf("walk of 0x%lx: %s\n", in, error_text(walk.error));
    for (unsigned i = 0; i < walk.count; i++)
        printf("  %-4s [%3u] 0x%016lx %-6s %s\n", level_name(walk.step[i].level),
               walk.step[i].index, walk.step[i].raw, class[walk.step[i].class],
               rights_text(rights, walk.step[i].attrs.rights));
}

static int print_run(void *ctx, const struct mapping *run)
{
    char rights[RIGHTS_TEXT];

    (void)ctx;
    printf("  0x%lx..0x%lx to 0x%lx %s\n", run->in, run->last, run->out.v,
           rights_text(rights, run->attrs.rights));
    return 0;
}

int main(void)
{
    struct buddy_stats before, after;
    struct flush_batch batch;
    struct mapping page;
    struct table ept;
    hpa_t large, small;
    char why[128];

    start_memory();
    buddy_stats(&before);
    must(table_init(&ept, &ept_kind, &caps, &env, PURPOSE_EPT_TABLE, GUEST), "table_init");
    must(buddy_alloc(9, PURPOSE_GUEST_RAM, GUEST, &large), "2 MiB");
    must(buddy_alloc(0, PURPOSE_GUEST_RAM, GUEST, &small), "4 KiB");
    map(&ept, 0, large, 2 * MiB, RIGHT_RWX);
    map(&ept, 0x40007000, small, PAGE_SIZE, RIGHT_RW);
    must(table_translate(&ept, 0x40007123, &page), "translate");
    printf("translate of 0x40007123: frame %s\n", page.out.v == small.v ? "as mapped" : "wrong");
    print_walk(&ept, 0x40007123);

    flush_begin(&batch, &ept); /* splits the large page */
    must(table_protect(&ept, 0x5000, PAGE_SIZE, attrs_of(RIGHT_R, MEM_WB), &batch), "protect");
    flush_commit(&batch);
    table_visit(&ept, ept_kind.input_first, ept_kind.input_last, VISIT_RUNS, print_run, NULL);

    flush_begin(&batch, &ept);
    must(table_unmap(&ept, 0, 2 * GiB, &batch), "unmap");
    flush_commit(&batch);
    print_walk(&ept, 0x5000);
    must(table_destroy(&ept), "destroy");
    must(buddy_free(large, 9, GUEST), "2 MiB back");
    must(buddy_free(small, 0, GUEST), "4 KiB back");
    must(buddy_verify(why, sizeof(why)), "the buddy's invariants");
    buddy_stats(&after);
    printf("frames free: before %lu, after %lu\n", before.free_frames, after.free_frames);
    return before.free_frames != after.free_frames;
}
