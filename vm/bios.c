/* See vm/bios.h. The way from a stub to its service, and the small services. */
#include "vm/bios_rom.h"

#include "lib/bits.h"
#include "lib/error.h"
#include "lib/string.h"
#include "vm/device.h"
#include "vm/report.h"
#include "x86/control.h"

#define BDA 0x400
#define CMOS_INDEX 0x70
#define CMOS_DATA 0x71
#define PIC_SECOND 0xa0
#define PIT_COMMAND 0x43
#define PIT_TIMER 0x40
#define RESET_PORT 0xcf9
#define RESET_CPU 6

/* Out of a day's 86400 seconds, at 1193182 / 65536 Hz. */
#define TICKS_A_DAY 0x1800b0

void bios_start(struct guest *guest)
{
    static const struct {
        uint16_t port;
        uint8_t value;
    } writes[] = {
        {PIC_FIRST, 0x11},      {PIC_FIRST + 1, INT_TIMER},
        {PIC_FIRST + 1, 4},     {PIC_FIRST + 1, 1},
        {PIC_FIRST + 1, 0xf8}, /* lines 0 to 2 are open */
        {PIC_SECOND, 0x11},     {PIC_SECOND + 1, INT_SECOND},
        {PIC_SECOND + 1, 2},    {PIC_SECOND + 1, 1},
        {PIC_SECOND + 1, 0xff}, {PIT_COMMAND, 0x36},
        {PIT_TIMER, 0},         {PIT_TIMER, 0}, /* 65536: 18.2 Hz */
        {0x64, 0x60},           {0x60, 0x45},   /* translated key codes, by interrupt */
        {0x64, 0xae},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(writes); i++)
        port_write(guest, writes[i].port, 1, writes[i].value);
}

/* ---- Registers and memory -------------------------------------------------------------------- */

uint8_t bios_low(const struct bios_call *call, enum gpr reg)
{
    return (uint8_t)call->gpr[reg];
}

uint8_t bios_high(const struct bios_call *call, enum gpr reg)
{
    return (uint8_t)(call->gpr[reg] >> 8);
}

uint16_t bios_word(const struct bios_call *call, enum gpr reg)
{
    return (uint16_t)call->gpr[reg];
}

void bios_set_low(struct bios_call *call, enum gpr reg, uint8_t value)
{
    call->gpr[reg] = (call->gpr[reg] & ~BITS(7, 0)) | value;
}

void bios_set_high(struct bios_call *call, enum gpr reg, uint8_t value)
{
    call->gpr[reg] = (call->gpr[reg] & ~BITS(15, 8)) | (uint64_t)value << 8;
}

void bios_set_word(struct bios_call *call, enum gpr reg, uint16_t value)
{
    call->gpr[reg] = (call->gpr[reg] & ~BITS(15, 0)) | value;
}

void bios_carry(struct bios_call *call, bool set)
{
    call->flags = (uint16_t)((call->flags & ~RFLAGS_CF) | (set ? RFLAGS_CF : 0));
}

uint32_t bios_data(const struct bios_call *call, unsigned offset, unsigned width)
{
    uint32_t value = 0;

    (void)guest_read(call->guest, gpa(BDA + offset), &value, width);
    return value;
}

void bios_set_data(struct bios_call *call, unsigned offset, unsigned width, uint32_t value)
{
    (void)guest_write(call->guest, gpa(BDA + offset), &value, width);
}

/* ---- The small services ---------------------------------------------------------------------- */

static void timer_irq(struct bios_call *call)
{
    uint32_t ticks = bios_data(call, BDA_TICKS, 4) + 1;

    if (ticks >= TICKS_A_DAY) {
        ticks = 0;
        bios_set_data(call, BDA_MIDNIGHT, 1, 1);
    }
    bios_set_data(call, BDA_TICKS, 4, ticks);
}

static uint8_t read_cmos(struct bios_call *call, uint8_t index)
{
    port_write(call->guest, CMOS_INDEX, 1, index);
    return (uint8_t)port_read(call->guest, CMOS_DATA, 1);
}

static void time_of_day(struct bios_call *call)
{
    uint32_t ticks = bios_data(call, BDA_TICKS, 4);

    bios_carry(call, false);
    switch (bios_high(call, RAX)) {
    case 0x00: /* ticks since midnight */
        bios_set_word(call, RCX, (uint16_t)(ticks >> 16));
        bios_set_word(call, RDX, (uint16_t)ticks);
        bios_set_low(call, RAX, (uint8_t)bios_data(call, BDA_MIDNIGHT, 1));
        bios_set_data(call, BDA_MIDNIGHT, 1, 0);
        break;
    case 0x01:
        ticks = (uint32_t)bios_word(call, RCX) << 16 | bios_word(call, RDX);
        bios_set_data(call, BDA_TICKS, 4, ticks);
        break;
    case 0x02: /* the clock: hours, minutes, seconds in BCD */
        bios_set_high(call, RCX, read_cmos(call, 4));
        bios_set_low(call, RCX, read_cmos(call, 2));
        bios_set_high(call, RDX, read_cmos(call, 0));
        bios_set_low(call, RDX, 0);
        break;
    case 0x04: /* century, year, month, day */
        bios_set_high(call, RCX, read_cmos(call, 0x32));
        bios_set_low(call, RCX, read_cmos(call, 9));
        bios_set_high(call, RDX, read_cmos(call, 8));
        bios_set_low(call, RDX, read_cmos(call, 7));
        break;
    default:
        bios_carry(call, true);
    }
}

