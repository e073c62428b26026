/*
 * cpus: a guest on several virtual CPUs, which needs `pc`. Its words say what they do:
 *
 *     ring N     N interrupts from CPU to CPU, by every kind of destination; then N times one to
 *                all, which the sender has to find behind its HLT
 *     x2apic N   the same in x2APIC mode
 *     mesh N     each CPU asks the others N times and waits for the answer, while its timer ticks
 *     stale N    CPU 0 gives pages back N times, while the others write them: what has them next
 *                stays as it is
 *     order N    CPU 1 writes pages and then says so, N times; the others never see it sooner said
 *                than done
 *     pass N     CPU N ends the guest, while the others compute; `fault N`, `reset N`: likewise by
 * a triple fault, by a reset
 */
#include "guests/guest.h"

#define CPUS 8
#define TRAMPOLINE 0x8000u
#define VECTOR_NMI 2
#define VECTOR_FIXED 0x40
#define VECTOR_ALL 0x41
#define VECTOR_MESH 0x52
#define VECTOR_TICK 0x63

#define APIC UINT32_C(0xfee00000)
enum { ID = 0x20, EOI = 0xb0, LDR = 0xd0, DFR = 0xe0, SVR = 0xf0, ICR = 0x300, ICR_HIGH = 0x310 };
enum { LVT_TIMER = 0x320, TIMER_COUNT = 0x380, TIMER_DIVIDE = 0x3e0 };
#define TIMER_PERIODIC 0x20000u
#define SVR_ON 0x1ff
#define ICR_NMI 0x400u
#define ICR_LOWEST 0x100u
#define ICR_INIT 0x4500u
#define ICR_STARTUP 0x4600u
#define ICR_LOGICAL 0x800u
#define TO_SELF 0x40000u
#define TO_ALL 0x80000u
#define TO_OTHERS 0xc0000u

#define MSR_APIC_BASE 0x1b
#define APIC_BASE_BSP 0x100
#define APIC_BASE_X2APIC 0xc00
#define MSR_X2APIC 0x800

extern uint8_t cpus_trampoline[], cpus_trampoline_end[];
void cpus_fixed(void), cpus_all(void), cpus_nmi(void);
void cpus_ap(uint32_t number);
void cpus_mesh(void), cpus_tick(void);
void cpus_on_fixed(void), cpus_on_all(void), cpus_on_nmi(void), cpus_on_mesh(void),
    cpus_on_tick(void);

static bool x2apic;
static volatile uint32_t cpus, started, begun, started_twice, wrong_ids;
static void (*volatile work)(uint32_t number);
static uint32_t words_number;

/* ---- The local APIC -------------------------------------------------------------------------- */

static uint64_t rdmsr(uint32_t index)
{
    uint64_t value;
    __asm__ volatile("rdmsr" : "=A"(value) : "c"(index));
    return value;
}

static void wrmsr(uint32_t index, uint64_t value)
{
    __asm__ volatile("wrmsr" : : "c"(index), "A"(value) : "memory");
}

static uint32_t apic_read(uint32_t at)
{
    return x2apic ? (uint32_t)rdmsr(MSR_X2APIC + at / 16) : *(volatile uint32_t *)(APIC + at);
}

static void apic_write(uint32_t at, uint32_t value)
{
    if (x2apic)
        wrmsr(MSR_X2APIC + at / 16, value);
    else
        *(volatile uint32_t *)(APIC + at) = value;
}

static void send(uint32_t destination, uint32_t command)
{
    if (x2apic) {
        wrmsr(MSR_X2APIC + ICR / 16, (uint64_t)destination << 32 | command);
        return;
    }
    apic_write(ICR_HIGH, destination << 24);
    apic_write(ICR, command);
}

static uint32_t self(void)
{
    return x2apic ? apic_read(ID) : apic_read(ID) >> 24;
}

/* A bit for each, in both modes. */
static uint32_t logical(uint32_t number)
{
    return 1u << number;
}

