/* See slice_timer.h. */
#include "arch/x86_64/guest/slice_timer.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/lapic.h"
#include "lib/error.h"

#define SAMPLE 4096                  /* timer ticks measured */
#define PATIENCE (UINT64_C(1) << 32) /* TSC ticks until the timer counts as dead */

static uint64_t tsc_per_sample;

/* The interrupt of the sample stays pending, for interrupts are masked: the first entry of a guest
 * takes it as an exit that changes nothing. */
int slice_timer_init(void)
{
    if (tsc_per_sample)
        return E_OK;
    uint64_t start = rdtsc();
    lapic_timer_start(SAMPLE);
    while (!lapic_pending(VECTOR_TIMER)) {
        if (rdtsc() - start > PATIENCE)
            return E_HARDWARE;
        cpu_pause();
    }
    tsc_per_sample = rdtsc() - start;
    lapic_timer_stop();
    return E_OK;
}

void slice_timer_start(uint64_t tsc_ticks)
{
    uint64_t most = UINT64_MAX / SAMPLE;
    uint64_t count = (tsc_ticks < most ? tsc_ticks : most) * SAMPLE / tsc_per_sample;

    if (count == 0)
        count = 1;
    lapic_timer_start(count < UINT32_MAX ? (uint32_t)count : UINT32_MAX);
}

void slice_timer_stop(void)
{
    lapic_timer_stop();
}
