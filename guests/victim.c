/*
 * victim: computes, and counts by the clock what it has of the CPU while others run: time that goes
 * by in small steps is its own, a gap is others'. It passes if it had at least as many per cent as
 * the last word of its command line says, 45 without one, in the time of 150 slices;
 * else it fails with the per cent that it had.
 */
#include "guests/guest.h"

#define WINDOW UINT64_C(150000000) /* ticks looked at */
#define GAP 40000                  /* ticks from here on are no step of its own */
#define LEAST 45

static uint64_t read_clock(void)
{
    uint32_t low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

void guest_main(const struct multiboot_info *info)
{
    uint32_t least = last_number(info, LEAST);
    uint64_t start = read_clock(), before = start, own = 0, now;
    uint32_t share;

    do {
        now = read_clock();
        if (now - before < GAP)
            own += now - before;
        before = now;
    } while (now - start < WINDOW);
    /* Without a division of 64 bits, which 32-bit code would call a library for. */
    share = (uint32_t)(own >> 10) / ((uint32_t)((now - start) >> 10) / 100);
    print("had ");
    print_number(share);
    print(" % of the CPU\n");
    if (share >= least)
        hypercall(QUIRE_HC_PASS, 0, 0, 0, 0);
    hypercall(QUIRE_HC_FAIL, share ? share : 1, 0, 0, 0);
}
