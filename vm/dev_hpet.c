/*
 * The high-precision event timer of a guest: a counter of 64 bits and three comparators at
 * 0xfed00000. IA-PC HPET specification 1.0a.
 *
 * Every comparator can be periodic. Interrupts go to pins 20 to 23 of the I/O APIC, or by "legacy
 * replacement" in place of the 8254's and the clock's. Periods that a guest misses become one
 * interrupt. Messages in place of interrupts are not offered.
 */
#include "lib/bits.h"
#include "vm/clock.h"
#include "vm/device.h"
#include "vm/guest.h"
#include "vm/interrupts.h"

#define WINDOW_BASE UINT64_C(0xfed00000)
#define WINDOW_BYTES 4096

#define RATE UINT64_C(14318180) /* Hz */
#define PERIOD_FS UINT64_C(69841279)

enum {
    REGISTER_CAPABILITIES = 0x000,
    REGISTER_CONFIG = 0x010,
    REGISTER_STATUS = 0x020,
    REGISTER_COUNTER = 0x0f0,
    REGISTER_TIMERS = 0x100,
};
#define TIMER_STRIDE 0x20
enum { TIMER_CONFIG = 0x00, TIMER_COMPARATOR = 0x08 };

#define REVISION 1u
#define CAPABILITY_64BIT BIT(13)
#define CAPABILITY_LEGACY BIT(15)
#define VENDOR (UINT64_C(0x8086) << 16)

#define CONFIG_ENABLED BIT(0)
#define CONFIG_LEGACY BIT(1)

#define TIMER_LEVEL BIT(1)
#define TIMER_INTERRUPTS BIT(2)
#define TIMER_PERIODIC BIT(3)
#define TIMER_CAN_PERIOD BIT(4)
#define TIMER_IS_64BIT BIT(5)
#define TIMER_SETS_VALUE BIT(6) /* the next write is the accumulator's, not the period */
#define TIMER_32BIT BIT(8)
#define TIMER_ROUTE(config) ((unsigned)((config) >> 9 & 0x1f))
#define TIMER_ROUTES (UINT64_C(0x00f00000) << 32)
#define TIMER_WRITABLE                                                                             \
    (TIMER_LEVEL | TIMER_INTERRUPTS | TIMER_PERIODIC | TIMER_SETS_VALUE | TIMER_32BIT | BITS(13, 9))
#define TIMER_FIXED (TIMER_CAN_PERIOD | TIMER_IS_64BIT | TIMER_ROUTES)

static bool is_counting(const struct dev_hpet *hpet)
{
    return hpet->config & CONFIG_ENABLED;
}

static uint64_t counter_at(const struct dev_hpet *hpet, uint64_t now)
{
    if (!is_counting(hpet))
        return hpet->base;
    return hpet->base + clock_counts(now - hpet->started, hpet->tsc_hz, RATE);
}

static uint64_t counter_now(const struct guest *guest)
{
    return counter_at(&guest->devices.hpet, guest_now(guest));
}

static void set_counter(struct guest *guest, uint64_t value)
{
    guest->devices.hpet.base = value;
    guest->devices.hpet.started = guest_now(guest);
}

/* ---- Comparators ----------------------------------------------------------------------------- */

static uint64_t width_mask(const struct hpet_timer *timer)
{
    return timer->config & TIMER_32BIT ? UINT32_MAX : UINT64_MAX;
}

/* The next match is so far from here; one that is here already comes after a whole round. */
static void arm(const struct guest *guest, struct hpet_timer *timer)
{
    timer->armed_at = counter_now(guest);
    timer->distance = (timer->comparator - timer->armed_at) & width_mask(timer);
    if (timer->distance == 0)
        timer->distance = timer->config & TIMER_32BIT ? BIT(32) : UINT64_MAX;
}

static void arm_all(struct guest *guest)
{
    for (unsigned i = 0; i < HPET_TIMERS; i++)
        arm(guest, &guest->devices.hpet.timer[i]);
}

bool hpet_replaces_legacy(const struct guest *guest)
{
    const struct dev_hpet *hpet = &guest->devices.hpet;

    return is_counting(hpet) && hpet->config & CONFIG_LEGACY;
}

static void drive(struct guest *guest, unsigned which, bool level)
{
    struct dev_hpet *hpet = &guest->devices.hpet;

    if (hpet_replaces_legacy(guest) && which < 2)
        irq_replace_line(guest, which == 0 ? IRQ_TIMER : IRQ_CLOCK, level);
    else if (TIMER_ROUTES >> 32 & BIT(TIMER_ROUTE(hpet->timer[which].config)))
        ioapic_set_pin(guest, TIMER_ROUTE(hpet->timer[which].config), level);
}

