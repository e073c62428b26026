/*
 * The MP tables of a PC (MultiProcessor Specification 1.4, chapter 4), for kernels that know
 * nothing of ACPI: the floating pointer and behind it the configuration table, in the extended
 * BIOS data area. The CPUs, the I/O APIC and where interrupts go are taken from the MADT, so that
 * both say the same.
 */
#include "lib/bits.h"
#include "lib/string.h"
#include "vm/devices.h"
#include "vm/load_parts.h"

/* The MADT (ACPI 6.3, 5.2.12). */
#define MADT_LENGTH 4
#define MADT_LAPIC_ADDRESS 36
#define MADT_ENTRIES 44
enum { MADT_LAPIC = 0, MADT_IOAPIC = 1, MADT_OVERRIDE = 2, MADT_LAPIC_NMI = 4 };

#define SPECIFICATION 4 /* 1.4 */

/* The floating pointer. */
enum { FP_TABLE = 4, FP_PARAGRAPHS = 8, FP_REVISION = 9, FP_CHECKSUM = 10, FP_SIZE = 16 };

/* The configuration table's header. */
enum {
    MP_LENGTH = 4,
    MP_REVISION = 6,
    MP_CHECKSUM = 7,
    MP_OEM = 8,
    MP_PRODUCT = 16,
    MP_COUNT = 34,
    MP_LAPIC_ADDRESS = 36,
    MP_HEADER = 44,
};

enum { MP_CPU = 0, MP_BUS = 1, MP_IOAPIC = 2, MP_INTERRUPT = 3, MP_LOCAL_INTERRUPT = 4 };
enum { TYPE_INT = 0, TYPE_NMI = 1, TYPE_EXTINT = 3 };
#define CPU_SIZE 20
#define OTHER_SIZE 8
#define ENABLED 1
#define CPU_BOOTS 2
#define LAPIC_VERSION 0x14
#define IOAPIC_VERSION 0x11
#define EVERY_LAPIC 0xff

#define BUS_PCI 0 /* as PCI numbers it */
#define BUS_ISA 1
#define ISA_IRQS 16
#define ISA_CASCADE 2 /* of the 8259 pair: no device has it */

struct mp {
    uint8_t *bytes;
    uint32_t size, count;
};

static void put(uint8_t *to, uint32_t value, unsigned width)
{
    memcpy(to, &value, width);
}

static uint32_t get(const uint8_t *from, unsigned width)
{
    uint32_t value = 0;

    memcpy(&value, from, width);
    return value;
}

static uint8_t *add(struct mp *mp, uint8_t type, uint32_t size)
{
    uint8_t *entry = mp->bytes + mp->size;

    entry[0] = type;
    mp->size += size;
    mp->count++;
    return entry;
}

static void add_cpu(struct mp *mp, const struct loader *loader, uint8_t id)
{
    uint8_t *entry = add(mp, MP_CPU, CPU_SIZE);

    entry[1] = id;
    entry[2] = LAPIC_VERSION;
    entry[3] = ENABLED | (id == 0 ? CPU_BOOTS : 0);
    put(entry + 4, loader->cpu_signature, 4);
    put(entry + 8, loader->cpu_features, 4);
}

static void add_bus(struct mp *mp, uint8_t id, const char name[6])
{
    uint8_t *entry = add(mp, MP_BUS, OTHER_SIZE);

    entry[1] = id;
    memcpy(entry + 2, name, 6);
}

/* Of either kind: `to` is an APIC, `pin` one of its inputs. */
static void add_interrupt(struct mp *mp, uint8_t kind, uint8_t type, uint32_t flags, uint8_t irq,
                          uint8_t to, uint8_t pin)
{
    uint8_t *entry = add(mp, kind, OTHER_SIZE);

    entry[1] = type;
    put(entry + 2, flags, 2);
    entry[4] = BUS_ISA;
    entry[5] = irq;
    entry[6] = to;
    entry[7] = pin;
}

