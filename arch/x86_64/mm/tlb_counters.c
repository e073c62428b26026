/* See tlb.h. Of each CPU on lines of its own, which it alone writes to. */
#include "arch/x86_64/mm/shootdown.h"
#include "arch/x86_64/mm/tlb.h"

static struct {
    struct tlb_counters counters;
} __attribute__((aligned(64))) of_cpu[SHOOTDOWN_CPUS];

struct tlb_counters *tlb_count(void)
{
    return &of_cpu[shootdown_self()].counters;
}

const struct tlb_counters *tlb_counters_of(unsigned cpu)
{
    return &of_cpu[cpu].counters;
}

struct tlb_counters tlb_counters_total(void)
{
    struct tlb_counters total = {0};

    for (unsigned i = 0; i < SHOOTDOWN_CPUS; i++) {
        const struct tlb_counters *one = &of_cpu[i].counters;

        total.invlpg += one->invlpg;
        total.cr3_loads += one->cr3_loads;
        total.invpcid += one->invpcid;
        total.all_global += one->all_global;
        total.one_guest_table += one->one_guest_table;
        total.all_guest_tables += one->all_guest_tables;
        total.guest_tag += one->guest_tag;
        total.guest_tag_at_entry += one->guest_tag_at_entry;
    }
    return total;
}
