/*
 * The registers of a guest's local APIC: at 0xfee00000, or as MSRs in x2APIC mode. SDM Vol. 3,
 * 11.4 "Local APIC" and 11.12 "Extended XAPIC (x2APIC)". What they stand for is in vm/lapic.c.
 *
 * That of the vCPU that boots starts as a PC's firmware leaves it: enabled, LINT0 open for the 8259
 * pair ("virtual wire"), LINT1 for NMIs. The others' are as after a reset.
 */
#include "lib/bits.h"
#include "vm/device.h"
#include "vm/guest.h"
#include "vm/interrupts.h"
#include "vm/lapic.h"
#include "x86/msr.h"

#define WINDOW_BASE UINT64_C(0xfee00000)
#define WINDOW_BYTES 4096

#define VERSION UINT32_C(0x00050014) /* integrated; LVT entries up to number 5 */

#define SVR_WRITABLE 0x3ffu
#define SPURIOUS_AFTER_RESET 0xffu
#define LVT_LEVEL BIT(15)
#define ICR_WRITABLE UINT64_C(0xffffffff000ccfff)
#define DFR_CLUSTER UINT32_C(0x0fffffff)
#define DFR_FLAT UINT32_C(0xffffffff)

/* What can be written of each entry of the local vector table: vector, mask and more. */
static const uint32_t lvt_writable[LAPIC_LVTS] = {
    [LAPIC_LVT_TIMER] = 0x000700ff, [LAPIC_LVT_THERMAL] = 0x000107ff,
    [LAPIC_LVT_PERF] = 0x000107ff,  [LAPIC_LVT_LINT0] = 0x0001a7ff,
    [LAPIC_LVT_LINT1] = 0x0001a7ff, [LAPIC_LVT_ERROR] = 0x000100ff,
};

/* ---- Registers, by their number: the offset in the window divided by 16 ------------------------
 */

enum {
    REGISTER_ID = 0x02,
    REGISTER_VERSION = 0x03,
    REGISTER_TPR = 0x08,
    REGISTER_APR = 0x09,
    REGISTER_PPR = 0x0a,
    REGISTER_EOI = 0x0b,
    REGISTER_REMOTE_READ = 0x0c,
    REGISTER_LDR = 0x0d,
    REGISTER_DFR = 0x0e,
    REGISTER_SVR = 0x0f,
    REGISTER_ISR = 0x10,
    REGISTER_TMR = 0x18,
    REGISTER_IRR = 0x20,
    REGISTER_ESR = 0x28,
    REGISTER_ICR = 0x30,
    REGISTER_ICR_HIGH = 0x31,
    REGISTER_LVT = 0x32,
    REGISTER_LVT_LAST = 0x37,
    REGISTER_TIMER_INITIAL = 0x38,
    REGISTER_TIMER_CURRENT = 0x39,
    REGISTER_TIMER_DIVIDE = 0x3e,
    REGISTER_SELF_IPI = 0x3f,
};

/* 32 vectors of a set, as a register has them. */
static uint32_t part_of(const uint64_t set[4], unsigned part)
{
    return (uint32_t)(set[part / 2] >> 32 * (part % 2));
}

static bool read_register(struct guest *guest, unsigned number, uint32_t *value)
{
    const struct dev_lapic *lapic = &guest->devices.lapic[guest->now];

    *value = 0;
    if (number >= REGISTER_ISR && number < REGISTER_TMR)
        *value = part_of(lapic->isr, number - REGISTER_ISR);
    else if (number >= REGISTER_TMR && number < REGISTER_IRR)
        *value = part_of(lapic->tmr, number - REGISTER_TMR);
    else if (number >= REGISTER_IRR && number < REGISTER_ESR)
        *value = part_of(lapic->irr, number - REGISTER_IRR);
    else if (number >= REGISTER_LVT && number <= REGISTER_LVT_LAST)
        *value = lapic->lvt[number - REGISTER_LVT];
    else
        switch (number) {
        case REGISTER_ID:
            *value = lapic_is_x2apic(lapic) ? guest->now : (uint32_t)lapic->id << 24;
            break;
        case REGISTER_VERSION:
            *value = VERSION;
            break;
        case REGISTER_TPR:
            *value = lapic_task_priority(guest);
            break;
        case REGISTER_PPR:
            *value = lapic_processor_priority(guest);
            break;
        case REGISTER_LDR:
            *value =
                lapic_is_x2apic(lapic) ? lapic_x2apic_ldr(guest->now) : (uint32_t)lapic->ldr << 24;
            break;
        case REGISTER_DFR:
            *value = lapic->dfr;
            break;
        case REGISTER_SVR:
            *value = lapic->svr;
            break;
        case REGISTER_ESR:
            *value = lapic->esr;
            break;
        case REGISTER_ICR:
            *value = (uint32_t)lapic->icr;
            break;
        case REGISTER_ICR_HIGH:
            *value = (uint32_t)(lapic->icr >> 32);
            break;
        case REGISTER_TIMER_INITIAL:
            *value = lapic->timer.initial;
            break;
        case REGISTER_TIMER_CURRENT:
            *value = lapic_timer_count(guest);
            break;
        case REGISTER_TIMER_DIVIDE:
            *value = lapic->timer.divide;
            break;
        case REGISTER_APR:
        case REGISTER_REMOTE_READ:
        case REGISTER_EOI:
            break;
        default:
            return false;
        }
    return true;
}

