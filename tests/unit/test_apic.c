/*
 * A guest's local APIC, I/O APIC and HPET by their manuals, as a guest sees them through their
 * windows and MSRs; and random accesses to all of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "tests/unit/fake_machine.h"
#include "tests/unit/pc_guest.h"
#include "tests/unit/random.h"
#include "vm/device.h"
#include "vm/guest.h"
#include "vm/interrupts.h"
#include "vm/lapic.h"
#include "vm/slots.h"
#include "x86/msr.h"

#define LAPIC UINT64_C(0xfee00000)
#define IOAPIC UINT64_C(0xfec00000)
#define HPET UINT64_C(0xfed00000)

enum {
    ID = 0x20,
    VERSION = 0x30,
    TPR = 0x80,
    PPR = 0xa0,
    EOI = 0xb0,
    LDR = 0xd0,
    DFR = 0xe0,
    SVR = 0xf0,
    ISR = 0x100,
    TMR = 0x180,
    IRR = 0x200,
    ESR = 0x280,
    ICR = 0x300,
    ICR_HIGH = 0x310,
    LVT_TIMER = 0x320,
    LVT_LINT0 = 0x350,
    LVT_ERROR = 0x370,
    INITIAL = 0x380,
    CURRENT = 0x390,
    DIVIDE = 0x3e0,
};

#define SELF BIT(18) /* of the ICR: the shorthand */
#define PERIODIC BIT(17)
#define DEADLINE BIT(18)
#define MASKED BIT(16)
#define LEVEL BIT(15)

static int set_up(void **state)
{
    if (pc_set_up(state) != 0)
        return 1;
    devices_reset(pc); /* as they are before a BIOS has set them up */
    fake_of(pc)->state.rflags |= BIT(9);
    return 0;
}

static uint32_t get(unsigned at)
{
    return (uint32_t)window_read(pc, gpa(LAPIC + at), 4);
}

static void put(unsigned at, uint64_t value)
{
    window_write(pc, gpa(LAPIC + at), 4, value);
}

static void send_self(uint8_t vector)
{
    put(ICR, SELF | vector);
}

static void assert_taken(uint8_t vector)
{
    assert_true(lapic_asks(pc));
    assert_int_equal(lapic_acknowledge(pc), vector);
}

static bool in_set(unsigned set, uint8_t vector)
{
    return get(set + vector / 32 * 16) >> vector % 32 & 1;
}

static uint64_t rdmsr(uint32_t index)
{
    uint64_t value = 0;

    assert_true(lapic_has_msr(pc, index));
    assert_true(lapic_rdmsr(pc, index, &value));
    return value;
}

static bool can_read(uint32_t index)
{
    uint64_t value;

    return lapic_rdmsr(pc, index, &value);
}

static bool wrmsr(uint32_t index, uint64_t value)
{
    assert_true(lapic_has_msr(pc, index));
    return lapic_wrmsr(pc, index, value);
}

/* ---- The local APIC -------------------------------------------------------------------------- */

static void test_it_starts_as_firmware_leaves_it(void **state)
{
    (void)state;
    assert_int_equal(get(ID), 0);
    assert_int_equal(get(VERSION) & 0xff00ff, 0x050014);
    assert_int_equal(get(SVR), 0x1ff);
    assert_int_equal(get(LVT_LINT0), 0x8700);
    assert_int_equal(get(LVT_TIMER), MASKED);
    assert_int_equal(rdmsr(IA32_APIC_BASE), LAPIC | APIC_BASE_BSP | APIC_BASE_EN);
    assert_true(lapic_passes_pic(pc, 0));
    put(LVT_LINT0, MASKED | 0x700);
    assert_false(lapic_passes_pic(pc, 0));
}

