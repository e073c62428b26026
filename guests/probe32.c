/* probe32: accesses by 32-bit paging, with pages of 4 MiB unless `nopse` is on the command line.
 * See probe.h. */
#include "guests/probe.h"

#define LARGE32 (4ull << 20)
#define HIGH 0xc0000000ull
#define ABOVE (1ull << 32) /* where PSE-36 leads to with bit 13 of a large page's entry */

static volatile uint32_t root[1024] __attribute__((aligned(4096)));
static volatile uint32_t identity[PROBE_IDENTITY / PAGE] __attribute__((aligned(4096)));
static probe_table_t table;

static struct probe_format format = {
    .entry_bytes = 4,
    .directory = &root[HIGH / LARGE32],
    .high = HIGH,
    .large = LARGE32,
    .odd = {1ull << 9, 1ull << 7}, /* for software; PAT */
    .large_reserved = 1ull << 21,
};

static void turn_on_paging(void)
{
    for (unsigned i = 0; i < PROBE_IDENTITY / PAGE; i++)
        identity[i] = (uint32_t)(i * PAGE | P | W);
    for (unsigned i = 0; i < PROBE_IDENTITY / LARGE32; i++)
        root[i] = (uint32_t)(probe_physical(&identity[1024 * i]) | P | W);
    load_cr3((uintptr_t)root);
    set_cr0(read_cr0() | CR0_PG | CR0_WP);
}

/* Entries beside those that all formats have. */
enum { OURS_ABOVE = 16, OURS_IGNORED };

/* An address of more than 32 bits, which no memory of this guest has. */
static void probe_above(void)
{
    const uint64_t frame = probe_physical(probe_target), base = frame & ~(LARGE32 - 1);
    uint64_t offset = frame - base;

    probe_set(format.directory, OURS_ABOVE, base | P | W | U | PS | 1ull << 13);
    for (unsigned access = QUIRE_FAULT_READ; access <= QUIRE_FAULT_EXEC; access <<= 1)
        probe_refusal(HIGH + OURS_ABOVE * LARGE32 + offset, ABOVE + frame, access);
}

/* Without CR4.PSE the bit does not make a page: the entry leads to a table. */
static void probe_ignored(void)
{
    probe_set(table, 0, probe_physical(probe_target) | P | W | U);
    probe_set(format.directory, OURS_IGNORED, probe_physical(table) | P | W | U | PS);
    probe_all(HIGH + OURS_IGNORED * LARGE32);
    probe_all(HIGH + OURS_IGNORED * LARGE32 + PAGE);
}

void guest_main(const struct multiboot_info *info)
{
    turn_on_paging();
    probe_begin(&format, info);
    probe_pages();
    if (probe_word("nopse")) {
        probe_ignored();
    } else {
        set_cr4(read_cr4() | CR4_PSE);
        probe_large();
        probe_above();
    }
    probe_second_level();
    probe_end();
}
