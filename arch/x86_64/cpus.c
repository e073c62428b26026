/* See cpus.h: what CPUs are there, what they do, and how they stop. Starting is in cpus_start.c. */
#include "arch/x86_64/cpus_internal.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/halt.h"
#include "arch/x86_64/lapic.h"
#include "arch/x86_64/symbols.h"
#include "arch/x86_64/trap.h"
#include "lib/panic.h"

/* TSC ticks: seconds on a CPU, a minute where a tick is an instruction. */
#define ANSWER_PATIENCE (UINT64_C(1) << 33)
#define ASK_AGAIN (ANSWER_PATIENCE / 128)
#define STOP_PATIENCE (UINT64_C(1) << 30) /* to stop, or to tell where it is */

struct cpus cpus = {.count = 1, .online = 1, .by_number = {&cpus.entry[0]}};

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
    struct cpu_entry *entry = number < CPUS_MOST ? cpus.by_number[number] : NULL;

    return entry && entry->status == CPU_ONLINE ? entry : NULL;
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
            cpu_halt();
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
    .resend = ASK_AGAIN,
    .patience = ANSWER_PATIENCE,
    .missing = missing,
};

/* ---- Where a CPU is ------------------------------------------------------------------------ */

/* For the CPU that an NMI has interrupted at `frame`, or brought out of a guest: NULL. A program's
 * frames are its own. */
static void note_place(const struct trap_frame *frame)
{
    struct percpu *cpu = this_cpu();
    struct call_chain *chain = &cpu->place.chain;

    cpu->place.in_guest = cpu->in_guest;
    if (frame)
        call_chain_take(chain, cpu->stack, STACK_COUNT, frame->rip,
                        trap_from_user(frame) ? 0 : frame->rbp);
    else
        call_chain_here(chain, cpu->stack, STACK_COUNT);
}

static void tell_place(const struct trap_frame *frame)
{
    struct percpu *cpu = this_cpu();
    uint64_t asked = __atomic_load_n(&cpu->place_asked, __ATOMIC_ACQUIRE);

    if (asked == cpu->place_told)
        return;
    note_place(frame);
    __atomic_store_n(&cpu->place_told, asked, __ATOMIC_RELEASE);
}

int cpus_place(unsigned number, struct cpu_place *out)
{
    struct percpu *self = this_cpu();

    if (number == self->number) {
        out->in_guest = false;
        call_chain_here(&out->chain, self->stack, STACK_COUNT);
        return E_OK;
    }
    const struct cpu_entry *entry = entry_of(number);
    if (!entry)
        return E_NOENT;
    struct percpu *cpu = entry->percpu;
    uint64_t asked = cpu->place_asked + 1, start = rdtsc();

    __atomic_store_n(&cpu->place_asked, asked, __ATOMIC_RELEASE);
    cpus_kick(number);
    while (__atomic_load_n(&cpu->place_told, __ATOMIC_ACQUIRE) != asked) {
        if (rdtsc() - start > STOP_PATIENCE)
            return E_HARDWARE;
        cpu_pause();
    }
    *out = cpu->place;
    return E_OK;
}

/* ---- The end ------------------------------------------------------------------------------- */

#define NO_CPU UINT32_MAX

static uint32_t reporter = NO_CPU; /* the CPU that ends the machine */

static _Noreturn void stop_here(const struct trap_frame *frame)
{
    note_place(frame);
    __atomic_store_n(&entry_of(this_cpu()->number)->stopped, true, __ATOMIC_RELEASE);
    cpu_stop();
}

void cpus_take_nmi(const struct trap_frame *frame)
{
    uint32_t who = __atomic_load_n(&reporter, __ATOMIC_ACQUIRE);

    /* The one that reports may still get an NMI for a flush. */
    if (who != NO_CPU && who != this_cpu()->number)
        stop_here(frame);
    shootdown_answer();
    if (frame && this_cpu()->in_guest && this_cpu()->cut_slice)
        this_cpu()->cut_slice();
    tell_place(frame);
}

static bool has_stopped(const struct cpu_entry *entry)
{
    return __atomic_load_n(&entry->stopped, __ATOMIC_ACQUIRE);
}

static void show_stopped(struct sink *to, const struct cpu_entry *entry)
{
    if (!has_stopped(entry)) {
        format(to, "quire: CPU %u does not stop\n", entry->number);
        return;
    }
    const struct cpu_place *place = &entry->percpu->place;
    uint64_t offset, at = place->chain.call[0].at;
    const char *name = symbol_of(at, &offset);

    if (place->in_guest)
        format(to, "quire: CPU %u stopped in a guest\n", entry->number);
    else if (name)
        format(to, "quire: CPU %u stopped at 0x%lx %s+0x%lx\n", entry->number, at, name, offset);
    else
        format(to, "quire: CPU %u stopped at 0x%lx\n", entry->number, at);
}

void cpus_stop_all_others(struct sink *to)
{
    uint32_t self = this_cpu()->number, nobody = NO_CPU;

    if (!__atomic_compare_exchange_n(&reporter, &nobody, self, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE))
        stop_here(NULL); /* another one was first */
    for (unsigned n = 0; n < cpus.online; n++)
        if (n != self)
            cpus_kick(n);
    for (unsigned n = 0; n < cpus.online; n++) {
        const struct cpu_entry *entry = entry_of(n);
        uint64_t start = rdtsc();

        if (n == self)
            continue;
        while (!has_stopped(entry) && rdtsc() - start < STOP_PATIENCE)
            cpu_pause();
        show_stopped(to, entry);
    }
}

void cpus_show_all_others(struct sink *to)
{
    for (unsigned n = 0; n < cpus.online; n++) {
        const struct cpu_entry *entry = entry_of(n);

        if (n == this_cpu()->number || !has_stopped(entry))
            continue;
        format(to, "quire: CPU %u\n", n);
        trap_show_chain(to, &entry->percpu->place.chain);
    }
}
