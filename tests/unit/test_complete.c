/*
 * Completion: what is offered for a line, by the usages of commands alone.
 */
#include "monitor/complete.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const struct {
    const char *name, *usage;
} commands[] = {
    {"mem", ""},
    {"map", "host | user | gN [diff|save] [level N]"},
    {"walk", "host VA | gN gpa X | gN gva X [r|w|x] [user]"},
    {"start", "gN [paused]"},
    {"trace", "on|off [gN] | show [LINES]"},
    {"help", "[COMMAND]"},
    {"broken", "[a|b"},
    {"many", "gN [gva|save] [FILTER ...]"},
    {"peek", "hva|hpa X [force] | gN gpa|gva X [force]"},
    {"who", "HPA"},
    {"print", "[gN] X ..."},
    {"bt", "gN|cpuN"},
    {"ring", "on [EVENT ...] | show [N] [EVENT ...] [gN|host] [cpu=N]"},
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const char *command(unsigned i)
{
    return i < COMMANDS ? commands[i].name : NULL;
}

static const char *usage(const char *name)
{
    for (unsigned i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return commands[i].usage;
    return NULL;
}

static const char *guest(unsigned i, char name[COMPLETION_TEXT])
{
    snprintf(name, COMPLETION_TEXT, "g%u", i + 1);
    return i < 3 ? name : NULL;
}

static const char *cpu(unsigned i, char name[COMPLETION_TEXT])
{
    snprintf(name, COMPLETION_TEXT, "cpu%u", i);
    return i < 2 ? name : NULL;
}

static const char *words(const char *name)
{
    return strcmp(name, "many") == 0   ? "from=X rights= page="
           : strcmp(name, "ring") == 0 ? "map unmap all"
                                       : NULL;
}

static unsigned symbols; /* beside those below: many_0, many_1 ... */

static const char *symbol(unsigned i)
{
    static const char *const names[] = {"kernel_text", "kernel_start", "alpha", "g1_table"};
    static char many[24];

    if (i < 4)
        return names[i];
    snprintf(many, sizeof(many), "many_%u", i - 4);
    return i - 4 < symbols ? many : NULL;
}

static bool guest_symbol(unsigned number, uint64_t *at, char name[COMPLETION_TEXT])
{
    static const char *const names[] = {"kernel_main", "kick"};

    if (number != 2 || *at == sizeof(names) / sizeof(names[0]))
        return false;
    strcpy(name, names[(*at)++]);
    return true;
}

static const struct completion_source source = {command, usage,  words,       guest,
                                                cpu,     symbol, guest_symbol};
static struct completions found;

/* All that is offered, a blank after each. */
static const char *offered(const char *line)
{
    static char all[COMPLETIONS * (COMPLETION_TEXT + 1) + 1];
    size_t n = 0;

    complete(&source, line, &found);
    all[0] = 0;
    for (unsigned i = 0; i < found.count; i++)
        n += (size_t)snprintf(all + n, sizeof(all) - n, "%s ", found.word[i]);
    return all;
}

static void test_offers(void **state)
{
    static const struct {
        const char *line, *words;
    } cases[] = {
        {"", "mem map walk start trace help broken many peek who print bt ring "},
        {"m", "mem map many "},
        {"  wal", "walk "},
        {"x", ""},
        {"mem ", ""},
        {"map ", "host user g1 g2 g3 "},
        {"map h", "host "},
        {"map host ", ""},
        {"map g1 ", "diff save level "},
        {"map g1 save ", "level "},
        {"map g1 level 3 ", ""},
        {"walk g", "g1 g2 g3 "},
        {"walk g2 ", "gpa gva "},
        {"walk g2 gv", "gva "},
        {"walk host ", ""},
        {"walk host 0x1000 ", ""},
        {"walk g2 gva 0x1000 ", "r w x user "},
        {"walk g2 gva 0x1000 r ", "user "},
        {"walk g2 gpa 0x1000 ", ""},
        {"walk nobody ", ""},
        {"start g1 pa", "paused "},
        {"bt ", "g1 g2 g3 cpu0 cpu1 "},
        {"bt c", "cpu0 cpu1 "},
        {"bt cpu1 ", ""},
        {"start g1 paused ", ""},
        {"trace ", "on off show "},
        {"trace off ", "g1 g2 g3 "},
        {"help st", "start "},
        {"mem; wal", "walk "},
        {"mem;map u", "user "},
        {"nothing ", ""},
        {"map \"", ""},
        {"broken ", "a b "},
        {"many g1 ", "gva save from= rights= page= "},
        {"many g1 gva ", "from= rights= page= "},
        {"many g1 gva ri", "rights= "},
        {"many g1 gva rights=", ""},
        {"many g1 gva rights=w ", "from= rights= page= "},
        {"many g1 rights=w page=4K fr", "from= "},
        {"many g1 from=ker", "kernel_text kernel_start "},
        {"many g1 rights=ker", ""},
        {"peek hpa 0x1000 ", "force "},
        {"peek g2 gva 0x1000 f", "force "},
        {"peek hpa ", ""},
        {"peek hpa al", "alpha "},
        {"who kernel_t", "kernel_text "},
        {"who (kernel_text-ker", "kernel_text kernel_start "},
        {"who 0x1000+2*a", "alpha "},
        {"who kernel_text-", ""},
        {"who kernel_text-0", ""},
        {"who m", ""},
        {"walk host ker", "kernel_text kernel_start "},
        {"walk g1 gpa k", "kernel_text kernel_start "},
        {"walk g2 gva k", "kernel_main kick "},
        {"walk g2 gva 4+kern", "kernel_main "},
        {"walk g1 gva k", ""},
        {"print g2 ki", "kick "},
        {"print g2 1 + ki", ""},
        {"print alp", "alpha "},
        {"print g1_", "g1_table "},
        {"walk g", "g1 g2 g3 "},
        {"start ker", ""},
        {"ring ", "on show "},
        {"ring on ", "map unmap all "},
        {"ring on map ", "map unmap all "},
        {"ring on map unmap al", "all "},
        {"ring show ", "map unmap all g1 g2 g3 host cpu= "},
        {"ring show 20 un", "unmap "},
        {"ring show 20 map all h", "host "},
        {"ring show cpu=", ""},
        {"ring show cpu=1 ", "map unmap all g1 g2 g3 host cpu= "},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_string_equal(offered(cases[i].line), cases[i].words);
}

static void test_what_they_share(void **state)
{
    (void)state;
    offered("m");
    assert_int_equal(found.typed, 1);
    assert_int_equal(found.common, 1);
    offered("walk g2 g");
    assert_int_equal(found.common, 1);
    offered("map us");
    assert_int_equal(found.typed, 2);
    assert_int_equal(found.common, 4);
}

static void test_more_than_can_be_shown(void **state)
{
    (void)state;
    symbols = 100;
    offered("who m");
    assert_int_equal(found.count, COMPLETIONS);
    assert_int_equal(found.more, 100 - COMPLETIONS);
    assert_int_equal(found.common, strlen("many_"));
    offered("who 4+many_1");
    assert_int_equal(found.count, 11);
    assert_int_equal(found.typed, strlen("many_1"));
    /* What all of them share is not what the first ones share. */
    offered("who k");
    assert_int_equal(found.common, strlen("kernel_"));
    symbols = 0;
}

static void test_any_line(void **state)
{
    static const char *const parts[] = {"map ", "walk ", "k=(-+",   "ring ", "[",      "]",
                                        "|",    ";",     "\"",      "\033",  "trace ", "x",
                                        " ",    "help ", "broken ", "a "};
    char line[400];
    uint64_t seed = 5;

    (void)state;
    for (unsigned round = 0; round < 50000; round++) {
        size_t n = 0;
        line[0] = 0;
        for (unsigned i = 0; i < round % 30; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            n += (size_t)sprintf(line + n, "%s", parts[(seed >> 33) % 16]);
        }
        complete(&source, line, &found);
        assert_true(found.count <= COMPLETIONS);
        for (unsigned i = 0; i < found.count; i++)
            assert_true(found.common <= strlen(found.word[i]) && found.typed <= found.common);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_offers),
        cmocka_unit_test(test_what_they_share),
        cmocka_unit_test(test_more_than_can_be_shown),
        cmocka_unit_test(test_any_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
