/*
 * Slots on the real mapper and the real buddy: how they are laid out, backed, filled at first
 * touch, filled by a loader, and that every frame comes back.
 */
#include "vm/slots.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "mm/frames/buddy.h"
#include "tests/unit/fake_machine.h"
#include "tests/unit/random.h"

#define MEMORY (64 * MiB)

static struct guest *guest;
static uint64_t free_before;

static void begin(const char *options)
{
    char why[160] = "";

    guest = calloc(1, sizeof(*guest));
    assert_non_null(guest);
    guest->number = 1;
    if (options_parse(options, &guest->options, why, sizeof(why)) != E_OK)
        fail_msg("%s", why);
    assert_int_equal(guest_table_init(guest, &guest->table), E_OK);
    guest->has_table = true;
}

static void end(void)
{
    assert_true(slots_release_by(guest, UINT64_MAX));
    assert_int_equal(table_destroy(&guest->table), E_OK);
    assert_int_equal(buddy_owner_frames(guest_owner(guest)), 0);
    buddy_set_quota(guest_owner(guest), UINT64_MAX);
    free(guest);
    guest = NULL;
}

static int set_up(void **state)
{
    (void)state;
    machine_start(MEMORY);
    guests_init(&machine_backend, NULL);
    free_before = machine_free_frames();
    return 0;
}

static int tear_down(void **state)
{
    char why[160];

    (void)state;
    assert_int_equal(machine_free_frames(), free_before);
    if (buddy_verify(why, sizeof(why)) != E_OK)
        fail_msg("%s", why);
    machine_stop();
    return 0;
}

struct expected {
    uint64_t base, size;
    enum slot_kind kind;
};

static void expect_slots(const struct expected *expected, unsigned count)
{
    assert_int_equal(guest->slots, count);
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(guest->slot[i].base.v, expected[i].base);
        assert_int_equal(guest->slot[i].size, expected[i].size);
        assert_int_equal(guest->slot[i].kind, expected[i].kind);
    }
}

static void layout(void **state)
{
    static const struct expected plain[] = {{0, 0xa0000, SLOT_RAM}, {MiB, 15 * MiB, SLOT_RAM}};
    static const struct expected small[] = {{0, 0xa0000, SLOT_RAM_LAZY}};
    static const struct expected carved[] = {
        {0, 0x1000, SLOT_RAM},
        {0x2000, 0x9e000, SLOT_RAM},
        {0xb8000, 0x8000, SLOT_RAM},
        {MiB, MiB, SLOT_RAM},
        {2 * MiB, 0x10000, SLOT_ROM},
        {2 * MiB + 0x10000, 0x1f0000, SLOT_RAM},
        {4 * MiB, 0x1000, SLOT_NOEXEC},
        {4 * MiB + 0x1000, 0xff000, SLOT_RAM},
        {5 * MiB, 0x2000, SLOT_EXEC_ONLY},
        {5 * MiB + 0x2000, 11 * MiB - 0x2000, SLOT_RAM},
        {GiB, 0x1000, SLOT_ROM},
    };

    (void)state;
    begin("a");
    assert_int_equal(slots_layout(guest), E_OK);
    expect_slots(plain, ARRAY_SIZE(plain));
    end();
    begin("a mem=1M lazy");
    assert_int_equal(slots_layout(guest), E_OK);
    expect_slots(small, ARRAY_SIZE(small));
    end();
    begin("a hole=0x1000+4K ram=0xb8000+32K nox=4M+4K rom=2M+64K xo=5M+8K rom=1G+4K");
    assert_int_equal(slots_layout(guest), E_OK);
    expect_slots(carved, ARRAY_SIZE(carved));
    assert_null(guest_slot_at(guest, gpa(0x1fff)));
    assert_int_equal(guest_slot_at(guest, gpa(0x2000))->base.v, 0x2000);
    assert_int_equal(guest_slot_at(guest, gpa(GiB + 0xfff))->kind, SLOT_ROM);
    assert_null(guest_slot_at(guest, gpa(GiB + 0x1000)));
    assert_null(guest_slot_at(guest, gpa(UINT64_MAX)));
    end();
}

