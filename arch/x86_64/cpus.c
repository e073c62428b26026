/* See cpus.h: what CPUs are there, what they do, and how they stop. Starting is in cpus_start.c. */
#include "arch/x86_64/cpus_internal.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/lapic.h"
#include "arch/x86_64/symbols.h"
#include "arch/x86_64/trap.h"
#include "lib/panic.h"

/* TSC ticks: seconds on a CPU, a minute where a tick is an instruction. */
#define ANSWER_PATIENCE (UINT64_C(1) << 33)
#define STOP_PATIENCE (UINT64_C(1) << 30)

struct cpus cpus = {.count = 1, .online = 1};

static const char *const status_names[] = {
    [CPU_ONLINE] = "online",   [CPU_OFF] = "off",         [CPU_SILENT] = "silent",
    [CPU_REFUSED] = "refused", [CPU_NO_ROOM] = "no room",
};

const char *cpu_status_name(enum cpu_status status)
{
    return status_names[status];
}

unsigned cpus_online(void)
{
    return cpus.online;
}

static struct cpu_entry *entry_of(unsigned number)
{
    for (unsigned i = 0; i < cpus.count; i++)
        if (cpus.entry[i].status == CPU_ONLINE && cpus.entry[i].number == number)
            return &cpus.entry[i];
    return NULL;
}

/* By CPUID: the local APIC may be off. */
static uint32_t initial_apic_id(void)
{
    uint32_t r[4];

    cpuid(1, 0, r);
    return r[CPUID_EBX] >> 24;
}

bool cpus_info(unsigned index, struct cpu_info *out)
{
    if (index >= cpus.count)
        return false;
    const struct cpu_entry *entry = &cpus.entry[index];
    const struct percpu *cpu = index == 0 && !entry->percpu ? this_cpu() : entry->percpu;

    *out = (struct cpu_info){
        .status = entry->status,
        .number = entry->number,
        .apic_id = entry->percpu || index ? entry->apic_id : initial_apic_id(),
    };
    memcpy(out->why, entry->why, sizeof(out->why));
    if (entry->status != CPU_ONLINE)
        return true;
    const char *what = __atomic_load_n(&entry->what, __ATOMIC_RELAXED);
    out->doing = index == 0 ? "guests and console" : what ? what : "idle";
    out->nmis = cpu->nmis;
    out->wakes = entry->wakes;
    out->flushes = shootdown_counters_of(entry->number);
    out->tlb = *tlb_counters_of(entry->number);
    return true;
}

/* ---- Work ---------------------------------------------------------------------------------- */

int cpus_run(unsigned number, const char *what, void (*fn)(void *argument), void *argument)
{
    struct cpu_entry *entry = number == this_cpu()->number || number == 0 ? NULL : entry_of(number);

    if (!entry)
        return E_NOENT;
    if (!cpus_done(number))
        return E_STATE;
    entry->fn = fn;
    entry->argument = argument;
    __atomic_store_n(&entry->what, what, __ATOMIC_RELEASE);
    return lapic_send_vector(entry->apic_id, VECTOR_WAKE);
}

bool cpus_done(unsigned number)
{
    const struct cpu_entry *entry = entry_of(number);

    return !entry || __atomic_load_n(&entry->what, __ATOMIC_ACQUIRE) == NULL;
}

static bool (*idle_work)(void);

void cpus_set_idle_work(bool (*work)(void))
{
    __atomic_store_n(&idle_work, work, __ATOMIC_RELEASE);
}

void cpus_wake(unsigned number)
{
    lapic_send_vector(entry_of(number)->apic_id, VECTOR_WAKE);
}

static bool work_idly(void)
{
    bool (*work)(void) = __atomic_load_n(&idle_work, __ATOMIC_ACQUIRE);

    return work && work();
}

_Noreturn void cpus_idle(struct cpu_entry *self)
{
    for (;;) {
        if (__atomic_load_n(&self->what, __ATOMIC_ACQUIRE)) {
            self->wakes++;
            self->fn(self->argument);
            __atomic_store_n(&self->what, NULL, __ATOMIC_RELEASE);
        } else if (!work_idly()) {
            /* What is sent in between waits for STI, behind which HLT comes first. */
            __asm__ volatile("sti; hlt; cli" : : : "memory");
        }
    }
}

/* ---- Flushes ------------------------------------------------------------------------------- */

unsigned cpus_self(void)
{
    return this_cpu()->number;
}

void cpus_kick(unsigned number)
{
    lapic_send_nmi(entry_of(number)->apic_id);
}

static void forget(struct table *table, const struct flush_batch *batch)
{
    table->kind->flush(table, batch);
}

static uint64_t now(void)
{
    return rdtsc();
}

static void missing(unsigned number, const struct table *table)
{
    panic("CPU %u (APIC id %u) has not answered %s%s within 2^33 ticks", number,
          entry_of(number)->apic_id, table ? "a flush of a table of kind " : "a barrier",
          table ? table->kind->name : "");
}

const struct shootdown_ops cpus_shootdown_ops = {
    .self = cpus_self,
    .send = cpus_kick,
    .forget = forget,
    .now = now,
    .patience = ANSWER_PATIENCE,
    .missing = missing,
};

/* ---- The end ------------------------------------------------------------------------------- */

#define NO_CPU UINT32_MAX

static uint32_t reporter = NO_CPU; /* the CPU that ends the machine */

static _Noreturn void stop_here(const struct trap_frame *frame)
{
    struct cpu_entry *self = entry_of(this_cpu()->number);

    self->stopped_in_guest = frame == NULL;
    self->stopped_at = frame ? frame->rip : 0;
    __atomic_store_n(&self->stopped, true, __ATOMIC_RELEASE);
    cpu_stop();
}

void cpus_take_nmi(const struct trap_frame *frame)
{
    uint32_t who = __atomic_load_n(&reporter, __ATOMIC_ACQUIRE);

    /* The one that reports may still get an NMI for a flush. */
    if (who != NO_CPU && who != this_cpu()->number)
        stop_here(frame);
    shootdown_answer();
}

static void show_stopped(struct sink *to, const struct cpu_entry *entry)
{
    uint64_t offset;
    const char *name = symbol_of(entry->stopped_at, &offset);

    if (!__atomic_load_n(&entry->stopped, __ATOMIC_ACQUIRE))
        format(to, "quire: CPU %u does not stop\n", entry->number);
    else if (entry->stopped_in_guest)
        format(to, "quire: CPU %u stopped in a guest\n", entry->number);
    else if (name)
        format(to, "quire: CPU %u stopped at 0x%lx %s+0x%lx\n", entry->number, entry->stopped_at,
               name, offset);
    else
        format(to, "quire: CPU %u stopped at 0x%lx\n", entry->number, entry->stopped_at);
}

void cpus_stop_all_others(struct sink *to)
{
    uint32_t self = this_cpu()->number, nobody = NO_CPU;
    struct trap_frame nowhere = {0};

    if (!__atomic_compare_exchange_n(&reporter, &nobody, self, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE))
        stop_here(&nowhere); /* another one was first */
    for (unsigned n = 0; n < cpus.online; n++)
        if (n != self)
            cpus_kick(n);
    for (unsigned n = 0; n < cpus.online; n++) {
        const struct cpu_entry *entry = entry_of(n);
        uint64_t start = rdtsc();

        if (n == self)
            continue;
        while (!__atomic_load_n(&entry->stopped, __ATOMIC_ACQUIRE) &&
               rdtsc() - start < STOP_PATIENCE)
            cpu_pause();
        show_stopped(to, entry);
    }
}
