/*
 * A guest with several virtual CPUs: whom an interrupt reaches, against a model of its own; INIT
 * and start-up IPIs; turns on one CPU and on several; and that nothing of a guest is freed while a
 * CPU has a vCPU of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "lib/bits.h"
#include "lib/error.h"
#include "mm/frames/buddy.h"
#include "tests/unit/fake_cpus.h"
#include "vm/dirty.h"
#include "vm/exits.h"
#include "vm/guest.h"
#include "vm/guests_lock.h"
#include "vm/interrupts.h"
#include "vm/lapic.h"
#include "vm/sched.h"
#include "vm/snapshot.h"
#include "vm/startup.h"
#include "vm/windows.h"
#include "x86/control.h"

#define VCPUS 4
#define LAPIC UINT64_C(0xfee00000)
#define IOAPIC UINT64_C(0xfec00000)
enum { LDR = 0xd0, DFR = 0xe0, SVR = 0xf0, ICR = 0x300, ICR_HIGH = 0x310 };
#define VECTOR 0x41
#define INIT 0x4500
#define SIPI 0x4600
#define NMI 0x400

static int set_up(void **state)
{
    (void)state;
    return set_up_on(NULL);
}

static int set_up_several(void **state)
{
    (void)state;
    return set_up_on(&cpus);
}

static struct fake_vcpu *fake(const struct guest *guest, unsigned cpu)
{
    return (struct fake_vcpu *)guest->cpu[cpu].vcpu;
}

/* By the vCPU, to its own local APIC. */
static void put(struct guest *guest, unsigned cpu, unsigned at, uint32_t value)
{
    guest_deal_with(guest, cpu);
    window_write(guest, gpa(LAPIC + at), 4, value);
    assert_int_equal(guest->now, cpu); /* it is dealt with as before */
}

static void send(struct guest *guest, unsigned from, uint32_t destination, uint32_t command)
{
    put(guest, from, ICR_HIGH, destination << 24);
    put(guest, from, ICR, command);
}

/* ---- How many ---- */

static void what_is_asked_for_is_there(void **state)
{
    struct guest *guest = make("g mem=1M pc cpus=8");

    (void)state;
    assert_int_equal(guest->cpus, 8);
    for (unsigned i = 0; i < 8; i++) {
        assert_non_null(guest->cpu[i].vcpu);
        assert_int_equal(guest->devices.lapic[i].id, i);
        assert_int_equal(startup_waits(&guest->cpu[i]), i != 0);
    }
    guest = make("g mem=1M bare cpus=2");
    assert_int_equal(guest->state, GUEST_REFUSED);
    assert_non_null(strstr(guest->reason, "'cpus=2' needs a PC's local APIC"));
    guest = make("g mem=1M pc cpus=9");
    assert_non_null(strstr(guest->reason, "'cpus=9': a guest has 1 to 8 virtual CPUs"));
}

/* ACPI 6.3, 5.2.12: the guest's CPUs, and no other. */
static void the_tables_list_them(void **state)
{
    struct guest *guest = make("g mem=1M pc cpus=3");
    uint8_t madt[256] = {0}, sum = 0;
    unsigned found = 0;

    (void)state;
    assert_int_equal(guest_read(guest, gpa(0xe0200), madt, sizeof(madt)), sizeof(madt));
    assert_memory_equal(madt, "APIC", 4);
    for (unsigned i = 0; i < madt[4]; i++)
        sum = (uint8_t)(sum + madt[i]);
    assert_int_equal(sum, 0);
    for (unsigned at = 44; at < madt[4]; at += madt[at + 1]) {
        if (madt[at] != 0)
            continue;
        assert_int_equal(madt[at + 3], found);
        assert_int_equal(madt[at + 4], 1);
        found++;
    }
    assert_int_equal(found, 3);
}

/* ---- The MP tables (MultiProcessor Specification 1.4, chapter 4), and that they say the same ----
 */

#define EBDA 0x9fc00

static uint8_t madt[256], mp[512];

static uint32_t word(const uint8_t *at, unsigned width)
{
    uint32_t value = 0;

    memcpy(&value, at, width);
    return value;
}