/* 11.8.3.1, 11.8.4: classes of 16 vectors. */
static void test_priorities(void **state)
{
    (void)state;
    send_self(0x41);
    send_self(0x45);
    assert_true(in_set(IRR, 0x41) && in_set(IRR, 0x45));
    assert_taken(0x45);
    assert_true(in_set(ISR, 0x45) && !in_set(IRR, 0x45));
    assert_int_equal(get(PPR), 0x40);
    assert_false(lapic_asks(pc)); /* of the same class */
    send_self(0x52);
    assert_taken(0x52);
    assert_int_equal(get(PPR), 0x50);
    put(EOI, 0); /* ends the highest */
    assert_false(in_set(ISR, 0x52));
    assert_true(in_set(ISR, 0x45));
    put(EOI, 0);
    assert_taken(0x41);
    put(EOI, 0);
    put(EOI, 0); /* of nothing */
    assert_int_equal(get(PPR), 0);
}

static void test_the_task_priority_is_cr8(void **state)
{
    (void)state;
    put(TPR, 0x53);
    assert_int_equal(pc->vcpu->cr8, 5);
    assert_int_equal(get(TPR), 0x53);
    assert_int_equal(get(PPR), 0x53);
    send_self(0x5f);
    assert_false(lapic_asks(pc));
    pc->vcpu->cr8 = 4;
    assert_int_equal(get(TPR), 0x43);
    assert_taken(0x5f);
}

static void test_who_is_addressed(void **state)
{
    static const struct {
        uint32_t high, low;
        bool arrives;
    } cases[] = {
        {0x00000000, 0x40, true},           /* physical: 0 */
        {0x01000000, 0x40, false},          /* another CPU */
        {0xff000000, 0x40, true},           /* all */
        {0x00000000, 0x80040, true},        /* shorthand: all with self */
        {0x00000000, 0xc0040, false},       /* all but self */
        {0x04000000, 0x840, true},          /* logical, flat: our bit */
        {0x0b000000, 0x840, false},         /* others' bits */
        {0x00000000, 0x40 | 5 << 8, false}, /* INIT */
        {0x00000000, 0x40 | 6 << 8, false}, /* SIPI */
        {0x00000000, 0x40 | 2 << 8, false}, /* SMI */
    };

    (void)state;
    put(LDR, 0x04000000);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        put(ICR_HIGH, cases[i].high);
        put(ICR, cases[i].low);
        assert_int_equal(lapic_asks(pc), cases[i].arrives);
        if (cases[i].arrives) {
            assert_taken(0x40);
            put(EOI, 0);
        }
    }
    put(DFR, 0); /* clusters: 2, its third CPU */
    assert_int_equal(get(DFR), 0x0fffffff);
    put(LDR, 0x24000000);
    assert_int_equal(lapic_addressed(pc, 0x24, true), 1);
    assert_int_equal(lapic_addressed(pc, 0xf4, true), 1);
    assert_int_equal(lapic_addressed(pc, 0x14, true), 0);
    assert_int_equal(lapic_addressed(pc, 0x28, true), 0);
}

/* 11.5.3: noted errors are read after a write; one raises its interrupt. */
static void test_errors(void **state)
{
    (void)state;
    put(LVT_ERROR, 0xe0);
    send_self(0x0f);
    assert_taken(0xe0);
    put(EOI, 0);
    assert_int_equal(get(ESR), 0);
    put(ESR, 0);
    assert_int_equal(get(ESR), 0x20);
    get(0x400 - 0x20); /* no such register */
    get(0x0);
    put(ESR, 0);
    assert_int_equal(get(ESR), 0x80);
    put(LVT_ERROR, 0x03); /* its own vector is illegal: that ends, too */
    send_self(0);
    put(ESR, 0);
    assert_int_equal(get(ESR), 0x60);
}

/* 11.4.7.2: every entry is masked and stays so; nothing is accepted. */
/* Of an entry of the local vector table what there is can be written (11.5.1). */
static void test_entries_of_the_vector_table(void **state)
{
    static const uint32_t writable[] = {0x000700ff, 0x000107ff, 0x000107ff,
                                        0x0001a7ff, 0x0001a7ff, 0x000100ff};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(writable); i++) {
        put(0x320 + 0x10 * i, UINT32_MAX);
        assert_int_equal(get(0x320 + 0x10 * i), writable[i]);
    }
}

