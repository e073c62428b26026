/* See slice_timer.h. */
#include "arch/x86_64/guest/slice_timer.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/lapic.h"
#include "lib/error.h"

#define SAMPLE 4096                  /* timer ticks measured */
#define PATIENCE (UINT64_C(1) << 32) /* TSC ticks until the timer counts as dead */

static uint64_t tsc_per_sample;

/* Both clocks are read where the sample begins and where it ends: a pause in between, as when an
 * emulator loses its turn on a busy computer, counts on both. */
int slice_timer_init(void)
{
    if (tsc_per_sample)
        return E_OK;
    lapic_timer_start(UINT32_MAX);
    uint32_t first = lapic_timer_left(), left = first;
    uint64_t start = rdtsc(), passed = 0;
    while (first - left < SAMPLE && passed <= PATIENCE) {
        cpu_pause();
        left = lapic_timer_left();
        passed = rdtsc() - start;
    }
    lapic_timer_stop();
    if (first - left < SAMPLE)
        return E_HARDWARE;
    tsc_per_sample = passed * SAMPLE / (first - left);
    if (tsc_per_sample == 0)
        tsc_per_sample = 1;
    return E_OK;
}

static uint32_t timer_count(uint64_t tsc_ticks)
{
    uint64_t most = UINT64_MAX / SAMPLE;
    uint64_t count = (tsc_ticks < most ? tsc_ticks : most) * SAMPLE / tsc_per_sample;

    if (count == 0)
        count = 1;
    return count < UINT32_MAX ? (uint32_t)count : UINT32_MAX;
}

void slice_timer_start(uint64_t tsc_ticks)
{
    lapic_timer_start(timer_count(tsc_ticks));
}

void slice_timer_repeat(uint64_t tsc_ticks)
{
    lapic_timer_repeat(timer_count(tsc_ticks > SLICE_SHORTEST ? tsc_ticks : SLICE_SHORTEST));
}

void slice_timer_end_now(void)
{
    lapic_send_vector(lapic_id(), VECTOR_TIMER);
}

void slice_timer_stop(void)
{
    lapic_timer_stop();
}