/* An area may take the end of one slot, all of others and the start of the next. */
static void carve_across(void **state)
{
    static const struct expected carved[] = {
        {0, 0x90000, SLOT_RAM}, {0x90000, MiB, SLOT_ROM}, {0x190000, 0xe70000, SLOT_RAM}};

    (void)state;
    begin("a rom=0x90000+1M");
    assert_int_equal(slots_layout(guest), E_OK);
    expect_slots(carved, ARRAY_SIZE(carved));
    end();
}

static void adding(void **state)
{
    (void)state;
    begin("a");
    assert_int_equal(slot_add(guest, gpa(0x3000), 0x2000, SLOT_RAM), E_OK);
    assert_int_equal(slot_add(guest, gpa(0x4000), 0x1000, SLOT_ROM), E_EXIST);
    assert_int_equal(slot_add(guest, gpa(0x2000), 0x2000, SLOT_ROM), E_EXIST);
    assert_int_equal(slot_add(guest, gpa(0x1000), 0x10000, SLOT_ROM), E_EXIST);
    assert_int_equal(slot_add(guest, gpa(0x5000), 0x1000, SLOT_ROM), E_OK);
    assert_int_equal(slot_add(guest, gpa(0x2000), 0x1000, SLOT_ROM), E_OK);
    assert_int_equal(slot_add(guest, gpa(0x8001), 0x1000, SLOT_ROM), E_ALIGN);
    assert_int_equal(slot_add(guest, gpa(0x8000), 0x800, SLOT_ROM), E_ALIGN);
    assert_int_equal(slot_add(guest, gpa(0x8000), 0, SLOT_ROM), E_RANGE);
    assert_int_equal(slot_add(guest, gpa(BIT(48)), 0x1000, SLOT_ROM), E_RANGE);
    assert_int_equal(slot_add(guest, gpa(BIT(48) - 0x1000), 0x2000, SLOT_ROM), E_RANGE);
    assert_int_equal(slot_add(guest, gpa(0x9000), UINT64_MAX - 0xfff, SLOT_ROM), E_RANGE);
    assert_int_equal(slot_add(guest, gpa(BIT(48) - 0x1000), 0x1000, SLOT_ROM), E_OK);
    for (unsigned i = guest->slots; i < GUEST_SLOTS; i++)
        assert_int_equal(slot_add(guest, gpa(MiB * (i + 1)), 0x1000, SLOT_RAM), E_OK);
    assert_int_equal(slot_add(guest, gpa(GiB), 0x1000, SLOT_RAM), E_FULL);
    for (unsigned i = 1; i < guest->slots; i++)
        assert_true(guest->slot[i - 1].base.v < guest->slot[i].base.v);
    end();
}

static void no_execute_only(void **state)
{
    (void)state;
    machine_caps.execute_only = false;
    begin("a xo=2M+4K");
    assert_int_equal(slots_layout(guest), E_UNSUPPORTED);
    assert_non_null(strstr(guest->reason, "xo 0x200000"));
    end();
}

struct leaves {
    unsigned by_level[4];
    uint64_t bytes;
};

static int count_leaf(void *ctx, const struct mapping *mapping)
{
    struct leaves *leaves = ctx;
    uint64_t size = mapping->last - mapping->in + 1;
    struct frame_info info;
    hpa_t head;

    leaves->by_level[mapping->level]++;
    leaves->bytes += size;
    assert_int_equal(mapping->attrs.type, MEM_WB);
    assert_int_equal(mapping->attrs.rights, guest_slot_at(guest, gpa(mapping->in))->rights);
    assert_int_equal(frame_query(mapping->out, &info, &head), E_OK);
    assert_int_equal(info.purpose, PURPOSE_GUEST_RAM);
    assert_int_equal(info.owner, guest_owner(guest));
    for (uint64_t i = 0; i < size; i += 8)
        assert_int_equal(*(uint64_t *)direct(hpa_add(mapping->out, i)), 0);
    return 0;
}

