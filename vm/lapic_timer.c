/*
 * The timer of a guest's local APIC. SDM Vol. 3, 11.5.4 "APIC Timer", 11.5.4.1 "TSC-Deadline Mode".
 *
 * It counts with the crystal clock where CPUID leaf 0x15 tells one, else with a bus clock, a
 * sixteenth of the TSC, divided as the guest says. Periods that a guest misses become one
 * interrupt, as in the hardware.
 */
#include "lib/bits.h"
#include "vm/guest.h"
#include "vm/lapic.h"

#define MODE(entry) ((entry) >> 17 & 3)
enum { ONE_SHOT, PERIODIC, TSC_DEADLINE };

#define DIVIDE_WRITABLE 0x0bu
#define LEAF_CLOCKS 0x15
#define TICKS_OF_BUS 16       /* some 100 MHz: not every kernel measures before it sets a count */
#define RATIO_MOST (1u << 20) /* so that no product below overflows */

static uint32_t timer_entry(const struct guest *guest)
{
    return guest->devices.lapic[guest->now].lvt[LAPIC_LVT_TIMER];
}

/* Figure 11-10: bits 3, 1, 0; 0 divides by 2, 7 by 1. */
static uint64_t divisor(uint8_t divide)
{
    unsigned code = (divide >> 1 & 4) | (divide & 3);

    return code == 7 ? 1 : UINT64_C(2) << code;
}

static uint64_t ticks_of(const struct lapic_timer *timer, uint64_t counts)
{
    return counts * divisor(timer->divide) * timer->tsc_share / timer->crystal_share;
}

static uint64_t counts_in(const struct lapic_timer *timer, uint64_t ticks)
{
    return ticks * timer->crystal_share / timer->tsc_share / divisor(timer->divide);
}

/* A period that rounds to nothing is still one. */
static uint64_t period(const struct lapic_timer *timer)
{
    uint64_t ticks = ticks_of(timer, timer->initial);

    return ticks != 0 ? ticks : 1;
}

void lapic_timer_reset(struct guest *guest)
{
    struct lapic_timer *timer = &guest->devices.lapic[guest->now].timer;
    uint32_t highest[4], clocks[4] = {0};

    guests_backend()->cpuid(0, 0, highest);
    if (highest[0] >= LEAF_CLOCKS)
        guests_backend()->cpuid(LEAF_CLOCKS, 0, clocks);
    timer->crystal_share = 1;
    timer->tsc_share = TICKS_OF_BUS;
    if (clocks[2] != 0 && clocks[0] - 1 < RATIO_MOST && clocks[1] - 1 < RATIO_MOST) {
        timer->crystal_share = clocks[0];
        timer->tsc_share = clocks[1];
    }
}

void lapic_timer_start_count(struct guest *guest, uint32_t count)
{
    struct lapic_timer *timer = &guest->devices.lapic[guest->now].timer;

    if (MODE(timer_entry(guest)) == TSC_DEADLINE)
        return;
    timer->initial = count;
    timer->runs = count != 0;
    timer->started = guest_now(guest);
}

uint32_t lapic_timer_count(const struct guest *guest)
{
    const struct lapic_timer *timer = &guest->devices.lapic[guest->now].timer;
    uint64_t ticks = guest_now(guest) - timer->started;

    if (!timer->runs)
        return 0;
    if (MODE(timer_entry(guest)) == PERIODIC)
        ticks %= period(timer);
    else if (ticks >= period(timer))
        return 0;
    return timer->initial - (uint32_t)counts_in(timer, ticks);
}

/* What is left is counted at the new rate. */
void lapic_timer_set_divide(struct guest *guest, uint32_t value)
{
    struct lapic_timer *timer = &guest->devices.lapic[guest->now].timer;
    uint32_t left = lapic_timer_count(guest);

    timer->divide = value & DIVIDE_WRITABLE;
    timer->started = guest_now(guest) - ticks_of(timer, timer->initial - left);
}

void lapic_timer_mode_changed(struct guest *guest, uint32_t before)
{
    struct lapic_timer *timer = &guest->devices.lapic[guest->now].timer;

    if ((MODE(before) == TSC_DEADLINE) == (MODE(timer_entry(guest)) == TSC_DEADLINE))
        return;
    timer->runs = false; /* a change to or from this mode disarms it */
    timer->initial = 0;
    timer->deadline = 0;
}

uint64_t lapic_timer_deadline(const struct guest *guest)
{
    return guest->devices.lapic[guest->now].timer.deadline;
}

void lapic_timer_set_deadline(struct guest *guest, uint64_t tsc)
{
    if (MODE(timer_entry(guest)) == TSC_DEADLINE)
        guest->devices.lapic[guest->now].timer.deadline = tsc;
}

void lapic_timer_update(struct guest *guest, uint64_t now)
{
    struct lapic_timer *timer = &guest->devices.lapic[guest->now].timer;
    unsigned mode = MODE(timer_entry(guest));

    if (mode == TSC_DEADLINE) {
        if (timer->deadline == 0 || now < timer->deadline)
            return;
        timer->deadline = 0;
    } else {
        if (!timer->runs || now - timer->started < period(timer))
            return;
        timer->runs = mode == PERIODIC;
        timer->started += (now - timer->started) / period(timer) * period(timer);
    }
    lapic_raise(guest, LAPIC_LVT_TIMER);
}

uint64_t lapic_timer_next(const struct guest *guest, uint64_t now)
{
    const struct lapic_timer *timer = &guest->devices.lapic[guest->now].timer;
    uint32_t entry = timer_entry(guest);

    /* One that waits already tells nothing new by coming again. */
    if (entry & LAPIC_LVT_MASKED || lapic_has_vector(guest, (uint8_t)entry))
        return UINT64_MAX;
    if (MODE(entry) == TSC_DEADLINE) {
        if (timer->deadline == 0)
            return UINT64_MAX;
        return timer->deadline > now ? timer->deadline - now : 0;
    }
    if (!timer->runs)
        return UINT64_MAX;
    uint64_t passed = now - timer->started;
    return passed < period(timer) ? period(timer) - passed : 0;
}
