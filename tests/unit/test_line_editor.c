/*
 * The line editor against a small terminal that keeps one screen of its own: what a person would
 * see must always be the prompt, the line and the cursor where the editor says it is.
 */
#include "monitor/line_editor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PROMPT "quire> "

/* A terminal of LINE_COLUMNS columns that understands exactly what the editor may send. `row` is
 * the row of the cursor; rows above are kept as text, newest last. */
struct terminal {
    struct sink sink;
    char row[LINE_COLUMNS + 1];
    unsigned column;
    char above[65536];
    size_t above_length;
    unsigned bells;
    char escape[16];
    unsigned escape_length;
    bool in_escape;
};

static struct terminal terminal;
static struct line_editor editor;

static void terminal_clear_row(struct terminal *t, unsigned from)
{
    memset(t->row + from, ' ', LINE_COLUMNS - from);
    t->row[LINE_COLUMNS] = 0;
}

/* Takes rows back from above; what is on those below is left to the J that follows. */
static void terminal_up(struct terminal *t, unsigned rows)
{
    for (; rows; rows--) {
        size_t start = t->above_length;

        assert_true(start > 0);
        for (start--; start && t->above[start - 1] != '\n'; start--)
            ;
        t->above_length = start;
        t->above[start] = 0;
    }
}

static void terminal_escape(struct terminal *t, char final)
{
    if (final == 'K' && t->escape_length == 0) {
        terminal_clear_row(t, t->column);
    } else if (final == 'D') {
        unsigned n = (unsigned)atoi(t->escape);
        assert_in_range(n, 1, t->column);
        t->column -= n;
    } else if (final == 'A') {
        terminal_up(t, (unsigned)atoi(t->escape));
    } else if (final == 'J' && t->escape_length == 0) {
        terminal_clear_row(t, t->column);
    } else if (final == 'H' && t->escape_length == 0) {
        t->column = 0;
    } else if (final == 'J' && strcmp(t->escape, "2") == 0) {
        terminal_clear_row(t, 0);
        t->above_length = 0;
    } else {
        fail_msg("the editor sent ESC [ %s %c", t->escape, final);
    }
}

static void terminal_byte(struct terminal *t, char c)
{
    if (t->in_escape) {
        if (c == '[' && t->escape_length == 0)
            return;
        if (c >= '@') {
            t->escape[t->escape_length] = 0;
            terminal_escape(t, c);
            t->in_escape = false;
            return;
        }
        assert_true(t->escape_length < sizeof(t->escape) - 1);
        t->escape[t->escape_length++] = c;
    } else if (c == '\033') {
        t->in_escape = true;
        t->escape_length = 0;
    } else if (c == '\r') {
        t->column = 0;
    } else if (c == '\a') {
        t->bells++;
    } else if (c == '\n') {
        size_t n = LINE_COLUMNS;
        while (n && t->row[n - 1] == ' ')
            n--;
        if (t->above_length + n + 1 > sizeof(t->above))
            t->above_length = 0;
        memcpy(t->above + t->above_length, t->row, n);
        t->above_length += n;
        t->above[t->above_length++] = '\n';
        terminal_clear_row(t, 0);
        t->column = 0;
    } else {
        /* The last column is never written: terminals differ in what happens then. */
        assert_in_range(c, 0x20, 0x7e);
        assert_true(t->column < LINE_COLUMNS - 1);
        t->row[t->column++] = c;
    }
}

static void terminal_write(struct sink *sink, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        terminal_byte((struct terminal *)sink, bytes[i]);
}

static int setup(void **state)
{
    (void)state;
    memset(&terminal, 0, sizeof(terminal));
    terminal.sink.write = terminal_write;
    terminal_clear_row(&terminal, 0);
    line_init(&editor, &terminal.sink, PROMPT);
    line_begin(&editor);
    return 0;
}