static void fire(struct guest *guest, unsigned which)
{
    struct dev_hpet *hpet = &guest->devices.hpet;
    const struct hpet_timer *timer = &hpet->timer[which];

    if (timer->config & TIMER_LEVEL) {
        hpet->status |= (uint32_t)BIT(which);
        drive(guest, which, (timer->config & TIMER_INTERRUPTS) != 0);
    } else if (timer->config & TIMER_INTERRUPTS) {
        drive(guest, which, true);
        drive(guest, which, false);
    }
}

/* Matches by `counter`: the comparator of a periodic one moves on behind it. */
static bool matches(struct hpet_timer *timer, uint64_t counter)
{
    uint64_t passed = counter - timer->armed_at, periods;

    if (passed < timer->distance)
        return false;
    timer->armed_at += timer->distance;
    if (!(timer->config & TIMER_PERIODIC) || timer->period == 0) {
        timer->distance = timer->config & TIMER_32BIT ? BIT(32) : UINT64_MAX;
        timer->armed_at += (counter - timer->armed_at) / timer->distance * timer->distance;
        return true;
    }
    periods = (counter - timer->armed_at) / timer->period;
    timer->armed_at += periods * timer->period;
    timer->distance = timer->period;
    timer->comparator = (timer->armed_at + timer->period) & width_mask(timer);
    return true;
}

static void hpet_update(struct guest *guest, uint64_t now)
{
    struct dev_hpet *hpet = &guest->devices.hpet;

    if (!is_counting(hpet))
        return;
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        if (matches(&hpet->timer[i], counter_at(hpet, now)))
            fire(guest, i);
    }
}

static uint64_t hpet_next(const struct guest *guest, uint64_t now)
{
    const struct dev_hpet *hpet = &guest->devices.hpet;
    uint64_t first = UINT64_MAX;

    if (!is_counting(hpet))
        return first;
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        const struct hpet_timer *timer = &hpet->timer[i];
        uint64_t passed = counter_at(hpet, now) - timer->armed_at;
        uint64_t left = passed < timer->distance ? timer->distance - passed : 0;

        if (timer->config & TIMER_INTERRUPTS && left < first)
            first = left;
    }
    return first >> 32 ? UINT64_MAX : clock_ticks(first, hpet->tsc_hz, RATE);
}

/* ---- Registers ------------------------------------------------------------------------------ */

static uint64_t read_timer(const struct dev_hpet *hpet, unsigned which, unsigned offset)
{
    const struct hpet_timer *timer = &hpet->timer[which];

    switch (offset) {
    case TIMER_CONFIG:
        return timer->config | TIMER_FIXED;
    case TIMER_COMPARATOR:
        return timer->comparator;
    }
    return 0;
}

static uint64_t read_register(const struct guest *guest, unsigned offset)
{
    const struct dev_hpet *hpet = &guest->devices.hpet;

    if (offset >= REGISTER_TIMERS && offset < REGISTER_TIMERS + HPET_TIMERS * TIMER_STRIDE)
        return read_timer(hpet, (offset - REGISTER_TIMERS) / TIMER_STRIDE, offset % TIMER_STRIDE);
    switch (offset) {
    case REGISTER_CAPABILITIES:
        return PERIOD_FS << 32 | VENDOR | CAPABILITY_LEGACY | CAPABILITY_64BIT |
               (HPET_TIMERS - 1) << 8 | REVISION;
    case REGISTER_CONFIG:
        return hpet->config;
    case REGISTER_STATUS:
        return hpet->status;
    case REGISTER_COUNTER:
        return counter_now(guest);
    }
    return 0;
}

static void write_config(struct guest *guest, uint64_t value)
{
    struct dev_hpet *hpet = &guest->devices.hpet;

    interrupts_stir(guest);                 /* it takes lines over, and gives them back */
    set_counter(guest, counter_now(guest)); /* what it has come to; it stops there or goes on */
    hpet->config = (uint32_t)(value & (CONFIG_ENABLED | CONFIG_LEGACY));
    arm_all(guest);
}

/* A status bit that is cleared takes back its level. */
static void write_status(struct guest *guest, uint64_t value)
{
    struct dev_hpet *hpet = &guest->devices.hpet;
    uint32_t cleared = hpet->status & (uint32_t)value;

    hpet->status &= ~cleared;
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        if (cleared & BIT(i))
            drive(guest, i, false);
    }
}

