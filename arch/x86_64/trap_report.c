/*
 * What a trap report consists of (arch/x86_64/trap.h): the exception in words, registers, a
 * backtrace with names, and the walk of the address that faulted.
 */
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/mm/kernel.h"
#include "arch/x86_64/mm/layout.h"
#include "arch/x86_64/percpu.h"
#include "arch/x86_64/trap.h"
#include "lib/error.h"
#include "lib/registers.h"
#include "mm/paging/typed.h"

/* SDM Vol. 3, 15.3.2 "Error-reporting register banks". */
#define IA32_MC0_STATUS 0x401
#define IA32_MC0_ADDR 0x402
#define MC_BANK_STRIDE 4
#define MC_STATUS_VALID BIT(63)
#define MC_STATUS_ADDRV BIT(58)
#define MCG_CAP_COUNT BITS(7, 0)

static const char *const trap_names[EXCEPTION_COUNT] = {
    [VECTOR_DE] = "#DE divide error",
    [VECTOR_DB] = "#DB debug exception",
    [VECTOR_NMI] = "NMI",
    [VECTOR_BP] = "#BP breakpoint",
    [VECTOR_OF] = "#OF overflow",
    [VECTOR_BR] = "#BR bound range exceeded",
    [VECTOR_UD] = "#UD undefined opcode",
    [VECTOR_NM] = "#NM no math coprocessor",
    [VECTOR_DF] = "#DF double fault",
    [VECTOR_TS] = "#TS invalid TSS",
    [VECTOR_NP] = "#NP segment not present",
    [VECTOR_SS] = "#SS stack-segment fault",
    [VECTOR_GP] = "#GP general protection",
    [VECTOR_PF] = "#PF page fault",
    [VECTOR_MF] = "#MF x87 floating-point error",
    [VECTOR_AC] = "#AC alignment check",
    [VECTOR_MC] = "#MC machine check",
    [VECTOR_XM] = "#XM SIMD floating-point exception",
    [VECTOR_VE] = "#VE virtualization exception",
    [VECTOR_CP] = "#CP control protection",
};

const char *trap_name(uint64_t vector)
{
    return vector < EXCEPTION_COUNT ? trap_names[vector] : NULL;
}

static void show_page_fault(struct sink *to, uint64_t error, uint64_t address)
{
    const char *access = error & PF_FETCH   ? "fetch from"
                         : error & PF_WRITE ? "write to"
                                            : "read of";
    const char *why = error & PF_RESERVED  ? "an entry with a reserved bit set"
                      : error & PF_PRESENT ? "a page that forbids it"
                                           : "an absent page";
    format(to, "  %s 0x%lx from %s mode: %s\n", access, address,
           error & PF_USER ? "user" : "supervisor", why);
}

/* Says it when an address is in the unmapped page below one of this CPU's stacks. */
static void show_guard(struct sink *to, uint64_t address)
{
    const struct percpu *cpu = this_cpu();
    for (unsigned i = 0; i < STACK_COUNT; i++) {
        uint64_t bottom = cpu->stack[i].bottom;
        if (bottom != 0 && address < bottom && address >= bottom - STACK_GUARD)
            format(to, "  0x%lx is in the guard page of the %s stack: that stack overflowed\n",
                   address, cpu_stack_names[i]);
    }
}

static void show_machine_check(struct sink *to)
{
    uint64_t cap, status;
    if (rdmsr_safe(IA32_MCG_CAP, &cap) || rdmsr_safe(IA32_MCG_STATUS, &status))
        return;
    format(to, "  IA32_MCG_STATUS 0x%lx\n", status);
    for (unsigned bank = 0; bank < (cap & MCG_CAP_COUNT); bank++) {
        uint64_t what, where = 0;
        if (rdmsr_safe(IA32_MC0_STATUS + bank * MC_BANK_STRIDE, &what) || !(what & MC_STATUS_VALID))
            continue;
        if (what & MC_STATUS_ADDRV)
            rdmsr_safe(IA32_MC0_ADDR + bank * MC_BANK_STRIDE, &where);
        format(to, "  bank %u: status 0x%lx, address 0x%lx\n", bank, what, where);
    }
}

