/* See cpus.h. SDM Vol. 3, 9.4 "Multiple-processor (MP) initialization", 11.4.7. */
#include "arch/x86_64/cpus_internal.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/idle.h"
#include "arch/x86_64/lapic.h"
#include "arch/x86_64/mm/kernel.h"
#include "arch/x86_64/mm/kernel_space.h"
#include "arch/x86_64/trap.h"
#include "lib/lock.h"
#include "lib/log.h"
#include "mm/frames/buddy.h"

/* A write to this port takes about a microsecond wherever there is a bus; elsewhere nobody needs
 * the time. */
#define DELAY_PORT 0x80
#define INIT_MICROSECONDS 10000u
#define STARTUP_MICROSECONDS 200u
#define ANSWER_MICROSECONDS 2000000u

/* ap_entry.asm */
extern const uint8_t ap_trampoline[], ap_trampoline_end[];
extern struct percpu *ap_taken;
extern uint64_t ap_root;
_Noreturn void ap_main(struct percpu *cpu);

/* The one that is being started. */
static struct {
    struct cpu_entry *entry;
    cpu_enable_fn enable;
    bool x2apic;   /* the first CPU is in that mode */
    bool arrived;  /* it runs our code */
    bool finished; /* its entry says how it went */
} starting;

/* ---- On the CPU that starts ---------------------------------------------------------------- */

static int refuse(const char *text, ...) __attribute__((format(printf, 1, 2)));
static int refuse(const char *text, ...)
{
    va_list args;

    va_start(args, text);
    vformat_buffer(starting.entry->why, CPU_WHY, text, args);
    va_end(args);
    return E_UNSUPPORTED;
}

/* What this hypervisor does on one CPU it must be able to do on all. */
static int compare_features(void)
{
    const struct cpu_features *first = &cpu_features;
    struct cpu_features mine;

    cpu_features_read(&mine);
#define SAME(member, name)                                                                         \
    if (mine.member != first->member)                                                              \
        return refuse(name ": %lu, and %lu on the CPU that booted", (uint64_t)mine.member,         \
                      (uint64_t)first->member);
    SAME(maxphyaddr, "bits of a physical address")
    SAME(linear_bits, "bits of a linear address")
    SAME(nx, "NX")
    SAME(page1g, "1G pages")
    SAME(pge, "PGE")
    SAME(pcid, "PCID")
    SAME(invpcid, "INVPCID")
    SAME(smep, "SMEP")
    SAME(smap, "SMAP")
    SAME(umip, "UMIP")
    SAME(pat, "PAT")
    SAME(mce, "MCE")
    SAME(fxsr, "FXSR")
    SAME(xsave, "XSAVE")
    SAME(xcr0, "components of XCR0")
    SAME(vmx, "VMX")
    SAME(svm, "SVM")
#undef SAME
    return E_OK;
}

static int enable_this_cpu(void)
{
    int error = compare_features();

    if (error != E_OK)
        return error;
    cpu_enable();
    cpu_enable_pcid();
    if (starting.x2apic && !lapic_x2apic())
        lapic_enter_x2apic();
    error = lapic_enable();
    if (error != E_OK)
        return refuse("its local APIC cannot be used: %s", error_text(error));
    if (lapic_id() != starting.entry->apic_id)
        return refuse("it gives its APIC id as %u", lapic_id());
    return starting.enable ? starting.enable(starting.entry->why) : E_OK;
}

_Noreturn void ap_main(struct percpu *cpu)
{
    struct cpu_entry *self = starting.entry;

    __atomic_store_n(&starting.arrived, true, __ATOMIC_RELEASE);
    percpu_install(cpu, self->number);
    traps_load();
    if (enable_this_cpu() != E_OK) {
        self->status = CPU_REFUSED;
        __atomic_store_n(&starting.finished, true, __ATOMIC_RELEASE);
        cpu_stop();
    }
    /* In this order: of what changes from now on it is told; what changed before it forgets. */
    shootdown_join();
    tlb_flush_all();
    self->status = CPU_ONLINE;
    __atomic_store_n(&starting.finished, true, __ATOMIC_RELEASE);
    cpus_idle(self);
}

/* ---- On the CPU that booted ---------------------------------------------------------------- */

static void delay(unsigned microseconds)
{
    while (microseconds--)
        outb(DELAY_PORT, 0);
}

static bool wait_for(const bool *flag, unsigned microseconds)
{
    for (; microseconds && !__atomic_load_n(flag, __ATOMIC_ACQUIRE); microseconds--)
        delay(1);
    return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}

/* INIT, start-up, start-up (9.4.4.1): the second is for a CPU that has missed the first. */
static void call_up(uint32_t apic_id, uint8_t page)
{
    lapic_send_init(apic_id);
    delay(INIT_MICROSECONDS);
    lapic_send_startup(apic_id, page);
    if (wait_for(&starting.arrived, STARTUP_MICROSECONDS))
        return;
    lapic_send_startup(apic_id, page);
}

