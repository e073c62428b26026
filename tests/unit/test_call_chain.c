/* Chains of frame pointers, whole and broken, on stacks that the test lays out. */
#include "arch/x86_64/call_chain.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86_64/symbols.h"

#define CODE UINT64_C(0xffffffff80200000) /* one function */
#define CODE_SIZE 0x1000

const char *symbol_of(uint64_t address, uint64_t *offset)
{
    if (address - CODE >= CODE_SIZE)
        return NULL;
    *offset = address - CODE;
    return "function";
}

enum { MAIN, NMI, NONE, STACKS };

#define WORDS 256

/* Something that is no stack is before, between and behind them. */
static uint64_t words[5 * WORDS];
static uint64_t *const main_stack = words + WORDS, *const nmi_stack = words + 3 * WORDS;
static struct stack_range stacks[STACKS];
static struct call_chain chain;
static char text[CHAIN_END];

static uint64_t at(const uint64_t *word)
{
    return (uint64_t)(uintptr_t)word;
}

static int set_up(void **state)
{
    (void)state;
    memset(words, 0, sizeof(words));
    stacks[MAIN] = (struct stack_range){at(main_stack), at(main_stack + WORDS)};
    stacks[NMI] = (struct stack_range){at(nmi_stack), at(nmi_stack + WORDS)};
    return 0;
}

static void put_frame(uint64_t *frame, uint64_t next, uint64_t back)
{
    frame[0] = next;
    frame[1] = back;
}

static void follow(uint64_t rbp)
{
    call_chain_take(&chain, stacks, STACKS, CODE + 1, rbp);
    assert_int_equal(chain.call[0].at, CODE + 1);
    assert_int_equal(chain.call[0].frame, 0);
}

static void a_whole_chain(void **state)
{
    uint64_t offset;

    (void)state;
    put_frame(&main_stack[10], at(&main_stack[20]), CODE + 0x10);
    put_frame(&main_stack[20], at(&main_stack[WORDS - 2]), CODE + 0x20);
    put_frame(&main_stack[WORDS - 2], 0, CODE + CODE_SIZE); /* behind a call at the very end */
    follow(at(&main_stack[10]));
    assert_int_equal(chain.count, 4);
    assert_int_equal(chain.end, CHAIN_BASE);
    assert_int_equal(chain.call[1].at, CODE + 0x10);
    assert_int_equal(chain.call[1].frame, at(&main_stack[10]));
    assert_int_equal(chain.call[2].frame, at(&main_stack[20]));
    assert_string_equal(call_chain_symbol(&chain, 0, &offset), "function");
    assert_int_equal(offset, 1);
    assert_string_equal(call_chain_symbol(&chain, 3, &offset), "function");
    assert_int_equal(offset, CODE_SIZE);
    assert_string_equal(call_chain_end_text(text, &chain), "the stack begins here");
    main_stack[21] = 0;
    follow(at(&main_stack[10]));
    assert_int_equal(chain.count, 2);
    assert_int_equal(chain.end, CHAIN_BASE);
}

static void from_one_stack_to_another(void **state)
{
    (void)state;
    put_frame(&nmi_stack[200], at(&main_stack[5]), CODE + 0x10);
    put_frame(&main_stack[5], 0, CODE + 0x20);
    follow(at(&nmi_stack[200]));
    assert_int_equal(chain.count, 3);
    assert_int_equal(chain.call[1].stack, NMI);
    assert_int_equal(chain.call[2].stack, MAIN);
}

static void outside(uint64_t rbp)
{
    follow(rbp);
    assert_int_equal(chain.count, 1);
    assert_int_equal(chain.end, CHAIN_OUTSIDE);
    assert_int_equal(chain.end_at, rbp);
}

/* Each of these would fault, or read what is not the stack's, if it were followed. */
static void what_is_not_read(void **state)
{
    (void)state;
    outside(8);
    outside(UINT64_MAX - 7);
    outside(UINT64_C(0x8000000000000000));
    outside(at(main_stack) - 8);
    outside(at(&main_stack[WORDS - 1]));
    outside(at(&main_stack[WORDS]));
    outside(at(&main_stack[5]) + 4);
    assert_non_null(strstr(call_chain_end_text(text, &chain), "is on none of this CPU's stacks"));
    stacks[MAIN] = (struct stack_range){0};
    outside(at(&main_stack[5]));
    follow(0);
    assert_int_equal(chain.count, 1);
    assert_int_equal(chain.end, CHAIN_BASE);
}

static void broken_on_the_way(void **state)
{
    (void)state;
    put_frame(&main_stack[10], at(&main_stack[20]), CODE + 0x10);
    put_frame(&main_stack[20], at(&main_stack[10]), CODE + 0x20);
    follow(at(&main_stack[10]));
    assert_int_equal(chain.count, 3);
    assert_int_equal(chain.end, CHAIN_DESCENDS);
    assert_int_equal(chain.end_at, at(&main_stack[10]));
    main_stack[20] = at(&main_stack[20]);
    follow(at(&main_stack[10]));
    assert_int_equal(chain.end, CHAIN_DESCENDS);
    main_stack[20] = 1;
    follow(at(&main_stack[10]));
    assert_int_equal(chain.end, CHAIN_OUTSIDE);
    main_stack[21] = 0x401000;
    follow(at(&main_stack[10]));
    assert_int_equal(chain.count, 2);
    assert_int_equal(chain.end, CHAIN_NO_CODE);
    assert_string_equal(call_chain_end_text(text, &chain),
                        "0x401000 would be a return address, and is none of the hypervisor's");
}

/* A chain from stack to stack and back is no descent, and ends all the same. */
static void without_end(void **state)
{
    (void)state;
    put_frame(&main_stack[10], at(&nmi_stack[10]), CODE + 0x10);
    put_frame(&nmi_stack[10], at(&main_stack[10]), CODE + 0x20);
    follow(at(&main_stack[10]));
    assert_int_equal(chain.count, CHAIN_CALLS);
    assert_int_equal(chain.end, CHAIN_FULL);
    assert_non_null(strstr(call_chain_end_text(text, &chain), "32 calls are shown"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_whole_chain, set_up),
        cmocka_unit_test_setup(from_one_stack_to_another, set_up),
        cmocka_unit_test_setup(what_is_not_read, set_up),
        cmocka_unit_test_setup(broken_on_the_way, set_up),
        cmocka_unit_test_setup(without_end, set_up),
    };
    return cmocka_run_group_tests_name("call_chain", tests, NULL, NULL);
}
