/*
 * A flush that is missed shows: a CPU has cached all that it may, under every tag, before each
 * writer of each kind; afterwards nothing of it may be stale. The instructions are those of tlb.c,
 * of eptp.c and of asid.c; what each drops model_tlb.c knows from the manual.
 *
 * Plain emulators cannot tell: they drop everything at each entry and exit of a guest.
 */
#include "tests/unit/model_cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86_64/mm/ept.h"
#include "arch/x86_64/mm/host_root.h"
#include "arch/x86_64/mm/npt.h"
#include "arch/x86_64/mm/tlb.h"
#include "arch/x86_64/svm/asid.h"
#include "arch/x86_64/vmx/vcpu.h"
#include "arch/x86_64/vmx/vpid.h"
#include "lib/panic.h"
#include "mm/frames/buddy.h"
#include "tests/unit/model_tlb.h"
#include "tests/unit/random.h"

#define MEMORY (UINT64_C(16) << 20)
#define WINDOW (UINT64_C(4) << 20)
#define PAGES (WINDOW / PAGE_SIZE)
#define SEEN (WINDOW + (UINT64_C(2) << 20)) /* behind it a node that has a page or two */
#define OWNER 9
#define WAYS 4
#define STEPS 150

struct vmx_caps vmx_caps;
struct vmx_policy vmx_policy;
static struct vmx_cpu vmx;

static uint8_t *memory;
static void *records;
static struct random random_;

/* The table under test, where its window is, and how CPUs come to it. */
static struct {
    struct table table, other;
    uint64_t base;
    struct tlb_way way[WAYS];
    struct table *host[WAYS]; /* of the linear ways */
    unsigned ways, last;      /* the one that a CPU is on */
    bool flush_by_asid;
} t;

/* ---- The machine --------------------------------------------------------------------------- */

static int take(const struct table_env *env, struct table *table, hpa_t *out)
{
    (void)env;
    return buddy_alloc(0, table->purpose, table->owner, out);
}

static void give(const struct table_env *env, struct table *table, hpa_t frame)
{
    (void)env;
    tlb_check_freed(frame);
    invariant(buddy_free(frame, 0, table->owner) == E_OK);
}

static void flush(const struct table_env *env, struct table *table, const struct flush_batch *batch)
{
    (void)env;
    table->kind->flush(table, batch);
}

static const struct table_env env = {.take = take,
                                     .give = give,
                                     .flush = flush,
                                     .frame_records = true};

static void start(void)
{
    uint64_t bytes = buddy_metadata_size(MEMORY);

    model_cpu_start();
    memset(&t, 0, sizeof(t));
    memory = aligned_alloc(UINT64_C(1) << 21, MEMORY);
    records = aligned_alloc(PAGE_SIZE, align_up(bytes, PAGE_SIZE));
    assert_true(memory && records);
    direct_base = (uint64_t)(uintptr_t)memory;
    assert_int_equal(buddy_init(records, bytes, MEMORY), E_OK);
    assert_int_equal(buddy_add(hpa(0), MEMORY), E_OK);
    vmx = (struct vmx_cpu){.on = true};
    model_cpu.percpu.vmx = &vmx;
    memset(&vmx_caps, 0, sizeof(vmx_caps));
}

static void stop(void)
{
    free(memory);
    free(records);
}

static void make(struct table *table, const struct table_kind *kind, bool keeps_ad)
{
    struct table_caps caps = {
        .maxphyaddr = 40,
        .leaf_top = 3,
        .nx = true,
        .accessed_dirty = keeps_ad,
        .execute_only = true,
        .global = (model_cpu.cr4 & CR4_PGE) != 0,
        .mem_types = 1u << MEM_UC | 1u << MEM_WB | 1u << MEM_WC | 1u << MEM_WT | 1u << MEM_WP,
    };

    assert_int_equal(table_init(table, kind, &caps, &env, PURPOSE_TEST, OWNER), E_OK);
}

/* ---- The steps ------------------------------------------------------------------------------ */

static struct attrs some_attrs(void)
{
    static const unsigned rights[] = {RIGHT_R, RIGHT_R | RIGHT_W, RIGHT_R | RIGHT_X,
                                      RIGHT_R | RIGHT_W | RIGHT_X};
    static const enum mem_type types[] = {MEM_WB, MEM_WB, MEM_WB, MEM_UC};
    const struct table_kind *kind = t.table.kind;
    unsigned more = kind == &user_kind                            ? RIGHT_U
                    : kind == &kernel_kind && t.table.caps.global ? RIGHT_G
                                                                  : 0;