/* While it is switched off, every entry of the local vector table is masked (11.4.7.2). */
static void write_svr(struct guest *guest, uint32_t value)
{
    struct dev_lapic *lapic = &guest->devices.lapic[guest->now];

    interrupts_stir(guest); /* its bit opens lines, and closes them */
    lapic->svr = value & SVR_WRITABLE;
    if (lapic->svr & LAPIC_SVR_ENABLED)
        return;
    for (unsigned i = 0; i < LAPIC_LVTS; i++)
        lapic->lvt[i] |= (uint32_t)LAPIC_LVT_MASKED;
}

static void write_lvt(struct guest *guest, unsigned which, uint32_t value)
{
    struct dev_lapic *lapic = &guest->devices.lapic[guest->now];
    uint32_t before = lapic->lvt[which];

    if (which == LAPIC_LVT_LINT0)
        interrupts_stir(guest); /* that is the 8259 pair's way */
    if (!(lapic->svr & LAPIC_SVR_ENABLED))
        value |= (uint32_t)LAPIC_LVT_MASKED;
    lapic->lvt[which] = value & lvt_writable[which];
    if (which == LAPIC_LVT_TIMER)
        lapic_timer_mode_changed(guest, before);
}

static bool write_register(struct guest *guest, unsigned number, uint32_t value)
{
    struct dev_lapic *lapic = &guest->devices.lapic[guest->now];

    if (number >= REGISTER_LVT && number <= REGISTER_LVT_LAST) {
        write_lvt(guest, number - REGISTER_LVT, value);
        return true;
    }
    switch (number) {
    case REGISTER_ID:
        lapic->id = (uint8_t)(value >> 24);
        return true;
    case REGISTER_TPR:
        guest->vcpu->cr8 = value >> 4 & 0xf;
        lapic->tpr_low = value & 0xf;
        return true;
    case REGISTER_EOI:
        lapic_end(guest);
        return true;
    case REGISTER_LDR:
        lapic->ldr = (uint8_t)(value >> 24);
        return true;
    case REGISTER_DFR:
        lapic->dfr = value | DFR_CLUSTER;
        return true;
    case REGISTER_SVR:
        write_svr(guest, value);
        return true;
    case REGISTER_ESR: /* a write makes what was noted readable (11.5.3) */
        lapic->esr = lapic->errors;
        lapic->errors = 0;
        return true;
    case REGISTER_ICR:
        lapic_send(guest, (lapic->icr & ~(uint64_t)UINT32_MAX) | (value & (uint32_t)ICR_WRITABLE));
        return true;
    case REGISTER_ICR_HIGH:
        lapic->icr = (uint64_t)(value & 0xff000000) << 32 | (uint32_t)lapic->icr;
        return true;
    case REGISTER_TIMER_INITIAL:
        lapic_timer_start_count(guest, value);
        return true;
    case REGISTER_TIMER_DIVIDE:
        lapic_timer_set_divide(guest, value);
        return true;
    default:
        return false;
    }
}

/* ---- The window: xAPIC mode (11.4.1). Registers are 32 bits wide, 16 bytes apart ----------------
 */

static bool window_open(const struct guest *guest)
{
    const struct dev_lapic *lapic = &guest->devices.lapic[guest->now];

    return (lapic->base & APIC_BASE_EN) && !lapic_is_x2apic(lapic);
}

