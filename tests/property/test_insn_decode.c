/*
 * The decoder of instructions (arch/x86_64/insn/decode.h) against an independent disassembler: all
 * opcodes with all ModRM bytes under many prefixes, and random bytes, in the three modes.
 *
 * What it decodes, the disassembler reads the same way, in each field. What the disassembler reads
 * as one of the forms that the decoder has to know, the decoder knows. What is no instruction, the
 * decoder refuses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "tests/property/insn_reference.h"
#include "tests/unit/random.h"

#define BYTES 24 /* more than any instruction has */
#define RANDOM 3000000

static struct random chance = {1};
static unsigned long cases, memories, failures;

static void complain(const uint8_t *bytes, enum insn_mode mode, const char *what)
{
    char text[INSN_TEXT];
    struct insn insn;
    enum insn_verdict verdict = insn_decode(bytes, BYTES, mode, &insn);

    if (++failures > 40)
        return;
    print_error("%d-bit code, %s: %s; by the disassembler: %s\n", 16 << mode, what,
                insn_explain(verdict, &insn, bytes, BYTES, text),
                reference_text(bytes, BYTES, mode));
}

/* Nothing that begins like a whole instruction is taken for one. */
static void compare_beginnings(const uint8_t *bytes, enum insn_mode mode, unsigned length)
{
    struct insn insn;

    for (unsigned n = 0; n < length; n++)
        if (insn_decode(bytes, n, mode, &insn) != INSN_TRUNCATED)
            complain(bytes, mode, "its beginning is not found to be cut off");
}

static void compare(const uint8_t *bytes, enum insn_mode mode)
{
    struct insn insn;
    struct reference theirs;
    enum insn_verdict verdict = insn_decode(bytes, BYTES, mode, &insn);
    const char *what = NULL;

    reference_decode(bytes, BYTES, mode, &theirs);
    cases++;
    if (theirs.class == REFERENCE_MEMORY) {
        memories++;
        what = verdict == INSN_DECODED ? reference_difference(&insn, &theirs.insn) : "refused";
    } else if (verdict == INSN_DECODED) {
        what = "decoded";
    } else if (verdict == INSN_REGISTER_FORM) {
        if (theirs.class != REFERENCE_REGISTERS || insn.op != theirs.insn.op ||
            insn.length != theirs.insn.length)
            what = "taken for a form with registers";
    } else if (verdict == INSN_LOCK && theirs.class != REFERENCE_REFUSED) {
        what = "its LOCK refused";
    } else if (verdict == INSN_TRUNCATED) {
        what = "found to be cut off";
    }
    if (what)
        complain(bytes, mode, what);
    else if (verdict == INSN_DECODED && memories % 64 == 0)
        compare_beginnings(bytes, mode, insn.length);
}

static void fill(uint8_t *bytes)
{
    for (unsigned i = 0; i < BYTES; i += 8) {
        uint64_t value = random_next(&chance);
        memcpy(bytes + i, &value, 8);
    }
}

/* ---- All opcodes ----------------------------------------------------------------------------- */

/* What comes before the opcode; with REX in 64-bit mode alone. */
static const char *const prefixes[] = {
    "",         "\x66",     "\x67",     "\x66\x67", "\xf0",     "\xf2",         "\xf3",
    "\x66\xf0", "\xf0\xf3", "\xf2\xf0", "\x66\xf2", "\xf3\x66", "\x67\xf3",     "\x2e",
    "\x36",     "\x64\x3e", "\x26\x65", "\xf2\xf3", "\xf3\xf2", "\x67\xf0\x66", "\x40",
    "\x41",     "\x42",     "\x44",     "\x48",     "\x4f",     "\x66\x4f",     "\x67\x43",
    "\xf0\x48", "\xf3\x48", "\x48\x66", "\x4c\x67", "\x40\x48", "\x65\xf2\x4d", "\x66\xf0\x4c",
};

static bool has_rex(const char *prefix)
{
    for (; *prefix; prefix++)
        if ((*prefix & 0xf0) == 0x40)
            return true;
    return false;
}

static void compare_all_modrm(const char *prefix, const char *map, unsigned opcode,
                              enum insn_mode mode)
{
    uint8_t bytes[BYTES];
    size_t at = strlen(prefix), more = strlen(map);

    for (unsigned modrm = 0; modrm < 256; modrm++) {
        fill(bytes);
        memcpy(bytes, prefix, at);
        memcpy(bytes + at, map, more);
        bytes[at + more] = (uint8_t)opcode;
        bytes[at + more + 1] = (uint8_t)modrm;
        compare(bytes, mode);
    }
}

static void compare_map(const char *map, unsigned first, unsigned last)
{
    for (enum insn_mode mode = INSN_CODE16; mode <= INSN_CODE64; mode++)
        for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++)
            for (unsigned opcode = first; opcode <= last; opcode++)
                if (mode == INSN_CODE64 || !has_rex(prefixes[i]))
                    compare_all_modrm(prefixes[i], map, opcode, mode);
}

static void report(const char *what)
{
    print_message("%s: %lu cases, %lu of them with memory\n", what, cases, memories);
    assert_int_equal(failures, 0);
    assert_true(memories > cases / 100);
    cases = memories = 0;
}

static void test_one_byte_opcodes(void **state)
{
    (void)state;
    compare_map("", 0, 255);
    report("one-byte opcodes");
}

static void test_two_byte_opcodes(void **state)
{
    (void)state;
    compare_map("\x0f", 0, 255);
    report("two-byte opcodes");
}

static void test_three_byte_opcodes(void **state)
{
    (void)state;
    compare_map("\x0f\x38", 0xe0, 0xff);
    report("three-byte opcodes");
}

/* ---- Random bytes ---------------------------------------------------------------------------- */

/* As many prefixes as an instruction can have and more, in any order. */
static unsigned put_prefixes(uint8_t *bytes)
{
    static const uint8_t any[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67,
                                  0xf0, 0xf2, 0xf3, 0x40, 0x48, 0x41, 0x44, 0x4f};
    unsigned count = (unsigned)random_below(&chance, random_below(&chance, 8) ? 3 : 16);

    for (unsigned i = 0; i < count; i++)
        bytes[i] = any[random_below(&chance, sizeof(any))];
    return count;
}

static void test_random_bytes(void **state)
{
    uint8_t bytes[BYTES];

    (void)state;
    for (unsigned i = 0; i < RANDOM; i++) {
        fill(bytes);
        unsigned at = put_prefixes(bytes);
        if (random_below(&chance, 3) == 0)
            bytes[at] = 0x0f;
        compare(bytes, (enum insn_mode)random_below(&chance, 3));
    }
    report("random bytes");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_byte_opcodes),
        cmocka_unit_test(test_two_byte_opcodes),
        cmocka_unit_test(test_three_byte_opcodes),
        cmocka_unit_test(test_random_bytes),
    };

    reference_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
