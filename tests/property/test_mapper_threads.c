/*
 * Real threads on one table: two that write and two that read, each a CPU; the flushes are the
 * hypervisor's own (arch/x86_64/mm/shootdown.h), with a signal for the NMI, which like it is taken
 * wherever a thread is, also while it spins for the table's lock.
 *
 * A writer takes the table's lock itself; a reader (translate, walk, visit) takes none. Every page
 * of the window is only ever mapped to one of two frames, with one of a few sets of attributes, so
 * that a reader knows what it may find: one of those, or nothing. What keeps a reader from walking
 * through a table that has gone back to the allocator is the flush hook alone, which returns when
 * each reader has ended the read that it was in; frames are overwritten as they go back. At
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

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <time.h>

#include "arch/x86_64/mm/shootdown.h"
#include "lib/lock.h"
#include "mm/frames/buddy.h"
#include "tests/unit/random.h"

#define ARENA_BYTES (16 * MiB)
#define OWNER 40
#define WRITERS 2u
#define READERS 2u
#define ROUNDS 400u
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

static bool begun, over; /* all threads are there; the writers have ended */
static unsigned writers_done;

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

/* ---- The machine: a thread is a CPU, a signal is its NMI ---- */

static pthread_t threads[WRITERS + READERS];
static uint64_t forgotten[WRITERS + READERS];

static unsigned self(void)
{
    return my_cpu;
}

static void send(unsigned cpu)
{
    check(pthread_kill(threads[cpu], SIGUSR1) == 0);
}

/* These CPUs have no TLBs. What the sender asks for must be there until each has answered. */
static void forget(struct table *table, const struct flush_batch *batch)
{
    check(batch->table == table && batch->open);
    forgotten[my_cpu]++;
}

static uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void missing(unsigned cpu, const struct table *table)
{
    fprintf(stderr, "CPU %u does not answer a flush of %s\n", cpu,
            table ? table->kind->name : "nothing");
    abort();
}

#define PATIENCE UINT64_C(120000000000)
static const struct shootdown_ops ops = {.self = self,
                                         .send = send,
                                         .forget = forget,
                                         .now = now,
                                         .patience = PATIENCE,
                                         .missing = missing};

static void take_signal(int number)
{
    (void)number;
    shootdown_answer();
}

static void flush(const struct table_env *env, struct table *table, const struct flush_batch *batch)
{
    (void)env;
    shootdown_flush(table, batch);
}

/* Until all threads are there, and again until nobody asks any more. */
static void wait_for(const bool *flag)
{
    while (!__atomic_load_n(flag, __ATOMIC_ACQUIRE))
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
    wait_for(&begun);
    while (!__atomic_load_n(&over, __ATOMIC_RELAXED)) {
        /* Whether it uses the table or only looks at it. */
        if (reads % 64 == 0)
            shootdown_load(CONTEXT_PROGRAM, random_below(&random, 2) ? &shared : NULL, NULL);
        shootdown_read_begin();
        for (unsigned n = 0; n < 16; n++, reads++)
            read_once(&random);
        shootdown_read_end();
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
        error = table_clone(mine, &shared, in, size, NULL, &batch);
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
    wait_for(&begun);
    check(table_init(&mine, shared.kind, &shared.caps, &env, PURPOSE_TEST, OWNER) == E_OK);
    for (unsigned round = 0; round < ROUNDS; round++)
        write_once(&random, &mine);
    check(table_destroy(&mine) == E_OK);
    /* The other may still ask. */
    if (__atomic_add_fetch(&writers_done, 1, __ATOMIC_ACQ_REL) == WRITERS)
        __atomic_store_n(&over, true, __ATOMIC_RELEASE);
    wait_for(&over);
    return NULL;
}

/* ---- All of them
 * ------------------------------------------------------------------------------------- */

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
    shootdown_init(&ops);
    assert_int_equal(buddy_init(metadata, size, ARENA_BYTES), E_OK);
    assert_int_equal(buddy_set_cpus(self, shootdown_fence), E_OK);
    assert_int_equal(buddy_add(hpa(0), ARENA_BYTES), E_OK);
    assert_int_equal(table_init(&shared, kind, &caps, &env, PURPOSE_TEST, OWNER), E_OK);
    base = (kind->input_first ? kind->input_first : 0) + 16 * GiB;
    begun = over = false;
    writers_done = 0;
    wrong = NULL;
    memset(forgotten, 0, sizeof(forgotten));
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
    unsigned number[WRITERS > READERS ? WRITERS : READERS];

    start(kind);
    for (unsigned i = 0; i < ARRAY_SIZE(number); i++)
        number[i] = i;
    for (unsigned i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&threads[WRITERS + i], NULL, read_on, &number[i]), 0);
    for (unsigned i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_on, &number[i]), 0);
    for (my_cpu = 0; my_cpu < WRITERS + READERS; my_cpu++)
        shootdown_join();
    my_cpu = 0;
    __atomic_store_n(&begun, true, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < WRITERS + READERS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (unsigned i = 0; i < WRITERS + READERS; i++) {
        assert_true(forgotten[i] > 0);
        /* Of the kernel's table all are asked, of others those that read or have loaded it. */
        assert_true(shootdown_counters_of(i).answered > 0 ||
                    (i < WRITERS && kind->id != KIND_KERNEL));
    }
    shootdown_init(&ops); /* one CPU again */
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
    struct sigaction action = {.sa_handler = take_signal, .sa_flags = SA_RESTART};
    if (sigaction(SIGUSR1, &action, NULL) != 0)
        return 1;
    int failed = cmocka_run_group_tests_name("mapper threads", tests, NULL, NULL);
    free(arena);
    free(metadata);
    return failed;
}