/* What is on the screen is what the editor holds. */
static void check_screen(void)
{
    char expected[LINE_COLUMNS + 1];
    unsigned window = LINE_COLUMNS - 1 - (unsigned)strlen("^C") - (unsigned)strlen(PROMPT);
    unsigned shown = editor.length - editor.scroll;

    assert_int_equal(strlen(editor.text), editor.length);
    assert_true(editor.cursor <= editor.length);
    assert_in_range(editor.cursor - editor.scroll, 0, window);
    if (shown > window)
        shown = window;
    snprintf(expected, sizeof(expected), "%s%.*s%*s", PROMPT, (int)shown,
             editor.text + editor.scroll, (int)(LINE_COLUMNS - strlen(PROMPT) - shown), "");
    assert_string_equal(terminal.row, expected);
    assert_int_equal(terminal.column, strlen(PROMPT) + editor.cursor - editor.scroll);
}

static enum line_event type_bytes(const char *bytes, size_t n)
{
    enum line_event event = LINE_PENDING;

    for (size_t i = 0; i < n; i++) {
        assert_int_equal(event, LINE_PENDING);
        event = line_byte(&editor, (unsigned char)bytes[i]);
        if (event == LINE_PENDING)
            check_screen();
    }
    return event;
}

static enum line_event type(const char *keys)
{
    return type_bytes(keys, strlen(keys));
}

static void run(const char *line)
{
    assert_int_equal(type(line), LINE_PENDING);
    assert_int_equal(type("\r"), LINE_READY);
    assert_string_equal(editor.text, line);
    line_begin(&editor);
}

static void test_typing(void **state)
{
    (void)state;
    assert_int_equal(type("map g1"), LINE_PENDING);
    assert_string_equal(editor.text, "map g1");
    assert_int_equal(type("\r"), LINE_READY);
    assert_string_equal(editor.text, "map g1");
    terminal.above[terminal.above_length] = 0;
    assert_string_equal(terminal.above, PROMPT "map g1\n");
}

static void test_every_line_end_ends_one_line(void **state)
{
    (void)state;
    assert_int_equal(type("a\r"), LINE_READY);
    line_begin(&editor);
    assert_int_equal(type("\nb\n"), LINE_READY);
    assert_string_equal(editor.text, "b");
    line_begin(&editor);
    assert_int_equal(type("\n"), LINE_READY);
    assert_string_equal(editor.text, "");
}

static void test_bytes_between_lines_are_ignored(void **state)
{
    (void)state;
    assert_int_equal(type("mem\r"), LINE_READY);
    assert_int_equal(line_byte(&editor, 'x'), LINE_PENDING);
    assert_int_equal(line_byte(&editor, '\r'), LINE_PENDING);
    assert_string_equal(editor.text, "mem");
}

static void test_moving_and_erasing(void **state)
{
    static const struct {
        const char *keys, *text;
        unsigned cursor;
    } cases[] = {
        {"abc\033[D\033[DX", "aXbc", 2},
        {"abc\033OD\033OD\033OCX", "abXc", 3},
        {"abc\033[HX", "Xabc", 1},
        {"abc\001X", "Xabc", 1},
        {"abc\033[H\033[FX", "abcX", 4},
        {"abc\033OH\033OFX", "abcX", 4},
        {"abc\033[1~X\033[4~Y", "XabcY", 5},
        {"abc\033[7~X\033[8~Y", "XabcY", 5},
        {"abc\001\005X", "abcX", 4},
        {"abc\002\002\006X", "abXc", 3},
        {"abc\b", "ab", 2},
        {"abc\177\177", "a", 1},
        {"abc\033[D\b", "ac", 1},
        {"\b\177", "", 0},
        {"abc\033[H\033[3~", "bc", 0},
        {"abc\001\004", "bc", 0},
        {"abc\033[3~\033[C", "abc", 3},
        {"\033[D\033[3~a", "a", 1},
        {"abcdef\033[D\033[D\013", "abcd", 4},
        {"abcdef\033[D\033[D\025", "ef", 0},
        {"one two  \027", "one ", 4},
        {"one two\033[D\027", "one o", 4},
        {"   \027x", "x", 1},
        {"abc\014d", "abcd", 4},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        setup(state);
        assert_int_equal(type(cases[i].keys), LINE_PENDING);
        assert_string_equal(editor.text, cases[i].text);
        assert_int_equal(editor.cursor, cases[i].cursor);
    }
}

