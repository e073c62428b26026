/*
 * Records in both forms: text and JSON, with values of every kind and bytes of every value.
 */
#include "monitor/output.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/error.h"

static char text[8192];
static size_t length;

static void keep(struct sink *sink, const char *bytes, size_t n)
{
    (void)sink;
    assert_true(length + n < sizeof(text));
    memcpy(text + length, bytes, n);
    length += n;
    text[length] = 0;
}

static struct sink sink = {keep};
static struct output out;

static void begin(bool json)
{
    length = 0;
    text[0] = 0;
    output_init(&out, &sink);
    out.json = json;
}

static const struct column all_columns[] = {
    {"A name", COLUMN_TEXT, 6}, {"count", COLUMN_NUMBER, 0},     {"entry at", COLUMN_HEX, 0},
    {"size", COLUMN_SIZE, 0},   {"4K-frames", COLUMN_FRAMES, 0}, {"on", COLUMN_FLAG, 0},
};
static const struct record all_record = RECORD("all kinds", all_columns);

static const struct value something[] = {{VALUE_TEXT, {.text = "x"}},
                                         {VALUE_NUMBER, {.number = UINT64_MAX}},
                                         {VALUE_NUMBER, {.number = UINT64_MAX}},
                                         {VALUE_NUMBER, {.number = 16 << 20}},
                                         {VALUE_NUMBER, {.number = 512}},
                                         {VALUE_NUMBER, {.number = 5}}};
static const struct value nothing[6];

static void test_rows_and_facts(void **state)
{
    (void)state;
    begin(true);
    output_row(&out, &all_record, something);
    output_row(&out, &all_record, nothing);
    output_facts(&out, &all_record, something);
    assert_string_equal(
        text,
        "{\"kind\":\"row\",\"record\":\"all kinds\",\"values\":{\"a_name\":\"x\","
        "\"count\":18446744073709551615,\"entry_at\":\"0xffffffffffffffff\",\"size\":16777216,"
        "\"4k_frames\":512,\"on\":true}}\n"
        "{\"kind\":\"row\",\"record\":\"all kinds\",\"values\":{\"a_name\":null,\"count\":null,"
        "\"entry_at\":null,\"size\":null,\"4k_frames\":null,\"on\":null}}\n"
        "{\"kind\":\"facts\",\"record\":\"all kinds\",\"values\":{\"a_name\":\"x\","
        "\"count\":18446744073709551615,\"entry_at\":\"0xffffffffffffffff\",\"size\":16777216,"
        "\"4k_frames\":512,\"on\":true}}\n");
    begin(false);
    output_row(&out, &all_record, something);
    output_facts(&out, &all_record, something);
    output_facts(&out, &all_record, nothing);
    assert_string_equal(text,
                        "  A name  count  entry at  size  4K-frames  on\n"
                        "  x       18446744073709551615  0xffffffffffffffff   16M        512  yes\n"
                        "A name: x\ncount: 18446744073709551615\nentry at: 0xffffffffffffffff\n"
                        "size: 16M\n4K-frames: 512 (2M)\non: yes\n");
}

static void test_sentences(void **state)
{
    (void)state;
    begin(true);
    output_title(&out, "map of \"%s\"", "g1");
    output_note(&out, "back\\slash, tab\t, %c", 0xe9);
    output_error(&out, "no");
    output_failure(&out, E_NOENT, "no g%u", 9u);
    output_end(&out, "map g9", E_NOENT);
    assert_string_equal(text,
                        "{\"kind\":\"title\",\"text\":\"map of \\\"g1\\\"\"}\n"
                        "{\"kind\":\"note\",\"text\":\"back\\\\slash, tab\\u0009, \\u00e9\"}\n"
                        "{\"kind\":\"error\",\"code\":\"E_INVAL\",\"text\":\"no\"}\n"
                        "{\"kind\":\"error\",\"code\":\"E_NOENT\",\"text\":\"no g9\"}\n"
                        "{\"kind\":\"end\",\"command\":\"map g9\",\"code\":\"E_NOENT\"}\n");
    begin(false);
    output_title(&out, "t");
    output_note(&out, "n");
    output_failure(&out, E_NOENT, "no g%u", 9u);
    output_end(&out, "map g9", E_NOENT);
    assert_string_equal(text, "t\nn\nerror: no g9\n");
}

/* Whatever is quoted, a line of JSON is printable ASCII alone and ends where the quoted line ends.
 */
static void test_quotes(void **state)
{
    struct quote quote = {false};
    char bytes[256];

    (void)state;
    begin(true);
    output_quote(&out, &quote, "one\r\ntw", 7);
    output_quote(&out, &quote, "o\n\nla\033st", 8);
    output_quote_end(&out, &quote);
    output_quote_end(&out, &quote);
    assert_string_equal(text, "{\"kind\":\"quote\",\"text\":\"one\"}\n"
                              "{\"kind\":\"quote\",\"text\":\"two\"}\n"
                              "{\"kind\":\"quote\",\"text\":\"\"}\n"
                              "{\"kind\":\"quote\",\"text\":\"la\\u001bst\"}\n");
    begin(true);
    for (unsigned i = 0; i < 256; i++)
        bytes[i] = (char)i;
    output_quote(&out, &quote, bytes, sizeof(bytes));
    output_quote_end(&out, &quote);
    unsigned lines = 0;
    for (size_t i = 0; i < length; i++) {
        lines += text[i] == '\n';
        assert_true(text[i] == '\n' || (text[i] >= 0x20 && text[i] < 0x7f));
    }
    assert_int_equal(lines, 2);
}

static void test_colour(void **state)
{
    (void)state;
    begin(false);
    out.colour = true;
    output_row(&out, &all_record, something);
    output_failure(&out, E_NOENT, "no");
    assert_non_null(strstr(text, "\033[4m  A name"));
    assert_non_null(strstr(text, "  on\033[m\n"));
    assert_non_null(strstr(text, "\033[1;31merror: no\033[m\n"));
    /* Programs get none. */
    begin(true);
    out.colour = true;
    output_row(&out, &all_record, something);
    output_title(&out, "t");
    output_failure(&out, E_NOENT, "no");
    assert_null(strchr(text, '\033'));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_and_facts),
        cmocka_unit_test(test_sentences),
        cmocka_unit_test(test_quotes),
        cmocka_unit_test(test_colour),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
