/*
 * The console's tokeniser and value parser: what they take, what they refuse, and that a refusal
 * says what would be right.
 */
#include "monitor/arguments.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct arguments arguments;
static struct complaint why;

/* The words of the next command, joined by '|'. */
static const char *next(const char **line)
{
    static char joined[2 * ARGUMENTS_TEXT];

    assert_int_equal(arguments_next(line, &arguments, &why), E_OK);
    joined[0] = 0;
    for (unsigned i = 0; i < arguments.count; i++) {
        if (i)
            strcat(joined, "|");
        strcat(joined, arguments.word[i]);
    }
    return joined;
}

static void test_words(void **state)
{
    static const struct {
        const char *line, *words;
    } cases[] = {
        {"", ""},
        {"   \t ", ""},
        {"mem", "mem"},
        {"  walk  g1\tgpa 0x1000  ", "walk|g1|gpa|0x1000"},
        {"find \"a b; c\"", "find|a b; c"},
        {"find 'it is \"so\"'", "find|it is \"so\""},
        {"a\"b c\"d", "ab cd"},
        {"a \"\" b", "a||b"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *line = cases[i].line;
        assert_string_equal(next(&line), cases[i].words);
        assert_string_equal(line, "");
    }
}

static void test_commands(void **state)
{
    const char *line = ";; guests ;walk g1 gpa 1; ; quit;";

    (void)state;
    assert_string_equal(next(&line), "guests");
    assert_string_equal(next(&line), "walk|g1|gpa|1");
    assert_string_equal(next(&line), "quit");
    assert_string_equal(next(&line), "");
    assert_string_equal(next(&line), "");
}

static void refuse_line(const char *line, int error, const char *said)
{
    assert_int_equal(arguments_next(&line, &arguments, &why), error);
    assert_non_null(strstr(why.text, said));
    /* What comes after is not run either. */
    assert_string_equal(line, "");
    assert_int_equal(arguments.count, 0);
}

static void test_refused_lines(void **state)
{
    char line[3 * ARGUMENTS_TEXT];

    (void)state;
    refuse_line("find \"abc; quit", E_FORMAT, "close it with another \"");
    refuse_line("find 'abc", E_FORMAT, "close it with another '");
    refuse_line("mem \033[A; quit", E_FORMAT, "0x1b");
    refuse_line("m\303\251m", E_FORMAT, "0xc3");
    refuse_line("a b c d e f g h i j k l m n o p q; quit", E_FULL, "more than 16 words");

    memset(line, 'a', sizeof(line));
    line[sizeof(line) - 1] = 0;
    refuse_line(line, E_FULL, "longer than 255");
    /* The store's bound, from every side: one word, two words, an empty word at the very end. */
    for (size_t n = ARGUMENTS_TEXT - 4; n < ARGUMENTS_TEXT + 4; n++) {
        const char *rest = line;
        memset(line, 'a', n);
        line[n] = 0;
        int error = arguments_next(&rest, &arguments, &why);
        assert_int_equal(error, n < ARGUMENTS_TEXT ? E_OK : E_FULL);
        rest = line;
        line[10] = ' ';
        error = arguments_next(&rest, &arguments, &why);
        assert_int_equal(error, n < ARGUMENTS_TEXT ? E_OK : E_FULL);
        memset(line, 'a', n);
        strcpy(line + n, " \"\"");
        rest = line;
        error = arguments_next(&rest, &arguments, &why);
        assert_int_equal(error, n + 2 <= ARGUMENTS_TEXT ? E_OK : E_FULL);
    }
}

static void test_numbers(void **state)
{
    static const struct {
        const char *word;
        uint64_t value;
    } cases[] = {
        {"0", 0},
        {"1", 1},
        {"007", 7},
        {"4096", 4096},
        {"0x101000", 0x101000},
        {"0XfF", 255},
        {"0xffff_8000_0000_0000", 0xffff800000000000},
        {"18446744073709551615", UINT64_MAX},
        {"0xffffffffffffffff", UINT64_MAX},
        {"0x00000000000000000000000000000001", 1},
        {"4K", 4096},
        {"16M", 16 << 20},
        {"2g", UINT64_C(2) << 30},
        {"1T", UINT64_C(1) << 40},
        {"0x10k", 0x4000},
        {"0x10G", UINT64_C(16) << 30},
        {"16777215T", UINT64_C(16777215) << 40},
    };
    uint64_t value;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        value = ~cases[i].value;
        assert_int_equal(parse_number(cases[i].word, "address", &value, &why), E_OK);
        assert_true(value == cases[i].value);
    }
}

