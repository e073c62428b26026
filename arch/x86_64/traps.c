/*
 * See arch/x86_64/trap.h: the IDT, the dispatch, the instructions that may fail, and the end of the
 * machine where a trap is nobody's. What a report consists of is in trap_report.c.
 */
#include "arch/x86_64/trap.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/halt.h"
#include "arch/x86_64/mm/kernel_space.h"
#include "arch/x86_64/mm/layout.h"
#include "arch/x86_64/percpu.h"
#include "arch/x86_64/power.h"
#include "arch/x86_64/uart.h"
#include "lib/error.h"
#include "lib/panic.h"

/* SDM Vol. 3, 6.14.1 "64-bit mode IDT". */
struct gate {
    uint16_t offset_0;
    uint16_t selector;
    uint8_t ist;
    uint8_t type;
    uint16_t offset_16;
    uint32_t offset_32;
    uint32_t reserved;
};

#define GATE_INTERRUPT 0x8e /* present, ring 0, type 14 */
#define GATE_RING3 0x60     /* ring 3 may raise it by an instruction */

static struct gate idt[IDT_ENTRIES] __attribute__((aligned(16)));

/* trap_entry.asm */
extern const uint64_t trap_stubs[EXCEPTION_COUNT];
void trap_capture(struct trap_frame *frame);
void trap_dispatch(struct trap_frame *frame);

bool (*trap_user_hook)(struct trap_frame *frame);
bool (*trap_probe_hook)(struct trap_frame *frame);
void (*cpus_nmi)(const struct trap_frame *frame);
void (*cpus_stop_others)(struct sink *to);
void (*cpus_show_others)(struct sink *to);

/* These have stacks of their own on each CPU. */
static const struct {
    uint8_t vector;
    enum ist ist;
    enum cpu_stack stack;
} own_stack[] = {
    {VECTOR_DF, IST_DOUBLE_FAULT, STACK_DOUBLE_FAULT},
    {VECTOR_NMI, IST_NMI, STACK_NMI},
    {VECTOR_MC, IST_MACHINE_CHECK, STACK_MACHINE_CHECK},
    /* Ring 3 can arrange for #DB to arrive at the first instruction of a SYSCALL handler, when
     * the stack is still its own. */
    {VECTOR_DB, IST_DEBUG, STACK_DEBUG},
};

static struct gate interrupt_gate(uint64_t entry)
{
    return (struct gate){
        .offset_0 = (uint16_t)entry,
        .selector = SELECTOR_KERNEL_CODE,
        .type = GATE_INTERRUPT,
        .offset_16 = (uint16_t)(entry >> 16),
        .offset_32 = (uint32_t)(entry >> 32),
    };
}

void trap_set_gate(uint8_t vector, void (*entry)(void), bool from_ring3)
{
    invariant(vector >= EXCEPTION_COUNT);
    idt[vector] = interrupt_gate((uint64_t)(uintptr_t)entry);
    if (from_ring3)
        idt[vector].type |= GATE_RING3;
}

void traps_init_early(void)
{
    for (unsigned i = 0; i < EXCEPTION_COUNT; i++)
        idt[i] = interrupt_gate(trap_stubs[i]);
    idt[VECTOR_BP].type |= GATE_RING3; /* INT3 of ring 3 is a breakpoint, no protection fault */

    traps_load();
}

void traps_load(void)
{
    descriptors_load(this_cpu());
    struct descriptor_table table = {sizeof(idt) - 1, (uint64_t)(uintptr_t)idt};
    __asm__ volatile("lidt %0" : : "m"(table));
}

int traps_give_stacks(struct percpu *cpu)
{
    for (unsigned i = 0; i < ARRAY_SIZE(own_stack); i++) {
        hva_t top;
        int error = stack_alloc(&top);
        if (error)
            return error;
        cpu->stack[own_stack[i].stack] = (struct stack_range){top.v - STACK_SIZE, top.v};
        cpu->tss.ist[own_stack[i].ist - 1] = top.v;
    }
    return E_OK;
}

