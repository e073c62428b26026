/*
 * The 8254 timer of a guest, ports 0x40 to 0x43, and the speaker port 0x61 that gates its third
 * counter.
 *
 * It counts at its 1193182 Hz against the clock that the guest reads as its TSC (vm/clock.h). A new
 * count takes effect at once, in the periodic modes too.
 *
 * Rising edges of the first counter's output are interrupts. A guest that could not take one in
 * time (others had the CPU, interrupts were off) gets those that it missed one after the other, so
 * that it does not lose time; more than PIT_BACKLOG of them are dropped, and all but one while the
 * line is masked.
 */
#include "lib/bits.h"
#include "vm/clock.h"
#include "vm/device.h"
#include "vm/guest.h"
#include "vm/interrupts.h"

#define PIT_COUNTER0 0x40
#define PIT_CONTROL 0x43
#define PIT_SPEAKER 0x61

#define PIT_HZ UINT64_C(1193182)
#define PIT_BACKLOG 1000

#define MODE_TERMINAL_COUNT 0
#define MODE_STROBE 4

#define CONTROL_SELECT(value) ((value) >> 6)
#define CONTROL_ACCESS(value) ((value) >> 4 & 3)
#define CONTROL_MODE(value) ((value) >> 1 & 7)
#define SELECT_READ_BACK 3
#define READ_BACK_NO_COUNT BIT(5)
#define READ_BACK_NO_STATUS BIT(4)
#define ACCESS_LATCH 0
#define ACCESS_LOW 1
#define ACCESS_HIGH 2
#define ACCESS_BOTH 3

#define STATUS_OUTPUT BIT(7)

#define SPEAKER_GATE BIT(0)
#define SPEAKER_WRITABLE 0x03
#define SPEAKER_REFRESH BIT(4) /* toggles as memory is refreshed; some wait for the change */
#define SPEAKER_OUTPUT BIT(5)

static uint64_t counts_until(const struct pit_counter *counter, uint64_t now)
{
    return clock_counts(now - counter->started, counter->hz, PIT_HZ);
}

/* Ticks until so many counts are over. */
static uint64_t ticks_of(const struct pit_counter *counter, uint64_t counts)
{
    return clock_ticks(counts, counter->hz, PIT_HZ);
}

static uint64_t period(const struct pit_counter *counter)
{
    return counter->reload == 0 ? 65536 : counter->reload;
}

static bool is_periodic(const struct pit_counter *counter)
{
    return counter->mode == 2 || counter->mode == 3;
}

static uint16_t count_at(const struct pit_counter *counter, uint64_t now)
{
    uint64_t passed = counts_until(counter, now);

    if (is_periodic(counter))
        return (uint16_t)(period(counter) - passed % period(counter));
    return (uint16_t)(period(counter) - passed); /* a one-shot wraps and counts on */
}

static bool output_at(const struct pit_counter *counter, uint64_t now)
{
    if (!counter->loaded)
        return counter->mode != MODE_TERMINAL_COUNT;
    if (counter->mode == 3)
        return counts_until(counter, now) % period(counter) < (period(counter) + 1) / 2;
    if (is_periodic(counter))
        return true;
    return counts_until(counter, now) >= period(counter);
}

static uint8_t read_counter(struct pit_counter *counter, uint64_t now)
{
    uint16_t count = counter->latched ? counter->latch : count_at(counter, now);
    bool high;

    if (counter->status_latched) {
        counter->status_latched = false;
        return counter->status;
    }
    high = counter->access == ACCESS_HIGH || (counter->access == ACCESS_BOTH && counter->read_high);
    if (counter->access == ACCESS_BOTH)
        counter->read_high = !counter->read_high;
    if (counter->access != ACCESS_BOTH || high)
        counter->latched = false; /* the latch holds until all of it was read */
    return (uint8_t)(high ? count >> 8 : count);
}

static void load_counter(struct pit_counter *counter, uint16_t count, uint64_t now)
{
    counter->reload = count;
    counter->started = now;
    counter->edges = 0;
    counter->loaded = true;
}

/* ---- The first counter's interrupts --------------------------------------------------------- */

/* Counts from the load to the first rising edge of the output; 0: there is none, for modes 1 and 5
 * wait for a gate that never rises. */
static uint64_t first_edge(const struct pit_counter *counter)
{
    if (is_periodic(counter) || counter->mode == MODE_TERMINAL_COUNT)
        return period(counter);
    return counter->mode == MODE_STROBE ? period(counter) + 1 : 0;
}

static uint64_t edges_until(const struct pit_counter *counter, uint64_t now)
{
    uint64_t first = first_edge(counter), passed;

    if (!counter->loaded || first == 0)
        return 0;
    passed = counts_until(counter, now);
    return is_periodic(counter) ? passed / first : passed >= first;
}

static void pit_update(struct guest *guest, uint64_t now)
{
    struct pit_counter *counter = &guest->devices.pit.counter[0];
    uint64_t edges = edges_until(counter, now);

    if (edges == counter->edges || irq_pending(guest, IRQ_TIMER))
        return;
    if (irq_masked(guest, IRQ_TIMER))
        counter->edges = edges - 1;
    else if (edges - counter->edges > PIT_BACKLOG)
        counter->edges = edges - PIT_BACKLOG;
    counter->edges++;
    irq_set_line(guest, IRQ_TIMER, false);
    irq_set_line(guest, IRQ_TIMER, true);
}

