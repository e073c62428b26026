/*
 * Real threads on one buddy, each a CPU: what the lock-free path may not lose. Each block is
 * stamped by its holder while it is held, so that one that two threads hold at once is seen by
 * both; at the end nothing may be missing. Meaningful under ThreadSanitizer too.
 *
 * Its lock is compiled into this file, so that whoever spins for a lock yields: there may be
 * fewer cores than threads, and a ticket lock is handed on in order.
 */
#include "mm/frames/buddy.h"

#include <sched.h>

#define __builtin_ia32_pause sched_yield
#include "mm/frames/buddy_cpu.c"
#undef __builtin_ia32_pause
#undef peek
#undef poke
#undef bump
#undef broken

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <linux/membarrier.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/unit/random.h"

#define THREADS 4
#define FRAMES 2048u
#define ROUNDS 20000u
#define HELD 200u
#define QUOTA 900u
#define LATE_FRAMES 512u /* memory that arrives while all are at work, above FRAMES */

static _Thread_local unsigned my_cpu;
static uint64_t stamp[FRAMES + LATE_FRAMES]; /* thread + 1 of the holder of each frame */
static void *memory;

static unsigned current_cpu(void)
{
    return my_cpu;
}

static void fence(void)
{
    syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
}

/* A failure in a thread must not longjmp out of it; it is counted. */
static uint64_t wrong;
#define check(condition)                                                                           \
    ((condition) ? (void)0 : (void)__atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED))

