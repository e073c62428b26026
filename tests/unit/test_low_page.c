/* Where a CPU may begin in real mode: pages below 640 KiB, by the loader's map and what it placed.
 */
#include "boot/low_page.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/error.h"
#include "tests/unit/boot_table.h"

static struct boot_table table;
static struct boot_info info;
static char why[MULTIBOOT2_WHY];

/* The table is said to lie far above. */
static void parse(void)
{
    table_end(&table);
    assert_int_equal(multiboot2_parse(table.bytes, sizeof(table.bytes), &info, why, sizeof(why)),
                     E_OK);
    direct_base = (uint64_t)(uintptr_t)table.bytes - 16 * MiB;
}

static void start(const struct table_entry *region, unsigned count)
{
    table_start(&table);
    if (count)
        table_map(&table, 24, region, count);
}

static void finds(uint64_t expected)
{
    hpa_t page = hpa(0);

    assert_int_equal(low_page_find(&info, &page), E_OK);
    assert_int_equal(page.v, expected);
}

static void test_below_the_end_of_conventional_memory(void **state)
{
    const struct table_entry regions[] = {{0, 0x9fc00, 1}, {0x9fc00, 0x400, 2}, {MiB, 16 * MiB, 1}};

    (void)state;
    start(regions, 3);
    parse();
    finds(0x9e000);
}

static void test_reserved_wins(void **state)
{
    const struct table_entry regions[] = {{0, 0xa0000, 1}, {0x9f800, 0x100, 2}, {0x9e010, 1, 4}};

    (void)state;
    start(regions, 3);
    parse();
    finds(0x9d000);
}

static void test_what_the_loader_placed(void **state)
{
    const struct table_entry regions[] = {{0, 0xa0000, 1}};

    (void)state;
    start(regions, 1);
    table_module(&table, 0x9e800, 0x9f100, "low");
    table_module(&table, 0x9d000, 0x9d000, "empty");
    parse();
    finds(0x9d000);
    direct_base = (uint64_t)(uintptr_t)table.bytes - 0x9d100;
    finds(0x9c000);
}

static void test_none(void **state)
{
    const struct table_entry first_page[] = {{0, 0x1fff, 1}}, above[] = {{MiB, MiB, 1}};
    hpa_t page;

    (void)state;
    start(first_page, 1);
    parse();
    assert_int_equal(low_page_find(&info, &page), E_NOENT);
    start(above, 1);
    parse();
    assert_int_equal(low_page_find(&info, &page), E_NOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_below_the_end_of_conventional_memory),
        cmocka_unit_test(test_reserved_wins),
        cmocka_unit_test(test_what_the_loader_placed),
        cmocka_unit_test(test_none),
    };
    return cmocka_run_group_tests_name("low page", tests, NULL, NULL);
}
