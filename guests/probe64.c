/* probe64: accesses by 4-level paging, for which start64.asm has set the machine up. See probe.h.
 */
#include "guests/probe.h"

#define HIGH 0xffffc00000000000ull /* one PML4 slot in the upper half */
#define HUGE (1ull << 30)

static probe_table_t high_pdpt, high_pd, closed_pd, closed_pt;

static struct probe_format format = {
    .entry_bytes = 8,
    .directory = high_pd,
    .high = HIGH,
    .large = LARGE,
    .no_execute = NX,
    .odd = {1ull << 51, 1ull << 52}, /* beyond MAXPHYADDR; ignored */
    .large_reserved = 1ull << 13,
};

/* What lies above a page directory, and addresses that are none. */
static void probe_upper(void)
{
    const uint64_t frame = probe_physical(probe_target), base = frame & ~(LARGE - 1);

    probe_set(high_pdpt, 1, P | W | U | PS);
    probe_all(HIGH + HUGE + frame);
    probe_set(high_pdpt, 4, P | W | U | PS | 1ull << 13);
    probe_all(HIGH + 4 * HUGE);
    probe_set(closed_pt, 0, frame | P | W | U);
    probe_set(closed_pd, 0, probe_physical(closed_pt) | P | W); /* not for ring 3 */
    probe_set(closed_pd, 1, base | P | U | PS);                 /* not writable */
    probe_set(high_pdpt, 2, probe_physical(closed_pd) | P | W | U | format.no_execute);
    probe_all(HIGH + 2 * HUGE);
    probe_all(HIGH + 2 * HUGE + LARGE + frame - base);
    probe_set(high_pdpt, 3, probe_physical(closed_pd) | P | W | U | 1ull << 51);
    probe_all(HIGH + 3 * HUGE);
    probe(0x0000800000000000, QUIRE_FAULT_READ, false);
    probe(0x7fff00000000, QUIRE_FAULT_WRITE, true);
}

void guest_main(const struct multiboot_info *info)
{
    uint64_t *root = (uint64_t *)(uintptr_t)(read_cr3() & ~(PAGE - 1));

    *(volatile uint64_t *)high_pdpt = probe_physical(high_pd) | P | W | U;
    root[HIGH >> 39 & 511] = probe_physical(high_pdpt) | P | W | U;
    probe_begin(&format, info);
    if (probe_word("nonx"))
        format.no_execute = 0;
    probe_pages();
    probe_large();
    probe_upper();
    probe_second_level();
    probe_end();
}
