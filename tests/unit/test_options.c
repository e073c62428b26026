/*
 * The guest options parser: what it accepts, that every refusal names the word at fault, and that
 * nothing of a hostile line gets past a buffer.
 */
#include "vm/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "tests/unit/random.h"

static char why[256];

static struct guest_options accept(const char *line)
{
    struct guest_options options;

    why[0] = '\0';
    if (options_parse(line, &options, why, sizeof(why)) != E_OK)
        fail_msg("'%s' was refused: %s", line, why);
    return options;
}

/* `fragment` must be in the sentence: the word at fault, or what would be right. */
static void refuse(const char *line, const char *fragment)
{
    struct guest_options options;

    why[0] = '\0';
    if (options_parse(line, &options, why, sizeof(why)) != E_INVAL)
        fail_msg("'%s' was not refused", line);
    if (strstr(why, fragment) == NULL)
        fail_msg("'%s': \"%s\" does not mention \"%s\"", line, why, fragment);
    assert_true(options.name[0] != '\0');
}

/* A name is as long as its array lets it be, and no longer; it has nothing that steers a terminal.
 */
static void names(void **state)
{
    char line[2 * GUEST_NAME];

    (void)state;
    memset(line, 'n', sizeof(line));
    strcpy(line + GUEST_NAME - 1, " lazy");
    assert_int_equal(strlen(accept(line).name), GUEST_NAME - 1);
    assert_true(accept(line).lazy);
    memset(line, 'n', sizeof(line));
    strcpy(line + GUEST_NAME, " lazy");
    refuse(line, "too long");
    refuse("a\x1b[2J", "unprintable");
    refuse("a\x9b"
           "2J",
           "unprintable");
    refuse("a\x7f", "unprintable");
    assert_string_equal(accept("~!").name, "~!");
}

static void sizes(void **state)
{
    static const struct {
        const char *text;
        int error;
        uint64_t value;
    } cases[] = {
        {"0", E_OK, 0},
        {"4096", E_OK, 4096},
        {"16M", E_OK, 16 * MiB},
        {"2g", E_OK, 2 * GiB},
        {"1T", E_OK, TiB},
        {"0x1000", E_OK, 0x1000},
        {"0xA0K", E_OK, 0xa0 * KiB},
        {"0xffffffffffffffff", E_OK, UINT64_MAX},
        {"18446744073709551615", E_OK, UINT64_MAX},
        {"18446744073709551616", E_RANGE, 0},
        {"0x10000000000000000", E_RANGE, 0},
        {"17179869184G", E_RANGE, 0},
        {"", E_FORMAT, 0},
        {"M", E_FORMAT, 0},
        {"0x", E_FORMAT, 0},
        {"0xM", E_FORMAT, 0},
        {"12Q", E_FORMAT, 0},
        {"12MM", E_FORMAT, 0},
        {"-1", E_FORMAT, 0},
        {"1 ", E_FORMAT, 0},
        {"a", E_FORMAT, 0},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t value = 0;
        assert_int_equal(parse_size(cases[i].text, strlen(cases[i].text), &value), cases[i].error);
        if (cases[i].error == E_OK)
            assert_int_equal(value, cases[i].value);
    }
}

static void defaults(void **state)
{
    struct guest_options options = accept("hello");

    (void)state;
    assert_string_equal(options.name, "hello");
    assert_string_equal(options.cmdline, "hello");
    assert_int_equal(options.memory, 16 * MiB);
    assert_int_equal(options.quota, 0);
    assert_false(options.lazy || options.flat || options.paused || options.pc || options.bare);
    assert_int_equal(options.entry, ENTRY_BY_IMAGE);
    assert_int_equal(options.expect, EXPECT_PASS);
    assert_int_equal(options.areas, 0);
    assert_int_equal(options.mods, 0);
    assert_int_equal(options.reset, RESET_STOP);
    assert_false(options.pc || options.debug_exit);
}

