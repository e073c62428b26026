/*
 * Who is asked, who answers and when, on CPUs that this test plays one after the other: the hooks
 * of shootdown_ops let another CPU act in the middle of a flush.
 */
#include "arch/x86_64/mm/shootdown.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/panic.h"
#include "tests/unit/hosted.h"

#define CPUS 4u

static unsigned on; /* the CPU that acts */
static uint64_t sent, forgot, clock_ticks;
static unsigned forgets[CPUS];
static uint64_t deaf;  /* CPUs that do not take NMIs */
static uint64_t loses; /* CPUs that never see the next NMI */
static void (*meanwhile)(void);
static struct table kernel, user, other;
static const struct flush_batch *expected_batch;

static unsigned self(void)
{
    return on;
}

static void send(unsigned cpu)
{
    if (loses & BIT(cpu)) {
        loses &= ~BIT(cpu);
        return;
    }
    sent |= BIT(cpu);
}

static void forget(struct table *table, const struct flush_batch *batch)
{
    assert_ptr_equal(batch, expected_batch);
    assert_non_null(table);
    forgot |= BIT(on);
    forgets[on]++;
}

static void act(unsigned cpu, void (*what)(void))
{
    unsigned was = on;

    on = cpu;
    what();
    on = was;
}

/* Each look at the clock is a moment in which one CPU takes its NMI. */
static uint64_t now(void)
{
    if (meanwhile)
        meanwhile();
    for (unsigned cpu = 0; cpu < CPUS; cpu++)
        if ((sent & ~deaf) & BIT(cpu)) {
            sent &= ~BIT(cpu);
            act(cpu, shootdown_answer);
            break;
        }
    return clock_ticks++;
}

static void missing(unsigned cpu, const struct table *table)
{
    panic("CPU %u is missing from %s", cpu, table ? table->kind->name : "a barrier");
}

static const struct shootdown_ops ops = {.self = self,
                                         .send = send,
                                         .forget = forget,
                                         .now = now,
                                         .resend = 30,
                                         .patience = 100,
                                         .missing = missing};

static int set_up(void **state)
{
    (void)state;
    kernel = (struct table){.kind = &kernel_kind};
    user = (struct table){.kind = &user_kind};
    other = (struct table){.kind = &ept_kind};
    on = 0;
    sent = forgot = deaf = loses = clock_ticks = 0;
    memset(forgets, 0, sizeof(forgets));
    meanwhile = NULL;
    shootdown_init(&ops);
    for (unsigned cpu = 1; cpu < CPUS; cpu++)
        act(cpu, shootdown_join);
    return 0;
}

static void flush(struct table *table)
{
    struct flush_batch batch = {.table = table};

    expected_batch = &batch;
    forgot = 0;
    shootdown_flush(table, &batch);
}

static void test_the_kernels_table_is_everybodys(void **state)
{
    (void)state;
    assert_int_equal(shootdown_cpus(), CPUS);
    flush(&kernel);
    assert_int_equal(forgot, 0xf);
    assert_int_equal(shootdown_counters_of(0).sent, 1);
    assert_int_equal(shootdown_counters_of(0).asked, 3);
    assert_int_equal(shootdown_counters_of(3).answered, 1);
    on = 2;
    shootdown_leave();
    on = 1;
    flush(&kernel);
    assert_int_equal(forgot, 0xb);
}

static void test_a_lost_nmi_is_sent_again(void **state)
{
    (void)state;
    loses = BIT(1) | BIT(3);
    flush(&kernel);
    assert_int_equal(forgot, 0xf);
    assert_int_equal(loses, 0);
    assert_true(clock_ticks > 60 && clock_ticks < 80); /* once for each of the two */
    assert_int_equal(shootdown_counters_of(0).asked, 3);
}

static void test_only_those_who_published(void **state)
{
    (void)state;
    on = 2;
    assert_false(shootdown_load(CONTEXT_PROGRAM, &user, NULL));
    on = 3;
    assert_false(shootdown_load(CONTEXT_PROGRAM, &other, NULL));
    on = 0;
    flush(&user);
    assert_int_equal(forgot, 0x5);
    on = 2;
    shootdown_load(CONTEXT_PROGRAM, NULL, NULL);
    on = 0;
    flush(&user);
    assert_int_equal(forgot, 0x1); /* the one that writes forgets in any case */
    assert_int_equal(shootdown_counters_of(1).answered, 0);
}

