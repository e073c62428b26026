/* See arch/x86_64/percpu.h and arch/x86_64/descriptors.h. */
#include "arch/x86_64/percpu.h"

#include "arch/x86_64/cpu.h"
#include "lib/bits.h"

/* Segment descriptors of 64-bit mode, accessed already so that the CPU never writes to the GDT
 * (SDM Vol. 3, 3.4.5 "Segment descriptors"). Base and limit are ignored. */
#define SEGMENT_KERNEL_CODE UINT64_C(0x00af9b000000ffff)
#define SEGMENT_KERNEL_DATA UINT64_C(0x00cf93000000ffff)
#define SEGMENT_USER_DATA UINT64_C(0x00cff3000000ffff)
#define SEGMENT_USER_CODE UINT64_C(0x00affb000000ffff)
#define TSS_AVAILABLE UINT64_C(0x89) /* present, type 9 */

static struct percpu boot_cpu;

/* The stack that entry.asm starts C on. */
extern char boot_stack[], boot_stack_top[];

const char *const cpu_stack_names[STACK_COUNT] = {
    [STACK_BOOT] = "boot",
    [STACK_MAIN] = "main",
    [STACK_DOUBLE_FAULT] = "double-fault",
    [STACK_NMI] = "NMI",
    [STACK_MACHINE_CHECK] = "machine-check",
    [STACK_DEBUG] = "debug",
    [STACK_USER_ENTRY] = "user-entry",
};

void percpu_install(struct percpu *cpu, unsigned number)
{
    cpu->self = cpu;
    cpu->number = number;
    wrmsr(IA32_GS_BASE, (uint64_t)(uintptr_t)cpu);
    wrmsr(IA32_KERNEL_GS_BASE, 0);
}

void percpu_install_boot(void)
{
    boot_cpu.stack[STACK_BOOT].bottom = (uint64_t)(uintptr_t)boot_stack;
    boot_cpu.stack[STACK_BOOT].top = (uint64_t)(uintptr_t)boot_stack_top;
    percpu_install(&boot_cpu, 0);
}

static void tss_descriptor(uint64_t out[2], const struct tss *tss)
{
    uint64_t base = (uint64_t)(uintptr_t)tss, limit = sizeof(*tss) - 1;
    out[0] = limit | (base & BITS(23, 0)) << 16 | TSS_AVAILABLE << 40 | (base >> 24 & 0xff) << 56;
    out[1] = base >> 32;
}

void descriptors_load(struct percpu *cpu)
{
    cpu->gdt[SELECTOR_KERNEL_CODE / 8] = SEGMENT_KERNEL_CODE;
    cpu->gdt[SELECTOR_KERNEL_DATA / 8] = SEGMENT_KERNEL_DATA;
    cpu->gdt[SELECTOR_USER_DATA / 8] = SEGMENT_USER_DATA;
    cpu->gdt[SELECTOR_USER_CODE / 8] = SEGMENT_USER_CODE;
    tss_descriptor(&cpu->gdt[SELECTOR_TSS / 8], &cpu->tss);
    cpu->tss.io_map_base = sizeof(cpu->tss); /* past the limit: ring 3 reaches no port */

    struct descriptor_table gdt = {sizeof(cpu->gdt) - 1, (uint64_t)(uintptr_t)cpu->gdt};
    /* A far return reloads CS. FS and GS stay: to load them would clear the base of GS. */
    __asm__ volatile("lgdt %0\n\t"
                     "pushq %1\n\t"
                     "leaq 1f(%%rip), %%rax\n\t"
                     "pushq %%rax\n\t"
                     "lretq\n"
                     "1:\tmovl %2, %%eax\n\t"
                     "movl %%eax, %%ss\n\t"
                     "xorl %%eax, %%eax\n\t"
                     "movl %%eax, %%ds\n\t"
                     "movl %%eax, %%es\n\t"
                     "ltr %w3"
                     :
                     : "m"(gdt), "i"(SELECTOR_KERNEL_CODE), "i"(SELECTOR_KERNEL_DATA),
                       "r"(SELECTOR_TSS)
                     : "rax", "memory");
}

void tss_set_rsp0(uint64_t top)
{
    struct percpu *cpu = this_cpu();
    cpu->tss.rsp[0] = top;
    cpu->kernel_rsp = top;
}
