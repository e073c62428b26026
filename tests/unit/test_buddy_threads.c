/*
 * Real threads on one buddy, each a CPU: what the lock-free path may not lose. Each block is stamped by
 * its holder while it is held, so that one that two threads hold at once is seen by both; at the end
 * nothing may be missing. Meaningful under ThreadSanitizer too.
 *
 * The allocator is compiled into this file, so that whoever spins for a lock yields: there may be fewer
 * cores than threads, and a ticket lock is handed on in order.
 */
#include "mm/buddy.h"

#include <sched.h>

#define __builtin_ia32_pause sched_yield
#include "mm/buddy.c"
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

static _Thread_local unsigned my_cpu;
static uint64_t stamp[FRAMES]; /* thread + 1 of the holder of each frame */
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
    uint64_t size = buddy_metadata_size(FRAMES * PAGE_SIZE);

    free(memory);
    memory = aligned_alloc(PAGE_SIZE, size);
    memset(memory, 0xa5, size);
    wrong = 0;
    assert_int_equal(buddy_init(memory, size, FRAMES * PAGE_SIZE), E_OK);
    assert_int_equal(buddy_set_cpus(current_cpu, fence), E_OK);
    assert_int_equal(buddy_add(hpa(0), FRAMES * PAGE_SIZE), E_OK);
}

static bool done;

static void *work_on_pairs(void *argument)
{
    (void)argument;
    my_cpu = 1;
    for (unsigned round = 0; round < 20 * ROUNDS; round++) {
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_drain_beside_pairs),
        cmocka_unit_test(test_threads),
    };
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0) {
        print_message("skipped: this kernel has no expedited membarrier\n");
        return 0;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(memory);
    return failed;
}
