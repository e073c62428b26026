/*
 * The 8254 timer of a guest, ports 0x40 to 0x43, and the speaker port 0x61 that gates its third
 * counter.
 *
 * Counters can be programmed, latched and read back, and their outputs seen, so that a guest
 * that waits by polling goes on. The rate is nominal: one count for every PIT_TICKS ticks of the
 * host's clock, not 1193182 Hz of real time; no interrupt comes from it.
 */
#include "lib/bits.h"
#include "vm/guest.h"
#include "vm/ports.h"

#define PIT_COUNTER0 0x40
#define PIT_CONTROL 0x43
#define PIT_SPEAKER 0x61

#define PIT_TICKS 1024

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

static uint64_t counts_since(const struct pit_counter *counter)
{
    return (guests_backend()->ticks() - counter->started) / PIT_TICKS;
}

static uint64_t period(const struct pit_counter *counter)
{
    return counter->reload == 0 ? 65536 : counter->reload;
}

static bool is_periodic(const struct pit_counter *counter)
{
    return (counter->mode & 3) == 2 || (counter->mode & 3) == 3;
}

static uint16_t count_now(const struct pit_counter *counter)
{
    uint64_t passed = counts_since(counter);

    if (is_periodic(counter))
        return (uint16_t)(period(counter) - passed % period(counter));
    return (uint16_t)(period(counter) - passed); /* a one-shot wraps and counts on */
}

static bool output_now(const struct pit_counter *counter)
{
    if ((counter->mode & 3) == 3)
        return counts_since(counter) % period(counter) < (period(counter) + 1) / 2;
    if (is_periodic(counter))
        return true;
    return counts_since(counter) >= period(counter);
}

static uint8_t read_counter(struct pit_counter *counter)
{
    uint16_t count = counter->latched ? counter->latch : count_now(counter);
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

static void load_counter(struct pit_counter *counter, uint16_t count)
{
    counter->reload = count;
    counter->started = guests_backend()->ticks();
}

static void write_counter(struct pit_counter *counter, uint8_t value)
{
    switch (counter->access) {
    case ACCESS_LOW:
        load_counter(counter, value);
        break;
    case ACCESS_HIGH:
        load_counter(counter, (uint16_t)(value << 8));
        break;
    default:
        if (counter->write_high)
            load_counter(counter, (uint16_t)(value << 8 | counter->write_low));
        else
            counter->write_low = value;
        counter->write_high = !counter->write_high;
    }
}

static void latch_count(struct pit_counter *counter)
{
    if (counter->latched)
        return;
    counter->latched = true;
    counter->latch = count_now(counter);
}

static void latch_status(struct pit_counter *counter)
{
    if (counter->status_latched)
        return;
    counter->status_latched = true;
    counter->status = (uint8_t)((output_now(counter) ? STATUS_OUTPUT : 0) | counter->access << 4 |
                                counter->mode << 1);
}

static void write_control(struct dev_pit *pit, uint8_t value)
{
    unsigned select = CONTROL_SELECT(value);
    struct pit_counter *counter = &pit->counter[select % 3];

    if (select == SELECT_READ_BACK) {
        for (unsigned i = 0; i < 3; i++) {
            if (!(value & BIT(i + 1)))
                continue;
            if (!(value & READ_BACK_NO_COUNT))
                latch_count(&pit->counter[i]);
            if (!(value & READ_BACK_NO_STATUS))
                latch_status(&pit->counter[i]);
        }
        return;
    }
    if (CONTROL_ACCESS(value) == ACCESS_LATCH) {
        latch_count(counter);
        return;
    }
    *counter = (struct pit_counter){
        .mode = CONTROL_MODE(value),
        .access = CONTROL_ACCESS(value),
        .started = guests_backend()->ticks(),
    };
}

static uint32_t pit_read(struct guest *guest, uint16_t port, unsigned width)
{
    (void)width;
    if (port == PIT_CONTROL)
        return 0xff;
    return read_counter(&guest->devices.pit.counter[port - PIT_COUNTER0]);
}

static void pit_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    struct dev_pit *pit = &guest->devices.pit;

    (void)width;
    if (port == PIT_CONTROL)
        write_control(pit, (uint8_t)value);
    else
        write_counter(&pit->counter[port - PIT_COUNTER0], (uint8_t)value);
}

static uint32_t speaker_read(struct guest *guest, uint16_t port, unsigned width)
{
    const struct dev_pit *pit = &guest->devices.pit;
    uint32_t value = pit->gate;

    (void)port;
    (void)width;
    if (guests_backend()->ticks() / PIT_TICKS & 1)
        value |= SPEAKER_REFRESH;
    if (output_now(&pit->counter[2]))
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
        pit->counter[2].started = guests_backend()->ticks();
    pit->gate = value & SPEAKER_WRITABLE;
}

static void pit_reset(struct guest *guest)
{
    for (unsigned i = 0; i < 3; i++)
        guest->devices.pit.counter[i].access = ACCESS_BOTH;
}

static const struct port_range ranges[] = {
    {PIT_COUNTER0, PIT_CONTROL, 1, pit_read, pit_write},
    {PIT_SPEAKER, PIT_SPEAKER, 1, speaker_read, speaker_write},
};

const struct port_device pit_device = {"PIT", ranges, ARRAY_SIZE(ranges), pit_reset};