static void test_cancel_and_close(void **state)
{
    (void)state;
    assert_int_equal(type("walk\003"), LINE_CANCELLED);
    line_begin(&editor);
    assert_int_equal(type("\004"), LINE_CLOSED);
    line_begin(&editor);
    assert_int_equal(type("x\004"), LINE_PENDING);
    assert_string_equal(editor.text, "x");
    /* A dropped line is not kept. */
    assert_int_equal(type("\b\033[A"), LINE_PENDING);
    assert_string_equal(editor.text, "");
}

static void test_history(void **state)
{
    (void)state;
    run("first");
    run("second");
    run("second");
    run("   ");
    run("");
    type("dra");
    type("\033[A");
    assert_string_equal(editor.text, "second");
    type("\033OA");
    assert_string_equal(editor.text, "first");
    type("\020");
    assert_string_equal(editor.text, "first");
    type("\033[B");
    assert_string_equal(editor.text, "second");
    type("\016\016\016");
    assert_string_equal(editor.text, "dra");
    /* A line from the history can be changed and run; the history keeps both. */
    type("\033[A\b\b!\r");
    assert_string_equal(editor.text, "seco!");
    line_begin(&editor);
    type("\033[A");
    assert_string_equal(editor.text, "seco!");
    type("\033[A");
    assert_string_equal(editor.text, "second");
}

static void test_history_forgets_the_oldest(void **state)
{
    char line[16];
    (void)state;

    for (unsigned i = 0; i < LINE_HISTORY + 5; i++) {
        snprintf(line, sizeof(line), "line %u", i);
        run(line);
    }
    for (unsigned i = 0; i < LINE_HISTORY + 5; i++)
        type("\033[A");
    assert_string_equal(editor.text, "line 5");
}

static void test_long_line_scrolls(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        char c = (char)('a' + i % 26);
        assert_int_equal(type_bytes(&c, 1), LINE_PENDING);
    }
    assert_int_equal(editor.length, 200);
    type("\001X");
    assert_int_equal(editor.text[0], 'X');
    for (unsigned i = 0; i < 150; i++)
        type("\033[C");
    type("\005\025");
    assert_int_equal(editor.length, 0);
}

static void test_too_long_is_refused(void **state)
{
    (void)state;
    for (unsigned i = 0; i < LINE_SIZE - 1; i++)
        type("a");
    assert_int_equal(terminal.bells, 0);
    type("b");
    assert_int_equal(terminal.bells, 1);
    assert_int_equal(editor.length, LINE_SIZE - 1);
    assert_null(strchr(editor.text, 'b'));
    assert_int_equal(type("\r"), LINE_TOO_LONG);
    line_begin(&editor);
    type("\033[A");
    assert_string_equal(editor.text, "");

    /* Taking something out makes it good again. */
    for (unsigned i = 0; i < LINE_SIZE + 10; i++)
        type("a");
    type("\b");
    assert_int_equal(type("\r"), LINE_READY);
    assert_int_equal(editor.length, LINE_SIZE - 2);
}

static void test_noise_is_ignored(void **state)
{
    static const char *const noise[] = {
        "\303\251",             /* UTF-8 of two, three and four bytes */
        "\342\202\254",         /**/
        "\360\237\222\251",     /**/
        "\300\200\377\376",     /* and what is none */
        "\033[24~\033[1;5Z",    /* keys that mean nothing here */
        "\033[?25h\033[>0;1c",  /* a terminal's answers */
        "\033x\033\033[Z",      /* Alt and a letter; escape twice */
        "\033[99999999999999Z", /* a parameter out of bounds */
        "\007\017\021\022\023\024\026\030\031\032\034\035\036\037",
    };
    (void)state;

    type("ab");
    for (size_t i = 0; i < sizeof(noise) / sizeof(noise[0]); i++) {
        type(noise[i]);
        assert_string_equal(editor.text, "ab");
    }
    assert_int_equal(type_bytes("\0", 1), LINE_PENDING);
    assert_int_equal(type("c\r"), LINE_READY);
    assert_string_equal(editor.text, "abc");
}

static void test_broken_sequences(void **state)
{
    (void)state;
    /* A control byte breaks a sequence off and counts. */
    assert_int_equal(type("ab\033[12\bc"), LINE_PENDING);
    assert_string_equal(editor.text, "ac");
    /* An endless sequence ends; what follows its limit is text. */
    type("\025\033[111111111111111111111111111111111111111111111111zz");
    assert_string_equal(editor.text, "zz");
    assert_int_equal(type("\033[\r"), LINE_READY);
}