static uint8_t sum_of(const uint8_t *bytes, unsigned size)
{
    uint8_t sum = 0;

    for (unsigned i = 0; i < size; i++)
        sum = (uint8_t)(sum + bytes[i]);
    return sum;
}

/* Found as a kernel finds it: by paragraphs of the area whose segment the BIOS data area tells. */
static void read_mp(struct guest *guest)
{
    uint8_t pointer[16], ebda[2];
    uint64_t at;

    assert_int_equal(guest_read(guest, gpa(0x40e), ebda, 2), 2);
    at = (uint64_t)word(ebda, 2) << 4;
    assert_int_equal(at, EBDA);
    do {
        assert_true(at < EBDA + 0x400);
        assert_int_equal(guest_read(guest, gpa(at), pointer, 16), 16);
        at += 16;
    } while (memcmp(pointer, "_MP_", 4) != 0);
    assert_int_equal(sum_of(pointer, 16), 0);
    assert_int_equal(word(pointer + 8, 2), 0x0401);          /* one paragraph, 1.4 */
    assert_int_equal(pointer[11] | (pointer[12] & 0x80), 0); /* a table follows; no IMCR */
    assert_int_equal(guest_read(guest, gpa(word(pointer + 4, 4)), mp, sizeof(mp)), sizeof(mp));
    assert_memory_equal(mp, "PCMP", 4);
    assert_int_equal(mp[6], 4);
    assert_int_equal(sum_of(mp, word(mp + 4, 2)), 0);
    assert_true(word(pointer + 4, 4) + word(mp + 4, 2) <= EBDA + 0x200); /* the FACS */
    assert_int_equal(guest_read(guest, gpa(0xe0200), madt, sizeof(madt)), sizeof(madt));
}

static unsigned mp_size(uint8_t type)
{
    assert_in_range(type, 0, 4);
    return type == 0 ? 20 : 8;
}

/* The `number`th entry of that type in either table; NULL: there are fewer. */
static const uint8_t *mp_entry(uint8_t type, unsigned number)
{
    for (const uint8_t *at = mp + 44; at < mp + word(mp + 4, 2); at += mp_size(at[0])) {
        if (at[0] == type && number-- == 0)
            return at;
    }
    return NULL;
}

static const uint8_t *madt_entry(uint8_t type, unsigned number)
{
    for (const uint8_t *at = madt + 44; at < madt + madt[4]; at += at[1]) {
        if (at[0] == type && number-- == 0)
            return at;
    }
    return NULL;
}

static unsigned cpus_agree(void)
{
    const uint8_t *entry, *told;
    unsigned i = 0;

    for (; (entry = mp_entry(0, i)) != NULL; i++) {
        told = madt_entry(0, i);
        assert_non_null(told);
        assert_int_equal(entry[1], told[3]);
        assert_int_equal(entry[2], 0x14);
        assert_int_equal(entry[3], i == 0 ? 3 : 1); /* enabled; the first boots */
        assert_int_equal(word(entry + 4, 4), 0x6fb);
        assert_true(word(entry + 8, 4) & BIT(9)); /* CPUID: APIC */
    }
    assert_null(madt_entry(0, i));
    return i;
}

static void interrupts_agree(void)
{
    const uint8_t *ioapic = madt_entry(1, 0), *entry;
    unsigned i = 0;

    for (; (entry = mp_entry(3, i)) != NULL; i++) {
        unsigned irq = entry[5], pin = irq, flags = 0;

        for (unsigned j = 0; madt_entry(2, j) != NULL; j++) {
            const uint8_t *override = madt_entry(2, j);

            if (override[3] == irq) {
                pin = word(override + 4, 4);
                flags = word(override + 8, 2);
            }
        }
        assert_int_equal(entry[1], 0);
        assert_int_equal(word(entry + 2, 2), flags);
        assert_int_equal(entry[6], ioapic[2]);
        assert_int_equal(entry[7], pin);
        assert_int_not_equal(irq, 2);
        assert_memory_equal(mp_entry(1, entry[4]) + 2, "ISA   ", 6);
        assert_int_equal(mp_entry(1, entry[4])[1], entry[4]);
    }
    assert_int_equal(i, 15);
}