static void test_switched_off_by_software(void **state)
{
    (void)state;
    put(LVT_ERROR, 0xe0);
    put(SVR, 0x0ff);
    assert_int_equal(get(LVT_ERROR), MASKED | 0xe0);
    put(LVT_ERROR, 0xe1);
    assert_int_equal(get(LVT_ERROR), MASKED | 0xe1);
    send_self(0x40);
    assert_false(lapic_asks(pc));
    assert_false(lapic_passes_pic(pc, 0));
    put(SVR, 0x1ff);
    assert_false(lapic_asks(pc));
}

static void test_accesses_beside_the_registers(void **state)
{
    (void)state;
    put(TPR, 0x20);
    window_write(pc, gpa(LAPIC + TPR), 1, 0x30); /* too narrow */
    window_write(pc, gpa(LAPIC + TPR + 4), 4, 0x30);
    assert_int_equal(get(TPR), 0x20);
    assert_int_equal(window_read(pc, gpa(LAPIC + TPR + 4), 4), 0);
    assert_int_equal(window_read(pc, gpa(LAPIC + VERSION + 2), 1), 0x05);
}

/* ---- Its timer: no crystal is told, so it counts with the bus ----------------------------------
 */

#define BUS 16 /* ticks of the TSC for a count */

static uint64_t timer_started(void)
{
    return pc->devices.lapic[0].timer.started;
}

static void test_a_count_that_ends(void **state)
{
    (void)state;
    put(LVT_TIMER, 0x70);
    put(DIVIDE, 0x3); /* by 16 */
    put(INITIAL, 100000);
    uint64_t due = timer_started() + 1600000 * BUS;
    assert_int_equal(devices_next(pc, due - 5), 5);
    assert_in_range(get(CURRENT), 99000, 100000);
    devices_update(pc, due - 1);
    assert_false(lapic_asks(pc));
    devices_update(pc, due);
    assert_taken(0x70);
    assert_int_equal(devices_next(pc, due), UINT64_MAX);
    assert_int_equal(get(CURRENT), 0);
    put(EOI, 0);
    put(INITIAL, 100);
    put(INITIAL, 0); /* stops it */
    devices_update(pc, due * 2);
    assert_false(lapic_asks(pc));
}

static void test_a_periodic_timer(void **state)
{
    static const struct {
        uint32_t code, divisor;
    } divides[] = {{0x0, 2},  {0x1, 4},  {0x2, 8},   {0x3, 16},
                   {0x8, 32}, {0x9, 64}, {0xa, 128}, {0xb, 1}};

    (void)state;
    put(LVT_TIMER, PERIODIC | 0x71);
    for (unsigned i = 0; i < ARRAY_SIZE(divides); i++) {
        put(DIVIDE, divides[i].code);
        put(INITIAL, 10000);
        uint64_t start = timer_started(), period = UINT64_C(10000) * divides[i].divisor * BUS;
        for (uint64_t n = 1; n < 5; n++) {
            assert_int_equal(devices_next(pc, start + n * period - 3), 3);
            devices_update(pc, start + n * period);
            assert_taken(0x71);
            put(EOI, 0);
        }
        /* Those that were missed are one, and the next is on time. */
        devices_update(pc, start + 20 * period + 7);
        assert_int_equal(devices_next(pc, start + 20 * period + 7), UINT64_MAX);
        assert_taken(0x71);
        assert_false(lapic_asks(pc));
        assert_int_equal(devices_next(pc, start + 20 * period + 7), period - 7);
        put(EOI, 0);
    }
}