static void test_tab_is_for_the_caller(void **state)
{
    (void)state;
    assert_int_equal(type("wa"), LINE_PENDING);
    assert_int_equal(type("\t"), LINE_TAB);
    line_insert(&editor, "lk ");
    check_screen();
    assert_string_equal(editor.text, "walk ");
    assert_int_equal(type("\033[D\033[D\t"), LINE_TAB);
    line_insert(&editor, "!");
    check_screen();
    assert_string_equal(editor.text, "wal!k ");
    assert_int_equal(type("\r"), LINE_READY);
    line_insert(&editor, "late");
    assert_string_equal(editor.text, "wal!k ");
}

static void test_what_the_terminal_says(void **state)
{
    (void)state;
    type("ab");
    assert_int_equal(type("\033[8;24;132t"), LINE_TERMINAL);
    assert_int_equal(editor.terminal_is.rows, 24);
    assert_int_equal(editor.terminal_is.columns, 132);
    assert_false(editor.terminal_is.colour);
    check_screen();
    assert_int_equal(type("\033[?62;1;22;29c"), LINE_TERMINAL);
    assert_true(editor.terminal_is.colour);
    assert_int_equal(type("\033[?64;1;2;6;9;15;18;21;28;29;30;31;32;33;22c"), LINE_TERMINAL);
    assert_false(editor.terminal_is.colour); /* further back than anybody reads */
    assert_int_equal(type("\033[?1;22c"), LINE_PENDING);
    assert_int_equal(type("\033[4;480;640t\033[8;24t\033[?8;24;80t\033[62;22c"), LINE_PENDING);
    assert_int_equal(type("\033[8;99999999999999999999;0t"), LINE_TERMINAL);
    assert_true(editor.terminal_is.rows < 1000000);
    assert_string_equal(editor.text, "ab");
}

static void test_output_around_the_line(void **state)
{
    (void)state;
    type("walk host");
    format(&editor.around, "quire: %s\n", "g1 hello: passed");
    check_screen();
    terminal.above[terminal.above_length] = 0;
    assert_string_equal(terminal.above, "quire: g1 hello: passed\n");
    /* In pieces: the row comes back with the end of the line. */
    editor.around.write(&editor.around, "half", 4);
    editor.around.write(&editor.around, "", 0);
    editor.around.write(&editor.around, " a line\n", 8);
    check_screen();
    terminal.above[terminal.above_length] = 0;
    assert_string_equal(terminal.above, "quire: g1 hello: passed\nhalf a line\n");
    assert_int_equal(type("\r"), LINE_READY);
    assert_string_equal(editor.text, "walk host");

    /* While a command runs there is no row to draw. */
    format(&editor.around, "between\n");
    terminal.above[terminal.above_length] = 0;
    assert_non_null(strstr(terminal.above, PROMPT "walk host\nbetween\n"));
    assert_int_equal(terminal.column, 0);
    assert_memory_equal(terminal.row, "       ", strlen(PROMPT));
}

static void test_output_does_not_disturb_the_cursor(void **state)
{
    (void)state;
    type("abcdef\033[D\033[D");
    format(&editor.around, "log\n");
    check_screen();
    type("X");
    assert_string_equal(editor.text, "abcdXef");
}

static void expect_above(const char *text)
{
    check_screen();
    terminal.above[terminal.above_length] = 0;
    assert_string_equal(terminal.above, text);
}

/* A line that may go on is taken away when it comes whole, unless something else followed it. */
static void test_an_unfinished_line_is_replaced(void **state)
{
    (void)state;
    type("map");
    format(&editor.around, "%s", "[g1] name? \r");
    expect_above("[g1] name?\n");
    format(&editor.around, "%s", "[g1] name? bob\n");
    expect_above("[g1] name? bob\n");
    format(&editor.around, "%s", "[g1] more\n");
    expect_above("[g1] name? bob\n[g1] more\n");

    format(&editor.around, "%s", "[g1] half\r");
    format(&editor.around, "%s", "[g2] else\n");
    format(&editor.around, "%s", "[g1] half done\n");
    expect_above("[g1] name? bob\n[g1] more\n[g1] half\n[g2] else\n[g1] half done\n");

    /* An answer is never taken away. */
    format(&editor.around, "%s", "[g1] again\r");
    assert_int_equal(type("\r"), LINE_READY);
    format(&editor.plain, "an answer\n");
    line_begin(&editor);
    format(&editor.around, "%s", "[g1] again done\n");
    terminal.above[terminal.above_length] = 0;
    assert_non_null(strstr(terminal.above, "[g1] again\n" PROMPT "map\nan answer\n"
                                           "[g1] again done\n"));
}