/* Of a periodic one a write sets the period, and the comparator as well where that was asked for
 * before, by TIMER_SETS_VALUE (2.3.9.2.2). */
static void write_comparator(const struct guest *guest, struct hpet_timer *timer, uint64_t value)
{
    value &= width_mask(timer);
    if (!(timer->config & TIMER_PERIODIC)) {
        timer->comparator = value;
    } else {
        if (timer->config & TIMER_SETS_VALUE)
            timer->comparator = value;
        else
            timer->period = value;
        timer->config &= (uint32_t)~TIMER_SETS_VALUE;
    }
    arm(guest, timer);
}

static void write_timer(struct guest *guest, unsigned which, unsigned offset, uint64_t value)
{
    struct dev_hpet *hpet = &guest->devices.hpet;
    struct hpet_timer *timer = &hpet->timer[which];

    switch (offset) {
    case TIMER_CONFIG:
        if (hpet->status & BIT(which))
            write_status(guest, BIT(which)); /* a level does not outlive what it was raised by */
        timer->config = (uint32_t)(value & TIMER_WRITABLE);
        timer->comparator &= width_mask(timer);
        arm(guest, timer);
        break;
    case TIMER_COMPARATOR:
        write_comparator(guest, timer, value);
        break;
    }
}

static void write_register(struct guest *guest, unsigned offset, uint64_t value)
{
    struct dev_hpet *hpet = &guest->devices.hpet;

    if (offset >= REGISTER_TIMERS && offset < REGISTER_TIMERS + HPET_TIMERS * TIMER_STRIDE) {
        write_timer(guest, (offset - REGISTER_TIMERS) / TIMER_STRIDE, offset % TIMER_STRIDE, value);
        return;
    }
    switch (offset) {
    case REGISTER_CONFIG:
        write_config(guest, value);
        break;
    case REGISTER_STATUS:
        write_status(guest, value);
        break;
    case REGISTER_COUNTER:
        if (!is_counting(
                hpet)) /* while it counts, a write is undefined (2.3.7), here of no effect */
            set_counter(guest, value);
        break;
    }
}

/* Registers are 8 bytes wide and may be accessed by halves. */
static uint64_t hpet_read(struct guest *guest, uint64_t offset, unsigned bytes)
{
    (void)bytes;
    return read_register(guest, (unsigned)offset & ~7u) >> 8 * (offset % 8);
}

static void hpet_write(struct guest *guest, uint64_t offset, unsigned bytes, uint64_t value)
{
    unsigned whole = (unsigned)offset & ~7u, shift = 8 * (offset % 8);
    uint64_t part = BITS(8 * bytes - 1, 0) << shift, kept = 0;

    if (bytes < 4)
        return;
    if (whole != REGISTER_STATUS) /* there a 0 leaves what is */
        kept = read_register(guest, whole) & ~part;
    write_register(guest, whole, kept | value << shift);
}

static void hpet_reset(struct guest *guest)
{
    guest->devices.hpet.tsc_hz = guest->devices.clock.hz;
    for (unsigned i = 0; i < HPET_TIMERS; i++)
        guest->devices.hpet.timer[i].comparator = UINT64_MAX;
    arm_all(guest);
}

static void hpet_show(const struct guest *guest, struct sink *to)
{
    const struct dev_hpet *hpet = &guest->devices.hpet;

    format(to, "%s%s, counter 0x%lx\n", is_counting(hpet) ? "counts" : "stands still",
           hpet->config & CONFIG_LEGACY ? ", legacy replacement" : "", counter_now(guest));
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        const struct hpet_timer *timer = &hpet->timer[i];

        if (!(timer->config & TIMER_INTERRUPTS))
            continue;
        format(to, "timer %u: %s, comparator 0x%lx, period 0x%lx, pin %u\n", i,
               timer->config & TIMER_PERIODIC ? "periodic" : "one-shot", timer->comparator,
               timer->period, TIMER_ROUTE(timer->config));
    }
}

static const struct window windows[] = {
    {WINDOW_BASE, WINDOW_BYTES, hpet_read, hpet_write},
};

const struct device hpet_device = {
    .name = "HPET",
    .windows = windows,
    .window_count = ARRAY_SIZE(windows),
    .bears = BEARS_ON_ITSELF,
    .timed = TIMED_HPET,
    .reset = hpet_reset,
    .update = hpet_update,
    .next = hpet_next,
    .show = hpet_show,
};