static void of_a_pc(void **state)
{
    struct guest_options options = accept("board pc debug-exit reset=restart");

    (void)state;
    assert_true(options.pc && options.debug_exit);
    assert_int_equal(options.reset, RESET_RESTART);
    assert_int_equal(accept("board reset=stop").reset, RESET_STOP);
    assert_int_equal(options.stray, STRAY_STOP);
    assert_int_equal(accept("board stray=stop").stray, STRAY_STOP);
    assert_int_equal(accept("board stray=lost").stray, STRAY_LOST);
    refuse("board stray=zeros",
           "'stray=zeros': an access where nothing is, or a write to ROM, can stop "
           "the guest (stop)");
    refuse("board reset=again", "'reset=again': a guest that resets itself can stop or restart");
    refuse("board reset", "'reset' is no option");
}

static void everything(void **state)
{
    struct guest_options options =
        accept("  big  mem=1G lazy\tpaused flat expect=stopped quota=2G mods=3 rom=0x200000+64K "
               "nox=4M+4K xo=0x500000+0x2000 hole=6M+1M ram=0xB8000+32K  --  root=x  quiet ");

    (void)state;
    assert_string_equal(options.name, "big");
    assert_int_equal(options.memory, GiB);
    assert_int_equal(options.quota, 2 * GiB);
    assert_true(options.lazy && options.flat && options.paused);
    assert_int_equal(options.expect, EXPECT_STOPPED);
    assert_int_equal(options.mods, 3);
    assert_int_equal(options.areas, 5);
    assert_int_equal(options.area[0].kind, AREA_ROM);
    assert_int_equal(options.area[0].base, 2 * MiB);
    assert_int_equal(options.area[0].size, 64 * KiB);
    assert_int_equal(options.area[1].kind, AREA_NOEXEC);
    assert_int_equal(options.area[2].kind, AREA_EXEC_ONLY);
    assert_int_equal(options.area[3].kind, AREA_HOLE);
    assert_int_equal(options.area[4].kind, AREA_RAM);
    assert_string_equal(options.cmdline, "root=x  quiet ");
}

static void sizes_of_pages(void **state)
{
    (void)state;
    assert_int_equal(accept("a").pages, 0);
    assert_true(accept("a merge").merge && !accept("a").merge);
    assert_true(accept("a nx-huge pages=2M").nx_huge && !accept("a").nx_huge);
    refuse("a nx-huge pages=4K", "'nx-huge' is for pages larger than 4K");
    assert_int_equal(accept("a pages=4K").pages, 1);
    assert_int_equal(accept("a pages=2M lazy").pages, 2);
    assert_int_equal(accept("a pages=1G").pages, 3);
    assert_int_equal(accept("a lazy").around, 0);
    assert_int_equal(accept("a around=4K lazy").around, 1);
    assert_int_equal(accept("a lazy around=64K").around, 16);
    assert_int_equal(accept("a lazy around=2M").around, OPTION_AROUND);
}

static void shared_memory(void **state)
{
    struct guest_options options =
        accept("a share=ring:64K@1G share=table:1M:r@2G rom=0x80000+4K share=x:4K:rw@3G");

    (void)state;
    assert_int_equal(options.areas, 4);
    assert_int_equal(options.area[0].kind, AREA_SHARE);
    assert_string_equal(options.area[0].name, "ring");
    assert_int_equal(options.area[0].base, GiB);
    assert_int_equal(options.area[0].size, 64 * KiB);
    assert_true(options.area[0].writable);
    assert_string_equal(options.area[1].name, "table");
    assert_false(options.area[1].writable);
    assert_int_equal(options.area[3].base, 3 * GiB);
    assert_true(options.area[3].writable);
}

