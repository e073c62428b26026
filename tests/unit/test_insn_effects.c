/*
 * Corners of what instructions do (arch/x86_64/insn/execute.h) that the comparison with the CPU
 * does not reach: 16- and 32-bit code, the order of accesses, and memory that refuses.
 */
#include "arch/x86_64/insn/execute.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "x86/control.h"

#define REFUSED (-7)

/* ---- A memory that notes what is done to it -------------------------------------------------- */

static struct {
    uint64_t reads[2][2]; /* what the first and the second read give */
    struct insn_place place[4];
    uint64_t written[2];
    unsigned count, refuse; /* accesses so far; the one, from 1, that is refused */
} memory;

static int access_to(const struct insn_place *place)
{
    memory.place[memory.count++] = *place;
    return memory.count == memory.refuse ? REFUSED : 0;
}

static int read(void *ctx, const struct insn_place *place, uint64_t value[2])
{
    (void)ctx;
    memcpy(value, memory.reads[memory.count], sizeof(memory.reads[0]));
    return access_to(place);
}

static int write(void *ctx, const struct insn_place *place, const uint64_t value[2])
{
    (void)ctx;
    memcpy(memory.written, value, sizeof(memory.written));
    return access_to(place);
}

static const struct insn_bus bus = {read, write, NULL};

static struct insn insn;
static struct insn_state state;

static enum insn_verdict decode(enum insn_mode mode, const char *bytes, size_t count)
{
    return insn_decode((const uint8_t *)bytes, count, mode, &insn);
}
#define DECODE(mode, bytes) decode(INSN_CODE##mode, bytes, sizeof(bytes) - 1)

static int execute(void)
{
    memory.count = 0;
    return insn_execute(&insn, &state, &bus);
}

static int fresh(void **unused)
{
    (void)unused;
    memset(&memory, 0, sizeof(memory));
    memset(&state, 0, sizeof(state));
    state.rflags = RFLAGS_FIXED;
    state.rip = 0x100;
    state.stack_bytes = 8;
    state.code_limit = 0xffff;
    return 0;
}

static void expect_place(unsigned n, enum insn_segment segment, uint64_t offset, unsigned bytes,
                         unsigned access)
{
    assert_true(n < memory.count);
    assert_int_equal(memory.place[n].segment, segment);
    assert_int_equal(memory.place[n].offset, offset);
    assert_int_equal(memory.place[n].bytes, bytes);
    assert_int_equal(memory.place[n].access, access);
}

/* ---- Bits ----------------------------------------------------------------------------------- */

static void test_a_bit_far_away(void **unused)
{
    (void)unused;
    assert_int_equal(DECODE(32, "\x0f\xa3\x03"), INSN_DECODED); /* bt [ebx], eax */
    state.gpr[INSN_RBX] = 0x1000;
    state.gpr[INSN_RAX] = UINT32_MAX; /* bit -1 */
    memory.reads[0][0] = BIT(31);
    assert_int_equal(execute(), INSN_DONE);
    expect_place(0, INSN_DS, 0xffc, 4, INSN_READ);
    assert_true(state.rflags & RFLAGS_CF);
    assert_int_equal(DECODE(16, "\x0f\xab\x07"), INSN_DECODED); /* bts [bx], ax */
    state.gpr[INSN_RAX] = 33;
    memory.reads[0][0] = 0xabcd0000;
    assert_int_equal(execute(), INSN_DONE);
    expect_place(1, INSN_DS, 0x1004, 2, INSN_READ | INSN_WRITE);
    assert_int_equal(memory.written[0], 2);
    /* An immediate stays within the operand. */
    assert_int_equal(DECODE(32, "\x0f\xba\x23\x21"), INSN_DECODED); /* bt [ebx], 33 */
    assert_int_equal(insn_offset(&insn, &state), 0x1000);
}

/* ---- Registers in 16- and 32-bit code -------------------------------------------------------- */

static void test_a_narrow_result_keeps_what_is_above(void **unused)
{
    (void)unused;
    state.gpr[INSN_RAX] = 0x1122334455667788;
    memory.reads[0][0] = UINT64_MAX;
    assert_int_equal(DECODE(64, "\x66\x8b\x07"), INSN_DECODED);
    assert_int_equal(execute(), INSN_DONE);
    assert_int_equal(state.gpr[INSN_RAX], 0x112233445566ffff);
    assert_int_equal(DECODE(64, "\x0f\x48\x07"), INSN_DECODED); /* cmovs, which is not so */
    assert_int_equal(execute(), INSN_DONE);
    assert_int_equal(state.gpr[INSN_RAX], 0x5566ffff);
    assert_int_equal(state.rip, 0x106);
}

