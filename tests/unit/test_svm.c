/* Instructions that exit under SVM, by their bytes. */
#include "arch/x86_64/svm/instruction.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86_64/svm/names.h"
#include "arch/x86_64/svm/vmcb.h"

struct sample {
    uint8_t bytes[INSTRUCTION_MOST];
    unsigned length;
    enum svm_opcode opcode;
};

static const struct sample plain[] = {
    {{0x0f, 0xa2}, 2, OPCODE_CPUID},
    {{0xf4}, 1, OPCODE_HLT},
    {{0x0f, 0x08}, 2, OPCODE_INVD},
    {{0x0f, 0x09}, 2, OPCODE_WBINVD},
    {{0x0f, 0x32}, 2, OPCODE_RDMSR},
    {{0x0f, 0x30}, 2, OPCODE_WRMSR},
    {{0x0f, 0x01, 0xd9}, 3, OPCODE_VMMCALL},
    {{0x0f, 0x01, 0xc1}, 3, OPCODE_VMCALL},
    {{0x0f, 0x01, 0xd1}, 3, OPCODE_XSETBV},
    {{0x0f, 0x20, 0xc0}, 3, OPCODE_MOV_FROM_CR},
    {{0x0f, 0x22, 0xe0}, 3, OPCODE_MOV_TO_CR},
    {{0x0f, 0x21, 0xf8}, 3, OPCODE_MOV_FROM_DR},
    {{0x0f, 0x23, 0xc3}, 3, OPCODE_MOV_TO_DR},
    {{0x6e}, 1, OPCODE_IO_STRING},
    {{0x0f, 0x0b}, 2, OPCODE_OTHER},
};

/* Each alone, behind each prefix, and cut short, in 64-bit code and in other. */
static void test_lengths(void **state)
{
    static const uint8_t prefixes[] = {0x66, 0x67, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};
    struct svm_instruction found;

    (void)state;
    for (unsigned i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
        for (unsigned code64 = 0; code64 < 2; code64++) {
            const struct sample *s = &plain[i];

            assert_true(svm_instruction_parse(s->bytes, INSTRUCTION_MOST, code64, &found));
            assert_int_equal(found.opcode, s->opcode);
            assert_int_equal(found.length, s->length);
            for (unsigned n = 0; n < s->length; n++)
                assert_false(svm_instruction_parse(s->bytes, n, code64, &found));
            for (unsigned p = 0; p < sizeof(prefixes); p++) {
                uint8_t bytes[INSTRUCTION_MOST] = {prefixes[p]};

                memcpy(bytes + 1, s->bytes, s->length);
                assert_true(svm_instruction_parse(bytes, INSTRUCTION_MOST, code64, &found));
                assert_int_equal(found.opcode, s->opcode);
                assert_int_equal(found.length, s->length + 1);
                assert_int_equal(found.address_override, prefixes[p] == 0x67);
            }
        }
}

static void test_mov_cr(void **state)
{
    const uint8_t to_cr4[] = {0x0f, 0x22, 0xe3}, to_cr8[] = {0x44, 0x0f, 0x22, 0xc0};
    const uint8_t from_cr8_r9[] = {0x45, 0x0f, 0x20, 0xc1}, by_lock[] = {0xf0, 0x0f, 0x22, 0xc1};
    const uint8_t to_dr7_r15[] = {0x41, 0x0f, 0x23, 0xff};
    const uint8_t stale_rex[] = {0x44, 0x66, 0x0f, 0x22, 0xc0};
    struct svm_instruction found;

    (void)state;
    assert_true(svm_instruction_parse(to_cr4, 3, false, &found));
    assert_int_equal(found.cr, 4);
    assert_int_equal(found.gpr, 3);
    assert_true(svm_instruction_parse(to_cr8, 4, true, &found));
    assert_int_equal(found.cr, 8);
    assert_int_equal(found.gpr, 0);
    assert_true(svm_instruction_parse(from_cr8_r9, 4, true, &found));
    assert_int_equal(found.opcode, OPCODE_MOV_FROM_CR);
    assert_int_equal(found.cr, 8);
    assert_int_equal(found.gpr, 9);
    assert_true(svm_instruction_parse(by_lock, 4, false, &found));
    assert_int_equal(found.cr, 8);
    assert_int_equal(found.gpr, 1);
    assert_true(svm_instruction_parse(to_dr7_r15, 4, true, &found));
    assert_int_equal(found.gpr, 15);
    /* REX counts right before the opcode alone; in other modes it is an instruction. */
    assert_true(svm_instruction_parse(stale_rex, 5, true, &found));
    assert_int_equal(found.cr, 0);
    assert_true(svm_instruction_parse(to_cr8, 4, false, &found));
    assert_int_equal(found.opcode, OPCODE_OTHER);
}

static void test_segments(void **state)
{
    const uint8_t by_cs[] = {0x2e, 0x6e}, by_gs[] = {0x65, 0xf3, 0x6f}, last[] = {0x26, 0x64, 0x6e};
    struct svm_instruction found;

    (void)state;
    assert_true(svm_instruction_parse(by_cs, 2, false, &found));
    assert_int_equal(found.segment, 1);
    assert_true(svm_instruction_parse(by_cs, 2, true, &found)); /* none in 64-bit code */
    assert_int_equal(found.segment, -1);
    assert_true(svm_instruction_parse(by_gs, 3, true, &found));
    assert_int_equal(found.segment, 5);
    assert_true(svm_instruction_parse(last, 3, false, &found));
    assert_int_equal(found.segment, 4);
}

/* Nothing but prefixes comes to an end. */
static void test_too_long(void **state)
{
    uint8_t bytes[2 * INSTRUCTION_MOST];
    struct svm_instruction found;

    (void)state;
    memset(bytes, 0x66, sizeof(bytes));
    assert_false(svm_instruction_parse(bytes, INSTRUCTION_MOST, false, &found));
    assert_int_equal(found.opcode, OPCODE_OTHER);
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(svm_exit_name(SVM_EXIT_NPF), "nested page fault");
    assert_string_equal(svm_exit_name(SVM_EXIT_CR_WRITE + 4), "control register access");
    assert_string_equal(svm_exit_name(SVM_EXIT_EXCEPTION + 6), "exception");
    assert_string_equal(svm_exit_name(0x3ff), "an exit without a name");
    assert_string_equal(svm_exit_name(SVM_EXIT_INVALID), "the VMCB is not consistent");
    assert_true(svm_exit_undefined(SVM_EXIT_STGI));
    assert_false(svm_exit_undefined(SVM_EXIT_CPUID));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths),  cmocka_unit_test(test_mov_cr),
        cmocka_unit_test(test_segments), cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests_name("svm", tests, NULL, NULL);
}