static void test_a_deadline(void **state)
{
    (void)state;
    assert_true(wrmsr(IA32_TSC_DEADLINE, 12345)); /* in another mode: not taken */
    assert_int_equal(rdmsr(IA32_TSC_DEADLINE), 0);
    put(LVT_TIMER, DEADLINE | 0x72);
    put(INITIAL, 5);
    assert_int_equal(get(INITIAL), 0);
    assert_true(wrmsr(IA32_TSC_DEADLINE, UINT64_C(1) << 40));
    assert_int_equal(devices_next(pc, (UINT64_C(1) << 40) - 9), 9);
    devices_update(pc, (UINT64_C(1) << 40) - 1);
    assert_false(lapic_asks(pc));
    devices_update(pc, UINT64_C(1) << 40);
    assert_taken(0x72);
    assert_int_equal(rdmsr(IA32_TSC_DEADLINE), 0);
    put(EOI, 0);
    assert_true(wrmsr(IA32_TSC_DEADLINE, UINT64_C(1) << 41));
    put(LVT_TIMER, 0x72); /* another mode disarms it */
    put(LVT_TIMER, DEADLINE | 0x72);
    devices_update(pc, UINT64_C(1) << 42);
    assert_false(lapic_asks(pc));
}

/* ---- MSRs --------------------------------------------------------------------------------------
 */

/* Figure 11-27. */
static void test_state_transitions(void **state)
{
    uint64_t base = LAPIC | APIC_BASE_BSP, on = base | APIC_BASE_EN;

    (void)state;
    assert_false(wrmsr(IA32_APIC_BASE, base | APIC_BASE_EXTD)); /* no such mode */
    assert_false(wrmsr(IA32_APIC_BASE, on + 0x1000));           /* it stays where it is */
    assert_false(wrmsr(IA32_APIC_BASE, on | BIT(0)));
    assert_true(wrmsr(IA32_APIC_BASE, on | APIC_BASE_EXTD));
    assert_int_equal(window_read(pc, gpa(LAPIC + VERSION), 4), UINT64_MAX);
    assert_false(wrmsr(IA32_APIC_BASE, on)); /* no way back, but for off */
    assert_true(wrmsr(IA32_APIC_BASE, base));
    assert_true(lapic_passes_pic(pc, 0)); /* the CPU's own pins */
    assert_false(can_read(0x803));
    assert_false(wrmsr(IA32_APIC_BASE, on | APIC_BASE_EXTD));
    assert_true(wrmsr(IA32_APIC_BASE, on));
    assert_int_equal(get(SVR), 0xff); /* reset by being off */
}

static void test_x2apic_mode(void **state)
{
    (void)state;
    assert_false(can_read(0x802));
    assert_true(wrmsr(IA32_APIC_BASE, LAPIC | APIC_BASE_BSP | APIC_BASE_EN | APIC_BASE_EXTD));
    assert_int_equal(rdmsr(0x802), 0);
    assert_int_equal(rdmsr(0x80d), 1);
    assert_false(wrmsr(0x802, 0));
    assert_false(can_read(0x80b)); /* EOI is written alone */
    assert_false(wrmsr(0x80b, 1));
    assert_false(can_read(0x80e)); /* no DFR, no second half of the ICR */
    assert_false(can_read(0x831));
    assert_false(wrmsr(0x808, 0x100));
    assert_false(wrmsr(0x80f, 0x1000));
    assert_false(wrmsr(0x832, BIT(12)));
    assert_true(wrmsr(0x83f, 0x61)); /* self IPI */
    assert_taken(0x61);
    assert_true(wrmsr(0x80b, 0));
    assert_true(wrmsr(0x830, 0x62)); /* physical, to ID 0, in one write */
    assert_int_equal(rdmsr(0x830), 0x62);
    assert_taken(0x62);
    assert_true(wrmsr(0x80b, 0));
    assert_true(wrmsr(0x830, UINT64_C(1) << 32 | 0x63));
    assert_false(lapic_asks(pc));
    assert_true(wrmsr(0x830, UINT64_C(1) << 32 | 0x863)); /* logical: cluster 0, CPU 0 */
    assert_taken(0x63);
    assert_true(wrmsr(0x80b, 0));
    assert_true(wrmsr(0x830, UINT64_C(0xffffffff) << 32 | 0x64));
    assert_taken(0x64);
    assert_true(wrmsr(0x808, 0xf0));
    assert_int_equal(pc->vcpu->cr8, 15);
}