int traps_init(void)
{
    int error = traps_give_stacks(this_cpu());
    if (error)
        return error;
    for (unsigned i = 0; i < ARRAY_SIZE(own_stack); i++)
        idt[own_stack[i].vector].ist = own_stack[i].ist;
    return E_OK;
}

/* Where an instruction that is allowed to fault has its address, execution goes on at `landing`. */
struct fixup {
    uint64_t instruction, landing;
};
extern const struct fixup fixups[], fixups_end[];

#define FIXUP(instruction, landing)                                                                \
    ".pushsection .fixups, \"a\"\n\t"                                                              \
    ".quad " instruction ", " landing "\n\t"                                                       \
    ".popsection"

static bool fix_up(struct trap_frame *frame)
{
    for (const struct fixup *fixup = fixups; fixup < fixups_end; fixup++) {
        if (fixup->instruction != frame->rip)
            continue;
        frame->rip = fixup->landing;
        return true;
    }
    return false;
}

int rdmsr_safe(uint32_t index, uint64_t *out)
{
    uint32_t low = 0, high = 0;
    int error = E_UNSUPPORTED;
    __asm__ volatile("1:\trdmsr\n\t"
                     "xorl %0, %0\n"
                     "2:\n\t" FIXUP("1b", "2b")
                     : "+r"(error), "+a"(low), "+d"(high)
                     : "c"(index)
                     : "memory", "cc");
    if (error == E_OK)
        *out = (uint64_t)high << 32 | low;
    return error;
}

int wrmsr_safe(uint32_t index, uint64_t value)
{
    int error = E_UNSUPPORTED;
    __asm__ volatile("1:\twrmsr\n\t"
                     "xorl %0, %0\n"
                     "2:\n\t" FIXUP("1b", "2b")
                     : "+r"(error)
                     : "c"(index), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                     : "memory", "cc");
    return error;
}

/*
 * Begins a report that ends the machine. A trap during a report gets one line by the simplest
 * means, a trap during that just stops the CPU: reporting never goes in circles.
 */
static void report_begin(const char *what, uint64_t rip)
{
    unsigned before = this_cpu()->reporting++;
    if (before == 0) {
        if (cpus_stop_others)
            cpus_stop_others(&uart_sink);
        return;
    }
    if (before > 1)
        cpu_stop();
    format(&uart_sink, "\nquire: %s at rip %016lx, cr2 %016lx, while reporting\n", what, rip,
           read_cr2());
    power_off(1);
}

static _Noreturn void report_end(void)
{
    if (cpus_show_others)
        cpus_show_others(&uart_sink);
    power_off(1);
}

static _Noreturn void report_and_stop(const struct trap_frame *frame)
{
    const char *name = trap_name(frame->vector);
    report_begin(name ? name : "reserved exception", frame->rip);
    trap_report(&uart_sink, frame);
    report_end();
}

_Noreturn void panic(const char *text, ...)
{
    struct trap_frame frame;
    trap_capture(&frame);
    report_begin("panic", frame.rip);

    va_list arguments;
    va_start(arguments, text);
    format(&uart_sink, "\nquire: panic: ");
    vformat(&uart_sink, text, arguments);
    format(&uart_sink, "\n");
    va_end(arguments);
    trap_show_registers(&uart_sink, &frame);
    trap_show_backtrace(&uart_sink, frame.rip, frame.rbp);
    report_end();
}

/* Of these nobody's program is the cause, wherever they hit. */
static bool is_abort(uint64_t vector)
{
    return vector == VECTOR_DF || vector == VECTOR_MC;
}

void trap_dispatch(struct trap_frame *frame)
{
    if (frame->vector == VECTOR_NMI) {
        this_cpu()->nmis++;
        if (cpus_nmi)
            cpus_nmi(frame);
        halt_pass(frame);
        return;
    }
    if (trap_from_user(frame) && !is_abort(frame->vector) && trap_user_hook &&
        trap_user_hook(frame))
        return;
    if (!trap_from_user(frame) && frame->vector == VECTOR_GP && fix_up(frame))
        return;
    if (!trap_from_user(frame) && !is_abort(frame->vector) && trap_probe_hook &&
        trap_probe_hook(frame))
        return;
    report_and_stop(frame);
}