static void old_cpu(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    (void)subleaf;
    memset(out, 0, 16);
    if (leaf == 0)
        out[0] = 1;
    else if (leaf == 1)
        out[0] = 0x6fb;
}

static void the_mp_tables_say_the_same(void **state)
{
    static const unsigned cpus[] = {1, 3, 8};
    char options[32];

    (void)state;
    machine_cpuid = old_cpu;
    for (unsigned i = 0; i < ARRAY_SIZE(cpus); i++) {
        struct guest *guest;

        snprintf(options, sizeof(options), "g mem=1M pc cpus=%u", cpus[i]);
        guest = make(options);
        read_mp(guest);
        assert_int_equal(cpus_agree(), cpus[i]);
        interrupts_agree();
        assert_int_equal(word(mp + 36, 4), word(madt + 36, 4));
        assert_int_equal(word(mp + 34, 2), cpus[i] + 2 + 1 + 15 + 2);
        assert_memory_equal(mp_entry(2, 0) + 4, madt_entry(1, 0) + 4, 4);
        assert_int_equal(mp_entry(2, 0)[1], madt_entry(1, 0)[2]);
        window_write(guest, gpa(IOAPIC), 4, 0); /* and its own register */
        assert_int_equal(window_read(guest, gpa(IOAPIC + 0x10), 4), mp_entry(2, 0)[1] << 24);
        assert_int_equal(mp_entry(4, 0)[1], 3); /* the 8259 pair: LINT0 of the one that boots */
        assert_int_equal(word(mp_entry(4, 0) + 6, 2), 0);
        assert_int_equal(mp_entry(4, 1)[1], 1); /* NMI: LINT1 of all */
        assert_int_equal(word(mp_entry(4, 1) + 6, 2), 0x01ff);
    }
}

static uint64_t *cpuid(struct guest *guest, unsigned cpu, uint32_t leaf, uint32_t subleaf)
{
    const struct vm_exit exit = {.kind = VM_EXIT_CPUID, .length = 2};

    guest_deal_with(guest, cpu);
    guest->vcpu->gpr[RAX] = leaf;
    guest->vcpu->gpr[RCX] = subleaf;
    (void)exit_dispatch(guest, &exit);
    return guest->vcpu->gpr;
}

static void some_cpu(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    (void)subleaf;
    memset(out, 0, 16);
    if (leaf == 0) {
        out[0] = 0x16;
        out[1] = 0x68747541;
    } else if (leaf == 4) {
        out[0] = 0xffffc063; /* of level 3, shared by all that there are */
    } else if (leaf == 0x80000000) {
        out[0] = 0x80000008;
    }
}

static void cpuid_tells_of_them(void **state)
{
    struct guest *guest = make("g mem=1M pc cpus=3");
    uint64_t *gpr;

    (void)state;
    machine_cpuid = some_cpu;
    gpr = cpuid(guest, 2, 1, 0);
    assert_int_equal(gpr[RBX], 0x02030000);
    assert_true(gpr[RDX] & BIT(28));
    gpr = cpuid(guest, 1, 4, 0);
    assert_int_equal(gpr[RAX], 3u << 26 | 3u << 14 | 0x63);
    gpr = cpuid(guest, 2, 0xb, 0);
    assert_int_equal(gpr[RAX], 0);
    assert_int_equal(gpr[RBX], 1);
    assert_int_equal(gpr[RDX], 2);
    gpr = cpuid(guest, 1, 0xb, 1);
    assert_int_equal(gpr[RAX], 2); /* IDs 0 to 3 */
    assert_int_equal(gpr[RBX], 3);
    assert_int_equal(gpr[RCX], 0x201);
    assert_int_equal(gpr[RDX], 1);
    gpr = cpuid(guest, 0, 0x80000008, 0);
    assert_int_equal(gpr[RCX], 2 << 12 | 2);
    gpr = cpuid(guest, 0, 0x80000001, 0);
    assert_true(gpr[RCX] & BIT(1));
}