static void apic_open(void)
{
    if (x2apic) {
        wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_BASE_X2APIC);
        wrong_ids += apic_read(LDR) != logical(self());
    } else {
        apic_write(DFR, UINT32_MAX);
        apic_write(LDR, logical(self()) << 24);
    }
    apic_write(SVR, SVR_ON);
}

/* ---- Interrupts ------------------------------------------------------------------------------ */

static struct __attribute__((packed)) {
    uint16_t low, selector, access, high;
} idt[256];

static void gate(uint8_t vector, void (*handler)(void))
{
    uint32_t at = (uint32_t)(uintptr_t)handler;

    idt[vector].low = (uint16_t)at;
    idt[vector].high = (uint16_t)(at >> 16);
    idt[vector].selector = 8;
    idt[vector].access = 0x8e00;
}

static void load_idt(uint16_t limit)
{
    struct __attribute__((packed)) {
        uint16_t limit;
        uint32_t base;
    } pointer = {limit, (uint32_t)(uintptr_t)idt};

    __asm__ volatile("lidt %0" : : "m"(pointer));
}

static volatile uint32_t hops, most_hops, taken[CPUS], all_taken[CPUS];

/* On to the next CPU, each time by another kind of destination. */
static void hop(void)
{
    uint32_t number = self(), to = (number + 1) % cpus, hop = ++hops;

    taken[number]++;
    if (hop >= most_hops) {
        if (hop == most_hops) /* to CPU 0 itself, too: an NMI may have come right before its HLT */
            send(0, VECTOR_FIXED);
        return;
    }
    switch (hop % 4) {
    case 0:
        send(to, VECTOR_FIXED);
        break;
    case 1:
        send(logical(to), ICR_LOGICAL | VECTOR_FIXED);
        break;
    case 2:
        send(logical(to), ICR_LOGICAL | ICR_LOWEST | VECTOR_FIXED);
        break;
    default:
        send(to, ICR_NMI);
    }
}

void cpus_on_fixed(void)
{
    apic_write(EOI, 0);
    hop();
}

void cpus_on_nmi(void)
{
    hop();
}

void cpus_on_all(void)
{
    __atomic_fetch_add(&all_taken[self()], 1, __ATOMIC_SEQ_CST);
    apic_write(EOI, 0);
}

static void wait_for_interrupt(void)
{
    __asm__ volatile("sti; hlt; cli" : : : "memory");
}

/* ---- Start ----------------------------------------------------------------------------------- */

static void judge_id(uint32_t number)
{
    uint32_t features[4], topology[4];

    cpuid(1, features);
    cpuid(0xb, topology);
    wrong_ids += features[1] >> 24 != number || topology[3] != number;
    wrong_ids += (rdmsr(MSR_APIC_BASE) & APIC_BASE_BSP) != (number == 0 ? APIC_BASE_BSP : 0);
}

void cpus_ap(uint32_t number)
{
    load_idt(sizeof(idt) - 1);
    judge_id(number);
    apic_open();
    __atomic_fetch_add(&started, 1, __ATOMIC_SEQ_CST);
    while (!begun)
        __asm__ volatile("pause");
    work(number);
    for (;;)
        wait_for_interrupt();
}

static bool start_all(void)
{
    uint32_t features[4];

    cpuid(1, features);
    cpus = features[1] >> 16 & 0xff;
    for (uint32_t i = 0; cpus_trampoline + i < cpus_trampoline_end; i++)
        ((volatile uint8_t *)TRAMPOLINE)[i] = cpus_trampoline[i];
    gate(VECTOR_FIXED, cpus_fixed);
    gate(VECTOR_ALL, cpus_all);
    gate(VECTOR_NMI, cpus_nmi);
    gate(VECTOR_MESH, cpus_mesh);
    gate(VECTOR_TICK, cpus_tick);
    load_idt(sizeof(idt) - 1);
    judge_id(0);
    apic_open();
    send(0, TO_OTHERS | ICR_INIT);
    for (unsigned i = 0; i < 2; i++)
        send(0, TO_OTHERS | ICR_STARTUP | TRAMPOLINE >> 12);
    while (started != cpus - 1)
        __asm__ volatile("pause");
    send(0, TO_OTHERS | ICR_STARTUP | TRAMPOLINE >> 12); /* they run: without effect */
    for (volatile unsigned i = 0; i < 100000; i++)
        ;
    check(cpus > 1 && cpus <= CPUS, "there are several CPUs");
    check(started == cpus - 1, "each was started once");
    return check(wrong_ids == 0, "each has its number, and one has booted");
}

