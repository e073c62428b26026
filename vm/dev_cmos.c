/*
 * The CMOS memory and clock of a guest, ports 0x70 and 0x71: a Motorola MC146818 (its data sheet,
 * and "RTC" below for what that says) with 128 bytes, of which a PC's firmware has told some the
 * memory size, and the century.
 *
 * The clock runs by a chain of dividers from 32768 Hz. Nothing happens between the guest's
 * accesses: each first brings the registers up to date (`catch_up`), by as many seconds as have
 * passed, in one step.
 */
#include "lib/bits.h"
#include "vm/clock.h"
#include "vm/cmos_date.h"
#include "vm/device.h"
#include "vm/guest.h"
#include "vm/interrupts.h"
#include "vm/slots.h"

#define CMOS_INDEX 0x70
#define CMOS_DATA 0x71
#define CMOS_INDEX_MASK 0x7f /* bit 7 masks NMI */

enum {
    CMOS_BASE_KIB = 0x15,
    CMOS_EXTENDED_KIB = 0x17,
    CMOS_EXTENDED_KIB_COPY = 0x30,
    CMOS_ABOVE_16M = 0x34, /* in units of 64 KiB */
};

#define CRYSTAL UINT64_C(32768)
/* RTC, "Update cycle": it takes 1984 us, and UIP is set for at least 244 us before it. */
#define UPDATE_COUNTS (65 + 8)

#define A_RATE 0x0f
#define A_DIVIDER 0x70
#define A_DIVIDER_RUNS 0x20 /* for a crystal of 32768 Hz */
#define A_UPDATING BIT(7)
#define B_SET BIT(7)
#define B_SQUARE_WAVE BIT(3)
/* Interrupts, enabled in register B and flagged in register C by the same bits. */
#define PERIODIC BIT(6)
#define ALARM BIT(5)
#define UPDATE_ENDED BIT(4)
#define CAUSES (PERIODIC | ALARM | UPDATE_ENDED)
#define C_REQUEST BIT(7)
#define D_VALID BIT(7)

static bool divider_runs(const struct dev_cmos *cmos)
{
    return (cmos->ram[CMOS_STATUS_A] & A_DIVIDER) == A_DIVIDER_RUNS;
}

static bool is_set(const struct dev_cmos *cmos)
{
    return cmos->ram[CMOS_STATUS_B] & B_SET;
}

static uint64_t counts_at(const struct guest *guest, uint64_t now)
{
    const struct dev_cmos *cmos = &guest->devices.cmos;

    return cmos->phase + clock_counts(now - cmos->started, guest->devices.clock.hz, CRYSTAL);
}

static uint64_t ticks_until(const struct guest *guest, uint64_t now, uint64_t counts)
{
    const struct dev_cmos *cmos = &guest->devices.cmos;
    uint64_t at =
        cmos->started + clock_ticks(counts - cmos->phase, guest->devices.clock.hz, CRYSTAL);

    return at > now ? at - now : 1;
}

/* RTC, "Periodic interrupt rate"; 0: none. */
static uint64_t period(const struct dev_cmos *cmos)
{
    unsigned rate = cmos->ram[CMOS_STATUS_A] & A_RATE;

    if (rate == 0)
        return 0;
    return BIT(rate <= 2 ? rate + 6 : rate - 1);
}

static void drive_line(struct guest *guest)
{
    uint8_t *ram = guest->devices.cmos.ram;
    bool request = ram[CMOS_STATUS_B] & ram[CMOS_STATUS_C] & CAUSES;

    ram[CMOS_STATUS_C] = (uint8_t)((ram[CMOS_STATUS_C] & CAUSES) | (request ? C_REQUEST : 0));
    irq_set_line(guest, IRQ_CLOCK, request);
}

/* Seconds from now until the alarm, 1 at least; 0: it never comes. Reckoned again after each change
 * of a register, kept while the clock runs towards it. */
static uint32_t alarm_in(struct dev_cmos *cmos)
{
    if (!cmos->alarm_known)
        cmos->alarm_in = date_until_alarm(cmos->ram);
    cmos->alarm_known = true;
    return cmos->alarm_in;
}

