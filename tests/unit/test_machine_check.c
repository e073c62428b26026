/* Machine checks: what is told of banks that say many things. */
#include "arch/x86_64/machine_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/trap.h"
#include "lib/bits.h"
#include "lib/error.h"

#define VALID BIT(63)
#define UNCORRECTED BIT(61)
#define HAS_ADDRESS BIT(58)
#define CORRUPT BIT(57)

static uint64_t status[64], address[64];

struct cpu_features cpu_features;

int rdmsr_safe(uint32_t index, uint64_t *out)
{
    (void)index;
    (void)out;
    return E_HARDWARE;
}

static uint64_t read(uint32_t msr)
{
    if (msr == 0x17a)
        return 5;
    assert_in_range(msr, 0x401, 0x401 + 4 * 31 + 1);
    assert_in_range((msr - 0x400) % 4, 1, 2);
    return (msr - 0x400) % 4 == 1 ? status[(msr - 0x400) / 4] : address[(msr - 0x400) / 4];
}

static int set_up(void **state)
{
    (void)state;
    memset(status, 0, sizeof(status));
    memset(address, 0xff, sizeof(address));
    return 0;
}

static void nothing_is_told_as_such(void **state)
{
    struct machine_check check;
    char text[MACHINE_CHECK_TEXT];

    (void)state;
    status[3] = UNCORRECTED; /* not valid */
    machine_check_gather(&check, 10, read);
    assert_false(check.found || check.corrupt);
    assert_string_equal(machine_check_text(text, &check), "no bank has an error, MCG_STATUS 0x5");
    /* A bank beyond the count is none. */
    status[10] = VALID;
    machine_check_gather(&check, 10, read);
    assert_false(check.found);
}

static void the_worst_is_told_first(void **state)
{
    struct machine_check check;
    char text[MACHINE_CHECK_TEXT];

    (void)state;
    status[1] = VALID | 0x11;
    status[4] = VALID | UNCORRECTED | HAS_ADDRESS | 0x22;
    address[4] = 0x1234000;
    status[5] = VALID | UNCORRECTED | 0x33;
    machine_check_gather(&check, 255, read);
    assert_true(check.found && !check.corrupt);
    assert_string_equal(machine_check_text(text, &check),
                        "bank 4, status 0xa400000000000022, address 0x1234000, MCG_STATUS 0x5; 2 "
                        "banks more");
    status[1] |= CORRUPT;
    machine_check_gather(&check, 255, read);
    assert_true(check.corrupt);
    assert_int_equal(check.bank, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(nothing_is_told_as_such, set_up),
        cmocka_unit_test_setup(the_worst_is_told_first, set_up),
    };
    return cmocka_run_group_tests_name("machine_check", tests, NULL, NULL);
}