static void mark(hpa_t block, unsigned order, uint64_t from, uint64_t to)
{
    for (uint64_t i = 0; i < UINT64_C(1) << order; i++) {
        uint64_t expected = from;
        check(__atomic_compare_exchange_n(&stamp[pfn_of(block) + i], &expected, to, false,
                                          __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    }
}

/* Threads 0 and 1 share an owner, and its quota; each thread keeps up to HELD blocks. */
static void *work(void *argument)
{
    unsigned thread = *(unsigned *)argument;
    owner_t owner = (owner_t)(16 + thread / 2);
    struct random random = {thread + 1};
    struct {
        hpa_t block;
        unsigned order;
    } held[HELD];
    unsigned n = 0;

    my_cpu = thread;
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t roll = random_below(&random, 1000);
        unsigned order = (unsigned)(roll % 16 == 0 ? random_below(&random, 12) : roll % 3);
        if (n < HELD && roll < 560) {
            int error = buddy_alloc(order, PURPOSE_TEST, owner, &held[n].block);
            check(error == E_OK || error == E_NOMEM || error == E_QUOTA); /* quota, or reserve */
            if (error == E_OK) {
                held[n].order = order;
                mark(held[n].block, order, 0, thread + 1);
                n++;
            }
        } else if (n > 0 && roll < 990) {
            unsigned i = (unsigned)random_below(&random, n);
            mark(held[i].block, held[i].order, thread + 1, 0);
            check(buddy_free(held[i].block, held[i].order, owner) == E_OK);
            held[i] = held[--n];
        } else if (roll >= 994) {
            hpa_t list[100];
            unsigned count = (unsigned)random_below(&random, 100);
            int error = buddy_alloc_many(list, count, PURPOSE_TEST, owner);
            check(error == E_OK || error == E_NOMEM || error == E_QUOTA);
            for (unsigned i = 0; error == E_OK && i < count; i++)
                mark(list[i], 0, 0, thread + 1);
            for (unsigned i = 0; error == E_OK && i < count; i++)
                mark(list[i], 0, thread + 1, 0);
            check(error != E_OK || buddy_free_frames(list, count, owner) == E_OK);
        } else if (roll == 990) {
            buddy_drain();
        } else if (roll == 991) {
            check(buddy_owner_frames(16) <= QUOTA);
        } else if (roll == 992 && n > 0) {
            check(buddy_free(held[0].block, held[0].order, 99) == E_PERM);
        } else if (roll == 993 && n > 0) {
            struct frame_info info;
            check(frame_query(held[0].block, &info, NULL) == E_OK && info.state == FRAME_USED &&
                  info.owner == owner);
        }
    }
    while (n-- > 0) {
        mark(held[n].block, held[n].order, thread + 1, 0);
        check(buddy_free(held[n].block, held[n].order, owner) == E_OK);
    }
    return NULL;
}

static void assert_sound(void)
{
    char why[160] = "";
    if (buddy_verify(why, sizeof(why)) != E_OK)
        fail_msg("%s", why);
}

static void start(void)
{
    const uint64_t ram_end = (FRAMES + LATE_FRAMES) * PAGE_SIZE;
    uint64_t size = buddy_metadata_size(ram_end);

    free(memory);
    memory = aligned_alloc(PAGE_SIZE, size);
    memset(memory, 0xa5, size);
    wrong = 0;
    assert_int_equal(buddy_init(memory, size, ram_end), E_OK);
    assert_int_equal(buddy_set_cpus(current_cpu, fence), E_OK);
    assert_int_equal(buddy_add(hpa(0), FRAMES * PAGE_SIZE), E_OK);
}

static bool done;

static void *work_on_pairs(void *argument)
{
    (void)argument;
    my_cpu = 1;
    for (unsigned round = 0; round < 5 * ROUNDS; round++) {
        hpa_t block[3];
        for (unsigned i = 0; i < 3; i++)
            check(buddy_alloc(0, PURPOSE_TEST, 16, &block[i]) == E_OK);
        for (unsigned i = 0; i < 3; i++)
            check(buddy_free(block[i], 0, 16) == E_OK);
    }
    __atomic_store_n(&done, true, __ATOMIC_RELAXED);
    return NULL;
}

/* A CPU that is always inside its cache, and one that empties that cache again and again. */
static void test_drain_beside_pairs(void **state)
{
    (void)state;
    pthread_t thread;

    start();
    my_cpu = 0;
    done = false;
    assert_int_equal(pthread_create(&thread, NULL, work_on_pairs, NULL), 0);
    for (unsigned i = 0; !__atomic_load_n(&done, __ATOMIC_RELAXED); i++) {
        buddy_drain();
        if (i % 64 == 0)
            assert_sound();
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(wrong, 0);
    assert_sound();
    assert_int_equal(buddy_owner_frames(16), 0);
}

static void test_threads(void **state)
{
    (void)state;
    pthread_t thread[THREADS];
    unsigned number[THREADS];

    start();
    assert_int_equal(buddy_set_quota(16, QUOTA), E_OK);
    buddy_set_reserve(50);

    for (unsigned i = 0; i < THREADS; i++) {
        number[i] = i;
        assert_int_equal(pthread_create(&thread[i], NULL, work, &number[i]), 0);
    }
    my_cpu = THREADS;
    for (unsigned i = 0; i < 20; i++) { /* from outside, in the middle of it all */
        assert_sound();
        usleep(2000);
    }
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(thread[i], NULL), 0);

    assert_int_equal(wrong, 0);
    buddy_drain();
    assert_sound();
    struct buddy_stats stats;
    buddy_stats(&stats);
    assert_int_equal(stats.free_frames, FRAMES);
    assert_int_equal(stats.free_blocks[11], 1);
    assert_int_equal(stats.allocations, stats.frees);
    assert_int_equal(buddy_owner_frames(16), 0);
    assert_int_equal(buddy_owner_frames(17), 0);
    assert_true(stats.failed > 0); /* else it was too easy */
}

/* ---- Every call ---- */

struct pieces {
    hpa_t first;
    uint64_t count; /* blocks of order 0 side by side; 0: one block of `order` */
    unsigned order;
};

static int count_runs(void *ctx, hpa_t base, uint64_t size, const struct frame_info *info)
{
    uint64_t *end = ctx;

    check(base.v >= *end && size > 0 && info->state <= FRAME_RESERVED);
    *end = base.v + size;
    return 0;
}

static void stamp_pieces(const struct pieces *pieces, uint64_t from, uint64_t to)
{
    uint64_t count = pieces->count ? pieces->count : UINT64_C(1) << pieces->order;

    for (uint64_t i = 0; i < count; i++)
        mark(hpa_add(pieces->first, i * PAGE_SIZE), 0, from, to);
}

static bool take_pieces(struct random *random, unsigned how, owner_t owner, struct pieces *out)
{
    int error;

    *out = (struct pieces){.order = (unsigned)random_below(random, 7)};
    switch (how) {
    case 0:
        out->count = 1 + random_below(random, 40);
        error = buddy_alloc_frames(out->count, PURPOSE_TEST, owner, &out->first);
        break;
    case 1:
        out->first =
            hpa(align_down(random_below(random, FRAMES), UINT64_C(1) << out->order) << PAGE_SHIFT);
        error = buddy_alloc_at(out->first, out->order, PURPOSE_TEST, owner);
        break;
    case 2:
        error = buddy_alloc_within(out->order, MiB, 4 * MiB - 1, PURPOSE_TEST, owner, &out->first);
        check(error || (out->first.v >= MiB && out->first.v < 4 * MiB));
        break;
    default:
        error = buddy_alloc(out->order, PURPOSE_TEST, owner, &out->first);
        break;
    }
    check(error == E_OK || error == E_NOMEM || error == E_QUOTA || (how == 1 && error == E_EXIST));
    return error == E_OK;
}

static void give_pieces(const struct pieces *pieces, owner_t owner)
{
    hpa_t list[64];

    for (uint64_t i = 0; i < pieces->count; i++)
        list[i] = hpa_add(pieces->first, i * PAGE_SIZE);
    if (pieces->count)
        check(buddy_free_frames(list, (unsigned)pieces->count, owner) == E_OK);
    else
        check(buddy_free(pieces->first, pieces->order, owner) == E_OK);
}

/* Two holders more, and fewer again; a free in between is refused. */
static void share_for_a_while(const struct pieces *pieces, owner_t owner)
{
    unsigned order = pieces->count ? 0 : pieces->order;
    bool last = true;

    check(buddy_share(pieces->first, owner) == E_OK);
    check(buddy_share(pieces->first, owner) == E_OK);
    check(buddy_free(pieces->first, order, owner) == E_SHARED);
    check(buddy_release(pieces->first, order, owner, &last) == E_OK && !last);
    check(buddy_release(pieces->first, order, owner, &last) == E_OK && !last);
}

static void look_round(struct random *random)
{
    struct buddy_stats stats;
    uint64_t end = 0, at = random_below(random, FRAMES) << PAGE_SHIFT;

    switch (random_below(random, 4)) {
    case 0:
        check(buddy_visit(count_runs, &end) == 0 && end >= FRAMES * PAGE_SIZE / 2);
        break;
    case 1:
        buddy_stats(&stats);
        check(stats.total_frames >= FRAMES && stats.free_frames <= stats.total_frames);
        break;
    case 2:
        check(buddy_owner_frames(16) <= FRAMES && buddy_quota(17) >= QUOTA);
        break;
    default: {
        hpa_t first;
        uint64_t record;
        check(buddy_block(hpa(at), &first, &record) && first.v <= at);
        break;
    }
    }
}

static void *work_on_everything(void *argument)
{
    unsigned thread = *(unsigned *)argument;
    owner_t owner = (owner_t)(16 + thread / 2);
    struct random random = {11 + thread};
    struct pieces held[32];
    unsigned n = 0;

    my_cpu = thread;
    for (unsigned round = 0; round < ROUNDS / 4; round++) {
        uint64_t roll = random_below(&random, 100);
        if (n < ARRAY_SIZE(held) && roll < 45) {
            if (take_pieces(&random, (unsigned)roll % 6, owner, &held[n]))
                stamp_pieces(&held[n++], 0, thread + 1);
        } else if (n > 0 && roll < 85) {
            unsigned i = (unsigned)random_below(&random, n);
            stamp_pieces(&held[i], thread + 1, 0);
            give_pieces(&held[i], owner);
            held[i] = held[--n];
        } else if (n > 0 && roll < 92) {
            share_for_a_while(&held[n - 1], owner);
        } else if (roll < 97) {
            look_round(&random);
        } else if (roll < 99) {
            check(buddy_set_quota(17, QUOTA + random_below(&random, 200)) == E_OK);
        } else {
            uint64_t late = FRAMES + random_below(&random, LATE_FRAMES);
            int error = buddy_add(hpa(late << PAGE_SHIFT), PAGE_SIZE);
            check(error == E_OK || error == E_EXIST);
        }
    }
    while (n-- > 0) {
        stamp_pieces(&held[n], thread + 1, 0);
        give_pieces(&held[n], owner);
    }
    return NULL;
}

/* All calls, by four threads and by two, while memory arrives. */
static void everything(unsigned threads)
{
    pthread_t thread[THREADS];
    unsigned number[THREADS];
    struct buddy_stats stats;

    start();
    for (unsigned i = 0; i < threads; i++) {
        number[i] = i * (THREADS / threads);
        assert_int_equal(pthread_create(&thread[i], NULL, work_on_everything, &number[i]), 0);
    }
    my_cpu = THREADS;
    for (unsigned i = 0; i < 20; i++) {
        assert_sound();
        (void)buddy_fingerprint();
        usleep(1000);
    }
    for (unsigned i = 0; i < threads; i++)
        assert_int_equal(pthread_join(thread[i], NULL), 0);
    assert_int_equal(wrong, 0);
    buddy_drain();
    assert_sound();
    buddy_stats(&stats);
    assert_int_equal(stats.free_frames, stats.total_frames);
    assert_true(stats.total_frames > FRAMES);
    assert_int_equal(stats.free_blocks[11], 1);
    assert_int_equal(stats.allocations, stats.frees);
    assert_int_equal(buddy_owner_frames(16) + buddy_owner_frames(17), 0);
}

static void test_every_call_by_two(void **state)
{
    (void)state;
    everything(2);
}

static void test_every_call_by_four(void **state)
{
    (void)state;
    everything(4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_drain_beside_pairs),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_every_call_by_two),
        cmocka_unit_test(test_every_call_by_four),
    };
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0) {
        print_message("skipped: this kernel has no expedited membarrier\n");
        return 0;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(memory);
    return failed;
}
