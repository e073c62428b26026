/* probepae: accesses by PAE paging, whose topmost level is four registers. See probe.h. */
#include "guests/probe.h"

#define GIGABYTE (1ull << 30) /* what a PDPTE covers */
#define HIGH (3 * GIGABYTE)

static uint64_t pdpt[4] __attribute__((aligned(32)));
static probe_table_t identity, directory;

static struct probe_format format = {
    .entry_bytes = 8,
    .directory = directory,
    .high = HIGH,
    .large = LARGE,
    .no_execute = NX,
    .odd = {1ull << 51,
            1ull << 52}, /* beyond MAXPHYADDR; ignored with four levels, but reserved here */
    .large_reserved = 1ull << 13,
};

static void turn_on_paging(void)
{
    uint32_t low, high;

    for (unsigned i = 0; i < PROBE_IDENTITY / LARGE; i++)
        ((volatile uint64_t *)identity)[i] = i * LARGE | P | W | PS;
    pdpt[0] = probe_physical(identity) | P;
    pdpt[3] = probe_physical(directory) | P;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(IA32_EFER));
    __asm__ volatile("wrmsr" : : "a"(low | EFER_NXE), "d"(high), "c"(IA32_EFER));
    set_cr4(read_cr4() | CR4_PAE);
    load_cr3((uintptr_t)pdpt);
    set_cr0(read_cr0() | CR0_PG | CR0_WP);
}

/* A directory that is not there, and one where the guest has no memory. */
static void probe_registers(void)
{
    probe_all(GIGABYTE);
    pdpt[2] = PROBE_HOLE | P;
    load_cr3((uintptr_t)pdpt);
    probe_refusal(2 * GIGABYTE, PROBE_HOLE, QUIRE_FAULT_EXEC);
}

void guest_main(const struct multiboot_info *info)
{
    turn_on_paging();
    probe_begin(&format, info);
    if (probe_word("nonx"))
        format.no_execute = 0;
    probe_pages();
    probe_large();
    probe_registers();
    probe_second_level();
    probe_end();
}