static void own_command_line(void **state)
{
    (void)state;
    assert_string_equal(accept("a mem=2M").cmdline, "a mem=2M");
    assert_string_equal(accept("a --").cmdline, "");
    /* Behind the mark nothing is an option any more. */
    assert_string_equal(accept("a -- bogus=1 -- lazy").cmdline, "bogus=1 -- lazy");
    assert_false(accept("a -- lazy").lazy);
}

static void refusals(void **state)
{
    (void)state;
    refuse("", "first word");
    refuse("   ", "first word");
    refuse("mem=16M", "mem=16M");
    refuse("--", "--");
    refuse("a-name-that-is-much-too-long-for-a-guest", "at most 23");
    refuse("n\x01me", "unprintable");
    refuse("a fast", "'fast' is no option");
    refuse("a size=4M", "size=");
    refuse("a mem=lots", "mem=lots");
    refuse("a mem=", "mem=");
    refuse("a mem=99999999999999999999", "64 bits");
    refuse("a mem=1000001", "multiple of 4K");
    refuse("a mem=64K", "at least 1M");
    refuse("a mem=65T", "at most 64T");
    refuse("a quota=0", "quota");
    assert_int_equal(accept("a entry=elf32").entry, ENTRY_ELF32);
    assert_int_equal(accept("a entry=elf64 bare").entry, ENTRY_ELF64);
    assert_int_equal(accept("a entry=linux16 pc").entry, ENTRY_LINUX16);
    assert_true(accept("a bare").bare && accept("a pc").pc);
    refuse("a entry=elf", "'entry=elf': an ELF file is entered as elf32 or elf64");
    refuse("a entry=linux", "an image of Linux's boot protocol as linux16");
    refuse("a bare entry=linux16", "'entry=linux16' calls a PC's BIOS, and 'bare' has none");
    refuse("a entry=linux16 flat", "'flat' and 'entry=linux16' are two ways");
    refuse("a pc bare", "'pc' and 'bare' are opposites");
    refuse("a entry=elf64 flat", "'flat' and 'entry=elf64' are two ways");
    refuse("a pages=8K", "'pages=8K': a guest's pages are of 4K, 2M or 1G at most");
    refuse("a lazy around=12K", "'around=12K': what comes at a first touch is 4K, 8K");
    refuse("a lazy around=4M", "16K ... 2M");
    refuse("a lazy around=0", "around=0");
    refuse("a lazy around=2K", "around=2K");
    refuse("a around=16K", "add 'lazy'");
    refuse("a share=ring:64K", "write share=NAME:SIZE@ADDRESS");
    refuse("a share=ring@1G", "write share=NAME:SIZE@ADDRESS");
    refuse("a share=:4K@1G", "write share=NAME:SIZE@ADDRESS");
    refuse("a share=a-name-too-long-:4K@1G", "at most 15 characters");
    refuse("a share=ring:some@1G", "a size and an address are numbers");
    refuse("a share=ring:4K@here", "a size and an address are numbers");
    refuse("a share=ring:4K:x@1G", "as r or as rw");
    refuse("a share=ring:5@1G", "multiples of 4K");
    refuse("a share=ring:8K@1G rom=0x40001000+4K", "overlaps share=0x40000000+0x2000");
    refuse("a expect=glory", "passed, failed, stopped or refused");
    refuse("a mods=9", "0 to 8");
    refuse("a mods=x", "mods=x");
    refuse("a rom=0x1000", "rom=ADDRESS+SIZE");
    refuse("a rom=+4K", "rom=ADDRESS+SIZE");
    refuse("a hole=0x1000+", "hole=ADDRESS+SIZE");
    refuse("a nox=0x1001+4K", "multiples of 4K");
    refuse("a nox=0x1000+0", "not 0");
    refuse("a xo=0xfffffffffffff000+8K", "64T");
    refuse("a xo=0x3ffffffff000+8K", "64T");
    refuse("a xo=0x400000000000+4K", "64T");
    assert_int_equal(accept("a xo=0x3ffffffff000+4K").area[0].size, 4 * KiB);
    /* Side by side they do not overlap, whichever comes first. */
    assert_int_equal(accept("a rom=0x1000+4K nox=0x2000+4K").areas, 2);
    assert_int_equal(accept("a rom=0x2000+4K nox=0x1000+4K").areas, 2);
    refuse("a rom=0x2000+4K nox=0x1000+8K", "overlaps rom=0x2000+0x1000");
    refuse("a rom=0x1000+8K nox=0x2000+4K", "overlaps rom=0x1000+0x2000");
    refuse("a LAZY", "LAZY");
}