static void refuse_number(const char *word, int error, const char *said)
{
    uint64_t value = 42;

    assert_int_equal(parse_number(word, "address", &value, &why), error);
    assert_int_equal(value, 42);
    assert_non_null(strstr(why.text, word));
    assert_non_null(strstr(why.text, said));
}

static void test_refused_numbers(void **state)
{
    static const char *const forms[] = {
        "",    "x",   "0x", "0x_1", "1_",  "_1",   "1__2", "-1",  "+1",
        "1.5", "1KB", "K",  "0xK",  "1MM", "16m ", "0xg",  "12z", "0b1",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++)
        refuse_number(forms[i], E_FORMAT, "0x");
    refuse_number("ffff8000", E_FORMAT, "0xffff8000");
    refuse_number("dead_beef", E_FORMAT, "0xdead_beef");
    refuse_number("18446744073709551616", E_RANGE, "64 bits");
    refuse_number("0x10000000000000000", E_RANGE, "64 bits");
    refuse_number("16777216T", E_RANGE, "64 bits");
}

static bool lookup(const char *name, uint64_t *value)
{
    if (strcmp(name, "kernel_text") != 0 && strcmp(name, "text.part.0") != 0)
        return false;
    *value = 0xffffffff80200000;
    return true;
}

static void test_expressions(void **state)
{
    static const struct {
        const char *word;
        uint64_t value;
    } cases[] = {
        {"1+2", 3},
        {"2+3*4", 14},
        {"2*3+4", 10},
        {"10-3-2", 5},
        {"10-(3-2)", 9},
        {"(1+2)*(3+4)", 21},
        {"((((7))))", 7},
        {"1M-4K", 0xff000},
        {"0x1000+ 2 * 8", 0x1010},
        {"kernel_text", 0xffffffff80200000},
        {"kernel_text+0x40", 0xffffffff80200040},
        {"text.part.0-kernel_text", 0},
        {"0xffffffffffffffff-0", UINT64_MAX},
        {"1*2*3*4*5*6*7*8*9*10*11*12*13*14*15*16*17*18*19*20", UINT64_C(2432902008176640000)},
    };
    static const struct {
        const char *word, *said;
        int error;
    } refused[] = {
        {"1+", "a value is missing", E_FORMAT},
        {"1++2", "a value is missing", E_FORMAT},
        {"()", "a value is missing", E_FORMAT},
        {"(1", "a '(' has no ')'", E_FORMAT},
        {"1)", "a ')' has no '('", E_FORMAT},
        {"(1)2", "an operator is missing", E_FORMAT},
        {"1/2+1", "an operator is missing", E_FORMAT},
        {"2-3", "falls below 0", E_RANGE},
        {"0xffffffffffffffff+1", "more than 64 bits", E_RANGE},
        {"0x100000000*0x100000000", "more than 64 bits", E_RANGE},
        {"nowhere+1", "\"nowhere\" is no symbol", E_NOENT},
        {"1+1KB", "is no address", E_FORMAT},
        {"((((((((((((((((((1))))))))))))))))))", "too many", E_FULL},
        {"1+aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
         "too long", E_FORMAT},
    };
    uint64_t value;

    (void)state;
    arguments_set_symbols(lookup);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(parse_number(cases[i].word, "address", &value, &why), E_OK);
        assert_true(value == cases[i].value);
    }
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        value = 42;
        assert_int_equal(parse_number(refused[i].word, "address", &value, &why), refused[i].error);
        assert_int_equal(value, 42);
        assert_non_null(strstr(why.text, refused[i].said));
    }
    arguments_set_symbols(NULL);
    assert_int_equal(parse_number("kernel_text", "address", &value, &why), E_FORMAT);
}