static void test_strings_count_by_the_address_size(void **unused)
{
    (void)unused;
    assert_int_equal(DECODE(16, "\xf3\xa5"), INSN_DECODED); /* rep movsw */
    state.gpr[INSN_RCX] = 0x50002;
    state.gpr[INSN_RSI] = 0x6fffe;
    state.gpr[INSN_RDI] = 0x70010;
    memory.reads[0][0] = 0xabcd;
    assert_int_equal(execute(), INSN_REPEATS);
    expect_place(0, INSN_DS, 0xfffe, 2, INSN_READ);
    expect_place(1, INSN_ES, 0x0010, 2, INSN_WRITE);
    assert_int_equal(memory.written[0], 0xabcd);
    assert_int_equal(state.gpr[INSN_RCX], 0x50001);
    assert_int_equal(state.gpr[INSN_RSI], 0x60000);
    assert_int_equal(state.gpr[INSN_RDI], 0x70012);
    assert_int_equal(state.rip, 0x100);
    assert_int_equal(execute(), INSN_DONE);
    assert_int_equal(state.gpr[INSN_RCX], 0x50000);
    assert_int_equal(state.rip, 0x102);
    assert_int_equal(execute(), INSN_DONE); /* a count of 0 */
    assert_int_equal(memory.count, 0);
    assert_int_equal(state.rip, 0x104);
}

static void test_only_the_first_string_is_overridden(void **unused)
{
    (void)unused;
    assert_int_equal(DECODE(32, "\x2e\xa6"), INSN_DECODED); /* cs cmpsb */
    assert_int_equal(execute(), INSN_DONE);
    expect_place(0, INSN_CS, 0, 1, INSN_READ);
    expect_place(1, INSN_ES, 0, 1, INSN_READ);
    assert_int_equal(DECODE(32, "\x64\xaa"), INSN_DECODED); /* fs stosb */
    assert_int_equal(execute(), INSN_DONE);
    expect_place(0, INSN_ES, 1, 1, INSN_WRITE);
}

/* ---- Stack and jumps ------------------------------------------------------------------------- */

static void test_the_stack_has_its_own_width(void **unused)
{
    (void)unused;
    state.stack_bytes = 2;
    state.gpr[INSN_RSP] = 0x120002;
    state.gpr[INSN_RBX] = 0x8000;
    memory.reads[0][0] = 0x11223344;
    assert_int_equal(DECODE(32, "\xff\x33"), INSN_DECODED); /* push dword [ebx] */
    assert_int_equal(execute(), INSN_DONE);
    expect_place(0, INSN_DS, 0x8000, 4, INSN_READ);
    expect_place(1, INSN_SS, 0xfffe, 4, INSN_WRITE);
    assert_int_equal(memory.place[1].address_bytes, 2);
    assert_int_equal(memory.written[0], 0x11223344);
    assert_int_equal(state.gpr[INSN_RSP], 0x12fffe);
}

static void test_pop_by_the_stack_pointer(void **unused)
{
    (void)unused;
    state.stack_bytes = 4;
    state.gpr[INSN_RSP] = 0x1000;
    assert_int_equal(DECODE(32, "\x8f\x44\x24\x10"), INSN_DECODED); /* pop [esp+16] */
    assert_int_equal(execute(), INSN_DONE);
    expect_place(0, INSN_SS, 0x1000, 4, INSN_READ);
    expect_place(1, INSN_SS, 0x1014, 4, INSN_WRITE);
    assert_int_equal(state.gpr[INSN_RSP], 0x1004);
}

static void test_calls_stay_within_code(void **unused)
{
    struct insn_state before;

    (void)unused;
    state.stack_bytes = 2;
    state.gpr[INSN_RSP] = 0x1000;
    memory.reads[0][0] = 0x2345;
    assert_int_equal(DECODE(16, "\xff\x17"), INSN_DECODED); /* call [bx] */
    assert_int_equal(execute(), INSN_DONE);
    expect_place(1, INSN_SS, 0xffe, 2, INSN_WRITE);
    assert_int_equal(memory.written[0], 0x102);
    assert_int_equal(state.rip, 0x2345);

    assert_int_equal(DECODE(32, "\xff\x27"), INSN_DECODED); /* jmp [edi], to the last byte */
    memory.reads[0][0] = 0xffff;
    assert_int_equal(execute(), INSN_DONE);
    memory.reads[0][0] = 0x10000;
    assert_int_equal(DECODE(32, "\xff\x17"), INSN_DECODED);
    before = state;
    assert_int_equal(execute(), INSN_PROTECTION);
    assert_int_equal(memory.count, 1);
    assert_memory_equal(&before, &state, sizeof(state));

    memory.reads[0][0] = UINT64_C(1) << 47;
    assert_int_equal(DECODE(64, "\xff\x27"), INSN_DECODED); /* jmp [rdi] */
    assert_int_equal(execute(), INSN_PROTECTION);
    memory.reads[0][0] = UINT64_MAX << 47;
    assert_int_equal(execute(), INSN_DONE);
    assert_int_equal(state.rip, UINT64_MAX << 47);
}

