/* See insn_legacy_cpu.h. */
#define _GNU_SOURCE
#include "tests/property/insn_legacy_cpu.h"

#include <asm/ldt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SLOT_END 0x110u    /* of the instruction, in the page of code; a jump back follows */
#define LANDING 0x200u     /* another one */
#define BACK 0x300u        /* 64-bit code: to legacy_exit */
#define BACK_LANDED 0x320u /* to legacy_landed */
#define CODE_BYTES 0x1000u

#define USER_CS 0x33 /* Linux's 64-bit code segment */

/* Entries of the LDT. */
enum { CODE16, CODE32, DATA, STACK16 };
#define SELECTOR(entry) ((uint16_t)((entry) << 3 | 7)) /* of the LDT, RPL 3 */

/* Known to the assembly below: registers by their encoding, then the flags. */
struct legacy_image {
    uint64_t gpr[8], rflags;
} legacy_image;
uint64_t legacy_host_rsp;
uint16_t legacy_data = SELECTOR(DATA), legacy_stack;
struct __attribute__((packed)) {
    uint32_t offset;
    uint16_t selector;
} legacy_target;
uint8_t legacy_has_landed;

uint8_t *legacy_arena;

static uint8_t *code;

/* Loads segments, flags and registers, and jumps to the instruction; comes back by legacy_exit. */
void legacy_enter(void);
void legacy_landed(void);
void legacy_exit(void);
__asm__(".text\n"
        "legacy_enter:\n"
        "    push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "    mov %rsp, legacy_host_rsp(%rip)\n"
        "    mov legacy_data(%rip), %ds\n"
        "    mov legacy_data(%rip), %es\n"
        "    lea legacy_image+64(%rip), %rsp\n"
        "    popfq\n"
        "    mov legacy_image+0(%rip), %rax;  mov legacy_image+8(%rip), %rcx\n"
        "    mov legacy_image+16(%rip), %rdx; mov legacy_image+24(%rip), %rbx\n"
        "    mov legacy_image+40(%rip), %rbp\n"
        "    mov legacy_image+48(%rip), %rsi; mov legacy_image+56(%rip), %rdi\n"
        "    mov legacy_stack(%rip), %ss\n"
        "    mov legacy_image+32(%rip), %rsp\n"
        "    ljmpl *legacy_target(%rip)\n"
        "legacy_landed:\n"
        "    movb $1, legacy_has_landed(%rip)\n"
        "legacy_exit:\n"
        "    mov %rax, legacy_image+0(%rip);  mov %rcx, legacy_image+8(%rip)\n"
        "    mov %rdx, legacy_image+16(%rip); mov %rbx, legacy_image+24(%rip)\n"
        "    mov %rsp, legacy_image+32(%rip); mov %rbp, legacy_image+40(%rip)\n"
        "    mov %rsi, legacy_image+48(%rip); mov %rdi, legacy_image+56(%rip)\n"
        "    lea legacy_image+72(%rip), %rsp\n"
        "    pushfq\n"
        "    cld\n"
        "    mov $0x2b, %eax\n"
        "    mov %eax, %ss\n"
        "    mov legacy_host_rsp(%rip), %rsp\n"
        "    xor %eax, %eax\n"
        "    mov %eax, %ds\n"
        "    mov %eax, %es\n"
        "    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "    ret\n");

/* The instruction's stack is the test's: the handler has one of its own. */
static void on_exception(int number)
{
    char text[128];
    int at = snprintf(text, sizeof(text), "signal %d from the instruction", number);

    for (unsigned i = SLOT_END - INSN_LONGEST; i < SLOT_END; i++)
        at += snprintf(text + at, sizeof(text) - (size_t)at, " %02x", code[i]);
    text[at++] = '\n';
    if (write(STDERR_FILENO, text, (size_t)at) < 0)
        _exit(2);
    _exit(1);
}

static void catch_exceptions(void)
{
    static uint8_t handler_stack[65536];
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP};
    stack_t stack = {.ss_sp = handler_stack, .ss_size = sizeof(handler_stack)};
    struct sigaction action = {.sa_handler = on_exception, .sa_flags = SA_ONSTACK};

    sigaltstack(&stack, NULL);
    for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaction(signals[i], &action, NULL);
}