/* Any bytes at all: an answer, and nothing beyond the stacks. */
static void test_random_expressions(void **state)
{
    static const char *const parts[] = {"(",           ")", "+", "-", "*", "1",      "0x10", "4K",
                                        "kernel_text", "x", " ", "_", ".", "((((((", "1+1+", "2*"};
    char word[1024];
    uint64_t seed = 11, value;

    (void)state;
    arguments_set_symbols(lookup);
    for (unsigned round = 0; round < 100000; round++) {
        size_t n = 0;
        word[0] = 0;
        for (unsigned i = 0; i < 1 + round % 40; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            const char *part = parts[(seed >> 33) % (sizeof(parts) / sizeof(parts[0]))];
            strcpy(word + n, part);
            n += strlen(part);
        }
        int error = parse_number(word, "address", &value, &why);
        assert_true(error == E_OK || error == E_FORMAT || error == E_RANGE || error == E_NOENT ||
                    error == E_FULL);
    }
    arguments_set_symbols(NULL);
}

static void test_guests(void **state)
{
    static const char *const wrong[] = {"",    "g",      "1",  "g-1",  "gx",  "g1x", "g 1",
                                        "gg1", "g12345", "h1", "g0x1", "g1K", "g1_0"};
    unsigned number;

    (void)state;
    assert_int_equal(parse_guest("g1", &number, &why), E_OK);
    assert_int_equal(number, 1);
    assert_int_equal(parse_guest("G63", &number, &why), E_OK);
    assert_int_equal(number, 63);
    assert_int_equal(parse_guest("g9999", &number, &why), E_OK);
    assert_int_equal(number, 9999);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(parse_guest(wrong[i], &number, &why), E_FORMAT);
        assert_non_null(strstr(why.text, "g1"));
    }
}

static void test_cpus(void **state)
{
    static const char *const wrong[] = {"cpu",      "cpux", "cpu-1", "cpu0x1",
                                        "cpu12345", "0",    "g1",    ""};
    unsigned number;

    (void)state;
    assert_int_equal(parse_cpu("cpu0", &number, &why), E_OK);
    assert_int_equal(number, 0);
    assert_int_equal(parse_cpu("cpu63", &number, &why), E_OK);
    assert_int_equal(number, 63);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(parse_cpu(wrong[i], &number, &why), E_FORMAT);
        assert_non_null(strstr(why.text, "such as cpu0"));
        assert_int_equal(is_cpu_word(wrong[i]), i < 5);
    }
}

/* Whatever the bytes: an answer, within bounds, and a sentence that ends. */
static void test_random_lines(void **state)
{
    static const char alphabet[] = "walk g1 gpa 0x;;  \"'\t_kMGT\x1b\xc3"
                                   "feed";
    char line[2 * ARGUMENTS_TEXT];
    uint64_t seed = 7;

    (void)state;
    for (unsigned i = 0; i < 100000; i++) {
        unsigned n = 0, length, commands = 0;
        const char *rest = line;

        seed = seed * 6364136223846793005u + 1442695040888963407u;
        length = (unsigned)(seed >> 33) % (i % 10 ? 64 : sizeof(line) - 1);
        for (; n < length; n++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            unsigned pick = (unsigned)(seed >> 33);
            line[n] = i % 3 ? alphabet[pick % (sizeof(alphabet) - 1)] : (char)(pick % 255 + 1);
        }
        line[n] = 0;
        do {
            memset(&why, 0xff, sizeof(why));
            if (arguments_next(&rest, &arguments, &why)) {
                assert_true(strnlen(why.text, sizeof(why.text)) < sizeof(why.text));
                assert_int_equal(arguments.count, 0);
            }
            assert_true(arguments.count <= ARGUMENTS_MAX);
            for (unsigned w = 0; w < arguments.count; w++) {
                const char *word = arguments.word[w];
                uint64_t value;
                unsigned number;

                assert_true(word + strlen(word) < arguments.store + sizeof(arguments.store));
                if (parse_number(word, "size", &value, &why))
                    assert_true(strnlen(why.text, sizeof(why.text)) < sizeof(why.text));
                parse_guest(word, &number, &why);
            }
            assert_true(++commands <= length + 1);
        } while (arguments.count);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_commands),
        cmocka_unit_test(test_refused_lines),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_refused_numbers),
        cmocka_unit_test(test_guests),
        cmocka_unit_test(test_cpus),
        cmocka_unit_test(test_random_lines),
        cmocka_unit_test(test_expressions),
        cmocka_unit_test(test_random_expressions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