static uint64_t lapic_read(struct guest *guest, uint64_t offset, unsigned bytes)
{
    uint32_t value;

    (void)bytes;
    if (!window_open(guest))
        return UINT64_MAX;
    if (!read_register(guest, (unsigned)offset / 16, &value))
        lapic_note_error(guest, LAPIC_ERROR_ILLEGAL_REGISTER);
    return offset % 16 < 4 ? value >> 8 * (offset % 4) : 0;
}

/* Narrower writes than the registers are wide, and those beside them, have no defined effect
 * (11.4.1) and here none. */
static void lapic_write(struct guest *guest, uint64_t offset, unsigned bytes, uint64_t value)
{
    if (!window_open(guest) || offset % 16 != 0 || bytes < 4)
        return;
    if (!write_register(guest, (unsigned)offset / 16, (uint32_t)value))
        lapic_note_error(guest, LAPIC_ERROR_ILLEGAL_REGISTER);
}

/* ---- MSRs: IA32_APIC_BASE, IA32_TSC_DEADLINE, x2APIC mode (11.12) -------------------------------
 */

bool lapic_has_msr(const struct guest *guest, uint32_t index)
{
    return guest_has_apic(guest) && (index == IA32_APIC_BASE || index == IA32_TSC_DEADLINE ||
                                     (index >= X2APIC_MSR_FIRST && index <= X2APIC_MSR_LAST));
}

/* Table 11-6: not there in x2APIC mode, or written alone. */
static bool x2apic_readable(unsigned number)
{
    return number != REGISTER_EOI && number != REGISTER_APR && number != REGISTER_REMOTE_READ &&
           number != REGISTER_DFR && number != REGISTER_ICR_HIGH;
}

bool lapic_rdmsr(struct guest *guest, uint32_t index, uint64_t *value)
{
    struct dev_lapic *lapic = &guest->devices.lapic[guest->now];
    unsigned number = index - X2APIC_MSR_FIRST;
    uint32_t low;

    if (index == IA32_APIC_BASE) {
        *value = lapic->base;
        return true;
    }
    if (index == IA32_TSC_DEADLINE) {
        *value = lapic_timer_deadline(guest);
        return true;
    }
    if (!lapic_is_x2apic(lapic) || !x2apic_readable(number) || !read_register(guest, number, &low))
        return false;
    *value = number == REGISTER_ICR ? lapic->icr : low;
    return true;
}

/* 11.4.7.1 "Local APIC State After Power-Up or Reset". Its number is the ID, and the first boots.
 */
static void reset_registers(struct guest *guest)
{
    struct dev_lapic *lapic = &guest->devices.lapic[guest->now];

    *lapic = (struct dev_lapic){
        .base = WINDOW_BASE | (guest->now == 0 ? APIC_BASE_BSP : 0) | APIC_BASE_EN,
        .id = (uint8_t)guest->now,
        .svr = SPURIOUS_AFTER_RESET,
        .dfr = DFR_FLAT,
    };
    if (guest->vcpu != NULL)
        guest->vcpu->cr8 = 0;
    for (unsigned i = 0; i < LAPIC_LVTS; i++)
        lapic->lvt[i] = (uint32_t)LAPIC_LVT_MASKED;
    lapic_timer_reset(guest);
}

void lapic_init(struct guest *guest)
{
    struct dev_lapic *lapic = &guest->devices.lapic[guest->now], before = *lapic;

    interrupts_stir(guest); /* it may have been the 8259 pair's way */
    reset_registers(guest);
    lapic->base = before.base;
    lapic->id = before.id;
}

bool lapic_is_first(const struct guest *guest)
{
    return guest->devices.lapic[guest->now].base & APIC_BASE_BSP;
}

/* 11.12.5 "x2APIC State Transitions": from off to x2APIC and from there to xAPIC no way leads. The
 * window stays where it is. */
static bool write_base(struct guest *guest, uint64_t value)
{
    struct dev_lapic *lapic = &guest->devices.lapic[guest->now];
    uint64_t modes = APIC_BASE_EN | APIC_BASE_EXTD, mode = value & modes, old = lapic->base & modes;

    interrupts_stir(guest);
    if ((value ^ lapic->base) & ~modes || mode == APIC_BASE_EXTD)
        return false;
    if (old != mode && ((old == 0 && mode == modes) || (old == modes && mode == APIC_BASE_EN)))
        return false;
    if (mode == 0 && old != 0)
        reset_registers(guest);
    lapic->base = value;
    return true;
}