    return attrs_of(rights[random_below(&random_, 4)] | more, types[random_below(&random_, 4)]);
}

static int collect(void *ctx, const struct mapping *mapping)
{
    (void)ctx;
    (void)mapping;
    return 0;
}

static int operate(uint64_t in, uint64_t size, struct flush_batch *batch)
{
    uint64_t cursor = t.table.kind->input_first;
    hpa_t out = hpa((UINT64_C(1) << 30) + (in & (WINDOW - 1)));

    if (random_below(&random_, 3) == 0)
        out = hpa_add(out, WINDOW);
    switch (random_below(&random_, 10)) {
    case 0:
    case 1:
        return table_map(&t.table, in, out, size, some_attrs(), MAP_REPLACE, batch);
    case 2:
        return table_map(&t.table, in, out, size, some_attrs(), MAP_REPLACE | MAP_CAP_4K, batch);
    case 3:
        return table_unmap(&t.table, in, size, batch);
    case 4:
    case 5:
        return table_protect(&t.table, in, size, some_attrs(), batch);
    case 6:
        return table_split(&t.table, in, size, 1, batch);
    case 7:
        return table_merge(&t.table, in, size, batch);
    case 8:
        return table_harvest(&t.table, in, size, HARVEST_CLEAR_A | HARVEST_CLEAR_D, collect, NULL,
                             batch);
    default:
        return table_merge_sweep(&t.table, &cursor, t.table.kind->input_last, batch);
    }
}

/* A node that dies with its last page: few pages to invalidate, and a way less. */
static int change_lonely(struct flush_batch *batch)
{
    uint64_t in = t.base + WINDOW + random_below(&random_, 3) * PAGE_SIZE;

    if (random_below(&random_, 2))
        return table_map(&t.table, in, hpa(UINT64_C(3) << 30), PAGE_SIZE, some_attrs(), MAP_REPLACE,
                         batch);
    return table_unmap(&t.table, in, PAGE_SIZE, batch);
}

/* The frames that it maps are mapped in another table as well, and written to by nobody. */
static void clone_and_forget(uint64_t in, uint64_t size, struct flush_batch *batch)
{
    struct flush_batch gone;

    (void)table_clone(&t.other, &t.table, in, size, NULL, batch);
    flush_commit(batch);
    flush_begin(&gone, &t.other);
    assert_int_equal(table_unmap(&t.other, in, size, &gone), E_OK);
    flush_commit(&gone);
}

/* A CPU goes through all ways, and stays on one. */
static void enter(const struct tlb_way *way)
{
    if (way->sort == TLB_LINEAR)
        assert_int_equal(host_root_set(t.host[way - t.way]), E_OK);
    else if (way->sort == TLB_NESTED)
        tlb_vmrun(way->tag,
                  !asid_take_stale(way->tag) ? 0
                  : t.flush_by_asid          ? 3
                                             : 1,
                  t.flush_by_asid);
    else
        tlb_vmx_transition(way->tag);
}

static void use_all(void)
{
    for (unsigned i = 0; i < t.ways; i++) {
        enter(&t.way[i]);
        tlb_check(&t.way[i], t.base, t.base + SEEN - 1);
        tlb_use(&t.way[i], t.base, t.base + SEEN - 1, random_below(&random_, 2));
    }
    if (t.way[0].sort == TLB_LINEAR) {
        t.last = (unsigned)random_below(&random_, t.ways);
        enter(&t.way[t.last]);
        tlb_use(&t.way[t.last], t.base, t.base + SEEN - 1, random_below(&random_, 2));
    }
}

/* An ASID's translations go by the entry that comes: until then they cannot be used. Without PCIDs
 * nothing is cached but of the table that is current. */
static void check_all(void)
{
    for (unsigned i = 0; i < t.ways; i++) {
        if (t.way[i].sort == TLB_LINEAR && !(model_cpu.cr4 & CR4_PCIDE) && i != t.last)
            continue;
        if (t.way[i].sort == TLB_NESTED)
            enter(&t.way[i]);
        tlb_check(&t.way[i], t.base, t.base + SEEN - 1);
    }
}

