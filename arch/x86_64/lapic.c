/* See lapic.h. Registers by their offset in the xAPIC page; the MSR number follows from it. */
#include "arch/x86_64/lapic.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/mm/kernel_space.h"
#include "lib/error.h"

#define CPUID_FEATURES 1
#define EDX1_APIC BIT(9)

#define APIC_BASE_ADDRESS BITS(51, 12)

/* SDM Vol. 3, table 11-1 "Local APIC Register Address Map" and 11-6 for x2APIC mode. */
#define LAPIC_ID 0x020
#define LAPIC_TPR 0x080
#define LAPIC_EOI 0x0b0
#define LAPIC_SVR 0x0f0
#define LAPIC_IRR 0x200 /* eight registers of 32 vectors, 16 bytes apart */
#define LAPIC_ICR_LOW 0x300
#define LAPIC_ICR_HIGH 0x310
#define LAPIC_LVT_TIMER 0x320
#define LAPIC_LVT_LINT0 0x350
#define LAPIC_TIMER_INITIAL 0x380
#define LAPIC_TIMER_CURRENT 0x390
#define LAPIC_TIMER_DIVIDE 0x3e0
#define X2APIC_MSR_BASE 0x800

#define SVR_ENABLE BIT(8)
#define LVT_MASKED BIT(16)
#define LVT_ONE_SHOT 0
#define LVT_PERIODIC BIT(17)
#define LVT_EXTINT 0x700
#define DIVIDE_BY_16 0x3

/* 11.6.1: delivery mode, level and status in the low word, the destination in the high one. */
#define ICR_NMI 0x400
#define ICR_INIT 0x500
#define ICR_STARTUP 0x600
#define ICR_PENDING BIT(12)
#define ICR_ASSERT 0x4000
#define XAPIC_ID_SHIFT 24
#define XAPIC_IDS 255 /* 255 is everybody */
#define SEND_POLLS 100000u

#define PRIORITY_CLASS(vector) ((vector)&0xf0)

static bool x2apic_mode(void)
{
    return (rdmsr(IA32_APIC_BASE) & APIC_BASE_EXTD) != 0;
}

static volatile uint32_t *reg(unsigned offset)
{
    return (volatile uint32_t *)(uintptr_t)(fixmap_address(FIXMAP_LAPIC).v + offset);
}

static uint32_t lapic_read(unsigned offset)
{
    return x2apic_mode() ? (uint32_t)rdmsr(X2APIC_MSR_BASE + offset / 16) : *reg(offset);
}

static void lapic_write(unsigned offset, uint32_t value)
{
    if (x2apic_mode())
        wrmsr(X2APIC_MSR_BASE + offset / 16, value);
    else
        *reg(offset) = value;
}

/* Every CPU's APIC answers at the same physical address, each to its own CPU: one mapping serves.
 */
static int map_registers(void)
{
    void *ignored;
    hpa_t at = hpa(rdmsr(IA32_APIC_BASE) & APIC_BASE_ADDRESS);
    int error = fixmap_map(FIXMAP_LAPIC, at, MEM_UC, true, &ignored);

    return error == E_EXIST ? E_OK : error;
}

int lapic_enable(void)
{
    uint32_t r[4];
    int error = E_OK;

    cpuid(CPUID_FEATURES, 0, r);
    if (!(r[CPUID_EDX] & EDX1_APIC) || !(rdmsr(IA32_APIC_BASE) & APIC_BASE_EN))
        return E_UNSUPPORTED;
    if (!x2apic_mode())
        error = map_registers();
    if (error != E_OK)
        return error;
    lapic_write(LAPIC_SVR, SVR_ENABLE | VECTOR_SPURIOUS);
    lapic_write(LAPIC_TPR, PRIORITY_CLASS(VECTOR_TIMER) - 0x10);
    lapic_write(LAPIC_LVT_LINT0, lapic_read(LAPIC_LVT_LINT0) | LVT_MASKED);
    lapic_timer_stop();
    return E_OK;
}

static void start(uint32_t mode, uint32_t count)
{
    lapic_write(LAPIC_TIMER_DIVIDE, DIVIDE_BY_16);
    lapic_write(LAPIC_LVT_TIMER, mode | VECTOR_TIMER); /* not masked */
    lapic_write(LAPIC_TIMER_INITIAL, count);
}

void lapic_timer_start(uint32_t count)
{
    start(LVT_ONE_SHOT, count);
}

void lapic_timer_repeat(uint32_t count)
{
    start(LVT_PERIODIC, count);
}

uint32_t lapic_timer_left(void)
{
    return lapic_read(LAPIC_TIMER_CURRENT);
}

void lapic_timer_stop(void)
{
    lapic_write(LAPIC_LVT_TIMER, LVT_MASKED | VECTOR_TIMER);
    lapic_write(LAPIC_TIMER_INITIAL, 0);
}

bool lapic_pending(uint8_t vector)
{
    return lapic_read(LAPIC_IRR + vector / 32 * 16) >> vector % 32 & 1;
}

void lapic_end_of_interrupt(void)
{
    lapic_write(LAPIC_EOI, 0);
}

void lapic_take_pic(bool on)
{
    lapic_write(LAPIC_LVT_LINT0, on ? LVT_EXTINT : LVT_EXTINT | LVT_MASKED);
}

uint32_t lapic_id(void)
{
    if (!(rdmsr(IA32_APIC_BASE) & APIC_BASE_EN))
        return 0;
    uint32_t id = lapic_read(LAPIC_ID);
    return x2apic_mode() ? id : id >> XAPIC_ID_SHIFT;
}

bool lapic_x2apic(void)
{
    return x2apic_mode();
}

void lapic_enter_x2apic(void)
{
    wrmsr(IA32_APIC_BASE, rdmsr(IA32_APIC_BASE) | APIC_BASE_EN | APIC_BASE_EXTD);
}

/* In x2APIC mode one write, of which nothing is pending afterwards (11.12.9). An NMI handler that
 * came between the two writes of xAPIC mode would change the destination: it sends nothing. */
static int send(uint32_t id, uint32_t command)
{
    if (x2apic_mode()) {
        /* A WRMSR to the APIC does not wait for stores before it (11.12.3). */
        __asm__ volatile("mfence; lfence" : : : "memory");
        wrmsr(X2APIC_MSR_BASE + LAPIC_ICR_LOW / 16, (uint64_t)id << 32 | command);
        return E_OK;
    }
    if (id >= XAPIC_IDS)
        return E_RANGE;
    *reg(LAPIC_ICR_HIGH) = id << XAPIC_ID_SHIFT;
    *reg(LAPIC_ICR_LOW) = command;
    for (unsigned polls = 0; polls < SEND_POLLS && (*reg(LAPIC_ICR_LOW) & ICR_PENDING); polls++)
        cpu_pause();
    return E_OK;
}

int lapic_send_init(uint32_t id)
{
    return send(id, ICR_INIT | ICR_ASSERT);
}

int lapic_send_startup(uint32_t id, uint8_t page)
{
    return send(id, ICR_STARTUP | ICR_ASSERT | page);
}

int lapic_send_nmi(uint32_t id)
{
    return send(id, ICR_NMI | ICR_ASSERT);
}

int lapic_send_vector(uint32_t id, uint8_t vector)
{
    return send(id, ICR_ASSERT | vector);
}