static struct leaves count_leaves(void)
{
    struct leaves leaves = {0};

    table_visit(&guest->table, 0, BITS(47, 0), VISIT_PAGES, count_leaf, &leaves);
    return leaves;
}

/* Video memory and ROM, which cost nothing until they are looked at. */
/* I/O APIC, HPET, local APIC. */
#define PC_DEVICES                                                                                 \
    {0xfec00000, PAGE_SIZE, SLOT_DEVICE}, {0xfed00000, PAGE_SIZE, SLOT_DEVICE},                    \
    {                                                                                              \
        0xfee00000, PAGE_SIZE, SLOT_DEVICE                                                         \
    }

static void first_megabyte_of_a_pc(void **state)
{
    static const struct expected pc[] = {{0, 0xa0000, SLOT_RAM},
                                         {0xa0000, 0x20000, SLOT_VIDEO},
                                         {0xc0000, 0x40000, SLOT_ROM_LAZY},
                                         {MiB, 15 * MiB, SLOT_RAM},
                                         PC_DEVICES};
    static const struct expected carved[] = {{0, 0xa0000, SLOT_RAM},
                                             {0xa0000, 0x18000, SLOT_VIDEO},
                                             {0xb8000, 0x8000, SLOT_RAM},
                                             {0xc0000, 0x30000, SLOT_ROM_LAZY},
                                             PC_DEVICES};
    uint64_t frames;

    (void)state;
    begin("a pc");
    assert_int_equal(slots_layout(guest), E_OK);
    expect_slots(pc, ARRAY_SIZE(pc));
    assert_int_equal(slots_back(guest), E_OK);
    assert_int_equal(guest->slot[1].backed + guest->slot[2].backed, 0);
    frames = buddy_owner_frames(guest_owner(guest));
    assert_int_equal(slots_fill(guest, gpa(0xb8123)), E_OK);
    assert_int_equal(slots_fill(guest, gpa(0xfffff)), E_OK);
    assert_int_equal(buddy_owner_frames(guest_owner(guest)), frames + 2);
    assert_int_equal(guest->slot[1].backed, PAGE_SIZE);
    assert_int_equal(count_leaves().bytes, 16 * MiB - 0x60000 + 2 * PAGE_SIZE);
    const struct slot *video = &guest->slot[1], *rom = &guest->slot[2];
    assert_true(slot_fills(rom, RIGHT_R | RIGHT_X));
    assert_false(slot_fills(rom, RIGHT_W) || slot_fills(video, RIGHT_X));
    end();
    begin("a pc mem=1M ram=0xb8000+32K hole=0xf0000+64K");
    assert_int_equal(slots_layout(guest), E_OK);
    expect_slots(carved, ARRAY_SIZE(carved));
    end();
}

/* The frames that guests get were used by somebody else before. */
static void soil_memory(void)
{
    memset(direct(hpa(0)), 0xee, MEMORY);
}

static void eager(void **state)
{
    struct leaves leaves;

    (void)state;
    soil_memory();
    begin("a mem=16M rom=4M+4K");
    assert_int_equal(slots_layout(guest), E_OK);
    assert_int_equal(slots_back(guest), E_OK);
    leaves = count_leaves();
    /* 1M..2M and the rest of 4M..6M in small pages, five whole 2 MiB pieces, 640K low memory. */
    assert_int_equal(leaves.by_level[2], 6);
    assert_int_equal(leaves.by_level[1], 160 + 256 + 512);
    assert_int_equal(leaves.bytes, 16 * MiB - 0x60000);
    for (unsigned i = 0; i < guest->slots; i++)
        assert_int_equal(guest->slot[i].backed, guest->slot[i].size);
    assert_int_equal(guest_frames_peak(guest), buddy_owner_frames(guest_owner(guest)));
    end();
}