static void some_range(uint64_t *in, uint64_t *size)
{
    uint64_t first = random_below(&random_, PAGES), last = random_below(&random_, PAGES);

    if (random_below(&random_, 3) == 0) { /* a page or two */
        last = first + random_below(&random_, 2);
    } else if (random_below(&random_, 2) == 0) { /* whole pages of 2 MiB */
        first &= ~UINT64_C(511);
        last |= 511;
    }
    if (last >= PAGES)
        last = PAGES - 1;
    if (last < first)
        last = first;
    *in = t.base + first * PAGE_SIZE;
    *size = (last - first + 1) * PAGE_SIZE;
}

static void run_steps(uint64_t seed)
{
    struct flush_batch batch;
    uint64_t in, size;

    random_.state = seed;
    for (unsigned i = 0; i < STEPS; i++) {
        use_all();
        some_range(&in, &size);
        flush_begin(&batch, &t.table);
        if (random_below(&random_, 12) == 0) {
            clone_and_forget(in, size, &batch);
        } else {
            (void)(random_below(&random_, 4) ? operate(in, size, &batch) : change_lonely(&batch));
            flush_commit(&batch);
        }
        check_all();
    }
}

/* ---- The host's kinds ---------------------------------------------------------------------- */

struct host_cpu {
    bool pcid, invpcid, pge;
};
static const struct host_cpu host_cpus[] = {{true, true, true},
                                            {true, false, true},
                                            {false, false, true},
                                            {false, false, false}};

static void choose(const struct host_cpu *cpu)
{
    cpu_features.invpcid = cpu->invpcid;
    model_cpu.cr4 = CR4_PAE | (cpu->pge ? CR4_PGE : 0) | (cpu->pcid ? CR4_PCIDE : 0);
}

static void add_linear_way(struct table *table)
{
    uint16_t pcid = model_cpu.cr4 & CR4_PCIDE ? table->tag : 0;

    t.host[t.ways] = table;
    t.way[t.ways++] = (struct tlb_way){TLB_LINEAR, table->root, pcid, 0, true};
}

static void end(struct table *table)
{
    assert_int_equal(table_destroy(table), E_OK);
}

/* The kernel's half is seen under each PCID. */
static void kernel_pages(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(host_cpus); i++) {
        struct table user[2];

        start();
        choose(&host_cpus[i]);
        make(&t.table, &kernel_kind, true);
        make(&t.other, &kernel_kind, true);
        assert_int_equal(table_preallocate(&t.table), E_OK);
        t.base = 0xffff900000000000;
        add_linear_way(&t.table);
        for (unsigned n = 0; n < 2; n++) {
            make(&user[n], &user_kind, true);
            user[n].tag = (uint16_t)(n + 1);
            assert_int_equal(table_share_upper(&user[n], &t.table), E_OK);
            add_linear_way(&user[n]);
        }
        run_steps(i);
        stop();
    }
}

static void user_pages(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(host_cpus); i++) {
        struct table neighbour;

        start();
        choose(&host_cpus[i]);
        make(&t.table, &user_kind, true);
        make(&t.other, &user_kind, true);
        make(&neighbour, &user_kind, true);
        t.base = 0x400000;
        t.table.tag = 1;
        t.other.tag = 2;
        neighbour.tag = 3;
        add_linear_way(&t.table);
        add_linear_way(&neighbour);
        run_steps(10 + i);
        use_all();
        assert_int_equal(host_root_current().v, t.way[t.last].root.v);
        enter(&t.way[1]);
        end(&t.table);
        if (host_cpus[i].pcid)
            assert_int_equal(tlb_cached(&t.way[0]), 0);
        /* A PCID that comes again begins with nothing, however it was used before. */
        struct tlb_way again = {.sort = TLB_LINEAR, .tag = host_cpus[i].pcid ? t.other.tag : 0};
        tlb_empty();
        tlb_add(&again, 0x1000, false);
        assert_int_equal(host_root_set(&t.other), E_OK);
        assert_int_equal(tlb_cached(&again), 0);
        end(&neighbour);
        stop();
    }
}

/* ---- A guest's kinds ----------------------------------------------------------------------- */