/* ---- Interrupts in a ring -------------------------------------------------------------------- */

static void do_ring(uint32_t number)
{
    uint32_t before = 0, least = UINT32_MAX, rounds = words_number;

    if (number != 0)
        return; /* to halt until one comes */
    most_hops = words_number;
    send(1, VECTOR_FIXED);
    while (hops < most_hops)
        wait_for_interrupt();
    __asm__ volatile("sti; nop; nop; cli" : : : "memory");
    for (uint32_t i = 0; i < cpus; i++) {
        before += taken[i];
        least = taken[i] < least ? taken[i] : least;
    }
    check(before >= most_hops && before <= most_hops + 1, "no interrupt was lost or doubled");
    check(least >= most_hops / cpus - 1, "each CPU has had its share");
    for (uint32_t i = 0; i < rounds; i++) {
        send(0, TO_ALL | VECTOR_ALL);
        send(0, TO_SELF | VECTOR_ALL);
        wait_for_interrupt(); /* which is there: it must come behind the HLT, not before */
        send(0, TO_OTHERS | VECTOR_ALL);
        for (uint32_t other = 1; other < cpus; other++)
            while (all_taken[other] < i + 1)
                __asm__ volatile("pause");
    }
    check(all_taken[0] >= rounds && all_taken[0] <= 2 * rounds,
          "shorthands that include the sender reach it");
    guest_end();
}

/* ---- Questions and answers ----------------------------------------------------------------------
 */

static volatile uint32_t asked[CPUS][CPUS], answered[CPUS][CPUS], ticks[CPUS], done;

void cpus_on_mesh(void)
{
    uint32_t number = self();

    apic_write(EOI, 0);
    for (uint32_t from = 0; from < cpus; from++)
        answered[from][number] = asked[from][number];
}

void cpus_on_tick(void)
{
    ticks[self()]++;
    apic_write(EOI, 0);
}

/* As kernels do it: an answer that does not come is waited for without an end. */
static void do_mesh(uint32_t number)
{
    apic_write(TIMER_DIVIDE, 0xb);
    apic_write(LVT_TIMER, TIMER_PERIODIC | VECTOR_TICK);
    apic_write(TIMER_COUNT, 200000 + number * 10000);
    for (uint32_t round = 0; round < words_number; round++) {
        uint32_t to = (number + 1 + round % (cpus - 1)) % cpus;

        asked[number][to]++;
        send(to, VECTOR_MESH);
        if (round % 3 == 0) /* asleep for the answer, or, if that was quicker, for the next tick */
            wait_for_interrupt();
        __asm__ volatile("sti" : : : "memory");
        while (answered[number][to] != asked[number][to])
            __asm__ volatile("pause");
        __asm__ volatile("cli" : : : "memory");
    }
    __atomic_fetch_add(&done, 1, __ATOMIC_SEQ_CST);
    if (number != 0)
        return;
    while (done != cpus)
        wait_for_interrupt();
    check(ticks[0] != 0, "each question was answered, and time has passed");
    guest_end();
}

/* ---- Memory that goes while others write it ----------------------------------------------------
 */

#define PAGES 16
#define PAGE 4096
#define GIVEN ((volatile uint32_t *)0x400000)
#define NEXT ((volatile uint32_t *)0x500000)

static volatile uint32_t sweeps[CPUS];
static volatile bool each_apart;