static int count_run(void *ctx, const struct mapping *mapping)
{
    (void)mapping;
    ++*(unsigned *)ctx;
    return 0;
}

/* Where memory is free, few blocks suffice, also where the leaves must be small. */
static void eager_in_few_blocks(void **state)
{
    unsigned runs = 0;

    (void)state;
    begin("a mem=16M");
    assert_int_equal(slots_layout(guest), E_OK);
    assert_int_equal(slots_back(guest), E_OK);
    table_visit(&guest->table, 0, BITS(47, 0), VISIT_RUNS, count_run, &runs);
    assert_in_range(runs, 1, 6); /* 512K+128K, 1M, 8M+4M+2M */
    end();
}

static void eager_small_pages_only(void **state)
{
    struct leaves leaves;

    (void)state;
    machine_caps.leaf_top = 1;
    begin("a mem=4M");
    assert_int_equal(slots_layout(guest), E_OK);
    assert_int_equal(slots_back(guest), E_OK);
    leaves = count_leaves();
    assert_int_equal(leaves.by_level[1], 160 + 768);
    end();
}

/* Half of all frames, every other one, belong to somebody: no 2 MiB block is free anywhere. */
static void eager_in_fragments(void **state)
{
    static hpa_t frame[MEMORY / PAGE_SIZE];
    uint64_t count = 0;
    struct leaves leaves;

    (void)state;
    while (buddy_alloc(0, PURPOSE_TEST, OWNER_HOST, &frame[count]) == E_OK)
        count++;
    for (uint64_t i = 0; i < count; i++) {
        if (pfn_of(frame[i]) & 1)
            assert_int_equal(buddy_free(frame[i], 0, OWNER_HOST), E_OK);
    }
    begin("a mem=16M");
    assert_int_equal(slots_layout(guest), E_OK);
    assert_int_equal(slots_back(guest), E_OK);
    leaves = count_leaves();
    assert_int_equal(leaves.by_level[1], (16 * MiB - 0x60000) / PAGE_SIZE);
    end();
    for (uint64_t i = 0; i < count; i++) {
        if (!(pfn_of(frame[i]) & 1))
            assert_int_equal(buddy_free(frame[i], 0, OWNER_HOST), E_OK);
    }
}

static void not_enough(void **state)
{
    (void)state;
    begin("a mem=128M");
    assert_int_equal(slots_layout(guest), E_OK);
    assert_int_equal(slots_back(guest), E_NOMEM);
    end();
}

static void over_quota(void **state)
{
    (void)state;
    begin("a mem=16M");
    assert_int_equal(buddy_set_quota(guest_owner(guest), 8 * MiB / PAGE_SIZE), E_OK);
    assert_int_equal(slots_layout(guest), E_OK);
    assert_int_equal(slots_back(guest), E_QUOTA);
    assert_true(buddy_owner_frames(guest_owner(guest)) <= 8 * MiB / PAGE_SIZE);
    end();
}

/* A large page that was split later is given back once, as the block that it is. */
static void release_after_split(void **state)
{
    struct flush_batch batch;

    (void)state;
    begin("a mem=8M");
    assert_int_equal(slots_layout(guest), E_OK);
    assert_int_equal(slots_back(guest), E_OK);
    flush_begin(&batch, &guest->table);
    assert_int_equal(
        table_protect(&guest->table, 4 * MiB + 0x5000, 0x1000, attrs_of(RIGHT_R, MEM_WB), &batch),
        E_OK);
    flush_commit(&batch);
    end();
}