static void ept_of(bool single, bool keeps_ad, bool vpids)
{
    struct table neighbour;

    start();
    vmx_caps.ept_vpid = (struct ept_vpid_caps){
        .invept = true, .invept_single = single, .invept_all = true, .accessed_dirty = keeps_ad};
    make(&t.table, &ept_kind, keeps_ad);
    make(&t.other, &ept_kind, keeps_ad);
    make(&neighbour, &ept_kind, keeps_ad);
    t.base = UINT64_C(3) << 30;
    const struct tlb_way ways[] = {
        {TLB_PHYSICAL, t.table.root, 0, ept_eptp(&t.table), keeps_ad},
        {TLB_COMBINED, t.table.root, vpids ? 1 : 0, ept_eptp(&t.table), keeps_ad},
        {TLB_COMBINED, t.table.root, vpids ? 2 : 0, ept_eptp(&t.table), keeps_ad},
    };
    memcpy(t.way, ways, sizeof(ways));
    t.ways = 3;
    run_steps(20 + single + 2u * keeps_ad + 4u * vpids);

    /* What is left of a table that is gone must not serve the next one with its root. */
    struct tlb_way next_door = {TLB_PHYSICAL, neighbour.root, 0, ept_eptp(&neighbour), keeps_ad};
    use_all();
    tlb_add(&next_door, 0, false);
    end(&t.table);
    for (unsigned i = 0; i < t.ways; i++)
        assert_int_equal(tlb_cached(&t.way[i]), 0);
    assert_int_equal(tlb_cached(&next_door), single ? 1 : 0);
    stop();
}

static void ept_pages(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 8; i++)
        ept_of(i & 1, i & 2, i & 4);
}

static void npt_pages(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        start();
        asid_init(4);
        t.flush_by_asid = i;
        make(&t.table, &npt_kind, true);
        make(&t.other, &npt_kind, true);
        t.base = UINT64_C(3) << 30;
        assert_int_equal(asid_take(&t.table.tag), E_OK);
        assert_int_equal(asid_take(&t.other.tag), E_OK);
        t.way[t.ways++] = (struct tlb_way){TLB_NESTED, t.table.root, t.table.tag, 0, true};
        run_steps(30 + i);

        /* The neighbour's are kept where the CPU can tell them apart. */
        struct tlb_way next_door = {TLB_NESTED, t.other.root, t.other.tag, 0, true};
        enter(&next_door);
        enter(&t.way[0]);
        tlb_add(&next_door, 0, false);
        end(&t.table);
        enter(&t.way[0]);
        assert_int_equal(tlb_cached(&t.way[0]), 0);
        assert_int_equal(tlb_cached(&next_door), i);
        asid_give(t.table.tag);
        asid_give(t.other.tag);
        stop();
    }
}

/* ---- Tags that come round again ------------------------------------------------------------- */

static struct tlb_way vpid_way(uint16_t vpid)
{
    return (struct tlb_way){.sort = TLB_COMBINED, .tag = vpid, .eptp = 0x7000};
}

/* A VPID is given with nothing cached under it, however it was used before, and others keep theirs.
 */
static void a_vpid_comes_again(void **state)
{
    uint16_t taken[256], vpid, again;
    struct tlb_way kept;

    (void)state;
    start();
    vmx_policy.vpid = true;
    vmx_caps.ept_vpid = (struct ept_vpid_caps){
        .invvpid = true, .invvpid_single = true, .invvpid_all = true, .invvpid_keep_globals = true};
    for (unsigned i = 0; i < 255; i++) {
        assert_int_equal(vpid_take(&taken[i]), E_OK);
        assert_int_equal(taken[i], i + 1); /* 0 is the host's */
        kept = vpid_way(taken[i]);
        tlb_add(&kept, 0x1000, false);
        tlb_add(&kept, 0x2000, true);
    }
    assert_int_equal(tlb_counters_total().guest_tag, 0); /* a fresh one costs nothing */
    assert_int_equal(vpid_take(&vpid), E_FULL);
    for (unsigned i = 0; i < 255; i += 50) {
        kept = vpid_way((uint16_t)(taken[i] + 1));
        vpid_give(taken[i]);
        assert_int_equal(vpid_take(&again), E_OK);
        assert_int_equal(again, taken[i]);
        struct tlb_way way = vpid_way(again);
        assert_int_equal(tlb_cached(&way), 0);
        if (taken[i] < 255)
            assert_int_equal(tlb_cached(&kept), 2);
    }
    vpid_give(0);
    assert_int_equal(vpid_take(&vpid), E_FULL);
    for (unsigned i = 0; i < 255; i++)
        vpid_give(taken[i]);

    vmx_policy.vpid = false;
    assert_int_equal(vpid_take(&vpid), E_OK);
    assert_int_equal(vpid, 0);
    vpid_flush(0); /* nothing to do, and no INVVPID of VPID 0, which fails */
    stop();
}

