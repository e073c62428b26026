/*
 * Stacks, device memory and the fixmap on a kernel table whose frames the buddy gives: what is
 * mapped afterwards, what is refused, and that nothing is kept.
 */
#include "arch/x86_64/mm/kernel_space.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86_64/mm/direct_map.h"
#include "arch/x86_64/mm/kernel.h"
#include "mm/frames/buddy.h"

#define ARENA_SIZE (64 * MiB)
#define SEALED (ARENA_SIZE - 4 * MiB) /* a frame of RAM that is read-only in the direct map */
#define DEVICE UINT64_C(0xfee00000)

static uint8_t *arena;
static uint64_t give_at_most; /* table frames */

static int take(const struct table_env *env, struct table *table, hpa_t *out)
{
    (void)env;
    if (give_at_most == 0)
        return E_NOMEM;
    give_at_most--;
    return buddy_alloc(0, table->purpose, table->owner, out);
}

static void give(const struct table_env *env, struct table *table, hpa_t frame)
{
    (void)env;
    assert_int_equal(buddy_free(frame, 0, table->owner), E_OK);
}

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

static int start(void **state)
{
    struct table_caps caps = {.maxphyaddr = 40,
                              .leaf_top = 3,
                              .nx = true,
                              .accessed_dirty = true,
                              .global = true,
                              .mem_types = 1u << MEM_WB | 1u << MEM_UC | 1u << MEM_WC};
    uint64_t metadata = align_up(buddy_metadata_size(ARENA_SIZE), 2 * MiB);
    struct memblock memblock;

    (void)state;
    give_at_most = UINT64_MAX;
    arena = aligned_alloc(2 * MiB, ARENA_SIZE);
    memset(arena, 0xcc, ARENA_SIZE);
    direct_base = (uint64_t)(uintptr_t)arena;
    assert_int_equal(buddy_init(arena, metadata, ARENA_SIZE), E_OK);
    assert_int_equal(buddy_add(hpa(metadata), ARENA_SIZE - metadata), E_OK);
    assert_int_equal(
        table_init(&kernel_table, &kernel_kind, &caps, &env, PURPOSE_HOST_TABLE, OWNER_HOST), E_OK);
    assert_int_equal(table_preallocate(&kernel_table), E_OK);
    memblock_init(&memblock);
    assert_int_equal(memblock_add(&memblock, 0, ARENA_SIZE, MEMKIND_USABLE), E_OK);
    assert_int_equal(direct_map_build(&kernel_table, &memblock, UINT64_C(1) << 40, NULL), E_OK);
    assert_int_equal(direct_map_seal(&kernel_table, hpa(SEALED), PAGE_SIZE), E_OK);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    free(arena);
    return 0;
}

static uint64_t purpose_frames(enum frame_purpose purpose)
{
    struct buddy_stats stats;

    buddy_stats(&stats);
    return stats.by_purpose[purpose];
}

static bool mapped(uint64_t at)
{
    struct mapping mapping;

    return table_translate(&kernel_table, at, &mapping) == E_OK;
}

/* ---- Stacks -------------------------------------------------------------------------------------
 */

static void check_stack(hva_t top)
{
    struct mapping mapping;

    assert_int_equal(top.v % 16, 0);
    for (uint64_t at = top.v - STACK_SIZE; at < top.v; at += PAGE_SIZE) {
        struct frame_info info;

        assert_int_equal(table_translate(&kernel_table, at, &mapping), E_OK);
        assert_int_equal(mapping.attrs.rights, RIGHT_RW | RIGHT_G);
        assert_int_equal(frame_query(mapping.out, &info, NULL), E_OK);
        assert_int_equal(info.purpose, PURPOSE_STACK);
    }
    assert_false(mapped(top.v - STACK_SIZE - 1));
    assert_false(mapped(top.v));
}