/* ---- The I/O APIC ------------------------------------------------------------------------------
 */

static uint32_t io_get(unsigned which)
{
    window_write(pc, gpa(IOAPIC), 4, which);
    return (uint32_t)window_read(pc, gpa(IOAPIC + 0x10), 4);
}

static void io_put(unsigned which, uint32_t value)
{
    window_write(pc, gpa(IOAPIC), 4, which);
    window_write(pc, gpa(IOAPIC + 0x10), 4, value);
}

static void io_route(unsigned pin, uint64_t entry)
{
    io_put(0x11 + 2 * pin, (uint32_t)(entry >> 32));
    io_put(0x10 + 2 * pin, (uint32_t)entry);
}

static void test_pins(void **state)
{
    (void)state;
    assert_int_equal(io_get(0), 0x08000000); /* which no local APIC has */
    assert_int_equal(io_get(1), 0x170011);
    io_put(0, 0xff000000);
    assert_int_equal(io_get(0), 0x0f000000);
    for (unsigned irq = 0; irq < 16; irq++) {
        unsigned pin = irq == 0 ? 2 : irq;

        if (irq == 2)
            continue;
        assert_int_equal(io_get(0x10 + 2 * pin), MASKED);
        assert_true(irq_masked(pc, irq) || lapic_passes_pic(pc, 0));
        irq_set_line(pc, irq, true);
        assert_false(lapic_asks(pc)); /* masked: the edge is lost */
        irq_set_line(pc, irq, false);
        io_route(pin, 0x80 + irq);
        assert_false(irq_masked(pc, irq));
        assert_false(lapic_asks(pc));
        irq_set_line(pc, irq, true);
        assert_true(irq_pending(pc, irq));
        assert_taken((uint8_t)(0x80 + irq));
        assert_false(irq_pending(pc, irq));
        put(EOI, 0);
        assert_false(lapic_asks(pc)); /* an edge comes once */
        irq_set_line(pc, irq, false);
    }
    io_route(5, UINT64_C(7) << 56 | 0x90); /* for another CPU */
    irq_set_line(pc, 5, true);
    assert_false(lapic_asks(pc));
    io_route(6, MASKED | 0x96); /* with a vector, and masked */
    irq_set_line(pc, 6, true);
    assert_false(lapic_asks(pc));
}

static void test_a_level_asks_again(void **state)
{
    (void)state;
    io_route(10, LEVEL | 0x91);
    irq_set_line(pc, 10, true);
    assert_true(io_get(0x10 + 20) & BIT(14));
    assert_taken(0x91);
    assert_true(in_set(TMR, 0x91));
    assert_false(lapic_asks(pc));
    io_route(10, LEVEL | 0x91); /* it is served still */
    assert_false(lapic_has_vector(pc, 0x91));
    put(EOI, 0); /* it is there still */
    assert_taken(0x91);
    irq_set_line(pc, 10, false);
    put(EOI, 0);
    assert_false(lapic_asks(pc));
    assert_false(io_get(0x10 + 20) & BIT(14));
    /* Masked while it is driven: it asks when it is opened. */
    io_route(10, MASKED | LEVEL | 0x91);
    irq_set_line(pc, 10, true);
    assert_false(lapic_asks(pc));
    io_route(10, LEVEL | 0x91);
    assert_taken(0x91);
    /* To make it an edge forgets that it was not ended. */
    io_route(10, MASKED | 0x91);
    assert_false(io_get(0x10 + 20) & BIT(14));
}