static void too_many(void **state)
{
    char line[1024] = "a";
    size_t length = 1;

    (void)state;
    for (unsigned i = 0; i < OPTION_AREAS; i++)
        length += (size_t)snprintf(line + length, sizeof(line) - length, " rom=%uM+4K", i + 1);
    assert_int_equal(accept(line).areas, OPTION_AREAS);
    snprintf(line + length, sizeof(line) - length, " hole=100M+4K");
    refuse(line, "one area too many");
}

static void long_command_line(void **state)
{
    char line[GUEST_CMDLINE + 16] = "a -- ";

    (void)state;
    memset(line + 5, 'x', GUEST_CMDLINE - 1);
    assert_int_equal(strlen(accept(line).cmdline), GUEST_CMDLINE - 1);
    memset(line + 5, 'x', GUEST_CMDLINE);
    refuse(line, "longer than 2048");
}

/* A refusal fits into whatever buffer there is. */
static void short_reason(void **state)
{
    struct guest_options options;
    char small[8];

    (void)state;
    assert_int_equal(options_parse("a bogus-word", &options, small, sizeof(small)), E_INVAL);
    assert_int_equal(strlen(small), sizeof(small) - 1);
}

/* Random lines out of pieces that are nearly right: no crash, and whatever is accepted keeps the
 * promises of vm/options.h. */
static void random_lines(void **state)
{
    static const char *const pieces[] = {
        "a",    "mem=", "16M",  " ",   "lazy", "rom=",   "0x",    "+",  "4K", "--", "hole=",   "=",
        "flat", "\t",   "nox=", "ram", "9",    "quota=", "mods=", "xo", "T",  "f",  "expect=",
    };
    struct random random = {2024};

    (void)state;
    for (unsigned round = 0; round < 20000; round++) {
        char line[512];
        size_t length = 0;
        struct guest_options options;
        unsigned count = (unsigned)random_below(&random, 24);

        line[0] = '\0';
        for (unsigned i = 0; i < count; i++)
            length += (size_t)snprintf(line + length, sizeof(line) - length, "%s",
                                       pieces[random_below(&random, ARRAY_SIZE(pieces))]);
        why[0] = '\0';
        if (options_parse(line, &options, why, sizeof(why)) != E_OK) {
            assert_true(why[0] != '\0');
            continue;
        }
        assert_true(options.memory >= OPTION_MIN_MEMORY && options.memory <= OPTION_MAX_MEMORY);
        assert_true(is_aligned(options.memory, PAGE_SIZE) && is_aligned(options.quota, PAGE_SIZE));
        assert_true(options.areas <= OPTION_AREAS && options.mods <= OPTION_MODS);
        for (unsigned i = 0; i < options.areas; i++) {
            assert_true(options.area[i].size != 0);
            assert_true(options.area[i].base + options.area[i].size <= OPTION_MAX_MEMORY);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(sizes),
        cmocka_unit_test(defaults),
        cmocka_unit_test(everything),
        cmocka_unit_test(of_a_pc),
        cmocka_unit_test(sizes_of_pages),
        cmocka_unit_test(shared_memory),
        cmocka_unit_test(own_command_line),
        cmocka_unit_test(refusals),
        cmocka_unit_test(too_many),
        cmocka_unit_test(long_command_line),
        cmocka_unit_test(short_reason),
        cmocka_unit_test(random_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