static void test_stacks(void **state)
{
    hva_t top[STACK_SLOTS], extra;
    uint64_t frames = buddy_owner_frames(OWNER_HOST);

    (void)state;
    for (unsigned i = 0; i < STACK_SLOTS; i++) {
        assert_int_equal(stack_alloc(&top[i]), E_OK);
        check_stack(top[i]);
        assert_int_equal(stacks_in_use(), i + 1);
    }
    assert_int_equal(stack_alloc(&extra), E_FULL);
    assert_int_equal(purpose_frames(PURPOSE_STACK), STACK_SLOTS << STACK_ORDER);

    assert_int_equal(stack_free(hva(top[5].v - 16)), E_INVAL);
    assert_int_equal(stack_free(hva(STACKS_BASE)), E_INVAL);
    assert_int_equal(stack_free(hva(STACKS_BASE + STACKS_SIZE + STACK_STRIDE)), E_INVAL);
    assert_int_equal(stack_free(hva(0)), E_INVAL);
    assert_int_equal(stack_free(top[5]), E_OK);
    assert_int_equal(stack_free(top[5]), E_INVAL); /* twice */
    assert_int_equal(stack_alloc(&extra), E_OK);   /* the slot is used again */
    assert_int_equal(extra.v, top[5].v);
    check_stack(extra);

    for (unsigned i = 0; i < STACK_SLOTS; i++)
        assert_int_equal(stack_free(top[i]), E_OK);
    assert_int_equal(stacks_in_use(), 0);
    assert_int_equal(buddy_owner_frames(OWNER_HOST), frames);
}

static void test_stacks_when_memory_runs_out(void **state)
{
    uint64_t frames = buddy_owner_frames(OWNER_HOST);
    hva_t top;

    (void)state;
    give_at_most = 1; /* the first stack needs a PD and a PT */
    assert_int_equal(stack_alloc(&top), E_NOMEM);
    assert_int_equal(stacks_in_use(), 0);
    assert_int_equal(buddy_owner_frames(OWNER_HOST), frames);
    give_at_most = UINT64_MAX;
    assert_int_equal(buddy_set_quota(OWNER_HOST, frames + 3), E_OK);
    assert_int_equal(stack_alloc(&top), E_QUOTA);
    assert_int_equal(stacks_in_use(), 0);
    assert_int_equal(buddy_set_quota(OWNER_HOST, UINT64_MAX), E_OK);
}

static void test_no_stack_before_the_buddy(void **state)
{
    const struct table_env *late = kernel_table.env;
    struct table_env early = env;
    hva_t top;

    (void)state;
    early.frame_records = false;
    kernel_table.env = &early;
    assert_int_equal(stack_alloc(&top), E_STATE);
    kernel_table.env = late;
}

/* ---- Device memory ------------------------------------------------------------------------------
 */

static void test_mmio(void **state)
{
    uint64_t frames = buddy_owner_frames(OWNER_HOST);
    struct mapping mapping;
    void *registers, *again, *large;

    (void)state;
    assert_int_equal(mmio_map(hpa(DEVICE + 0x20), 0x1000, MEM_UC, &registers), E_OK);
    assert_int_equal((uintptr_t)registers % PAGE_SIZE, 0x20);
    for (unsigned i = 0; i < 2; i++) { /* 0x20..0x101f touches two pages */
        uint64_t at = (uint64_t)(uintptr_t)registers - 0x20 + i * PAGE_SIZE;

        assert_int_equal(table_translate(&kernel_table, at, &mapping), E_OK);
        assert_int_equal(mapping.out.v + (at - mapping.in), DEVICE + i * PAGE_SIZE);
        assert_int_equal(mapping.attrs.rights, RIGHT_RW | RIGHT_G);
        assert_int_equal(mapping.attrs.type, MEM_UC);
    }
    assert_false(mapped((uint64_t)(uintptr_t)registers + 2 * PAGE_SIZE));
    assert_false(mapped((uint64_t)(uintptr_t)registers - PAGE_SIZE));

    assert_int_equal(mmio_map(hpa(DEVICE + 0x1f00), 0x10, MEM_UC, &again), E_OK);
    assert_ptr_equal(again, (uint8_t *)registers + 0x1ee0);
    assert_int_equal(mmio_map(hpa(DEVICE), 0x10, MEM_WC, &again), E_EXIST);

    assert_int_equal(mmio_map(hpa(0xd0000000), 8 * MiB, MEM_WC, &large), E_OK);
    assert_int_equal(table_translate(&kernel_table, (uint64_t)(uintptr_t)large, &mapping), E_OK);
    assert_int_equal(mapping.level, 2);
    assert_int_equal(mapping.attrs.type, MEM_WC);

    assert_int_equal(mmio_unmap(registers), E_OK);
    assert_true(mapped((uint64_t)(uintptr_t)registers));
    assert_int_equal(mmio_unmap((uint8_t *)registers + 0x1000), E_OK);
    assert_false(mapped((uint64_t)(uintptr_t)registers));
    assert_int_equal(mmio_unmap(registers), E_NOENT);
    assert_int_equal(mmio_unmap(large), E_OK);
    assert_int_equal(buddy_owner_frames(OWNER_HOST), frames);
}