static bool set_entry(unsigned entry, const uint8_t *base, unsigned limit, bool is_code, bool big)
{
    struct user_desc segment = {.entry_number = entry,
                                .base_addr = (uint32_t)(uint64_t)base,
                                .limit = limit,
                                .seg_32bit = big,
                                .contents = is_code ? 2 : 0,
                                .useable = 1};

    return syscall(SYS_modify_ldt, 0x11, &segment, sizeof(segment)) == 0;
}

/* Has the CPU the entry? There are systems that keep an LDT and never load it. */
static bool has_entry(unsigned entry)
{
    uint32_t rights;
    bool valid;

    __asm__ volatile("lar %[selector], %[rights]"
                     : [rights] "=r"(rights), "=@ccz"(valid)
                     : [selector] "r"((uint32_t)SELECTOR(entry)));
    return valid;
}

static uint8_t *low_memory(size_t bytes, int protection)
{
    void *at = mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

    if (at == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return at;
}

/* jmp *0(%rip), in 64-bit code. */
static void put_jump64(unsigned at, void (*to)(void))
{
    uint64_t target = (uint64_t)to;

    memcpy(code + at, "\xff\x25\0\0\0\0", 6);
    memcpy(code + at + 6, &target, 8);
}

bool legacy_start(void)
{
    code = low_memory(CODE_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC);
    legacy_arena = low_memory(LEGACY_BYTES, PROT_READ | PROT_WRITE);
    put_jump64(BACK, legacy_exit);
    put_jump64(BACK_LANDED, legacy_landed);
    catch_exceptions();
    return set_entry(CODE16, code, LEGACY_CODE_LIMIT, true, false) &&
           set_entry(CODE32, code, LEGACY_CODE_LIMIT, true, true) &&
           set_entry(DATA, legacy_arena, LEGACY_BYTES - 1, false, true) &&
           set_entry(STACK16, legacy_arena, LEGACY_BYTES - 1, false, false) && has_entry(CODE16) &&
           has_entry(CODE32) && has_entry(DATA) && has_entry(STACK16);
}

uint64_t legacy_rip_for(unsigned length)
{
    return SLOT_END - length;
}

uint64_t legacy_landing(void)
{
    return LANDING;
}

/* A far jump with an offset of 32 bits, in 16- or 32-bit code. */
static void put_far_jump(unsigned at, enum insn_mode mode, unsigned to)
{
    uint32_t offset = (uint32_t)(uint64_t)code + to;
    uint16_t selector = USER_CS;

    if (mode == INSN_CODE16)
        code[at++] = 0x66;
    code[at++] = 0xea;
    memcpy(code + at, &offset, 4);
    memcpy(code + at + 4, &selector, 2);
}

void legacy_run(const struct insn *insn, const uint8_t *bytes, struct insn_state *state)
{
    memset(code + SLOT_END - INSN_LONGEST, 0x90, INSN_LONGEST);
    memcpy(code + SLOT_END - insn->length, bytes, insn->length);
    put_far_jump(SLOT_END, insn->mode, BACK);
    put_far_jump(LANDING, insn->mode, BACK_LANDED);
    memcpy(legacy_image.gpr, state->gpr, sizeof(legacy_image.gpr));
    legacy_image.rflags = state->rflags;
    legacy_target.offset = SLOT_END - insn->length;
    legacy_target.selector = insn->mode == INSN_CODE16 ? SELECTOR(CODE16) : SELECTOR(CODE32);
    legacy_stack = state->stack_bytes == 2 ? SELECTOR(STACK16) : SELECTOR(DATA);
    legacy_has_landed = 0;
    legacy_enter();
    memcpy(state->gpr, legacy_image.gpr, sizeof(legacy_image.gpr));
    state->rflags = legacy_image.rflags;
    state->rip = legacy_has_landed ? LANDING : SLOT_END;
}