static void each_has_a_log(void **state)
{
    struct guest *guest = make("g mem=1M pc cpus=3 paused");
    uint64_t page;

    (void)state;
    machine_logs = true;
    assert_int_equal(dirty_start(guest, DIRTY_CONSOLE), E_OK);
    for (unsigned i = 0; i < 3; i++)
        assert_true(fake(guest, i)->logs);
    fake(guest, 2)->log[0] = gpa(0x8000);
    fake(guest, 2)->logged = 1;
    dirty_collect(guest);
    assert_true(page_set_next(&guest->dirty.set[DIRTY_CONSOLE], 0, &page));
    assert_int_equal(page, 0x8000);
    dirty_stop(guest, DIRTY_CONSOLE);
    for (unsigned i = 0; i < 3; i++)
        assert_false(fake(guest, i)->logs);
}

/* ---- Whom an interrupt reaches: SDM Vol. 3, 11.6.2, once more ---- */

struct apic {
    unsigned id, ldr;
    bool cluster, x2apic;
};

static bool model_reaches(const struct apic *to, unsigned index, unsigned destination, bool logical)
{
    if (!logical)
        return destination == 0xff || destination == (to->x2apic ? index : to->id);
    if (to->x2apic)
        return destination == 0xff || (destination < 0x10000 && (destination & (1u << index)) != 0);
    if (!to->cluster)
        return (destination & to->ldr) != 0;
    return (destination / 16 == 15 || destination / 16 == to->ldr / 16) &&
           (destination % 16 & to->ldr % 16) != 0;
}

static unsigned model(const struct apic apics[VCPUS], unsigned from, unsigned destination,
                      unsigned command)
{
    unsigned set = 0;

    for (unsigned i = 0; i < VCPUS; i++) {
        bool reached = false;

        switch (command >> 18 & 3) {
        case 0:
            reached = model_reaches(&apics[i], i, destination, (command & 0x800) != 0);
            break;
        case 1:
            reached = i == from;
            break;
        case 2:
            reached = true;
            break;
        case 3:
            reached = i != from;
        }
        set |= reached ? 1u << i : 0;
    }
    return set;
}

static unsigned reached(struct guest *guest)
{
    unsigned set = 0;

    for (unsigned i = 0; i < VCPUS; i++) {
        uint64_t *irr = &guest->devices.lapic[i].irr[VECTOR / 64];

        set |= *irr & BIT(VECTOR % 64) ? 1u << i : 0;
        *irr = 0;
    }
    return set;
}

static void every_destination(void **state)
{
    static const struct apic kinds[][VCPUS] = {
        {{0, 1, false, false}, {1, 2, false, false}, {2, 4, false, false}, {3, 8, false, false}},
        {{0, 0x11, true, false},
         {1, 0x12, true, false},
         {2, 0x21, true, false},
         {7, 0x28, true, false}},
        {{0, 1, false, true}, {1, 2, false, true}, {2, 4, false, true}, {3, 8, false, true}},
    };
    struct guest *guest = make("g mem=1M pc cpus=4");

    (void)state;
    for (unsigned kind = 0; kind < ARRAY_SIZE(kinds); kind++) {
        for (unsigned i = 0; i < VCPUS; i++) {
            const struct apic *apic = &kinds[kind][i];
            struct dev_lapic *lapic = &guest->devices.lapic[i];

            lapic->base = LAPIC | APIC_BASE_EN | (apic->x2apic ? APIC_BASE_EXTD : 0);
            lapic->svr = 0x1ff;
            lapic->id = (uint8_t)apic->id;
            lapic->ldr = (uint8_t)apic->ldr;
            lapic->dfr = apic->cluster ? 0x0fffffff : 0xffffffff;
        }
        for (unsigned from = 0; from < VCPUS; from++)
            for (unsigned destination = 0; destination < 256; destination++)
                for (unsigned how = 0; how < 8; how++) {
                    unsigned command = VECTOR | (how & 1) << 11 | (how >> 1) << 18;
                    bool x2apic = kinds[kind][0].x2apic;
                    uint64_t wide = x2apic && destination == 0xff ? UINT32_MAX : destination;

                    guest_deal_with(guest, from);
                    if (x2apic)
                        assert_true(lapic_wrmsr(guest, 0x830, wide << 32 | command));
                    else
                        send(guest, from, destination, command);
                    assert_int_equal(reached(guest),
                                     model(kinds[kind], from, destination, command));
                }
    }
}