static uint64_t pit_next(const struct guest *guest, uint64_t now)
{
    const struct pit_counter *counter = &guest->devices.pit.counter[0];
    uint64_t first = first_edge(counter), edges;

    if (!counter->loaded || first == 0 || irq_masked(guest, IRQ_TIMER))
        return UINT64_MAX;
    edges = edges_until(counter, now);
    if (edges != counter->edges) /* asked for, or to be when the last is taken: soon */
        return ticks_of(counter, 1);
    if (edges != 0 && !is_periodic(counter))
        return UINT64_MAX;
    return counter->started + ticks_of(counter, (edges + 1) * first) - now;
}

/* ---- Registers ------------------------------------------------------------------------------ */

static void write_counter(struct pit_counter *counter, uint8_t value, uint64_t now)
{
    switch (counter->access) {
    case ACCESS_LOW:
        load_counter(counter, value, now);
        break;
    case ACCESS_HIGH:
        load_counter(counter, (uint16_t)(value << 8), now);
        break;
    default:
        if (counter->write_high)
            load_counter(counter, (uint16_t)(value << 8 | counter->write_low), now);
        else
            counter->write_low = value;
        counter->write_high = !counter->write_high;
    }
}

static void latch_count(struct pit_counter *counter, uint64_t now)
{
    if (counter->latched)
        return;
    counter->latched = true;
    counter->latch = count_at(counter, now);
}

static void latch_status(struct pit_counter *counter, uint64_t now)
{
    if (counter->status_latched)
        return;
    counter->status_latched = true;
    counter->status = (uint8_t)((output_at(counter, now) ? STATUS_OUTPUT : 0) |
                                counter->access << 4 | counter->mode << 1);
}

static void write_control(struct guest *guest, uint8_t value)
{
    struct dev_pit *pit = &guest->devices.pit;
    unsigned select = CONTROL_SELECT(value);
    uint64_t now = guest_now(guest);
    struct pit_counter *counter = &pit->counter[select % 3];

    if (select == SELECT_READ_BACK) {
        for (unsigned i = 0; i < 3; i++) {
            if (!(value & BIT(i + 1)))
                continue;
            if (!(value & READ_BACK_NO_COUNT))
                latch_count(&pit->counter[i], now);
            if (!(value & READ_BACK_NO_STATUS))
                latch_status(&pit->counter[i], now);
        }
        return;
    }
    if (CONTROL_ACCESS(value) == ACCESS_LATCH) {
        latch_count(counter, now);
        return;
    }
    if (select == 0 && CONTROL_MODE(value) == MODE_TERMINAL_COUNT)
        irq_set_line(guest, IRQ_TIMER, false);
    *counter = (struct pit_counter){
        .mode = CONTROL_MODE(value) & (CONTROL_MODE(value) & 2 ? 3 : 7), /* 6 and 7 are 2 and 3 */
        .access = CONTROL_ACCESS(value),
        .started = now,
        .hz = counter->hz,
    };
}

static uint32_t pit_read(struct guest *guest, uint16_t port, unsigned width)
{
    (void)width;
    if (port == PIT_CONTROL)
        return 0xff;
    return read_counter(&guest->devices.pit.counter[port - PIT_COUNTER0], guest_now(guest));
}

static void pit_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    struct dev_pit *pit = &guest->devices.pit;

    (void)width;
    if (port == PIT_CONTROL)
        write_control(guest, (uint8_t)value);
    else
        write_counter(&pit->counter[port - PIT_COUNTER0], (uint8_t)value, guest_now(guest));
}

static uint32_t speaker_read(struct guest *guest, uint16_t port, unsigned width)
{
    const struct dev_pit *pit = &guest->devices.pit;
    uint64_t now = guest_now(guest);
    uint32_t value = pit->gate;

    (void)port;
    (void)width;
    if (counts_until(&pit->counter[2], now) & 1)
        value |= SPEAKER_REFRESH;
    if (output_at(&pit->counter[2], now))
        value |= SPEAKER_OUTPUT;
    return value;
}

static void speaker_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    struct dev_pit *pit = &guest->devices.pit;

    (void)port;
    (void)width;
    /* A rising gate starts the third counter anew (modes 1, 2, 3, 5). */
    if (value & SPEAKER_GATE && !(pit->gate & SPEAKER_GATE))
        pit->counter[2].started = guest_now(guest);
    pit->gate = value & SPEAKER_WRITABLE;
}

static void pit_reset(struct guest *guest)
{
    for (unsigned i = 0; i < 3; i++) {
        guest->devices.pit.counter[i].access = ACCESS_BOTH;
        guest->devices.pit.counter[i].hz = guest->devices.clock.hz;
    }
}

static void pit_show(const struct guest *guest, struct sink *to)
{
    const struct dev_pit *pit = &guest->devices.pit;

    for (unsigned i = 0; i < 3; i++) {
        const struct pit_counter *counter = &pit->counter[i];

        if (!counter->loaded)
            format(to, "counter %u: not loaded\n", i);
        else if (is_periodic(counter))
            format(to, "counter %u: mode %u, reload %lu, %lu Hz\n", i, counter->mode,
                   period(counter), PIT_HZ / period(counter));
        else
            format(to, "counter %u: mode %u, from %lu, once\n", i, counter->mode, period(counter));
    }
}

static const struct port_range ranges[] = {
    {PIT_COUNTER0, PIT_CONTROL, 1, pit_read, pit_write},
    {PIT_SPEAKER, PIT_SPEAKER, 1, speaker_read, speaker_write},
};

const struct device pit_device = {
    .name = "PIT",
    .ports = ranges,
    .port_count = ARRAY_SIZE(ranges),
    .bears = BEARS_ON_ITSELF,
    .timed = TIMED_PIT,
    .reset = pit_reset,
    .update = pit_update,
    .next = pit_next,
    .show = pit_show,
};