/* The next entry of that type behind `at`, or from the first (0) on; NULL: there is none. */
static const uint8_t *next_entry(const uint8_t *madt, const uint8_t *at, uint8_t type)
{
    const uint8_t *end = madt + get(madt + MADT_LENGTH, 4);

    for (at = at == NULL ? madt + MADT_ENTRIES : at + at[1]; at < end; at += at[1]) {
        if (at[0] == type)
            return at;
    }
    return NULL;
}

/* An IRQ goes to the pin of its number, unless an override sends it elsewhere. */
static void add_irq(struct mp *mp, const uint8_t *madt, uint8_t irq, uint8_t ioapic)
{
    uint32_t pin = irq, flags = 0;

    for (const uint8_t *at = NULL; (at = next_entry(madt, at, MADT_OVERRIDE)) != NULL;) {
        if (at[3] != irq)
            continue;
        pin = get(at + 4, 4);
        flags = get(at + 8, 2);
    }
    add_interrupt(mp, MP_INTERRUPT, TYPE_INT, flags, irq, ioapic, (uint8_t)pin);
}

/* In the order of types that the specification asks for. */
static void add_entries(struct mp *mp, const struct loader *loader, const uint8_t *madt)
{
    const uint8_t *ioapic = next_entry(madt, NULL, MADT_IOAPIC), *at;

    for (at = NULL; (at = next_entry(madt, at, MADT_LAPIC)) != NULL;)
        add_cpu(mp, loader, at[3]);
    add_bus(mp, BUS_PCI, "PCI   ");
    add_bus(mp, BUS_ISA, "ISA   ");
    if (ioapic != NULL) {
        uint8_t *entry = add(mp, MP_IOAPIC, OTHER_SIZE);

        entry[1] = ioapic[2];
        entry[2] = IOAPIC_VERSION;
        entry[3] = ENABLED;
        memcpy(entry + 4, ioapic + 4, 4);
        for (uint8_t irq = 0; irq < ISA_IRQS; irq++) {
            if (irq != ISA_CASCADE)
                add_irq(mp, madt, irq, ioapic[2]);
        }
    }
    add_interrupt(mp, MP_LOCAL_INTERRUPT, TYPE_EXTINT, 0, 0, 0, 0); /* the 8259 pair's: LINT0 */
    for (at = NULL; (at = next_entry(madt, at, MADT_LAPIC_NMI)) != NULL;)
        add_interrupt(mp, MP_LOCAL_INTERRUPT, TYPE_NMI, get(at + 3, 2), 0, at[2], at[5]);
}

void load_mp_tables(const struct loader *loader, const uint8_t *madt, uint8_t ebda[LOAD_EBDA_SIZE])
{
    uint8_t *pointer = ebda + LOAD_EBDA_MP;
    struct mp mp = {.bytes = pointer + FP_SIZE, .size = MP_HEADER};

    _Static_assert(LOAD_EBDA_MP + FP_SIZE + MP_HEADER + GUEST_VCPUS * CPU_SIZE +
                           (2 + 1 + ISA_IRQS - 1 + 2) * OTHER_SIZE <=
                       LOAD_EBDA_ACPI,
                   "they end before the FACS");
    add_entries(&mp, loader, madt);
    memcpy(mp.bytes, "PCMP", 4);
    put(mp.bytes + MP_LENGTH, mp.size, 2);
    mp.bytes[MP_REVISION] = SPECIFICATION;
    memcpy(mp.bytes + MP_OEM, "QUIRE   ", 8);
    memcpy(mp.bytes + MP_PRODUCT, "PC          ", 12);
    put(mp.bytes + MP_COUNT, mp.count, 2);
    memcpy(mp.bytes + MP_LAPIC_ADDRESS, madt + MADT_LAPIC_ADDRESS, 4);
    mp.bytes[MP_CHECKSUM] = load_checksum(mp.bytes, mp.size);

    memcpy(pointer, "_MP_", 4);
    put(pointer + FP_TABLE, (uint32_t)LOAD_EBDA + LOAD_EBDA_MP + FP_SIZE, 4);
    pointer[FP_PARAGRAPHS] = 1;
    pointer[FP_REVISION] = SPECIFICATION;
    pointer[FP_CHECKSUM] = load_checksum(pointer, FP_SIZE);
}