static void test_an_nmi_by_a_pin(void **state)
{
    (void)state;
    io_route(7, 4 << 8);
    irq_set_line(pc, 7, true);
    assert_false(lapic_asks(pc));
    assert_true(pc->devices.lapic[0].nmi);
    interrupts_offer(pc, 1);
    assert_int_equal(fake_of(pc)->event.kind, VM_EVENT_NMI);
    assert_false(pc->devices.lapic[0].nmi);
}

/* The 8259 pair by LINT0, vectors of the APIC before it. */
static void test_two_controllers_at_once(void **state)
{
    (void)state;
    port_write(pc, 0x20, 1, 0x11);
    port_write(pc, 0x21, 1, 0x20);
    port_write(pc, 0x21, 1, 0x04);
    port_write(pc, 0x21, 1, 0x01);
    port_write(pc, 0x21, 1, 0xef);
    irq_set_line(pc, 4, true);
    send_self(0x55);
    interrupts_offer(pc, 1);
    assert_int_equal(fake_of(pc)->event.vector, 0x55);
    assert_true(fake_of(pc)->window);
    interrupts_offer(pc, 1);
    assert_int_equal(fake_of(pc)->event.vector, 0x24);
    assert_false(fake_of(pc)->window);
}

/* ---- The HPET ----------------------------------------------------------------------------------
 */

#define HPET_RATE 14318180
#define TSC_HZ (UINT64_C(1193182) * 1024)

static uint64_t hpet_get(unsigned at)
{
    return window_read(pc, gpa(HPET + at), 8);
}

static void hpet_put(unsigned at, uint64_t value)
{
    window_write(pc, gpa(HPET + at), 8, value);
}

/* Ticks until the counter has gone on by so much. */
static uint64_t ticks_for(uint64_t counts)
{
    return (counts * TSC_HZ + HPET_RATE - 1) / HPET_RATE;
}

static void test_hpet_registers(void **state)
{
    (void)state;
    assert_int_equal(hpet_get(0), UINT64_C(69841279) << 32 | 0x8086a201);
    assert_int_equal(window_read(pc, gpa(HPET + 4), 4), 69841279);
    hpet_put(0xf0, 0x123456789);
    assert_int_equal(hpet_get(0xf0), 0x123456789); /* it stands still */
    window_write(pc, gpa(HPET + 0xf4), 4, 0x7);
    assert_int_equal(hpet_get(0xf0), 0x723456789);
    hpet_put(0x10, 1);
    uint64_t first = hpet_get(0xf0), second = hpet_get(0xf0);
    assert_true(second > first && first >= 0x723456789);
    hpet_put(0xf0, 0); /* not while it counts */
    assert_true(hpet_get(0xf0) > second);
    hpet_put(0x10, 0);
    assert_int_equal(hpet_get(0xf0), hpet_get(0xf0));
    hpet_put(0x120, UINT64_MAX);
    assert_int_equal(hpet_get(0x120), UINT64_C(0x00f00000) << 32 | 0x3f7e);
}

static void start_hpet(uint64_t config)
{
    hpet_put(0x10, 0);
    hpet_put(0xf0, 0);
    hpet_put(0x10, config);
}

static uint64_t hpet_started(void)
{
    return pc->devices.hpet.started;
}

static void test_hpet_one_shot(void **state)
{
    (void)state;
    io_route(20, 0xa0);
    start_hpet(1);
    hpet_put(0x100, BIT(2) | 20 << 9);
    hpet_put(0x108, 1000000);
    uint64_t due = hpet_started() + ticks_for(1000000);
    devices_update(pc, due - 100);
    assert_false(lapic_asks(pc));
    assert_in_range(devices_next(pc, due - 100), 50, 200);
    devices_update(pc, due);
    assert_taken(0xa0);
    put(EOI, 0);
    assert_int_equal(devices_next(pc, due), UINT64_MAX);
    /* With 32 bits it comes again after a round; a comparator behind the counter likewise. */
    hpet_put(0x100, BIT(2) | BIT(8) | 20 << 9);
    hpet_put(0x108, 5);
    due = hpet_started() + ticks_for(BIT(32) + 5);
    devices_update(pc, due - 1000);
    assert_false(lapic_asks(pc));
    devices_update(pc, due);
    assert_taken(0xa0);
}