static void lazy(void **state)
{
    struct leaves leaves;

    (void)state;
    soil_memory();
    begin("a mem=16M lazy rom=4M+8K");
    assert_int_equal(slots_layout(guest), E_OK);
    assert_int_equal(slots_back(guest), E_OK);
    leaves = count_leaves();
    assert_int_equal(leaves.bytes, 8 * KiB); /* the ROM alone is there from the start */
    assert_int_equal(slots_fill(guest, gpa(0x1234)), E_OK);
    assert_int_equal(slots_fill(guest, gpa(0x1fff)), E_EXIST);
    assert_int_equal(slots_fill(guest, gpa(16 * MiB - 1)), E_OK);
    assert_int_equal(slots_fill(guest, gpa(16 * MiB)), E_NOENT);
    assert_int_equal(slots_fill(guest, gpa(0xa0000)), E_NOENT);
    assert_int_equal(slots_fill(guest, gpa(4 * MiB)), E_NOENT);
    leaves = count_leaves();
    assert_int_equal(leaves.by_level[1], 4);
    assert_int_equal(guest_slot_at(guest, gpa(0x1000))->backed, 0x1000);
    end();
}

/* What a guest may do where, and which touches get a frame where there is none. */
static void rights_of_each_kind(void **state)
{
    static const struct {
        enum slot_kind kind;
        unsigned rights;
        bool fills;
    } all[] = {
        {SLOT_RAM, RIGHT_RWX, true},      {SLOT_RAM_LAZY, RIGHT_RWX, true},
        {SLOT_ROM, RIGHT_RX, false},      {SLOT_NOEXEC, RIGHT_RW, true},
        {SLOT_EXEC_ONLY, RIGHT_X, false}, {SLOT_ROM_LAZY, RIGHT_RX, true},
        {SLOT_VIDEO, RIGHT_RW, true},     {SLOT_DEVICE, RIGHT_NONE, false},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
        const struct slot slot = {.kind = all[i].kind, .rights = (uint8_t)all[i].rights};

        assert_int_equal(slot_kind_rights(all[i].kind), all[i].rights);
        for (unsigned access = 1; access <= RIGHT_RWX; access++)
            assert_int_equal(slot_fills(&slot, access), all[i].fills && !(access & ~all[i].rights));
    }
}

static void lazy_runs_dry(void **state)
{
    int error = E_OK;

    (void)state;
    begin("a mem=16M lazy");
    assert_int_equal(buddy_set_quota(guest_owner(guest), 20), E_OK);
    assert_int_equal(slots_layout(guest), E_OK);
    for (uint64_t at = MiB; error == E_OK; at += PAGE_SIZE)
        error = slots_fill(guest, gpa(at));
    assert_int_equal(error, E_QUOTA);
    assert_int_equal(buddy_owner_frames(guest_owner(guest)), 20);
    end();
}

/* A 2 MiB page where the slot has all of it, nothing is there yet, and one is free. */
static void lazy_in_large_pages(void **state)
{
    struct leaves leaves;

    (void)state;
    soil_memory();
    begin("a mem=15M lazy pages=2M");
    assert_int_equal(slots_layout(guest), E_OK);
    assert_int_equal(slots_fill(guest, gpa(4 * MiB + 0x5678)), E_OK);
    assert_int_equal(slots_fill(guest, gpa(6 * MiB - 1)), E_EXIST);
    assert_int_equal(guest_slot_at(guest, gpa(4 * MiB))->backed, 2 * MiB);
    assert_int_equal(slots_fill(guest, gpa(0x1000)), E_OK);       /* below: 640K */
    assert_int_equal(slots_fill(guest, gpa(MiB + 0x1000)), E_OK); /* begins at 1M */
    assert_int_equal(slots_fill(guest, gpa(15 * MiB - 1)), E_OK); /* ends at 15M */
    leaves = count_leaves();
    assert_int_equal(leaves.by_level[2], 1);
    assert_int_equal(leaves.by_level[1], 3);
    end();
    begin("a mem=16M lazy pages=1G"); /* never more at a touch */
    assert_int_equal(slots_layout(guest), E_OK);
    assert_int_equal(slots_fill(guest, gpa(4 * MiB)), E_OK);
    assert_int_equal(count_leaves().bytes, 2 * MiB);
    end();
    machine_caps.leaf_top = 1; /* as a CPU that must not have executable large pages */
    begin("a mem=16M lazy pages=2M");
    assert_int_equal(slots_layout(guest), E_OK);
    assert_int_equal(slots_fill(guest, gpa(4 * MiB)), E_OK);
    assert_int_equal(count_leaves().bytes, PAGE_SIZE);
    end();
}