static void the_lowest_priority_gets_it(void **state)
{
    struct guest *guest = make("g mem=1M pc cpus=4");

    (void)state;
    for (unsigned i = 0; i < VCPUS; i++) {
        put(guest, i, SVR, 0x1ff);
        put(guest, i, LDR, UINT32_C(0x01000000) << i);
        guest->cpu[i].vcpu->cr8 = (uint8_t)(8 - i);
    }
    send(guest, 0, 0x07, 0x900 | VECTOR);
    assert_int_equal(reached(guest), BIT(2));
    guest->cpu[1].vcpu->cr8 = 0;
    send(guest, 0, 0x0f, 0x900 | VECTOR);
    assert_int_equal(reached(guest), BIT(1));
    put(guest, 1, SVR, 0xff); /* which is switched off takes none */
    send(guest, 0, 0x0f, 0x900 | VECTOR);
    assert_int_equal(reached(guest), BIT(3));
}

/* ---- INIT and start-up ---- */

static bool take(struct guest *guest, unsigned cpu)
{
    guest_deal_with(guest, cpu);
    return startup_take(guest);
}

static void one_start_up_counts(void **state)
{
    struct guest *guest = make("g mem=1M pc cpus=4");

    (void)state;
    assert_false(take(guest, 1));
    send(guest, 0, 1, SIPI | 0x9a);
    send(guest, 0, 1, SIPI | 0x55);
    assert_false(startup_waits(&guest->cpu[1]));
    assert_true(startup_waits(&guest->cpu[2]));
    assert_true(take(guest, 1));
    assert_int_equal(fake(guest, 1)->state.segment[SEG_CS].selector, 0x9a00);
    assert_int_equal(fake(guest, 1)->state.segment[SEG_CS].base, 0x9a000);
    assert_int_equal(fake(guest, 1)->state.rip, 0);
    fake(guest, 1)->state.rip = 0x1234;
    send(guest, 0, 1, SIPI | 0x77); /* it runs */
    assert_true(take(guest, 1));
    assert_int_equal(fake(guest, 1)->state.rip, 0x1234);
    /* By no shorthand that the sender is in; the end of a level is nothing. */
    send(guest, 0, 0, 0x80000 | INIT);
    send(guest, 0, 1, 0x8500);
    assert_false(guest->cpu[0].is.init || guest->cpu[1].is.init);
}

static void an_init_resets(void **state)
{
    struct guest *guest = make("g mem=1M pc cpus=4");
    struct fake_vcpu *vcpu = fake(guest, 1);

    (void)state;
    send(guest, 0, 0, 0xc0000 | SIPI | 0x10);
    assert_true(take(guest, 1));
    vcpu->state.cr0 = CR0_PE | CR0_CD | CR0_NW;
    vcpu->state.cr3 = 0x5000;
    vcpu->state.efer = 0x500;
    vcpu->rest.dr[2] = 7;
    vcpu->rest.lstar = 9;
    vcpu->vcpu.gpr[RAX] = 3;
    guest->cpu[1].is.halted = true;
    guest->devices.lapic[1].id = 5;
    put(guest, 1, SVR, 0x1ff);
    guest->devices.lapic[1].nmi = true;
    send(guest, 0, 5, INIT);
    assert_false(startup_waits(&guest->cpu[1])); /* until it has taken it */
    assert_false(take(guest, 1));
    assert_true(startup_waits(&guest->cpu[1]));
    assert_int_equal(vcpu->state.cr0, CR0_ET | CR0_CD | CR0_NW);
    assert_int_equal(vcpu->state.cr3 | vcpu->state.efer | vcpu->vcpu.gpr[RAX], 0);
    assert_int_equal(vcpu->state.rip, 0xfff0);
    assert_int_equal(vcpu->state.segment[SEG_CS].selector, 0xf000);
    assert_int_equal(vcpu->rest.dr[2], 0);
    assert_int_equal(vcpu->rest.lstar, 9); /* an MSR: as it was */
    assert_false(guest->cpu[1].is.halted);
    assert_int_equal(guest->devices.lapic[1].id, 5);
    assert_int_equal(guest->devices.lapic[1].svr, 0xff);
    assert_false(guest->devices.lapic[1].nmi);
    send(guest, 0, 5, NMI); /* none in this state */
    assert_false(guest->devices.lapic[1].nmi);
    send(guest, 0, 5, SIPI | 0x20);
    send(guest, 0, 5, INIT); /* comes after it */
    assert_false(take(guest, 1));
    send(guest, 0, 5, INIT);
    send(guest, 0, 5, SIPI | 0x30);
    assert_true(take(guest, 1));
    assert_int_equal(vcpu->state.segment[SEG_CS].selector, 0x3000);
}