/* What a write to an MSR may have set: reserved bits raise #GP (11.12.1.3). */
static uint64_t x2apic_writable(unsigned number)
{
    if (number >= REGISTER_LVT && number <= REGISTER_LVT_LAST)
        return lvt_writable[number - REGISTER_LVT];
    switch (number) {
    case REGISTER_TPR:
    case REGISTER_SELF_IPI:
        return 0xff;
    case REGISTER_SVR:
        return SVR_WRITABLE;
    case REGISTER_ICR:
        return ICR_WRITABLE;
    case REGISTER_TIMER_DIVIDE:
        return 0x0b;
    case REGISTER_TIMER_INITIAL:
        return UINT32_MAX;
    }
    return 0;
}

static bool write_x2apic(struct guest *guest, unsigned number, uint64_t value)
{
    if (value & ~x2apic_writable(number))
        return false;
    switch (number) {
    case REGISTER_SELF_IPI:
        lapic_route(guest, 1u << guest->now, LAPIC_DELIVER_FIXED, (uint8_t)value, false);
        return true;
    case REGISTER_ICR:
        lapic_send(guest, value);
        return true;
    case REGISTER_ID:
    case REGISTER_LDR:
    case REGISTER_DFR:
    case REGISTER_ICR_HIGH:
        return false;
    default:
        return write_register(guest, number, (uint32_t)value);
    }
}

bool lapic_wrmsr(struct guest *guest, uint32_t index, uint64_t value)
{
    device_touched(guest, &lapic_device);
    if (index == IA32_APIC_BASE)
        return write_base(guest, value);
    if (index == IA32_TSC_DEADLINE) {
        lapic_timer_set_deadline(guest, value);
        return true;
    }
    return lapic_is_x2apic(&guest->devices.lapic[guest->now]) &&
           write_x2apic(guest, index - X2APIC_MSR_FIRST, value);
}

/* ---- The device ------------------------------------------------------------------------------ */

static void lapic_reset(struct guest *guest)
{
    struct dev_lapic *lapic = &guest->devices.lapic[0];

    for (unsigned i = guest->cpus; i-- > 0;) {
        guest_deal_with(guest, i);
        reset_registers(guest);
    }
    lapic->svr |= (uint32_t)LAPIC_SVR_ENABLED;
    lapic->lvt[LAPIC_LVT_LINT0] = (uint32_t)LVT_LEVEL | LAPIC_DELIVER_EXTINT << 8;
    lapic->lvt[LAPIC_LVT_LINT1] = (uint32_t)LVT_LEVEL | LAPIC_DELIVER_NMI << 8;
}

static void lapic_show(const struct guest *guest, struct sink *to)
{
    const struct dev_lapic *lapic = &guest->devices.lapic[guest->now];

    format(to, "%s, SVR 0x%x, TPR 0x%x, PPR 0x%x\n",
           !(lapic->base & APIC_BASE_EN) ? "off"
           : lapic_is_x2apic(lapic)      ? "x2APIC mode"
                                         : "xAPIC mode",
           lapic->svr, lapic_task_priority(guest), lapic_processor_priority(guest));
    format(to, "LVT timer 0x%x, LINT0 0x%x, LINT1 0x%x, error 0x%x\n", lapic->lvt[LAPIC_LVT_TIMER],
           lapic->lvt[LAPIC_LVT_LINT0], lapic->lvt[LAPIC_LVT_LINT1], lapic->lvt[LAPIC_LVT_ERROR]);
    for (unsigned vector = LAPIC_FIRST_VECTOR; vector < 256; vector++) {
        bool asked = lapic->irr[vector / 64] & BIT(vector % 64);
        bool served = lapic->isr[vector / 64] & BIT(vector % 64);

        if (asked || served)
            format(to, "vector 0x%x: %s%s%s\n", vector, asked ? "requested" : "",
                   asked && served ? ", " : "", served ? "in service" : "");
    }
}

static const struct window windows[] = {
    {WINDOW_BASE, WINDOW_BYTES, lapic_read, lapic_write},
};

const struct device lapic_device = {
    .name = "local APIC",
    .windows = windows,
    .window_count = ARRAY_SIZE(windows),
    .bears = BEARS_ON_ITSELF,
    .reset = lapic_reset,
    .update = lapic_timer_update,
    .next = lapic_timer_next,
    .show = lapic_show,
};