static void test_hpet_periodic(void **state)
{
    (void)state;
    io_route(21, 0xa1);
    start_hpet(1);
    hpet_put(0x120, BIT(2) | BIT(3) | BIT(6) | 21 << 9);
    hpet_put(0x128, 100000); /* where it matches first, ... */
    hpet_put(0x128, 50000);  /* ... and then every so many counts */
    uint64_t start = hpet_started();
    for (uint64_t n = 0; n < 5; n++) {
        uint64_t due = start + ticks_for(100000 + n * 50000);
        devices_update(pc, due - 200);
        assert_false(lapic_asks(pc));
        devices_update(pc, due);
        assert_taken(0xa1);
        put(EOI, 0);
    }
    assert_int_equal(hpet_get(0x128), 100000 + 5 * 50000);
    devices_update(pc, start + ticks_for(100000 + 100 * 50000 + 1));
    assert_taken(0xa1);
    put(EOI, 0);
    devices_update(pc, start + ticks_for(100000 + 101 * 50000 - 100));
    assert_false(lapic_asks(pc));
}

static void test_hpet_level(void **state)
{
    (void)state;
    io_route(22, LEVEL | 0xa2);
    start_hpet(1);
    hpet_put(0x140, BIT(1) | BIT(2) | 22 << 9);
    hpet_put(0x148, 1000);
    devices_update(pc, hpet_started() + ticks_for(2000));
    assert_int_equal(hpet_get(0x20), BIT(2));
    assert_taken(0xa2);
    put(EOI, 0);
    assert_taken(0xa2); /* until the status is cleared */
    hpet_put(0x20, BIT(2));
    put(EOI, 0);
    assert_false(lapic_asks(pc));
    assert_int_equal(hpet_get(0x20), 0);
}

static void test_hpet_replaces_the_timer(void **state)
{
    (void)state;
    io_route(2, 0xb0);
    io_route(8, 0xb8);
    start_hpet(3);
    assert_true(hpet_replaces_legacy(pc));
    irq_set_line(pc, IRQ_TIMER, true); /* the 8254's is cut off */
    assert_false(lapic_asks(pc));
    hpet_put(0x100, BIT(2));
    hpet_put(0x108, 1000);
    hpet_put(0x120, BIT(2));
    hpet_put(0x128, 5000);
    devices_update(pc, hpet_started() + ticks_for(1001));
    assert_taken(0xb0);
    put(EOI, 0);
    devices_update(pc, hpet_started() + ticks_for(5001));
    assert_taken(0xb8);
}

/* ---- All of it, at random ----------------------------------------------------------------------
 */

static uint64_t any_value(struct random *random)
{
    uint64_t value = random_next(random);

    return random_below(random, 2) ? value : value & 0xff07ff;
}

static gpa_t any_register(struct random *random)
{
    static const uint64_t base[] = {LAPIC, IOAPIC, HPET};
    unsigned which = (unsigned)random_below(random, 3);
    uint64_t reach = which == 0 ? 0x400 : which == 1 ? 0x20 : 0x170;

    if (random_below(random, 16) == 0)
        reach = PAGE_SIZE;
    return gpa(base[which] + random_below(random, reach));
}