static void the_first_starts_anew_by_itself(void **state)
{
    struct guest *guest = make("g mem=1M pc cpus=2");

    (void)state;
    send(guest, 0, 0, INIT);
    assert_true(take(guest, 0));
    assert_int_equal(fake(guest, 0)->state.segment[SEG_CS].base, 0xffff0000);
}

/* ---- Turns ---- */

static void start_all(struct guest *guest)
{
    for (unsigned i = 1; i < guest->cpus; i++)
        guest->cpu[i].is.waits = false;
}

static void several_have_no_more_of_a_cpu_than_one(void **state)
{
    struct guest *four = make("g mem=1M pc cpus=4"), *one = make("g mem=1M");

    (void)state;
    start_all(four);
    for (unsigned i = 0; i < 40; i++)
        (void)guests_round();
    assert_true(four->ticks < one->ticks + one->ticks / 8);
    assert_true(one->ticks < four->ticks + four->ticks / 8);
    for (unsigned i = 0; i < 4; i++)
        assert_in_range(four->cpu[i].vcpu->entries, 9, 11);
}

/* Another CPU deals with another vCPU while this one is in guest code. */
static void be_dealt_with_meanwhile(struct fake_vcpu *vcpu, struct vm_exit *exit)
{
    struct guest *guest = vcpu->vcpu.guest;

    guest_deal_with(guest, guest->cpu[0].vcpu == &vcpu->vcpu ? 1 : 0);
    vcpu->vcpu.gpr[RAX] = 0x40000001;
    vcpu->retries++;
    exit->kind = VM_EXIT_CPUID;
    exit->length = 2;
}

static void an_exit_is_that_of_its_vcpu(void **state)
{
    struct guest *guest = make("g mem=1M pc cpus=2");
    uint64_t rip[2] = {fake(guest, 0)->state.rip, fake(guest, 1)->state.rip};

    (void)state;
    start_all(guest);
    machine_cpu = be_dealt_with_meanwhile;
    (void)guests_round();
    (void)guests_round();
    for (unsigned i = 0; i < 2; i++) {
        assert_true(fake(guest, i)->retries > 1);
        assert_int_equal(fake(guest, i)->state.rip, rip[i] + 2 * fake(guest, i)->retries);
        assert_int_equal(guest->cpu[i].vcpu->gpr[RAX], 1);
    }
    machine_cpu = NULL;
}

static void a_cpu_that_halts_is_woken_for_a_start_up(void **state)
{
    struct guest *guest = make("g mem=1M pc cpus=3");

    (void)state;
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(sched_queue_of(&guest->cpu[i]), i);
    guests_go_on();
    assert_false(on_cpu(1)); /* who waits for a start-up has no turn */
    memset(wakes, 0, sizeof(wakes));
    send(guest, 0, 1, SIPI | 0x10);
    assert_int_equal(wakes[1], 1);
    assert_int_equal(wakes[2], 0);
    assert_true(on_cpu(1));
    assert_int_equal(guest->cpu[1].vcpu->entries, 1);
    memset(kicks, 0, sizeof(kicks));
    send(guest, 0, 1, NMI);
    assert_int_equal(kicks[1], 1); /* where it runs now */
}

/* ---- Ends ---- */

static unsigned ends_on;

static void end_on_one(struct fake_vcpu *vcpu, struct vm_exit *exit)
{
    exit->kind = self_is == ends_on ? VM_EXIT_SHUTDOWN : VM_EXIT_SLICE;
    (void)vcpu;
}

