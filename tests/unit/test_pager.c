/*
 * Paging: where it stops, what each key does, and that it is not there for who has not asked.
 */
#include "monitor/pager.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static char screen[4096];
static const char *keys;
static unsigned asked;

static void show(struct sink *sink, const char *bytes, size_t n)
{
    (void)sink;
    strncat(screen, bytes, n);
}

static int key(void)
{
    static bool pause;

    /* Nothing is there at every other look. */
    pause = !pause;
    if (pause)
        return -1;
    asked++;
    assert_true(*keys != 0);
    return (unsigned char)*keys++;
}

static struct sink terminal = {show};
static struct pager pager;

static void begin(unsigned rows, unsigned columns, const char *typed)
{
    screen[0] = 0;
    keys = typed;
    asked = 0;
    pager_init(&pager, &terminal, key);
    pager.rows = rows;
    pager.columns = columns;
    pager_begin(&pager);
}

#define MORE "-- more: space, return, or q --\r\033[K"

static void lines(unsigned first, unsigned last)
{
    for (unsigned i = first; i <= last; i++)
        format(&pager.sink, "%u\n", i);
}

static void test_not_asked_for(void **state)
{
    (void)state;
    begin(0, 80, "");
    lines(1, 100);
    assert_int_equal(asked, 0);
    assert_non_null(strstr(screen, "\n100\n"));
}

static void test_keys(void **state)
{
    (void)state;
    begin(4, 80, "");
    lines(1, 3);
    assert_string_equal(screen, "1\n2\n3\n");
    begin(4, 80, " x\r\nq");
    lines(1, 20);
    assert_string_equal(screen, "1\n2\n3\n" MORE "4\n5\n6\n" MORE "7\n" MORE "8\n" MORE);
    assert_int_equal(asked, 5);
    /* What was stopped is over with the next answer. */
    screen[0] = 0;
    pager_begin(&pager);
    lines(1, 2);
    assert_string_equal(screen, "1\n2\n");
    begin(4, 80, "\003");
    lines(1, 20);
    assert_string_equal(screen, "1\n2\n3\n" MORE);
}

static void test_long_lines_and_colours(void **state)
{
    (void)state;
    /* 25 characters are three rows of ten. */
    begin(4, 10, "q");
    format(&pager.sink, "0123456789012345678901234\nx\n");
    assert_string_equal(screen, "0123456789012345678901234\n" MORE);
    begin(4, 10, "");
    format(&pager.sink, "0123456789\n0123456789\nx\n");
    assert_int_equal(asked, 0);
    begin(4, 10, "");
    format(&pager.sink, "\033[1;31m0123456789\033[m\n\033[4m0123456789\033[m\nx\n");
    assert_int_equal(asked, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_not_asked_for),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_long_lines_and_colours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
