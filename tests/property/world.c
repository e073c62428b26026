/* The world of world.h: its memory, its beginning and its end. */
#include "tests/property/world_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/property/five_levels.h"

#define AROUND(boundary, unit) ((boundary) - (SIDE_CELLS + BLOCK_CELLS) * (unit))

const struct land lands[LANDS] = {
    {"kernel", &kernel_kind, SDM_HOST, AROUND(0xffff800000000000 + GiB, PAGE_SIZE),
     AROUND(0xffff900000000000, 2 * MiB)},
    {"user", &user_kind, SDM_HOST, AROUND(0x7f0000000000 + GiB, PAGE_SIZE),
     AROUND(0x10000000000, 2 * MiB)},
    {"EPT", &ept_kind, SDM_EPT, AROUND(GiB, PAGE_SIZE), AROUND(512 * GiB, 2 * MiB)},
    {"kernel, 5 levels", &kernel5_kind, SDM_HOST, AROUND(0xff01000000000000, PAGE_SIZE),
     AROUND(0xff81000000000000, 2 * MiB)},
    {"user, 5 levels", &user5_kind, SDM_HOST, AROUND(UINT64_C(1) << 48, PAGE_SIZE),
     AROUND(UINT64_C(3) << 48, 2 * MiB)},
    {"EPT, 5 levels", &ept5_kind, SDM_EPT, AROUND(UINT64_C(1) << 48, PAGE_SIZE),
     AROUND(UINT64_C(9) << 39, 2 * MiB)},
    {"NPT", &npt_kind, SDM_NPT, AROUND(GiB, PAGE_SIZE), AROUND(512 * GiB, 2 * MiB)},
    {"NPT, 5 levels", &npt5_kind, SDM_NPT, AROUND(UINT64_C(1) << 48, PAGE_SIZE),
     AROUND(UINT64_C(9) << 39, 2 * MiB)},
};

struct world w;

uint8_t *arena;
struct sdm_cpu sdm_cpu;

void wrong(const char *format, ...)
{
    static const char *const names[OP_COUNT] = {"map",   "replace", "unmap", "protect",
                                                "split", "merge",   "sweep", "harvest",
                                                "clone", "copy",    "fresh", "cursor"};
    char text[400];
    va_list args;

    va_start(args, format);
    int length = vsnprintf(text, sizeof(text) - 128, format, args);
    va_end(args);
    snprintf(text + length, sizeof(text) - (size_t)length,
             " (%s, cells of %lu KiB; %s of %u cells from %u, to %#lx, %u)",
             w.land ? w.land->name : "?", (w.unit / KiB), names[op.call.op], op.call.count,
             op.call.first, op.call.out, op.call.flags);
    world_fail(text);
}

struct table_caps world_caps(enum sdm_format format)
{
    return (struct table_caps){.maxphyaddr = 40,
                               .leaf_top = 3,
                               .nx = true,
                               .accessed_dirty = true,
                               .execute_only = true,
                               .global = format == SDM_HOST,
                               .mem_types = 1 << MEM_UC | 1 << MEM_WC | 1 << MEM_WT | 1 << MEM_WP |
                                            1 << MEM_WB};
}

void world_table_init(struct table *table)
{
    must(table_init(table, w.land->kind, &w.table.caps, &world_env, PURPOSE_TEST, WORLD_OWNER) ==
         E_OK);
    adopt(table->root.v, table->kind->levels, 0, table == &w.table);
}

void world_table_end(struct table *table)
{
    op.destroying = true;
    must(table_destroy(table) == E_OK);
    op.destroying = false;
}

void world_start(const struct land *land, uint64_t unit, const struct table_caps *caps,
                 uint64_t seed)
{
    static uint8_t *metadata;
    uint64_t metadata_size = align_up(buddy_metadata_size(ARENA_BYTES), PAGE_SIZE);

    if (!arena) {
        arena = aligned_alloc(2 * MiB, ARENA_BYTES + DATA_BYTES);
        metadata = aligned_alloc(PAGE_SIZE, metadata_size);
    }
    memset(metadata, 0xa5, metadata_size);
    direct_base = (uint64_t)(uintptr_t)arena;
    must(buddy_init(metadata, metadata_size, ARENA_BYTES) == E_OK);
    must(buddy_add(hpa(PAGE_SIZE), ARENA_BYTES - PAGE_SIZE) == E_OK);
    for (uint64_t frame = 0; frame < ARENA_BYTES; frame += PAGE_SIZE)
        drop_shadow(frame);
    memset(&w, 0, sizeof(w));
    memset(&op, 0, sizeof(op));
    world_forget();
    memset(accessed, 0, sizeof(accessed));
    memset(dirty, 0, sizeof(dirty));
    w.land = land;
    w.unit = unit;
    w.base = unit == PAGE_SIZE ? land->window_4k : land->window_2m;
    w.end = w.base + CELLS * unit;
    w.fail_in = UINT64_MAX;
    w.hardware = true;
    w.random.state = seed;
    chance.state = ~seed;
    w.table.caps = *caps;
    choose_env(seed);
    sdm_cpu = (struct sdm_cpu){.maxphyaddr = caps->maxphyaddr,
                               .page_2m = caps->leaf_top >= 2,
                               .page_1g = caps->leaf_top >= 3,
                               .nxe = caps->nx,
                               .execute_only = caps->execute_only,
                               .user_execute = caps->mode_based_execute};
    world_table_init(&w.table);
    world_table_init(&w.other);
}

void world_end(void)
{
    char why[160];

    if (w.hardware)
        world_fill_caches(); /* which is to be forgotten */
    world_table_end(&w.table);
    world_table_end(&w.other);
    must(w.taken == 0);
    must(buddy_owner_frames(WORLD_OWNER) == 0);
    if (buddy_verify(why, sizeof(why)) != E_OK)
        wrong("%s", why);
}
