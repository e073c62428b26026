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

/* --- A terminal of known width --------------------------------------------------------------- */

static struct output_rows rows;

static void begin_at(unsigned columns)
{
    begin(false);
    out.columns = columns;
    out.rows = &rows;
    memset(&rows, 0, sizeof(rows));
}

static const struct column wide_columns[] = {
    {"address", COLUMN_HEX, 18}, {"never", COLUMN_TEXT, 10},  {"kind", COLUMN_TEXT, 18},
    {"count", COLUMN_NUMBER, 9}, {"reason", COLUMN_TEXT, 60},
};
static const struct record wide_record = RECORD_NARROW("wide", wide_columns, "kind,count=#");

static void wide_row(uint64_t address, const char *reason)
{
    output_row(&out, &wide_record,
               (struct value[]){as_number(address), as_nothing(), as_text("some kind"),
                                as_number(7), as_text(reason)});
}

static void test_tables_fit(void **state)
{
    (void)state;
    /* As declared, where that fits. */
    begin_at(140);
    wide_row(0x1000, "why");
    assert_non_null(strstr(text, "              0x1000  -           some kind           "));
    /* Columns as wide as what is in them. */
    begin_at(70);
    wide_row(0x1000, "why");
    wide_row(0x20000, "because");
    assert_string_equal(text, "");
    output_note(&out, "end");
    assert_string_equal(text, "  address  never  kind       #  reason\n"
                              "   0x1000  -      some kind  7  why\n"
                              "  0x20000  -      some kind  7  because\n"
                              "end\n");
    /* The empty column goes, and text folds. */
    begin_at(52);
    wide_row(0x1000, "a reason of words that are too many for it");
    output_end(&out, "", E_OK);
    assert_string_equal(text, "  address  kind       #  reason\n"
                              "   0x1000  some kind  7  a reason of words that are\n"
                              "                         too many for it\n");
    /* A column goes that may. */
    begin_at(44);
    wide_row(0x1000, "a reason of words that are too many for it");
    output_end(&out, "", E_OK);
    assert_string_equal(text, "  address  #  reason\n"
                              "   0x1000  7  a reason of words that are too\n"
                              "              many for it\n"
                              "left out: kind\n");
}

static void test_lines_fold(void **state)
{
    struct quote quote = {false};

    (void)state;
    begin_at(40);
    output_error(&out, "a sentence that is longer than the terminal is wide");
    assert_string_equal(text, "error: a sentence that is longer than\n"
                              "    the terminal is wide\n");
    begin_at(40);
    output_quote(&out, &quote, "somebody else's text, of more than forty characters\nshort\n", 58);
    output_quote_end(&out, &quote);
    assert_string_equal(text, "  somebody else's text, of more than\n"
                              "    forty characters\n"
                              "  short\n");
}

/* Whatever is in a table, and however narrow the terminal is: no line is longer. */
static void test_random_tables_fit(void **state)
{
    static char cell[8][48];
    uint64_t seed = 1;

    (void)state;
    for (unsigned i = 0; i < 5000; i++) {
        struct column list[8];
        struct value values[8];
        struct record record = {.name = "random", .column = list, .narrow = "c2,c0,c5=x"};

        seed = seed * 6364136223846793005u + 1442695040888963407u;
        begin_at(40 + (unsigned)(seed >> 33) % 80);
        record.columns = 1 + (unsigned)(seed >> 40) % 8;
        for (unsigned c = 0; c < record.columns; c++) {
            static const char *const names[] = {"c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"};
            list[c] = (struct column){names[c], seed >> (c + 8) & 1 ? COLUMN_HEX : COLUMN_TEXT,
                                      (uint8_t)(seed >> (c + 20) & 15)};
        }
        for (unsigned row = 0; row < 3; row++) {
            for (unsigned c = 0; c < record.columns; c++) {
                seed = seed * 6364136223846793005u + 1442695040888963407u;
                unsigned n = (unsigned)(seed >> 35) % 47;
                for (unsigned b = 0; b < n; b++)
                    cell[c][b] = (seed >> b & 7) == 0 || b % 18 == 17 ? ' ' : 'x';
                cell[c][n] = 0;
                values[c] =
                    list[c].kind == COLUMN_HEX ? as_number(seed >> (seed & 63)) : as_text(cell[c]);
            }
            output_row(&out, &record, values);
        }
        output_end(&out, "", E_OK);
        for (const char *line = text; *line; line = strchr(line, '\n') + 1)
            assert_true((size_t)(strchr(line, '\n') - line) <= out.columns);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_and_facts),
        cmocka_unit_test(test_sentences),
        cmocka_unit_test(test_quotes),
        cmocka_unit_test(test_colour),
        cmocka_unit_test(test_tables_fit),
        cmocka_unit_test(test_lines_fold),
        cmocka_unit_test(test_random_tables_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
