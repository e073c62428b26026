/* Where an NMI returns to that has come around the HLT of cpu_halt(). */
#include "arch/x86_64/halt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

const uint64_t cpu_halt_hlt = 0xffffffff80201234;

/* Where it goes on: `rip` is relative to the HLT. */
static int after_nmi_at(int rip)
{
    struct trap_frame frame = {.rip = cpu_halt_hlt + (uint64_t)(int64_t)rip};

    halt_pass(&frame);
    return (int)(frame.rip - cpu_halt_hlt);
}

static void an_nmi_before_the_hlt_leaves_it_out(void **state)
{
    (void)state;
    assert_int_equal(after_nmi_at(0), 1);
}

static void elsewhere_an_nmi_returns_to_where_it_came(void **state)
{
    (void)state;
    assert_int_equal(after_nmi_at(-1), -1); /* before STI: interrupts are off still */
    assert_int_equal(after_nmi_at(1), 1);   /* it has ended the HLT */
    assert_int_equal(after_nmi_at(2), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_nmi_before_the_hlt_leaves_it_out),
        cmocka_unit_test(elsewhere_an_nmi_returns_to_where_it_came),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
