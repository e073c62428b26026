/*
 * Real threads on one table: two that write and two that read, each a CPU.
 *
 * A writer takes the table's lock itself; a reader (translate, walk, visit) takes none. Every page
 * of the window is only ever mapped to one of two frames, with one of a few sets of attributes, so
 * that a reader knows what it may find: one of those, or nothing. What keeps a reader from walking
 * through a table that has gone back to the allocator is the flush hook alone, which here returns
 * when each reader has ended the read that it was in; frames are overwritten as they go back. At
 * the end everything is unmapped, and every count must have come to rest.
 *
 * Meaningful under ThreadSanitizer, which sees whether any word of a live table, of a struct table
 * or of a frame's record is touched by two CPUs without an order between them.
 */
#include "mm/paging/table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/lock.h"
#include "mm/frames/buddy.h"
#include "tests/unit/random.h"

#define ARENA_BYTES (16 * MiB)
#define OWNER 40
#define WRITERS 2u
#define READERS 2u
#define ROUNDS 4000u
#define PAGES                                                                                      \
    1536u /* of the window: three level-1 tables, of which the middle one is often a large page */

static _Thread_local unsigned my_cpu;
static void *arena, *metadata;
static struct table shared;
static uint64_t base;

/* A failure in a thread must not longjmp out of it: the first is kept. */
static const char *wrong;
static int wrong_line;
static void note_wrong(const char *what, int line)
{
    const char *none = NULL;
    if (__atomic_compare_exchange_n(&wrong, &none, what, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        wrong_line = line;
}
#define check(condition) ((condition) ? (void)0 : note_wrong(#condition, __LINE__))

/* ---- The table's environment
 * ---------------------------------------------------------------------- */

/* Of each reader: odd while it reads. */
static uint64_t reading[READERS];
static bool over; /* the writers have ended */

static int take(const struct table_env *env, struct table *table, hpa_t *out)
{
    (void)env;
    return buddy_alloc(0, table->purpose, table->owner, out);
}

static void give(const struct table_env *env, struct table *table, hpa_t frame)
{
    (void)env;
    memset(direct(frame), 0xff, PAGE_SIZE); /* to whoever walks on: a page where none can be */
    check(buddy_free(frame, 0, table->owner) == E_OK);
}

/* What the IPI does: nothing is invalidated, for these CPUs have no TLBs; but no read of before
 * goes on. */
static void flush(const struct table_env *env, struct table *table, const struct flush_batch *batch)
{
    uint64_t before[READERS];

    (void)env;
    (void)batch;
    if (table != &shared)
        return;
    for (unsigned i = 0; i < READERS; i++) /* a full barrier as well: after the writer's stores */
        before[i] = __atomic_fetch_add(&reading[i], 0, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < READERS; i++)
        while (before[i] % 2 && __atomic_load_n(&reading[i], __ATOMIC_ACQUIRE) == before[i])
            sched_yield();
}

static const struct table_env env = {.take = take,
                                     .give = give,
                                     .flush = flush,
                                     .frame_records = true};

/* ---- What may be found
 * ----------------------------------------------------------------------------- */

#define FRAMES_A GiB
#define FRAMES_B (3 * GiB)

static struct attrs attrs_number(unsigned n)
{
    static const uint8_t rights[] = {RIGHT_RWX, RIGHT_RX, RIGHT_R, RIGHT_RW};
    return attrs_of(rights[n % 4], n / 4 % 2 ? MEM_UC : MEM_WB);
}

static bool may_be(const struct mapping *found)
{
    uint64_t offset = found->in - base;
    bool known = found->out.v == FRAMES_A + offset || found->out.v == FRAMES_B + offset;
    bool alike = false;

    for (unsigned n = 0; n < 8; n++)
        alike = alike || attrs_equal(found->attrs, attrs_number(n));
    return known && alike && found->level <= 2;
}

/* ---- Readers
 * ---------------------------------------------------------------------------------------- */

static int note_run(void *ctx, const struct mapping *run)
{
    uint64_t *next = ctx;

    check(run->in >= *next && run->last >= run->in);
    check(may_be(run));
    *next = run->last + 1;
    return 0;
}

static void read_once(struct random *random)
{
    uint64_t in = base + random_below(random, PAGES) * PAGE_SIZE;
    struct mapping mapping;
    struct walk walk;
    int error;

    switch (random_below(random, 8)) {
    case 0: {
        uint64_t next = base;
        error = table_visit(&shared, base, base + PAGES * PAGE_SIZE - 1,
                            random_below(random, 2) ? VISIT_RUNS : VISIT_PAGES, note_run, &next);
        check(error == E_OK);
        return;
    }
    case 1:
    case 2:
        table_walk(&shared, in, &walk);
        check(walk.error == E_OK || walk.error == E_NOENT);
        check(walk.error != E_OK || may_be(&walk.mapping));
        return;
    default:
        error = table_translate(&shared, in + 0x123, &mapping);
        check(error == E_OK || error == E_NOENT);
        check(error != E_OK || (may_be(&mapping) && mapping.in <= in && in <= mapping.last));
        return;
    }
}

static void *read_on(void *argument)
{
    unsigned number = *(unsigned *)argument;
    struct random random = {100 + number};
    uint64_t reads = 0;

    my_cpu = WRITERS + number;
    while (!__atomic_load_n(&over, __ATOMIC_RELAXED)) {
        __atomic_fetch_add(&reading[number], 1, __ATOMIC_SEQ_CST);
        for (unsigned n = 0; n < 16; n++, reads++)
            read_once(&random);
        __atomic_fetch_add(&reading[number], 1, __ATOMIC_SEQ_CST);
        if (reads % 256 == 0)
            sched_yield();
    }
    check(reads > 0);
    return NULL;
}

/* ---- Writers
 * ---------------------------------------------------------------------------------------- */

static void write_once(struct random *random, struct table *mine)
{
    uint64_t first = random_below(random, PAGES), count = 1 + random_below(random, 40);
    struct attrs attrs = attrs_number((unsigned)random_next(random));
    struct flush_batch batch;
    uint64_t frames = random_below(random, 2) ? FRAMES_A : FRAMES_B;

    if (random_below(random, 4) == 0) {
        first = 512;
        count = 512;
    } else if (random_below(random, 8) == 0) {
        count = PAGES;
    }
    count = first + count > PAGES ? PAGES - first : count;
    uint64_t in = base + first * PAGE_SIZE, size = count * PAGE_SIZE;
    hpa_t out = hpa(frames + first * PAGE_SIZE);
    int error = E_OK;

    flush_begin(&batch, &shared);
    switch (random_below(random, 12)) {
    case 0:
    case 1:
        error = table_map(&shared, in, out, size, attrs, MAP_DEFAULT, &batch);
        error = error == E_EXIST ? E_OK : error;
        break;
    case 2:
    case 3:
        error = table_map(&shared, in, out, size, attrs,
                          MAP_REPLACE | (count < 512 ? MAP_CAP_4K : 0u), &batch);
        break;
    case 4:
    case 5:
        error = table_unmap(&shared, in, size, &batch);
        break;
    case 6:
    case 7:
        error = table_protect(&shared, in, size, attrs, &batch);
        break;
    case 8:
        error = table_split(&shared, in, size, 1, &batch);
        break;
    case 9:
        error = table_merge(&shared, in, size, &batch);
        break;
    case 10:
        error =
            table_harvest(&shared, in, size, HARVEST_CLEAR_A | HARVEST_CLEAR_D, NULL, NULL, &batch);
        break;
    default:
        error = table_clone(mine, &shared, in, size, &batch);
        break;
    }
    check(error == E_OK);
    flush_commit(&batch);
    if (mine->table_frames > 1) {
        flush_begin(&batch, mine);
        check(table_unmap(mine, base, PAGES * PAGE_SIZE, &batch) == E_OK);
        flush_commit(&batch);
        check(mine->table_frames == 1);
    }
}

static void *write_on(void *argument)
{
    unsigned number = *(unsigned *)argument;
    struct random random = {1 + number};
    struct table mine;

    my_cpu = number;
    check(table_init(&mine, shared.kind, &shared.caps, &env, PURPOSE_TEST, OWNER) == E_OK);
    for (unsigned round = 0; round < ROUNDS; round++)
        write_once(&random, &mine);
    check(table_destroy(&mine) == E_OK);
    return NULL;
}

/* ---- All of them
 * ------------------------------------------------------------------------------------- */

static unsigned current_cpu(void)
{
    return my_cpu;
}

static void fence(void)
{
    syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
}

static void start(const struct table_kind *kind)
{
    uint64_t size = align_up(buddy_metadata_size(ARENA_BYTES), PAGE_SIZE);
    struct table_caps caps = {.maxphyaddr = 40,
                              .leaf_top = 3,
                              .nx = true,
                              .accessed_dirty = true,
                              .mem_types = 1 << MEM_UC | 1 << MEM_WB};

    if (!arena) {
        arena = aligned_alloc(2 * MiB, ARENA_BYTES);
        metadata = aligned_alloc(PAGE_SIZE, size);
    }
    memset(metadata, 0xa5, size);
    direct_base = (uint64_t)(uintptr_t)arena;
    my_cpu = 0;
    assert_int_equal(buddy_init(metadata, size, ARENA_BYTES), E_OK);
    assert_int_equal(buddy_set_cpus(current_cpu, fence), E_OK);
    assert_int_equal(buddy_add(hpa(0), ARENA_BYTES), E_OK);
    assert_int_equal(table_init(&shared, kind, &caps, &env, PURPOSE_TEST, OWNER), E_OK);
    base = (kind->input_first ? kind->input_first : 0) + 16 * GiB;
    over = false;
    wrong = NULL;
    memset(reading, 0, sizeof(reading));
}

static void finish(void)
{
    struct flush_batch batch;
    char why[160] = "";

    if (wrong)
        fail_msg("line %d: %s", wrong_line, wrong);
    flush_begin(&batch, &shared);
    assert_int_equal(table_unmap(&shared, base, PAGES * PAGE_SIZE, &batch), E_OK);
    flush_commit(&batch);
    assert_int_equal(shared.table_frames, 1);
    assert_int_equal(shared.open_batches, 0);
    assert_int_equal(frame_payload(shared.root), 0);
    assert_int_equal(table_destroy(&shared), E_OK);
    assert_int_equal(buddy_owner_frames(OWNER), 0);
    if (buddy_verify(why, sizeof(why)) != E_OK)
        fail_msg("%s", why);
}

static void run(const struct table_kind *kind)
{
    pthread_t writer[WRITERS], reader[READERS];
    unsigned number[WRITERS > READERS ? WRITERS : READERS];

    start(kind);
    for (unsigned i = 0; i < ARRAY_SIZE(number); i++)
        number[i] = i;
    for (unsigned i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&reader[i], NULL, read_on, &number[i]), 0);
    for (unsigned i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_create(&writer[i], NULL, write_on, &number[i]), 0);
    for (unsigned i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_join(writer[i], NULL), 0);
    __atomic_store_n(&over, true, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < READERS; i++)
        assert_int_equal(pthread_join(reader[i], NULL), 0);
    finish();
}

static void test_kernel(void **state)
{
    (void)state;
    run(&kernel_kind);
}

static void test_user(void **state)
{
    (void)state;
    run(&user_kind);
}

static void test_ept(void **state)
{
    (void)state;
    run(&ept_kind);
}

static void test_npt(void **state)
{
    (void)state;
    run(&npt_kind);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernel),
        cmocka_unit_test(test_user),
        cmocka_unit_test(test_ept),
        cmocka_unit_test(test_npt),
    };
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0) {
        print_message("skipped: this kernel has no expedited membarrier\n");
        return 0;
    }
    int failed = cmocka_run_group_tests_name("mapper threads", tests, NULL, NULL);
    free(arena);
    free(metadata);
    return failed;
}