/* Frames that come one by one, and so go and come again one by one. */
static void take_apart(void)
{
    hypercall(QUIRE_HC_GIVE, (uintptr_t)GIVEN, PAGES * PAGE, 0, 0);
    for (uint32_t page = 0; page < PAGES; page++)
        GIVEN[page * PAGE / 4] = UINT32_MAX;
    each_apart = true;
}

static void write_on(uint32_t number)
{
    while (!each_apart)
        __asm__ volatile("pause");
    for (;; sweeps[number]++)
        for (uint32_t page = 0; page < PAGES; page++)
            GIVEN[page * PAGE / 4 + number] = UINT32_MAX;
}

static void wait_for_sweeps(void)
{
    for (uint32_t i = 1; i < cpus; i++)
        for (uint32_t before = sweeps[i]; sweeps[i] - before < 2;)
            __asm__ volatile("pause");
}

static uint32_t take_and_look(volatile uint32_t *page)
{
    uint32_t wrong = 0;

    hypercall(QUIRE_HC_TAKE, (uintptr_t)page, PAGE, 0, 0);
    for (uint32_t i = 0; i < 8 * CPUS; i++)
        wrong += page[i % CPUS] != 0;
    return wrong;
}

static void do_stale(uint32_t number)
{
    uint32_t wrong = 0;

    if (number != 0)
        write_on(number);
    take_apart();
    for (uint32_t round = 0; round < words_number; round++) {
        wait_for_sweeps(); /* the translations are there, and in use */
        hypercall(QUIRE_HC_GIVE, (uintptr_t)GIVEN, PAGES * PAGE, 0, 0);
        for (uint32_t page = 0; page < PAGES; page++) /* they get the frames that went */
            wrong += take_and_look(NEXT + page * PAGE / 4);
        hypercall(QUIRE_HC_GIVE, (uintptr_t)NEXT, PAGES * PAGE, 0, 0);
    }
    check(wrong == 0, "no write has come to a frame after it was given back");
    guest_end();
}

/* ---- What is written before it is said ---------------------------------------------------------
 */

static volatile uint32_t said[PAGE / 4] __attribute__((aligned(PAGE)));

static void do_order(uint32_t number)
{
    for (uint32_t i = 1; number == 1; i++) {
        for (uint32_t page = 0; page < PAGES; page++)
            GIVEN[page * PAGE / 4] = i;
        said[0] = i;
    }
    while (said[0] < words_number) {
        uint32_t sooner = said[0];

        for (uint32_t page = 0; page < PAGES; page++)
            if (GIVEN[page * PAGE / 4] < sooner)
                hypercall(QUIRE_HC_FAIL, 77, 0, 0, 0);
    }
    if (number != 0)
        return;
    check(true, "nothing was said before it was done");
    guest_end();
}

/* ---- The end, by any of them -------------------------------------------------------------------
 */

static char how;

static void do_end(uint32_t number)
{
    if (number == words_number % 10) {
        for (volatile unsigned i = 0; i < 1000000; i++)
            ;
        if (how == 'p')
            hypercall(QUIRE_HC_PASS, 0, 0, 0, 0);
        if (how == 'r' || how == 't')
            out8(0xcf9, 6);
        load_idt(0);
        __asm__ volatile("int3");
    }
    for (volatile uint32_t i = 0;; i++)
        ((volatile uint32_t *)0x600000)[(i * 1024 + number) % 0x40000] = i;
}

/* ---- Which ----------------------------------------------------------------------------------- */

void guest_main(const struct multiboot_info *info)
{
    const char *words = info != NULL ? (const char *)(uintptr_t)info->cmdline : "";

    words_number = last_number(info, 10);
    x2apic = words[0] == 'x';
    how = words[0];
    switch (words[0] == 'r' && words[1] == 'e' ? 'e' : words[0]) {
    case 'm':
        work = do_mesh;
        break;
    case 's':
        work = do_stale;
        break;
    case 'o':
        work = do_order;
        break;
    case 'p':
    case 'f':
    case 'e':
        work = do_end;
        break;
    default:
        work = do_ring;
    }
    start_all();
    begun = 1;
    work(0);
}