static void free_percpu(struct percpu *cpu)
{
    for (unsigned i = 0; i < STACK_COUNT; i++)
        if (cpu->stack[i].top)
            stack_free(hva(cpu->stack[i].top));
    invariant(buddy_free(hpa((uint64_t)(uintptr_t)cpu - direct_base), 0, OWNER_HOST) == E_OK);
}

/* NULL without memory. */
static struct percpu *make_percpu(void)
{
    hpa_t frame;
    hva_t top;

    _Static_assert(sizeof(struct percpu) <= PAGE_SIZE, "a frame holds it");
    if (buddy_alloc(0, PURPOSE_PERCPU, OWNER_HOST, &frame) != E_OK)
        return NULL;
    struct percpu *cpu = memset(direct(frame), 0, PAGE_SIZE);
    int error = stack_alloc(&top);
    if (error == E_OK) {
        cpu->stack[STACK_MAIN] = (struct stack_range){top.v - STACK_SIZE, top.v};
        cpu->kernel_rsp = cpu->tss.rsp[0] = top.v;
        error = traps_give_stacks(cpu);
    }
    if (error == E_OK)
        return cpu;
    free_percpu(cpu);
    return NULL;
}

static enum cpu_status start_one(struct cpu_entry *entry, uint8_t page)
{
    struct percpu *cpu = make_percpu();

    if (!cpu) {
        format_buffer(entry->why, CPU_WHY, "no memory for its stacks");
        return CPU_NO_ROOM;
    }
    entry->percpu = cpu;
    entry->number = cpus.online;
    cpus.by_number[entry->number] = entry;
    entry->status = CPU_SILENT;
    starting.entry = entry;
    starting.arrived = starting.finished = false;
    __atomic_store_n(&ap_taken, cpu, __ATOMIC_SEQ_CST);
    call_up(entry->apic_id, page);
    if (wait_for(&starting.finished, ANSWER_MICROSECONDS) && entry->status == CPU_ONLINE)
        return CPU_ONLINE;
    if (entry->status == CPU_SILENT)
        format_buffer(entry->why, CPU_WHY, "no answer to INIT and two start-up IPIs%s",
                      starting.arrived ? " beyond its first instructions" : "");
    /* Wherever it is, INIT has it wait for a start-up IPI, which does not come; until it does that
     * its stacks are not free. */
    __atomic_store_n(&ap_taken, NULL, __ATOMIC_SEQ_CST);
    lapic_send_init(entry->apic_id);
    delay(INIT_MICROSECONDS);
    free_percpu(cpu);
    entry->percpu = NULL;
    return entry->status;
}

static struct locks_held *locks_of_this_cpu(void)
{
    return &this_cpu()->locks;
}

/* Before a second CPU runs, and while no lock is held. */
static void prepare_for_others(void)
{
    trap_set_gate(VECTOR_WAKE, idle_timer, false);
    trap_set_gate(VECTOR_SPURIOUS, idle_spurious, false);
    cpus_nmi = cpus_take_nmi;
    cpus_stop_others = cpus_stop_all_others;
    cpus_show_others = cpus_show_all_others;
    cpus.entry[0].percpu = this_cpu();
    cpus.entry[0].apic_id = lapic_id();
    shootdown_init(&cpus_shootdown_ops);
    invariant(buddy_set_cpus(cpus_shootdown_ops.self, shootdown_fence) == E_OK);
    locks_held_here = locks_of_this_cpu;
    locks_needed = true;
    starting.x2apic = lapic_x2apic();
    ap_root = kernel_table.root.v;
}

static void try_candidate(const struct cpu_candidate *candidate, uint8_t page)
{
    struct cpu_entry *entry = &cpus.entry[cpus.count++];

    entry->apic_id = candidate->apic_id;
    entry->status = CPU_OFF;
    if (!candidate->enabled)
        format_buffer(entry->why, CPU_WHY, "the firmware has not enabled it");
    else
        entry->status = start_one(entry, page);
    if (entry->status == CPU_ONLINE)
        cpus.online++;
    else if (candidate->enabled)
        log_line("CPU with APIC id %u is left out: %s", entry->apic_id, entry->why);
}

unsigned cpus_start(const struct cpu_candidate *candidates, unsigned count, hpa_t page,
                    cpu_enable_fn enable)
{
    size_t size = (size_t)(ap_trampoline_end - ap_trampoline);
    static uint8_t saved[PAGE_SIZE];
    int error = lapic_enable();

    if (error != E_OK) {
        log_line("CPUs: this one's local APIC cannot be used (%s), and so no other is started",
                 error_text(error));
        return cpus.online;
    }
    uint32_t self = lapic_id();
    memcpy(saved, direct(page), sizeof(saved));
    memcpy(direct(page), ap_trampoline, size);
    prepare_for_others();
    starting.enable = enable;
    for (unsigned i = 0; i < count && cpus.count < CPUS_MOST; i++)
        if (candidates[i].apic_id != self)
            try_candidate(&candidates[i], (uint8_t)(page.v / PAGE_SIZE));
    memcpy(direct(page), saved, sizeof(saved));
    return cpus.online;
}