static void nothing_is_freed_before_all_are_out(void **state)
{
    struct guest *guest = make("g mem=1M pc cpus=3");
    uint64_t frames = buddy_owner_frames(guest_owner(guest));

    (void)state;
    start_all(guest);
    guests_go_on();
    machine_cpu = end_on_one;
    ends_on = 2;
    (void)sched_round(0);
    assert_true(on_cpu(1));
    memset(kicks, 0, sizeof(kicks));
    (void)on_cpu(2);
    assert_true(guest_ended(guest));
    assert_int_equal(kicks[0], 1); /* those that have one are to come out */
    assert_int_equal(kicks[1], 1);
    assert_non_null(guest->cpu[0].vcpu);
    assert_int_equal(buddy_owner_frames(guest_owner(guest)), frames);
    (void)sched_round(0); /* which puts its own: that of CPU 1 is still active */
    assert_non_null(guest->cpu[1].vcpu);
    assert_int_equal(fake(guest, 0)->active, 0);
    (void)on_cpu(1);
    (void)sched_round(0);
    assert_null(guest->cpu[1].vcpu);
    assert_int_equal(buddy_owner_frames(guest_owner(guest)), 0);
}

static void a_guest_halts_with_its_last_vcpu(void **state)
{
    struct guest *guest = make("g mem=1M pc cpus=2");

    (void)state;
    start_all(guest);
    guest->cpu[1].is.halted = guest->cpu[1].is.deaf = true;
    guest_deal_with(guest, 0);
    assert_true(interrupts_can_wake(guest));
    guest->cpu[0].is.halted = guest->cpu[0].is.deaf = true;
    assert_false(interrupts_can_wake(guest));
    guest->devices.lapic[0].irr[1] = 1; /* its interrupts are closed */
    assert_false(interrupts_can_wake(guest));
    guest->cpu[0].is.deaf = false;
    assert_true(interrupts_can_wake(guest));
    guest->devices.lapic[0].irr[1] = 0;
    guest->devices.lapic[1].nmi = true;
    assert_true(interrupts_can_wake(guest));
    assert_int_equal(guest->now, 0);
}

static void a_snapshot_has_all_of_them(void **state)
{
    struct guest *guest = make("g mem=1M pc cpus=3 paused");

    (void)state;
    guest->cpu[1].is.waits = false;
    guest->cpu[1].is.halted = true;
    fake(guest, 1)->state.rip = 0x111;
    fake(guest, 2)->state.rip = 0x222;
    guest->devices.lapic[2].ldr = 4;
    assert_int_equal(guest_snapshot(guest), E_OK);
    guest->cpu[1].is.halted = false;
    guest->cpu[2].is.waits = false;
    guest->devices.lapic[2].ldr = 8;
    fake(guest, 1)->state.rip = fake(guest, 2)->state.rip = 0;
    assert_int_equal(guest_back(guest), E_OK);
    assert_int_equal(fake(guest, 1)->state.rip, 0x111);
    assert_int_equal(fake(guest, 2)->state.rip, 0x222);
    assert_true(guest->cpu[1].is.halted && guest->cpu[2].is.waits);
    assert_int_equal(guest->devices.lapic[2].ldr, 4);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define TEST_SEVERAL(name) cmocka_unit_test_setup_teardown(name, set_up_several, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(what_is_asked_for_is_there),
        TEST(the_tables_list_them),
        TEST(the_mp_tables_say_the_same),
        TEST(cpuid_tells_of_them),
        TEST(each_has_a_log),
        TEST(every_destination),
        TEST(the_lowest_priority_gets_it),
        TEST(one_start_up_counts),
        TEST(an_init_resets),
        TEST(the_first_starts_anew_by_itself),
        TEST(several_have_no_more_of_a_cpu_than_one),
        TEST(an_exit_is_that_of_its_vcpu),
        TEST_SEVERAL(a_cpu_that_halts_is_woken_for_a_start_up),
        TEST_SEVERAL(nothing_is_freed_before_all_are_out),
        TEST(a_guest_halts_with_its_last_vcpu),
        TEST(a_snapshot_has_all_of_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