static void test_rip_is_cut_to_the_mode(void **unused)
{
    (void)unused;
    state.rip = 0x12345;
    memory.reads[0][0] = 0x10;
    assert_int_equal(DECODE(32, "\x66\xff\x17"), INSN_DECODED); /* call word [edi] */
    assert_int_equal(execute(), INSN_DONE);
    assert_int_equal(memory.written[0], 0x2348);
    assert_int_equal(state.rip, 0x10);
    state.rip = UINT32_MAX;
    assert_int_equal(DECODE(32, "\x89\x07"), INSN_DECODED);
    assert_int_equal(execute(), INSN_DONE);
    assert_int_equal(state.rip, 1);
    state.rip = UINT32_MAX;
    assert_int_equal(DECODE(64, "\x89\x07"), INSN_DECODED);
    assert_int_equal(execute(), INSN_DONE);
    assert_int_equal(state.rip, 0x100000001);
}

/* ---- All or nothing -------------------------------------------------------------------------- */

static void test_what_is_refused_changes_nothing(void **unused)
{
    static const char *const each[] = {
        "\x01\x07", "\x87\x07",     "\x0f\xc1\x07", "\x0f\xb1\x07", "\x48\x0f\xc7\x0f",
        "\xff\x37", "\x8f\x07",     "\xff\x17",     "\xa4",         "\xf3\xa4",
        "\xd1\x17", "\x0f\xab\x07", "\xf7\x1f",     "\xff\x07",     "\xaa",
    };
    struct insn_state before;

    (void)unused;
    for (size_t i = 0; i < ARRAY_SIZE(each); i++) {
        assert_int_equal(decode(INSN_CODE64, each[i], strlen(each[i])), INSN_DECODED);
        state.gpr[INSN_RCX] = 5;
        before = state;
        memory.refuse = 0;
        assert_in_range(execute(), INSN_DONE, INSN_REPEATS);
        state = before;
        unsigned count = memory.count;
        for (memory.refuse = 1; memory.refuse <= count; memory.refuse++) {
            assert_int_equal(execute(), REFUSED);
            assert_int_equal(memory.count, memory.refuse);
            assert_memory_equal(&before, &state, sizeof(state));
        }
    }
}

static void test_16_bytes_want_to_be_aligned(void **unused)
{
    struct insn_place place[INSN_PLACES];

    (void)unused;
    assert_int_equal(DECODE(64, "\xf0\x48\x0f\xc7\x0f"), INSN_DECODED);
    assert_int_equal(insn_places(&insn, &state, place), 1);
    assert_true(place[0].aligned && place[0].bytes == 16);
    assert_int_equal(place[0].access, INSN_READ | INSN_WRITE);
    memory.reads[0][1] = 7;
    assert_int_equal(execute(), INSN_DONE);
    assert_int_equal(state.gpr[INSN_RDX], 7);
    assert_int_equal(memory.written[1], 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_a_bit_far_away, fresh),
        cmocka_unit_test_setup(test_a_narrow_result_keeps_what_is_above, fresh),
        cmocka_unit_test_setup(test_strings_count_by_the_address_size, fresh),
        cmocka_unit_test_setup(test_only_the_first_string_is_overridden, fresh),
        cmocka_unit_test_setup(test_the_stack_has_its_own_width, fresh),
        cmocka_unit_test_setup(test_pop_by_the_stack_pointer, fresh),
        cmocka_unit_test_setup(test_calls_stay_within_code, fresh),
        cmocka_unit_test_setup(test_rip_is_cut_to_the_mode, fresh),
        cmocka_unit_test_setup(test_what_is_refused_changes_nothing, fresh),
        cmocka_unit_test_setup(test_16_bytes_want_to_be_aligned, fresh),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