static void test_a_flush_that_was_missed(void **state)
{
    uint64_t seen = 0, another = 0;

    (void)state;
    on = 1;
    assert_true(shootdown_load(CONTEXT_GUEST, &other, &seen)); /* it is new here */
    assert_false(shootdown_load(CONTEXT_GUEST, &other, &seen));
    on = 0;
    flush(&other);
    assert_int_equal(forgot, 0x3);
    on = 1;
    assert_false(shootdown_load(CONTEXT_GUEST, &other, &seen)); /* it took part */
    shootdown_load(CONTEXT_GUEST, NULL, NULL);
    on = 0;
    flush(&other);
    assert_int_equal(forgot, 0x1);
    on = 1;
    assert_true(shootdown_load(CONTEXT_GUEST, &other, &seen));
    shootdown_load(CONTEXT_GUEST, NULL, NULL);
    assert_false(shootdown_load(CONTEXT_GUEST, &other, &seen)); /* none in between */
    /* Another vCPU, by a table in the same place. */
    assert_true(shootdown_load(CONTEXT_GUEST, &other, &another));
}

static void start_reading(void)
{
    shootdown_read_begin();
    shootdown_read_begin();
}

static unsigned moments;

static void read_on_for_a_while(void)
{
    moments++;
    if (moments == 20)
        act(1, shootdown_read_end);
    if (moments == 30) {
        assert_int_equal(shootdown_counters_of(1).answered, 0);
        act(1, shootdown_read_end);
    }
}

static void test_an_answer_waits_for_the_end_of_a_read(void **state)
{
    (void)state;
    moments = 0;
    act(1, start_reading);
    meanwhile = read_on_for_a_while;
    flush(&kernel);
    assert_true(moments >= 30);
    assert_int_equal(forgets[1], 1); /* at once, though the answer came late */
    assert_int_equal(shootdown_counters_of(1).late, 1);
    assert_int_equal(shootdown_counters_of(2).late, 0);
    meanwhile = NULL;
    flush(&kernel);
    assert_int_equal(shootdown_counters_of(1).answered, 2);
    assert_int_equal(shootdown_counters_of(1).late, 1);
}

/* Also of a table that it has not published. */
static void test_a_reader_of_any_table_is_asked(void **state)
{
    (void)state;
    moments = 0;
    act(1, start_reading);
    meanwhile = read_on_for_a_while;
    flush(&other);
    assert_int_equal(forgot, 0x3);
    assert_int_equal(shootdown_counters_of(1).late, 1);
    meanwhile = NULL;
    flush(&other);
    assert_int_equal(forgot, 0x1);
}

static void test_a_barrier_needs_no_end_of_a_read(void **state)
{
    (void)state;
    act(1, start_reading);
    shootdown_fence();
    assert_int_equal(forgot, 0);
    assert_int_equal(shootdown_counters_of(1).answered, 1);
}

static void test_an_nmi_of_somebody_elses(void **state)
{
    (void)state;
    act(1, shootdown_answer);
    assert_int_equal(shootdown_counters_of(1).answered, 0);
    flush(&kernel);
    act(1, shootdown_answer); /* a second one for the same flush */
    assert_int_equal(forgets[1], 1);
    flush(&kernel);
    assert_int_equal(forgets[1], 2);
}

static void test_who_does_not_answer_is_named(void **state)
{
    (void)state;
    deaf = BIT(2);
    assert_panics(flush(&kernel), "CPU 2 is missing from kernel");
    set_up(NULL);
    deaf = BIT(3);
    assert_panics(shootdown_fence(), "CPU 3 is missing from a barrier");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_the_kernels_table_is_everybodys, set_up),
        cmocka_unit_test_setup(test_a_lost_nmi_is_sent_again, set_up),
        cmocka_unit_test_setup(test_only_those_who_published, set_up),
        cmocka_unit_test_setup(test_a_flush_that_was_missed, set_up),
        cmocka_unit_test_setup(test_an_answer_waits_for_the_end_of_a_read, set_up),
        cmocka_unit_test_setup(test_a_reader_of_any_table_is_asked, set_up),
        cmocka_unit_test_setup(test_a_barrier_needs_no_end_of_a_read, set_up),
        cmocka_unit_test_setup(test_an_nmi_of_somebody_elses, set_up),
        cmocka_unit_test_setup(test_who_does_not_answer_is_named, set_up),
    };
    return cmocka_run_group_tests_name("shootdown", tests, NULL, NULL);
}