/* What was touched before, and a quota, leave room for a small page alone. */
static void lazy_where_no_large_page_fits(void **state)
{
    (void)state;
    begin("a mem=16M lazy pages=2M around=16K");
    assert_int_equal(slots_layout(guest), E_OK);
    assert_int_equal(buddy_set_quota(guest_owner(guest), 300), E_OK);
    assert_int_equal(slots_fill(guest, gpa(4 * MiB)), E_OK);
    assert_int_equal(count_leaves().bytes, 16 * KiB);
    assert_int_equal(buddy_set_quota(guest_owner(guest), UINT64_MAX), E_OK);
    assert_int_equal(slots_fill(guest, gpa(4 * MiB + 0x8000)), E_OK);
    assert_int_equal(count_leaves().bytes, 32 * KiB);
    assert_int_equal(slots_fill(guest, gpa(6 * MiB)), E_OK);
    assert_int_equal(count_leaves().bytes, 2 * MiB + 32 * KiB);
    end();
}

/* The window is aligned to its size, ends with the slot, and passes over what is there. */
static void lazy_with_what_is_around(void **state)
{
    (void)state;
    soil_memory();
    begin("a mem=16M lazy around=32K hole=4M+12K");
    assert_int_equal(slots_layout(guest), E_OK);
    assert_int_equal(slots_fill(guest, gpa(8 * MiB + 0x3000)), E_OK);
    assert_int_equal(count_leaves().bytes, 32 * KiB);
    assert_int_equal(slots_fill(guest, gpa(8 * MiB + 0x7000)), E_EXIST);
    assert_int_equal(slots_fill(guest, gpa(8 * MiB - 1)), E_OK);
    assert_int_equal(count_leaves().bytes, 64 * KiB);
    assert_int_equal(slots_fill(guest, gpa(4 * MiB + 0x7000)), E_OK); /* three are a hole */
    assert_int_equal(count_leaves().bytes, 64 * KiB + 20 * KiB);
    end();
    begin("a mem=16M lazy around=32K");
    assert_int_equal(slots_layout(guest), E_OK);
    for (uint64_t quota = 5; quota < 16; quota++) { /* the page and, so far as it goes, others */
        uint64_t pages = count_leaves().bytes / PAGE_SIZE;

        assert_int_equal(buddy_set_quota(guest_owner(guest), quota), E_OK);
        assert_int_equal(slots_fill(guest, gpa(8 * MiB + (quota - 5) * 32 * KiB + 0x4000)), E_OK);
        assert_int_equal(count_leaves().bytes, (pages + 1) * PAGE_SIZE);
        assert_int_equal(buddy_owner_frames(guest_owner(guest)), quota);
    }
    end();
}

/* What is there from the start is in no larger pages than the options say, nor becomes so. */
static void eager_in_pages_of_a_size(void **state)
{
    struct flush_batch batch;
    uint64_t cursor = 0;
    struct leaves leaves;

    (void)state;
    begin("a mem=16M pages=4K");
    assert_int_equal(slots_layout(guest), E_OK);
    assert_int_equal(slots_back(guest), E_OK);
    flush_begin(&batch, &guest->table);
    while (table_merge_sweep(&guest->table, &cursor, guest->table.kind->input_last, &batch) == E_OK)
        continue;
    flush_commit(&batch);
    leaves = count_leaves();
    assert_int_equal(leaves.by_level[1], (16 * MiB - 0x60000) / PAGE_SIZE);
    end();
}

