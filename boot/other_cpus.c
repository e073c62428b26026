/* See boot/other_cpus.h. */
#include "boot/other_cpus.h"

#include "arch/x86_64/cpu.h"
#include "boot/low_page.h"
#include "boot/madt.h"
#include "lib/log.h"
#include "vm/sched.h"

#define BOOT_MAP_END (4 * GiB)

static struct madt found;

static const void *reach(void *ctx, uint64_t at, uint64_t size)
{
    (void)ctx;
    return at < BOOT_MAP_END && size <= BOOT_MAP_END - at ? direct(hpa(at)) : NULL;
}

void other_cpus_find(const struct boot_info *info)
{
    char why[MADT_WHY];

    if (madt_read(&info->rsdp, reach, NULL, &found, why, sizeof(why)) != E_OK)
        log_line("ACPI: %s; this CPU is the only one", why);
    if (found.dropped)
        log_line("ACPI: %u CPUs more than the %u that there is room for", found.dropped, MADT_CPUS);
}

/* An id that no firmware gives: the last of xAPIC mode. */
#define PRETENDED_ID 254

static unsigned list_candidates(struct cpu_candidate list[CPUS_MOST], uint64_t most, bool pretended)
{
    unsigned count = 0, enabled = 0;

    for (unsigned i = 0; i < found.count && count < CPUS_MOST; i++) {
        const struct madt_cpu *cpu = &found.cpu[i];

        /* An entry that is neither is room on the board for a CPU (ACPI 6.5, 5.2.12.2). */
        if (!cpu->enabled && !cpu->online_capable)
            continue;
        enabled += cpu->enabled;
        if (enabled > most)
            break;
        list[count++] = (struct cpu_candidate){cpu->apic_id, cpu->enabled};
    }
    if (pretended && count < CPUS_MOST)
        list[count++] = (struct cpu_candidate){PRETENDED_ID, true};
    return count;
}

void other_cpus_start(const struct boot_info *info, uint64_t most, cpu_enable_fn enable,
                      bool pretended)
{
    static struct cpu_candidate list[CPUS_MOST];
    unsigned count = list_candidates(list, most, pretended);
    hpa_t page;

    if (count < 2)
        return;
    if (low_page_find(info, &page) != E_OK) {
        log_line("CPUs: none of %u can be started: no page of RAM below 1 MiB is free", count - 1);
        return;
    }
    unsigned online = cpus_start(list, count, page, enable);
    log_line("CPUs: %u of %u are online", online, count);
}

static void relax(void)
{
    cpu_pause();
}

void other_cpus_run_guests(bool (*work)(void))
{
    static struct guests_cpus cpus = {
        .self = cpus_self,
        .kick = cpus_kick,
        .wake = cpus_wake,
        .relax = relax,
    };

    cpus.count = cpus_online();
    guests_set_cpus(&cpus);
    cpus_set_idle_work(work);
}