static void advance(struct dev_cmos *cmos, uint64_t seconds)
{
    uint32_t alarm = alarm_in(cmos);

    date_advance(cmos->ram, seconds);
    cmos->ram[CMOS_STATUS_C] |= UPDATE_ENDED;
    if (alarm != 0 && seconds >= alarm) {
        cmos->ram[CMOS_STATUS_C] |= ALARM;
        cmos->alarm_known = false;
    } else if (alarm != 0) {
        cmos->alarm_in = alarm - (uint32_t)seconds;
    }
}

static void catch_up(struct guest *guest, uint64_t now)
{
    struct dev_cmos *cmos = &guest->devices.cmos;
    uint64_t counts, seconds, each = period(cmos);

    if (!divider_runs(cmos))
        return;
    counts = counts_at(guest, now);
    seconds = counts / CRYSTAL - cmos->counted / CRYSTAL;
    if (each != 0 && counts / each != cmos->counted / each)
        cmos->ram[CMOS_STATUS_C] |= PERIODIC;
    if (seconds != 0 && !is_set(cmos))
        advance(cmos, seconds);
    cmos->counted = counts;
    drive_line(guest);
}

static uint64_t cmos_next(const struct guest *guest, uint64_t now)
{
    const struct dev_cmos *cmos = &guest->devices.cmos;
    uint8_t enabled = cmos->ram[CMOS_STATUS_B] & CAUSES, flags = cmos->ram[CMOS_STATUS_C];
    uint64_t each = period(cmos), second = cmos->counted / CRYSTAL, first = UINT64_MAX;

    if (!enabled || !divider_runs(cmos) || enabled & flags || irq_masked(guest, IRQ_CLOCK))
        return UINT64_MAX; /* the line is up already, until register C is read */
    if (enabled & PERIODIC && each != 0)
        first = (cmos->counted / each + 1) * each;
    if (enabled & UPDATE_ENDED && !is_set(cmos) && (second + 1) * CRYSTAL < first)
        first = (second + 1) * CRYSTAL;
    if (enabled & ALARM && !is_set(cmos) && cmos->alarm_known && cmos->alarm_in != 0 &&
        (second + cmos->alarm_in) * CRYSTAL < first)
        first = (second + cmos->alarm_in) * CRYSTAL;
    return first != UINT64_MAX ? ticks_until(guest, now, first) : UINT64_MAX;
}

/* ---- Registers ------------------------------------------------------------------------------ */

static uint8_t read_status_a(const struct dev_cmos *cmos)
{
    bool updating =
        divider_runs(cmos) && !is_set(cmos) && cmos->counted % CRYSTAL >= CRYSTAL - UPDATE_COUNTS;

    return cmos->ram[CMOS_STATUS_A] | (updating ? A_UPDATING : 0);
}

static uint32_t cmos_read(struct guest *guest, uint16_t port, unsigned width)
{
    struct dev_cmos *cmos = &guest->devices.cmos;
    uint8_t value;

    (void)width;
    if (port == CMOS_INDEX)
        return 0xff; /* can only be written */
    catch_up(guest, guest_now(guest));
    value = cmos->ram[cmos->index];
    if (cmos->index == CMOS_STATUS_A)
        return read_status_a(cmos);
    if (cmos->index == CMOS_STATUS_C) {
        cmos->ram[CMOS_STATUS_C] = 0;
        drive_line(guest);
    }
    return value;
}

/* RTC, "Register A": a chain that is released makes its first update half a second later. */
static void write_status_a(struct guest *guest, uint8_t value)
{
    struct dev_cmos *cmos = &guest->devices.cmos;
    bool ran = divider_runs(cmos);

    cmos->ram[CMOS_STATUS_A] = value & (uint8_t)~A_UPDATING;
    if (!ran && divider_runs(cmos)) {
        cmos->started = guest_now(guest);
        cmos->phase = cmos->counted = CRYSTAL / 2;
    }
}