/* Vectors 10 to 15 are lines as well: of one that is not in service it was none. */
static bool is_exception(const struct guest *guest, unsigned vector)
{
    const struct pic_chip *chip = &guest->devices.pic.chip[0];

    return vector < INT_VIDEO && chip->vector == INT_TIMER && !chip->auto_end &&
           !(chip->in_service & BIT(vector - INT_TIMER));
}

static void serve(struct bios_call *call, unsigned vector)
{
    switch (vector) {
    case INT_TIMER:
        timer_irq(call);
        bios_key_left(call);
        break;
    case INT_KEYBOARD:
        bios_key_irq(call);
        port_write(call->guest, PIC_FIRST, 1, PIC_END);
        break;
    case INT_VIDEO:
        bios_video(call);
        break;
    case INT_EQUIPMENT:
        bios_set_word(call, RAX, (uint16_t)bios_data(call, BDA_EQUIPMENT, 2));
        break;
    case INT_MEMORY:
        bios_set_word(call, RAX, (uint16_t)bios_data(call, BDA_MEMORY, 2));
        break;
    case INT_DISK:
        bios_disk(call);
        break;
    case INT_SERIAL:
    case INT_PRINTER:
        bios_set_high(call, RAX, 0x80); /* timeout: use the port itself */
        break;
    case INT_SYSTEM:
        bios_system(call);
        break;
    case INT_KEYS:
        bios_keys(call);
        break;
    case INT_NO_BOOT:
    case INT_BOOT:
        port_write(call->guest, RESET_PORT, 1, RESET_CPU);
        break;
    case INT_TIME:
        time_of_day(call);
        break;
    default:
        if (is_exception(call->guest, vector)) {
            guest_end(call->guest, GUEST_STOPPED,
                      "exception %u in real mode, which the guest does not handle, at 0x%x:0x%x",
                      vector, call->from_segment, call->from_offset);
            return;
        }
        /* Lines that nothing here serves. */
        if (vector >= INT_SECOND)
            port_write(call->guest, PIC_SECOND, 1, PIC_END);
        port_write(call->guest, PIC_FIRST, 1, PIC_END);
    }
}

/* The vector whose stub the guest is at, calling in real mode; false: it is elsewhere. */
static bool find_call(struct guest *guest, struct bios_call *call, unsigned *vector)
{
    const struct vcpu_state *state = &call->state;
    uint16_t frame[3]; /* IP, CS, flags */
    uint64_t at, frame_at;

    if (!guest->has_bios || guests_backend()->get_state(guest->vcpu, &call->state) != E_OK)
        return false;
    at = state->segment[SEG_CS].base + state->rip;
    if ((state->cr0 & CR0_PE) || at < BIOS_ROM || (at - BIOS_ROM) % BIOS_STUB != STUB_CALL)
        return false;
    *vector = (unsigned)((at - BIOS_ROM) / BIOS_STUB);
    frame_at = state->segment[SEG_SS].base + (uint16_t)state->gpr[RSP];
    if (*vector >= BIOS_VECTORS || !bios_has_stub(*vector) ||
        guest_read(guest, gpa(frame_at), frame, sizeof(frame)) != sizeof(frame))
        return false;
    call->from_offset = frame[0];
    call->from_segment = frame[1];
    call->flags = frame[2];
    call->flags_at = frame_at + 4;
    return true;
}

static void call_write(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    struct bios_call call = {.guest = guest, .gpr = guest->vcpu->gpr};
    unsigned vector;

    (void)port;
    (void)width;
    (void)value;
    if (!find_call(guest, &call, &vector))
        return;
    serve(&call, vector);
    (void)guest_write(guest, gpa(call.flags_at), &call.flags, 2);
    if (!call.wait && !call.spin)
        return;
    /* The OUT is skipped when this returns. All registers are those of before the call but for what
     * it has changed, which waiting does not. */
    call.state.rip += (call.wait ? STUB_WAIT : STUB_SPIN) - OUT_LENGTH;
    (void)guests_backend()->set_state(guest->vcpu, &call.state);
}

static const struct port_range ranges[] = {
    {BIOS_PORT, BIOS_PORT, 1, NULL, call_write},
};

const struct device bios_device = {
    .name = "BIOS calls",
    .ports = ranges,
    .port_count = ARRAY_SIZE(ranges),
};
