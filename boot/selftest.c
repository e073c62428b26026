/* See boot/selftest.h. */
#include "boot/selftest.h"

#include <stdint.h>

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/cpus.h"
#include "arch/x86_64/mm/kernel.h"
#include "arch/x86_64/mm/layout.h"
#include "arch/x86_64/percpu.h"
#include "arch/x86_64/trap.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/panic.h"
#include "lib/string.h"

/* An address in a window of ours that nothing is ever placed at. */
#define NOWHERE (DIRECT_BASE + DIRECT_SIZE - 8 * PAGE_SIZE + 0x123)

static void page_fault(void)
{
    *(volatile uint8_t *)(uintptr_t)NOWHERE = 1;
}

static void write_text(void)
{
    *(volatile uint8_t *)(uintptr_t)selftest = 0xc3;
}

static void execute_data(void)
{
    static uint8_t ret = 0xc3;
    ((void (*)(void))(uintptr_t)&ret)();
}

static void undefined_opcode(void)
{
    __asm__ volatile("ud2");
}

static void double_fault(void)
{
    __asm__ volatile("mov %0, %%rsp\n\tpush %%rax" : : "r"(NOWHERE) : "memory");
}

/* Fills a frame and goes on below it; the store after the call keeps it from being a jump. */
static void descend(volatile uint64_t *above)
{
    void (*volatile again)(volatile uint64_t *) = descend;
    volatile uint64_t mine[32];
    mine[0] = above[0] + 1;
    again(mine);
    above[0] = mine[0];
}

static void overflow_stack(void)
{
    volatile uint64_t start = 0;
    descend(&start);
}

/* A fault while this CPU counts as writing a report already. */
static void nested_fault(void)
{
    this_cpu()->reporting = 1;
    page_fault();
}

static void broken_invariant(void)
{
    invariant(selftest == NULL);
}

static void flush_without_answers(void)
{
    struct flush_batch batch;

    cpus_nmi = NULL;
    flush_begin(&batch, &kernel_table);
    flush_whole(&batch);
    flush_commit(&batch);
}

static void break_invariant_on_second(void *ignored)
{
    (void)ignored;
    broken_invariant();
}

static void second_cpu_ends(void)
{
    if (cpus_run(1, "selftest", break_invariant_on_second, NULL) == E_OK)
        for (;;)
            cpu_pause();
}

#define ROUNDS_BEFORE 50

static idle_work_fn usual_work;

static bool break_invariant_in_the_midst(void)
{
    static unsigned rounds;
    bool more = usual_work();

    if (cpus_self() == 1 && more && ++rounds == ROUNDS_BEFORE)
        broken_invariant();
    return more;
}

static void (*usual_nmi)(const struct trap_frame *frame);

static void take_nmi_but_for_second(const struct trap_frame *frame)
{
    if (cpus_self() != 1)
        usual_nmi(frame);
}

struct fault {
    const char *name;
    void (*commit)(void);
};

static const struct fault faults[] = {
    {"pf", page_fault},       {"wp", write_text},          {"nx", execute_data},
    {"ud", undefined_opcode}, {"df", double_fault},        {"stack", overflow_stack},
    {"nest", nested_fault},   {"panic", broken_invariant},
};

static const struct fault cpu_faults[] = {
    {"deaf", flush_without_answers},
    {"second", second_cpu_ends},
};

static bool commit(const char *name, const struct fault *list, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (strcmp(name, list[i].name) != 0)
            continue;
        log_line("selftest: committing `%s`", name);
        list[i].commit();
        return true;
    }
    return false;
}

static bool is_one_of_cpus(const char *name)
{
    return strcmp(name, "lost") == 0 || strcmp(name, "deaf") == 0 || strcmp(name, "second") == 0 ||
           strcmp(name, "midst") == 0 || strcmp(name, "mute") == 0;
}

void selftest(const char *name)
{
    if (!commit(name, faults, ARRAY_SIZE(faults)) && !is_one_of_cpus(name))
        log_line("selftest: there is no `%s`; known: pf wp nx ud df stack nest panic, with "
                 "several CPUs lost deaf second midst mute",
                 name);
}

void selftest_of_cpus(const char *name)
{
    if (commit(name, cpu_faults, ARRAY_SIZE(cpu_faults)))
        log_line("selftest: `%s` wants several CPUs", name);
}

bool selftest_has_lost_cpu(const char *name)
{
    return strcmp(name, "lost") == 0;
}

idle_work_fn selftest_of_guests(const char *name, idle_work_fn usual)
{
    usual_work = usual;
    if (strcmp(name, "mute") == 0 && cpus_nmi) {
        usual_nmi = cpus_nmi;
        cpus_nmi = take_nmi_but_for_second;
    }
    return strcmp(name, "midst") == 0 ? break_invariant_in_the_midst : usual;
}