static void placing(void **state)
{
    uint8_t bytes[3 * PAGE_SIZE], back[sizeof(bytes)];
    struct random random = {3};

    (void)state;
    soil_memory();
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)random_next(&random);
    begin("a mem=16M lazy rom=4M+8K");
    assert_int_equal(slots_layout(guest), E_OK);
    assert_int_equal(slots_back(guest), E_OK);
    assert_int_equal(slots_place(guest, gpa(MiB + 0x803), bytes, sizeof(bytes)), E_OK);
    assert_int_equal(guest_read(guest, gpa(MiB + 0x803), back, sizeof(back)), sizeof(back));
    assert_memory_equal(bytes, back, sizeof(back));
    /* Read-only for the guest is not read-only for its loader; across the slot's end neither. */
    assert_int_equal(slots_place(guest, gpa(4 * MiB + 0x1f00), bytes, 0x200), E_OK);
    assert_int_equal(guest_read(guest, gpa(4 * MiB + 0x1f00), back, 0x200), 0x200);
    assert_memory_equal(bytes, back, 0x200);
    /* Zeroes need no frame. */
    assert_int_equal(slots_place(guest, gpa(8 * MiB + 5), NULL, MiB), E_OK);
    assert_int_equal(guest_read(guest, gpa(8 * MiB + 5), back, 1), 0);
    assert_int_equal(slots_place(guest, gpa(MiB + 0x900), NULL, 0x10), E_OK);
    assert_int_equal(guest_read(guest, gpa(MiB + 0x8ff), back, 0x12), 0x12);
    assert_int_equal(back[0], bytes[0xfc]);
    for (unsigned i = 1; i <= 0x10; i++)
        assert_int_equal(back[i], 0);
    assert_int_equal(back[0x11], bytes[0x10d]);
    assert_int_equal(slots_place(guest, gpa(0x9ff00), bytes, 0x200), E_RANGE);
    assert_int_equal(slots_place(guest, gpa(UINT64_MAX - 1), bytes, 0x200), E_RANGE);
    assert_int_equal(guest_read(guest, gpa(16 * MiB - 8), back, 8), 0);
    assert_int_equal(guest_write(guest, gpa(16 * MiB - 8), bytes, 16), 8);
    assert_int_equal(guest_read(guest, gpa(16 * MiB - 8), back, 8), 8);
    assert_memory_equal(bytes, back, 8);
    assert_int_equal(guest_write(guest, gpa(0xa0000), bytes, 1), 0);
    end();
}

/* However many frames there are, backing either succeeds or leaves nothing behind. */
static void every_shortage(void **state)
{
    static hpa_t taken[MEMORY / PAGE_SIZE];

    (void)state;
    for (uint64_t left = 1; left < 700; left += 37) {
        uint64_t count = 0;

        while (machine_free_frames() > left) {
            assert_int_equal(buddy_alloc(0, PURPOSE_TEST, OWNER_HOST, &taken[count]), E_OK);
            count++;
        }
        begin("a mem=2M");
        assert_int_equal(slots_layout(guest), E_OK);
        assert_int_equal(slots_back(guest), left < 422 ? E_NOMEM : E_OK);
        end();
        assert_int_equal(machine_free_frames(), left);
        while (count > 0)
            assert_int_equal(buddy_free(taken[--count], 0, OWNER_HOST), E_OK);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(layout),
        TEST(carve_across),
        TEST(adding),
        TEST(first_megabyte_of_a_pc),
        TEST(no_execute_only),
        TEST(eager),
        TEST(eager_in_few_blocks),
        TEST(eager_small_pages_only),
        TEST(eager_in_fragments),
        TEST(not_enough),
        TEST(over_quota),
        TEST(release_after_split),
        TEST(lazy),
        TEST(rights_of_each_kind),
        TEST(lazy_runs_dry),
        TEST(lazy_in_large_pages),
        TEST(lazy_where_no_large_page_fits),
        TEST(lazy_with_what_is_around),
        TEST(eager_in_pages_of_a_size),
        TEST(placing),
        TEST(every_shortage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
