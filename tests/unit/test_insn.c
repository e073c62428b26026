/*
 * Corners of the decoder of instructions (arch/x86_64/insn/decode.h): what is refused and how that
 * is said, and where memory is in 16-, 32- and 64-bit code.
 */
#include "arch/x86_64/insn/execute.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static struct insn insn;
static struct insn_state state;

static enum insn_verdict decode(enum insn_mode mode, const char *bytes, size_t count)
{
    return insn_decode((const uint8_t *)bytes, count, mode, &insn);
}
#define DECODE(mode, bytes) decode(INSN_CODE##mode, bytes, sizeof(bytes) - 1)

static int fresh(void **unused)
{
    (void)unused;
    memset(&state, 0, sizeof(state));
    state.rip = 0x100;
    return 0;
}

/* ---- Decoding -------------------------------------------------------------------------------- */

static void test_no_more_than_15_bytes(void **unused)
{
    (void)unused;
    /* 13 prefixes and two bytes are 15; one prefix more is one too many. */
    assert_int_equal(DECODE(64, "\x3e\x3e\x3e\x3e\x3e\x3e\x3e\x3e\x3e\x3e\x3e\x3e\x3e\x88\x07"),
                     INSN_DECODED);
    assert_int_equal(insn.length, 15);
    assert_int_equal(DECODE(64, "\x3e\x3e\x3e\x3e\x3e\x3e\x3e\x3e\x3e\x3e\x3e\x3e\x3e\x3e\x88\x07"),
                     INSN_TOO_LONG);
    assert_int_equal(decode(INSN_CODE64,
                            "\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66"
                            "\x66\x66\x66",
                            16),
                     INSN_TOO_LONG);
    /* Of an immediate that ends beyond, too. */
    assert_int_equal(DECODE(32, "\x3e\x3e\x3e\x3e\x3e\x3e\x3e\x3e\x3e\x3e\xc7\x00\1\2\3\4"),
                     INSN_TOO_LONG);
}

static void test_lock_only_where_allowed(void **unused)
{
    (void)unused;
    assert_int_equal(DECODE(64, "\xf0\x01\x07"), INSN_DECODED); /* add [rdi], eax */
    assert_true(insn.lock);
    assert_int_equal(DECODE(64, "\xf0\x03\x07"), INSN_LOCK);            /* add eax, [rdi] */
    assert_int_equal(DECODE(64, "\xf0\x01\xc7"), INSN_LOCK);            /* add edi, eax */
    assert_int_equal(DECODE(64, "\xf0\x39\x07"), INSN_LOCK);            /* cmp */
    assert_int_equal(DECODE(64, "\xf0\x83\x3f\x01"), INSN_LOCK);        /* cmp, by group */
    assert_int_equal(DECODE(64, "\xf0\x89\x07"), INSN_LOCK);            /* mov */
    assert_int_equal(DECODE(64, "\xf0\x0f\xa3\x07"), INSN_LOCK);        /* bt */
    assert_int_equal(DECODE(64, "\xf0\x0f\xba\x2f\x07"), INSN_DECODED); /* bts */
    assert_int_equal(DECODE(64, "\xf0\xa4"), INSN_LOCK);                /* movsb */
}

static void test_what_is_not_known(void **unused)
{
    char text[INSN_TEXT];
    static const uint8_t movq[] = {0x0f, 0x6f, 0x07}, far_jump[] = {0x48, 0xff, 0x2f},
                         no_opcode[] = {0xff, 0x3f};

    (void)unused;
    assert_int_equal(insn_decode(movq, 3, INSN_CODE64, &insn), INSN_UNKNOWN);
    assert_string_equal(insn_explain(INSN_UNKNOWN, &insn, movq, 3, text),
                        "the instruction 0F 6F 07 is not emulated: MMX or SSE, opcode 0F 6F");
    assert_int_equal(insn_decode(far_jump, 3, INSN_CODE64, &insn), INSN_UNKNOWN);
    assert_string_equal(insn_explain(INSN_UNKNOWN, &insn, far_jump, 3, text),
                        "the instruction 48 FF 2F is not emulated: far CALL or JMP, opcode FF 2F");
    assert_int_equal(insn_decode(no_opcode, 2, INSN_CODE64, &insn), INSN_UNKNOWN);
    assert_string_equal(insn_explain(INSN_UNKNOWN, &insn, no_opcode, 2, text),
                        "the instruction FF 3F is not emulated: opcode FF 3F");
    assert_int_equal(DECODE(64, "\x89\xc7"), INSN_REGISTER_FORM);
    assert_int_equal(DECODE(64, "\x89"), INSN_TRUNCATED);
    assert_int_equal(DECODE(64, ""), INSN_TRUNCATED);
    assert_int_equal(DECODE(64, "\x82\x07\x01"), INSN_UNKNOWN);
    assert_int_equal(DECODE(32, "\x82\x07\x01"), INSN_DECODED);
    assert_int_equal(DECODE(32, "\x63\x07"), INSN_UNKNOWN); /* ARPL */
}