static void test_log_lines_are_folded_between_words(void **state)
{
    (void)state;
    type("\033[8;24;40t");
    format(&editor.around, "%s", "quire: a line of words that is longer than a row of forty\n");
    terminal.above[terminal.above_length] = 0;
    assert_string_equal(terminal.above, "quire: a line of words that is longer\n"
                                        "  than a row of forty\n");
    format(&editor.around, "%s", "[g1] an unfinished line that takes more than a row \r");
    format(&editor.around, "%s", "[g1] an unfinished line that takes more than a row !\n");
    terminal.above[terminal.above_length] = 0;
    assert_string_equal(terminal.above, "quire: a line of words that is longer\n"
                                        "  than a row of forty\n"
                                        "[g1] an unfinished line that takes more\n"
                                        "  than a row !\n");
}

/* Keys, noise and output in any order: the screen always shows the editor's state. */
static void test_random_keys(void **state)
{
    static const char *const keys[] = {
        "\033[A", "\033[B", "\033[C", "\033[D", "\033[H", "\033[F", "\033[3~", "\b",
        "\001",   "\005",   "\013",   "\025",   "\027",   "\004",   "\r",      "\003",
    };
    uint64_t seed = 1;
    unsigned lines = 0;

    for (unsigned i = 0; i < 300000; i++) {
        enum line_event event = LINE_PENDING;
        char byte;

        seed = seed * 6364136223846793005u + 1442695040888963407u;
        unsigned pick = (unsigned)(seed >> 33);
        if (pick % 8 < 5) {
            byte = (char)(' ' + (pick >> 3) % 95);
            event = type_bytes(&byte, 1);
        } else if (pick % 8 == 5) {
            byte = (char)(pick >> 8);
            event = type_bytes(&byte, 1);
        } else if (pick % 64 == 6) {
            format(&editor.around, "log line %u\n", i);
            check_screen();
        } else {
            event = type(keys[(pick >> 6) % 16]);
        }
        if (event == LINE_TAB || event == LINE_TERMINAL) {
            line_insert(&editor, "typed");
            check_screen();
        } else if (event != LINE_PENDING) {
            lines++;
            assert_int_equal(terminal.column, 0);
            line_begin(&editor);
            check_screen();
        }
    }
    assert_true(lines > 1000);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_typing, setup),
        cmocka_unit_test_setup(test_every_line_end_ends_one_line, setup),
        cmocka_unit_test_setup(test_bytes_between_lines_are_ignored, setup),
        cmocka_unit_test_setup(test_moving_and_erasing, setup),
        cmocka_unit_test_setup(test_cancel_and_close, setup),
        cmocka_unit_test_setup(test_history, setup),
        cmocka_unit_test_setup(test_history_forgets_the_oldest, setup),
        cmocka_unit_test_setup(test_long_line_scrolls, setup),
        cmocka_unit_test_setup(test_too_long_is_refused, setup),
        cmocka_unit_test_setup(test_noise_is_ignored, setup),
        cmocka_unit_test_setup(test_broken_sequences, setup),
        cmocka_unit_test_setup(test_tab_is_for_the_caller, setup),
        cmocka_unit_test_setup(test_what_the_terminal_says, setup),
        cmocka_unit_test_setup(test_output_around_the_line, setup),
        cmocka_unit_test_setup(test_an_unfinished_line_is_replaced, setup),
        cmocka_unit_test_setup(test_log_lines_are_folded_between_words, setup),
        cmocka_unit_test_setup(test_output_does_not_disturb_the_cursor, setup),
        cmocka_unit_test_setup(test_random_keys, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