static void an_asid_comes_again(void **state)
{
    uint16_t taken[255], asid;

    (void)state;
    start();
    asid_init(100000);
    for (unsigned i = 0; i < 255; i++) {
        assert_int_equal(asid_take(&taken[i]), E_OK);
        assert_int_equal(taken[i], i + 1);
        assert_true(asid_take_stale(taken[i])); /* of who had it before */
        assert_false(asid_take_stale(taken[i]));
    }
    assert_int_equal(asid_take(&asid), E_FULL);
    asid_give(taken[7]);
    assert_int_equal(asid_take(&asid), E_OK);
    assert_int_equal(asid, taken[7]);
    assert_true(asid_take_stale(asid));
    /* Of one table: all of them. */
    assert_int_equal(asid_join(0, taken[3]), taken[3]);
    assert_int_equal(asid_join(taken[3], taken[4]), taken[3]);
    assert_int_equal(asid_join(taken[3], taken[5]), taken[3]);
    tlb_flush_asid(taken[3]);
    for (unsigned i = 3; i < 6; i++)
        assert_true(asid_take_stale(taken[i]));
    assert_false(asid_take_stale(taken[8]));
    tlb_flush_asid(taken[8]);
    assert_false(asid_take_stale(taken[7]));
    assert_true(asid_take_stale(taken[8]));
    for (unsigned i = 0; i < 255; i++)
        asid_give(taken[i]);

    asid_init(3); /* of which 0 is the host's */
    assert_int_equal(asid_take(&taken[0]), E_OK);
    assert_int_equal(asid_take(&taken[1]), E_OK);
    assert_int_equal(asid_take(&taken[2]), E_FULL);
    asid_give(taken[0]);
    asid_give(taken[1]);
    stop();
}

/* Each on its own, as table_kind.flush may ask. */
static void what_the_host_drops(void **state)
{
    struct tlb_way mine = {.sort = TLB_LINEAR, .tag = 1}, yours = {.sort = TLB_LINEAR, .tag = 2};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(host_cpus); i++) {
        start();
        choose(&host_cpus[i]);
        if (!host_cpus[i].pcid)
            mine.tag = yours.tag = 0;
        model_cpu.cr3 = 0x5000 | yours.tag;
        tlb_add(&mine, 0x1000, false);
        tlb_add(&yours, 0x2000, false);
        tlb_add(&yours, 0x3000, true);
        if (host_cpus[i].pcid) {
            tlb_flush_pcid(1);
            assert_int_equal(tlb_cached(&mine), host_cpus[i].invpcid ? 1 : 0); /* the global one */
            assert_int_equal(tlb_cached(&yours), host_cpus[i].invpcid ? 2 : 0);
            tlb_add(&mine, 0x1000, false);
            tlb_add(&yours, 0x2000, false);
            tlb_add(&yours, 0x3000, true);
        }
        tlb_flush_current();
        assert_int_equal(tlb_cached(&yours), 1);
        assert_int_equal(model_cpu.cr3, 0x5000 | yours.tag);
        tlb_add(&yours, 0x2000, false);
        if (!host_cpus[i].pge && !host_cpus[i].pcid)
            tlb_empty(), tlb_add(&yours, 0x2000, false); /* no global pages there */
        tlb_flush_all();
        assert_int_equal(tlb_cached(&yours) + tlb_cached(&mine), 0);
        stop();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernel_pages),        cmocka_unit_test(user_pages),
        cmocka_unit_test(ept_pages),           cmocka_unit_test(npt_pages),
        cmocka_unit_test(a_vpid_comes_again),  cmocka_unit_test(an_asid_comes_again),
        cmocka_unit_test(what_the_host_drops),
    };
    return cmocka_run_group_tests_name("tlb", tests, NULL, NULL);
}