static void test_explanations_fit(void **unused)
{
    static const uint8_t longest[INSN_LONGEST + 1];
    char text[INSN_TEXT];

    (void)unused;
    memset(&insn, 0xff, sizeof(insn));
    insn.opcode_bytes = sizeof(insn.opcode);
    for (unsigned opcode = 0; opcode < 0x200; opcode++) {
        insn.opcode[0] = opcode < 0x100 ? (uint8_t)opcode : 0x0f;
        insn.opcode[1] = (uint8_t)opcode;
        for (enum insn_verdict v = INSN_DECODED; v <= INSN_UNKNOWN; v++)
            assert_true(strlen(insn_explain(v, &insn, longest, sizeof(longest), text)) <
                        INSN_TEXT - 1);
    }
}

static void test_high_bytes_without_rex_alone(void **unused)
{
    (void)unused;
    assert_int_equal(DECODE(64, "\x88\x27"), INSN_DECODED); /* mov [rdi], ah */
    assert_true(insn.reg_high && insn.reg == INSN_RAX);
    assert_int_equal(DECODE(64, "\x40\x88\x27"), INSN_DECODED); /* mov [rdi], spl */
    assert_true(!insn.reg_high && insn.reg == INSN_RSP);
    assert_int_equal(DECODE(32, "\x88\x27"), INSN_DECODED);
    assert_true(insn.reg_high);
    /* A REX before another prefix is none. */
    assert_int_equal(DECODE(64, "\x48\x66\x89\x07"), INSN_DECODED);
    assert_int_equal(insn.bytes, 2);
    assert_int_equal(DECODE(64, "\x66\x48\x89\x07"), INSN_DECODED);
    assert_int_equal(insn.bytes, 8);
}

static void test_names(void **unused)
{
    (void)unused;
    assert_int_equal(DECODE(64, "\x0f\xc7\x0f"), INSN_DECODED);
    assert_string_equal(insn_name(&insn), "cmpxchg8b");
    assert_int_equal(DECODE(64, "\x48\x0f\xc7\x0f"), INSN_DECODED);
    assert_string_equal(insn_name(&insn), "cmpxchg16b");
    assert_int_equal(DECODE(64, "\xac"), INSN_DECODED);
    assert_string_equal(insn_name(&insn), "lods");
}

/* ---- Where memory is ------------------------------------------------------------------------- */

static void test_offsets_wrap_at_the_address_size(void **unused)
{
    (void)unused;
    assert_int_equal(DECODE(16, "\x8b\x40\x10"), INSN_DECODED); /* mov ax, [bx+si+16] */
    state.gpr[INSN_RBX] = 0x1234fff0;
    state.gpr[INSN_RSI] = 0x56780004;
    assert_int_equal(insn_offset(&insn, &state), 4);
    assert_int_equal(DECODE(16, "\x8b\x42\x10"), INSN_DECODED); /* [bp+si+16] */
    assert_int_equal(insn.memory.segment, INSN_SS);
    assert_int_equal(DECODE(16, "\x67\x8b\x43\x10"), INSN_DECODED); /* [ebx+16] */
    state.gpr[INSN_RBX] = 0xfffffff8;
    assert_int_equal(insn_offset(&insn, &state), 8);
    assert_int_equal(DECODE(64, "\x67\x8b\x43\x10"), INSN_DECODED);
    assert_int_equal(insn_offset(&insn, &state), 8);
    assert_int_equal(DECODE(64, "\x8b\x43\x10"), INSN_DECODED);
    assert_int_equal(insn_offset(&insn, &state), 0x100000008);
    /* RIP is that of the next instruction, with the immediate counted. */
    assert_int_equal(DECODE(64, "\xc7\x05\x10\0\0\0\1\2\3\4"), INSN_DECODED);
    assert_int_equal(insn_offset(&insn, &state), 0x100 + 10 + 0x10);
    assert_int_equal(DECODE(64, "\x67\x8a\x05\xf0\xff\xff\xff"), INSN_DECODED); /* [eip-16] */
    state.rip = 0x7fff00000000;
    assert_int_equal(insn_offset(&insn, &state), 0xfffffff7);
}

static void test_offsets_in_the_instruction(void **unused)
{
    (void)unused;
    assert_int_equal(DECODE(16, "\xa1\x34\xf2"), INSN_DECODED);
    assert_int_equal(insn_offset(&insn, &state), 0xf234);
    assert_int_equal(DECODE(32, "\x67\xa2\x34\xf2"), INSN_DECODED);
    assert_int_equal(insn_offset(&insn, &state), 0xf234);
    assert_int_equal(DECODE(64, "\xa3\1\2\3\4\5\6\7\x08"), INSN_DECODED);
    assert_int_equal(insn_offset(&insn, &state), 0x0807060504030201);
    assert_int_equal(insn.length, 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_no_more_than_15_bytes, fresh),
        cmocka_unit_test_setup(test_lock_only_where_allowed, fresh),
        cmocka_unit_test_setup(test_what_is_not_known, fresh),
        cmocka_unit_test_setup(test_explanations_fit, fresh),
        cmocka_unit_test_setup(test_high_bytes_without_rex_alone, fresh),
        cmocka_unit_test_setup(test_names, fresh),
        cmocka_unit_test_setup(test_offsets_wrap_at_the_address_size, fresh),
        cmocka_unit_test_setup(test_offsets_in_the_instruction, fresh),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