static void write_register(struct guest *guest, uint8_t value)
{
    struct dev_cmos *cmos = &guest->devices.cmos;

    switch (cmos->index) {
    case CMOS_STATUS_A:
        write_status_a(guest, value);
        break;
    case CMOS_STATUS_B: /* SET takes the interrupt of an update with it */
        cmos->ram[CMOS_STATUS_B] = value & B_SET ? value & (uint8_t)~UPDATE_ENDED : value;
        break;
    case CMOS_STATUS_C:
    case CMOS_STATUS_D:
        break;
    default:
        cmos->ram[cmos->index] = value;
    }
    cmos->alarm_known = false;
    alarm_in(cmos);
    drive_line(guest);
}

static void cmos_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    (void)width;
    if (port == CMOS_INDEX) {
        guest->devices.cmos.index = value & CMOS_INDEX_MASK;
        return;
    }
    catch_up(guest, guest_now(guest));
    write_register(guest, (uint8_t)value);
}

static void put16(struct dev_cmos *cmos, unsigned at, uint64_t value)
{
    if (value > UINT16_MAX)
        value = UINT16_MAX;
    cmos->ram[at] = (uint8_t)value;
    cmos->ram[at + 1] = (uint8_t)(value >> 8);
}

static void cmos_reset(struct guest *guest)
{
    struct dev_cmos *cmos = &guest->devices.cmos;
    uint64_t memory = guest->options.memory;
    uint64_t extended = memory > GUEST_HIGH_RAM ? memory - GUEST_HIGH_RAM : 0;

    cmos->ram[CMOS_STATUS_A] = A_DIVIDER_RUNS | 6; /* 1024 Hz, as a PC's firmware has it */
    cmos->ram[CMOS_STATUS_B] = DATE_B_24H;
    cmos->ram[CMOS_STATUS_D] = D_VALID;
    cmos->started = guest->devices.clock.started;
    date_put(cmos->ram, clock_date(guests_backend()->ticks(), guest->devices.clock.hz));
    put16(cmos, CMOS_BASE_KIB, GUEST_LOW_RAM_END / KiB);
    put16(cmos, CMOS_EXTENDED_KIB, extended / KiB);
    put16(cmos, CMOS_EXTENDED_KIB_COPY, extended / KiB);
    put16(cmos, CMOS_ABOVE_16M, memory > 16 * MiB ? (memory - 16 * MiB) / (64 * KiB) : 0);
    alarm_in(cmos);
}

static void cmos_show(const struct guest *guest, struct sink *to)
{
    const struct dev_cmos *cmos = &guest->devices.cmos;
    const uint8_t *ram = cmos->ram;
    char date[DATE_TEXT];
    uint64_t each = period(cmos);

    format(to, "%s, %s%s\n", date_text(date, ram),
           ram[CMOS_STATUS_B] & DATE_B_BINARY ? "binary" : "BCD",
           is_set(cmos)         ? ", being set"
           : divider_runs(cmos) ? ""
                                : ", divider off");
    format(to, "interrupts:%s%s%s%s\n", ram[CMOS_STATUS_B] & PERIODIC ? " periodic" : "",
           ram[CMOS_STATUS_B] & ALARM ? " alarm" : "",
           ram[CMOS_STATUS_B] & UPDATE_ENDED ? " update" : "",
           ram[CMOS_STATUS_B] & CAUSES ? "" : " none");
    if (ram[CMOS_STATUS_B] & PERIODIC && each != 0)
        format(to, "periodic at %lu Hz\n", CRYSTAL / each);
}

static const struct port_range ranges[] = {
    {CMOS_INDEX, CMOS_DATA, 1, cmos_read, cmos_write},
};

const struct device cmos_device = {
    .name = "CMOS",
    .ports = ranges,
    .port_count = ARRAY_SIZE(ranges),
    .bears = BEARS_ON_ITSELF,
    .timed = TIMED_CMOS,
    .reset = cmos_reset,
    .update = catch_up,
    .next = cmos_next,
    .show = cmos_show,
};
