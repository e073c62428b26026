/* See insn_cpu.h. */
#define _GNU_SOURCE
#include "tests/property/insn_cpu.h"

#include <asm/prctl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SLOT 16u /* bytes for the instruction, which ends where the slot does */
#define PAGE 4096u

/* Known to the assembly below: registers by their encoding, then the flags. */
struct image {
    uint64_t gpr[16], rflags;
} cpu_image;
uint64_t cpu_host_rsp, cpu_begin;
uint8_t cpu_landed;

uint8_t *cpu_arena;
uint64_t cpu_gs = 0x12345000;

static uint8_t *code;

/* Loads everything, jumps to the instruction, and comes back by cpu_exit. Nothing between popfq and
 * pushfq changes a flag, but for the instruction. */
void cpu_enter(void);
void cpu_jumped(void);
void cpu_exit(void);
__asm__(".text\n"
        "cpu_enter:\n"
        "    push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "    mov %rsp, cpu_host_rsp(%rip)\n"
        "    lea cpu_image+128(%rip), %rsp\n"
        "    popfq\n"
        "    mov cpu_image+0(%rip), %rax;   mov cpu_image+8(%rip), %rcx\n"
        "    mov cpu_image+16(%rip), %rdx;  mov cpu_image+24(%rip), %rbx\n"
        "    mov cpu_image+32(%rip), %rsp;  mov cpu_image+40(%rip), %rbp\n"
        "    mov cpu_image+48(%rip), %rsi;  mov cpu_image+56(%rip), %rdi\n"
        "    mov cpu_image+64(%rip), %r8;   mov cpu_image+72(%rip), %r9\n"
        "    mov cpu_image+80(%rip), %r10;  mov cpu_image+88(%rip), %r11\n"
        "    mov cpu_image+96(%rip), %r12;  mov cpu_image+104(%rip), %r13\n"
        "    mov cpu_image+112(%rip), %r14; mov cpu_image+120(%rip), %r15\n"
        "    jmp *cpu_begin(%rip)\n"
        "cpu_jumped:\n"
        "    movb $1, cpu_landed(%rip)\n"
        "cpu_exit:\n"
        "    mov %rax, cpu_image+0(%rip);   mov %rcx, cpu_image+8(%rip)\n"
        "    mov %rdx, cpu_image+16(%rip);  mov %rbx, cpu_image+24(%rip)\n"
        "    mov %rsp, cpu_image+32(%rip);  mov %rbp, cpu_image+40(%rip)\n"
        "    mov %rsi, cpu_image+48(%rip);  mov %rdi, cpu_image+56(%rip)\n"
        "    mov %r8, cpu_image+64(%rip);   mov %r9, cpu_image+72(%rip)\n"
        "    mov %r10, cpu_image+80(%rip);  mov %r11, cpu_image+88(%rip)\n"
        "    mov %r12, cpu_image+96(%rip);  mov %r13, cpu_image+104(%rip)\n"
        "    mov %r14, cpu_image+112(%rip); mov %r15, cpu_image+120(%rip)\n"
        "    lea cpu_image+136(%rip), %rsp\n"
        "    pushfq\n"
        "    cld\n"
        "    mov cpu_host_rsp(%rip), %rsp\n"
        "    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "    ret\n");

/* The instruction's stack is the test's: the handler has one of its own. */
static void on_exception(int number)
{
    char text[128];
    int at = snprintf(text, sizeof(text), "signal %d from the instruction", number);

    for (unsigned i = 0; i < SLOT; i++)
        at += snprintf(text + at, sizeof(text) - (size_t)at, " %02x", code[i]);
    text[at++] = '\n';
    if (write(STDERR_FILENO, text, (size_t)at) < 0)
        _exit(2);
    _exit(1);
}

static uint8_t *low_memory(int protection)
{
    void *at = mmap(NULL, PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

    if (at == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return at;
}

void cpu_start(void)
{
    static uint8_t handler_stack[65536];
    stack_t stack = {.ss_sp = handler_stack, .ss_size = sizeof(handler_stack)};
    struct sigaction action = {.sa_handler = on_exception, .sa_flags = SA_ONSTACK};
    uint64_t back = (uint64_t)cpu_exit;

    code = low_memory(PROT_READ | PROT_WRITE | PROT_EXEC);
    cpu_arena = low_memory(PROT_READ | PROT_WRITE);
    memcpy(code + SLOT, "\xff\x25\0\0\0\0", 6); /* jmp *0(%rip) */
    memcpy(code + SLOT + 6, &back, 8);
    sigaltstack(&stack, NULL);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGILL, &action, NULL);
    sigaction(SIGTRAP, &action, NULL);
    syscall(SYS_arch_prctl, ARCH_SET_GS, cpu_gs);
}

uint64_t cpu_rip_for(unsigned length)
{
    return (uint64_t)code + SLOT - length;
}

uint64_t cpu_landing(void)
{
    return (uint64_t)cpu_jumped;
}

void cpu_run(const uint8_t *bytes, unsigned length, struct insn_state *state)
{
    memset(code, 0x90, SLOT - length);
    memcpy(code + SLOT - length, bytes, length);
    memcpy(cpu_image.gpr, state->gpr, sizeof(cpu_image.gpr));
    cpu_image.rflags = state->rflags;
    cpu_begin = cpu_rip_for(length);
    cpu_landed = 0;
    cpu_enter();
    memcpy(state->gpr, cpu_image.gpr, sizeof(cpu_image.gpr));
    state->rflags = cpu_image.rflags;
    state->rip = cpu_landed ? cpu_landing() : (uint64_t)code + SLOT;
}