static void any_access(struct random *random)
{
    unsigned bytes = 1u << random_below(random, 4);
    gpa_t at = gpa(align_down(any_register(random).v, bytes));

    switch (random_below(random, 8)) {
    case 0:
        window_read(pc, at, bytes);
        break;
    case 1: {
        uint32_t index = X2APIC_MSR_FIRST + (uint32_t)random_below(random, 0x40);
        uint64_t value = random_below(random, 2) ? any_value(random) : random_below(random, 512);
        if (random_below(random, 2))
            lapic_wrmsr(pc, index, value);
        else
            lapic_rdmsr(pc, index, &value);
        break;
    }
    case 2:
        lapic_wrmsr(pc, random_below(random, 2) ? IA32_TSC_DEADLINE : IA32_APIC_BASE,
                    random_below(random, 2)
                        ? any_value(random)
                        : LAPIC | APIC_BASE_BSP | random_below(random, 4) << 10);
        break;
    case 3:
        ioapic_set_pin(pc, (unsigned)random_below(random, IOAPIC_PINS), random_below(random, 2));
        break;
    default:
        window_write(pc, at, bytes, any_value(random));
    }
}

/* Whatever is written: what is taken is above what is served, a vector is never below 16, time goes
 * on, and a level that was accepted is one that is open. */
static void test_any_accesses(void **state)
{
    struct random random = {0xa51c};
    uint64_t now = 1;

    (void)state;
    for (unsigned i = 0; i < 400000; i++) {
        any_access(&random);
        now +=
            random_below(&random, 3) ? 0 : random_next(&random) >> (20 + random_below(&random, 40));
        if (random_below(&random, 4) == 0)
            devices_update(pc, now);
        uint64_t next = devices_next(pc, now);
        assert_true(next == UINT64_MAX || next < BIT(62));
        if (lapic_asks(pc)) {
            uint32_t before = lapic_processor_priority(pc);
            uint8_t vector = lapic_acknowledge(pc);

            assert_true(vector >= LAPIC_FIRST_VECTOR);
            assert_true((vector & 0xf0u) > (before & 0xf0));
            assert_int_equal(lapic_processor_priority(pc) & 0xf0, vector & 0xf0);
        }
        if (random_below(&random, 3) == 0)
            lapic_end(pc);
    }
}

static void test_only_with_pc(void **state)
{
    static uint8_t sector[512] = {[510] = 0x55, [511] = 0xaa};
    const struct guest_image image = {.bytes = sector, .size = sizeof(sector), .cmdline = "bare"};
    struct guest *other;

    (void)state;
    assert_int_equal(guest_create(&image, &other), E_OK);
    assert_null(guest_slot_at(other, gpa(LAPIC)));
    assert_int_equal(guest_slot_at(pc, gpa(LAPIC))->kind, SLOT_DEVICE);
    assert_int_equal(guest_slot_at(pc, gpa(IOAPIC))->kind, SLOT_DEVICE);
    assert_int_equal(guest_slot_at(pc, gpa(HPET))->kind, SLOT_DEVICE);
    assert_false(lapic_has_msr(other, IA32_APIC_BASE));
    assert_true(lapic_passes_pic(other, 0));
    assert_false(lapic_asks(other));
    guest_kill(other);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, pc_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_it_starts_as_firmware_leaves_it),
        TEST(test_priorities),
        TEST(test_the_task_priority_is_cr8),
        TEST(test_who_is_addressed),
        TEST(test_errors),
        TEST(test_entries_of_the_vector_table),
        TEST(test_switched_off_by_software),
        TEST(test_accesses_beside_the_registers),
        TEST(test_a_count_that_ends),
        TEST(test_a_periodic_timer),
        TEST(test_a_deadline),
        TEST(test_state_transitions),
        TEST(test_x2apic_mode),
        TEST(test_pins),
        TEST(test_a_level_asks_again),
        TEST(test_an_nmi_by_a_pin),
        TEST(test_two_controllers_at_once),
        TEST(test_hpet_registers),
        TEST(test_hpet_one_shot),
        TEST(test_hpet_periodic),
        TEST(test_hpet_level),
        TEST(test_hpet_replaces_the_timer),
        TEST(test_any_accesses),
        TEST(test_only_with_pc),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