static void test_mmio_refuses_ram_and_nonsense(void **state)
{
    void *at;

    (void)state;
    assert_int_equal(mmio_map(hpa(0x1000), 0x1000, MEM_UC, &at), E_EXIST);
    assert_int_equal(mmio_map(hpa(ARENA_SIZE - 1), 2, MEM_UC, &at), E_EXIST);
    assert_int_equal(mmio_map(hpa(0), 1 * GiB, MEM_UC, &at), E_EXIST);
    assert_int_equal(mmio_map(hpa(DEVICE), 0, MEM_UC, &at), E_INVAL);
    assert_int_equal(mmio_map(hpa(BIT(40) - 1), 2, MEM_UC, &at), E_RANGE);
    assert_int_equal(mmio_map(hpa(UINT64_MAX), 2, MEM_UC, &at), E_RANGE);
    assert_int_equal(mmio_map(hpa(DEVICE), 0x1000, MEM_WT, &at), E_ILLEGAL); /* this CPU has none */
    assert_int_equal(mmio_map(hpa(DEVICE), 0x1000, MEM_UC, &at), E_OK); /* and nothing was left */
    assert_int_equal(mmio_unmap(at), E_OK);
    give_at_most = 1;
    assert_int_equal(mmio_map(hpa(DEVICE), 0x1000, MEM_UC, &at), E_NOMEM);
    give_at_most = UINT64_MAX;
    assert_int_equal(mmio_map(hpa(DEVICE), 0x1000, MEM_WC, &at), E_OK);
    assert_int_equal(mmio_unmap(at), E_OK);
}

/* ---- Fixmap
 * ---------------------------------------------------------------------------------------- */

static void test_fixmap(void **state)
{
    struct mapping mapping;
    void *at;

    (void)state;
    assert_int_equal(fixmap_map(FIXMAP_PEEK, hpa(DEVICE), MEM_UC, false, &at), E_OK);
    assert_int_equal((uint64_t)(uintptr_t)at, fixmap_address(FIXMAP_PEEK).v);
    assert_int_equal(table_translate(&kernel_table, (uint64_t)(uintptr_t)at, &mapping), E_OK);
    assert_int_equal(mapping.out.v, DEVICE);
    assert_int_equal(mapping.attrs.rights, RIGHT_R | RIGHT_G);
    assert_int_equal(fixmap_map(FIXMAP_PEEK, hpa(DEVICE), MEM_UC, false, &at), E_EXIST);
    assert_int_equal(fixmap_unmap(FIXMAP_PEEK), E_OK);
    assert_false(mapped((uint64_t)(uintptr_t)at));

    /* RAM keeps its memory type, and what is read-only stays so. */
    assert_int_equal(fixmap_map(FIXMAP_PEEK, hpa(0x5000), MEM_UC, false, &at), E_PERM);
    assert_int_equal(fixmap_map(FIXMAP_PEEK, hpa(SEALED), MEM_WB, true, &at), E_PERM);
    assert_int_equal(fixmap_map(FIXMAP_PEEK, hpa(SEALED), MEM_WB, false, &at), E_OK);
    assert_int_equal(fixmap_unmap(FIXMAP_PEEK), E_OK);
    assert_int_equal(fixmap_map(FIXMAP_PEEK, hpa(0x5000), MEM_WB, true, &at), E_OK);
    assert_int_equal(fixmap_unmap(FIXMAP_PEEK), E_OK);
    assert_int_equal(fixmap_map(FIXMAP_PEEK, hpa(DEVICE + 1), MEM_UC, false, &at), E_ALIGN);
    assert_int_equal(fixmap_map(FIXMAP_PEEK, hpa(BIT(40)), MEM_UC, false, &at), E_RANGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_stacks, start, stop),
        cmocka_unit_test_setup_teardown(test_stacks_when_memory_runs_out, start, stop),
        cmocka_unit_test_setup_teardown(test_no_stack_before_the_buddy, start, stop),
        cmocka_unit_test_setup_teardown(test_mmio, start, stop),
        cmocka_unit_test_setup_teardown(test_mmio_refuses_ram_and_nonsense, start, stop),
        cmocka_unit_test_setup_teardown(test_fixmap, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