void trap_show_registers(struct sink *to, const struct trap_frame *frame)
{
    const struct register_value list[] = {
        {"RIP", frame->rip},        {"RFLAGS", frame->rflags},
        {"RSP", frame->rsp},        {"RAX", frame->rax},
        {"RBX", frame->rbx},        {"RCX", frame->rcx},
        {"RDX", frame->rdx},        {"RSI", frame->rsi},
        {"RDI", frame->rdi},        {"RBP", frame->rbp},
        {"R8", frame->r8},          {"R9", frame->r9},
        {"R10", frame->r10},        {"R11", frame->r11},
        {"R12", frame->r12},        {"R13", frame->r13},
        {"R14", frame->r14},        {"R15", frame->r15},
        {"CR0", read_cr0()},        {"CR2", read_cr2()},
        {"CR3", read_cr3()},        {"CR4", read_cr4()},
        {"EFER", rdmsr(IA32_EFER)}, {"CS", frame->cs},
        {"SS", frame->ss},          {"GSBASE", rdmsr(IA32_GS_BASE)},
    };

    show_registers(to, "  ", list, ARRAY_SIZE(list));
}

void trap_show_chain(struct sink *to, const struct call_chain *chain)
{
    char end[CHAIN_END];

    format(to, "  backtrace:\n");
    for (unsigned i = 0; i < chain->count; i++) {
        uint64_t offset;
        const char *name = call_chain_symbol(chain, i, &offset);

        if (i > 1 && chain->call[i].stack != chain->call[i - 1].stack)
            format(to, "    on the %s stack:\n", cpu_stack_names[chain->call[i].stack]);
        format(to, "    0x%lx", chain->call[i].at);
        if (name)
            format(to, " %s+0x%lx", name, offset);
        format(to, "\n");
    }
    if (chain->end != CHAIN_BASE)
        format(to, "    (%s)\n", call_chain_end_text(end, chain));
}

void trap_show_backtrace(struct sink *to, uint64_t rip, uint64_t rbp)
{
    struct call_chain chain;

    call_chain_take(&chain, this_cpu()->stack, STACK_COUNT, rip, rbp);
    trap_show_chain(to, &chain);
}

static void show_step(struct sink *to, const struct walk_step *step)
{
    static const char *const classes[] = {
        [ENTRY_ABSENT] = "not present",
        [ENTRY_TABLE] = "table",
        [ENTRY_LEAF] = "leaf",
        [ENTRY_BAD] = "illegal",
    };
    char rights[RIGHTS_TEXT];
    format(to, "    %-4s[%3u] at 0x%lx: 0x%lx %s", level_name(step->level), step->index,
           step->address.v, step->raw, classes[step->class]);
    if (step->class == ENTRY_TABLE || step->class == ENTRY_LEAF)
        format(to, " %s%s%s", rights_text(rights, step->attrs.rights), step->accessed ? " A" : "",
               step->dirty ? " D" : "");
    if (step->class == ENTRY_LEAF)
        format(to, " %s", mem_type_name(step->attrs.type));
    if (step->class == ENTRY_BAD)
        format(to, ": %s", rule_text(step->rule));
    format(to, "\n");
}

void trap_show_walk_in(struct sink *to, struct table *table, uint64_t address)
{
    struct walk walk;
    hva_walk(table, hva(address), &walk);
    format(to, "  walk of 0x%lx in the %s table: %s\n", address, table->kind->name,
           walk.error ? error_text(walk.error) : "mapped");
    for (unsigned i = 0; i < walk.count; i++)
        show_step(to, &walk.step[i]);
}

void trap_show_walk(struct sink *to, uint64_t address)
{
    if (kernel_table.root.v == 0)
        format(to, "  no walk of 0x%lx: the kernel's table does not stand yet\n", address);
    else
        trap_show_walk_in(to, &kernel_table, address);
}

void trap_report(struct sink *to, const struct trap_frame *frame)
{
    const char *name = trap_name(frame->vector);
    format(to, "\nquire: %s (vector %lu, error code 0x%lx) on CPU %u in ring %u\n",
           name ? name : "reserved exception", frame->vector, frame->error, this_cpu()->number,
           (unsigned)(frame->cs & 3));
    uint64_t cr2 = read_cr2();
    if (frame->vector == VECTOR_PF)
        show_page_fault(to, frame->error, cr2);
    if (frame->vector == VECTOR_MC)
        show_machine_check(to);
    bool walk = frame->vector == VECTOR_PF || frame->vector == VECTOR_DF;
    if (walk)
        show_guard(to, cr2);
    trap_show_registers(to, frame);
    trap_show_backtrace(to, frame->rip, frame->rbp);
    if (walk)
        trap_show_walk(to, cr2);
}
