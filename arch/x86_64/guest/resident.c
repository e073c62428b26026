/* See resident.h. SDM Vol. 1, chapter 13 "Managing state using the XSAVE feature set". */
#include "arch/x86_64/guest/resident.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/mm/shootdown.h"
#include "arch/x86_64/percpu.h"
#include "arch/x86_64/speculation.h"
#include "lib/bits.h"
#include "lib/string.h"

#define LEAF_XSAVE 0xd
#define XSAVE_LEGACY_SIZE 576 /* the x87/SSE image of 512 bytes and the XSAVE header */
#define FXSAVE_MXCSR 24       /* offset in the x87/SSE image */
#define FXSAVE_FCW 0
#define FXSAVE_ST 32 /* eight registers, 16 bytes apart */
#define XSAVE_HEADER 512
#define MXCSR_RESET 0x1f80
#define FCW_RESET 0x0040

static const uint32_t shared_msr_index[SHARED_MSR_COUNT] = {
    [SHARED_STAR] = IA32_STAR,
    [SHARED_LSTAR] = IA32_LSTAR,
    [SHARED_CSTAR] = IA32_CSTAR,
    [SHARED_FMASK] = IA32_FMASK,
    [SHARED_KERNEL_GS_BASE] = IA32_KERNEL_GS_BASE,
};

/* Of each CPU, by its number. */
static struct here {
    struct resident *now;
    uint64_t host_msr[SHARED_MSR_COUNT];
    uint64_t host_xcr0;
} of_cpu[SHOOTDOWN_CPUS];

static struct here *here(void)
{
    return &of_cpu[this_cpu()->number];
}

uint64_t resident_xcr0;
unsigned resident_fpu_order;

static uint64_t guest_xcr0(void)
{
    uint64_t offered = cpu_features.xcr0, mask = offered & (XCR0_X87 | XCR0_SSE);
    if (mask != (XCR0_X87 | XCR0_SSE))
        return 0;
    if (offered & XCR0_AVX) {
        mask |= XCR0_AVX;
        if ((offered & XCR0_AVX512) == XCR0_AVX512)
            mask |= XCR0_AVX512;
    }
    return mask;
}

static unsigned fpu_order(uint64_t xcr0)
{
    uint64_t size = XSAVE_LEGACY_SIZE;
    unsigned order = 0;

    /* Of component n from 2 up, sub-leaf n gives size (EAX) and offset (EBX), standard form. */
    for (uint64_t left = xcr0 & ~(XCR0_X87 | XCR0_SSE); left; left &= left - 1) {
        uint32_t r[4];
        cpuid(LEAF_XSAVE, lowest_bit(left), r);
        uint64_t end = (uint64_t)r[CPUID_EBX] + r[CPUID_EAX];
        if (end > size)
            size = end;
    }
    while (PAGE_SIZE << order < size)
        order++;
    return order;
}

/* What the registers are set to while they are nobody's: TS keeps programs from reading them, but
 * not the CPU from running ahead with what it finds there (CVE-2018-3665). No component is in it,
 * so that each is initialised (SDM Vol. 1, 13.8). */
static uint8_t nobodys_fpu[1024] __attribute__((aligned(64)));

static void make_image(uint8_t *area)
{
    uint32_t mxcsr = MXCSR_RESET;
    uint16_t fcw = FCW_RESET;

    memcpy(area + FXSAVE_MXCSR, &mxcsr, sizeof(mxcsr));
    memcpy(area + FXSAVE_FCW, &fcw, sizeof(fcw));
}

void resident_init(void)
{
    make_image(nobodys_fpu);
    resident_xcr0 = guest_xcr0();
    resident_fpu_order = fpu_order(resident_xcr0);
}

const struct resident *resident_now(void)
{
    return here()->now;
}

void resident_reset(struct resident *v)
{
    uint8_t *area = v->fpu;
    uint64_t present = XCR0_X87 | XCR0_SSE;

    make_image(area);
    if (resident_xcr0) /* XSTATE_BV: these two components are in the image */
        memcpy(area + XSAVE_HEADER, &present, sizeof(present));
    v->xcr0 = XCR0_X87;
    v->dr6 = DR6_RESET;
}

/* XSETBV is an exit where there is a hypervisor below. */
static void set_xcr0(uint64_t value)
{
    if (xgetbv(0) != value)
        xsetbv(0, value);
}

/* All components go to and fro, whichever of them the guest has enabled just now: one that it has
 * disabled keeps its state, too. */
static void fpu_save(void *area)
{
    uint64_t mask = resident_xcr0;
    if (mask) {
        set_xcr0(mask);
        __asm__ volatile("xsave64 (%0)"
                         :
                         : "r"(area), "a"((uint32_t)mask), "d"((uint32_t)(mask >> 32))
                         : "memory");
    } else {
        __asm__ volatile("fxsave64 (%0)" : : "r"(area) : "memory");
    }
}

/* Is the x87 state in the image, and as XRSTOR makes it where it is not there, but for the control
 * word (SDM Vol. 1, 13.6)? */
static bool x87_is_unused(const uint8_t *area)
{
    return (area[XSAVE_HEADER] & XCR0_X87) &&
           bytes_are_zero(area + FXSAVE_FCW + 2, FXSAVE_MXCSR - FXSAVE_FCW - 2) &&
           bytes_are_zero(area + FXSAVE_ST, 8 * 16);
}

/* Of a guest that does not use x87, that state is made, not loaded: QEMU changes another CPU's
 * flags when it loads one (docs/SVM.md, "What QEMU leaves out"). */
static void fpu_restore(uint8_t *area)
{
    uint64_t mask = resident_xcr0;
    if (!mask) {
        __asm__ volatile("fxrstor64 (%0)" : : "r"(area) : "memory");
        return;
    }
    bool unused = x87_is_unused(area);
    if (unused)
        area[XSAVE_HEADER] &= (uint8_t)~XCR0_X87;
    set_xcr0(mask);
    __asm__ volatile("xrstor64 (%0)"
                     :
                     : "r"(area), "a"((uint32_t)mask), "d"((uint32_t)(mask >> 32))
                     : "memory");
    if (unused)
        __asm__ volatile("fldcw (%0)" : : "r"(area + FXSAVE_FCW) : "memory");
}

#define DEBUG_REGISTER(n)                                                                          \
    static uint64_t read_dr##n(void)                                                               \
    {                                                                                              \
        uint64_t value;                                                                            \
        __asm__ volatile("mov %%dr" #n ", %0" : "=r"(value));                                      \
        return value;                                                                              \
    }                                                                                              \
    static void write_dr##n(uint64_t value)                                                        \
    {                                                                                              \
        __asm__ volatile("mov %0, %%dr" #n : : "r"(value));                                        \
    }
DEBUG_REGISTER(0)
DEBUG_REGISTER(1)
DEBUG_REGISTER(2)
DEBUG_REGISTER(3)
#undef DEBUG_REGISTER

void resident_debug(uint64_t dr[4])
{
    dr[0] = read_dr0();
    dr[1] = read_dr1();
    dr[2] = read_dr2();
    dr[3] = read_dr3();
}

void resident_set_debug(unsigned n, uint64_t value)
{
    switch (n) {
    case 0:
        write_dr0(value);
        return;
    case 1:
        write_dr1(value);
        return;
    case 2:
        write_dr2(value);
        return;
    default:
        write_dr3(value);
        return;
    }
}

static void debug_save(struct resident *v)
{
    resident_debug(v->dr);
    v->dr6 = read_dr6();
}

static void debug_restore(const struct resident *v)
{
    write_dr0(v->dr[0]);
    write_dr1(v->dr[1]);
    write_dr2(v->dr[2]);
    write_dr3(v->dr[3]);
    write_dr6(v->dr6);
}

static void msrs_save(uint64_t to[SHARED_MSR_COUNT])
{
    for (unsigned i = 0; i < SHARED_MSR_COUNT; i++)
        to[i] = rdmsr(shared_msr_index[i]);
}

static void msrs_restore(const uint64_t from[SHARED_MSR_COUNT])
{
    for (unsigned i = 0; i < SHARED_MSR_COUNT; i++)
        wrmsr(shared_msr_index[i], from[i]);
}

static const struct resident nobody = {.fpu = nobodys_fpu, .dr6 = DR6_RESET};

static void put_resident(void)
{
    resident_switch(NULL);
}

void resident_switch(struct resident *next)
{
    struct here *cpu = here();
    struct resident *last = cpu->now;

    if (last == next)
        return;
    __asm__ volatile("clts" : : : "memory");
    if (last) {
        if (resident_xcr0)
            last->xcr0 = xgetbv(0);
        fpu_save(last->fpu);
        debug_save(last);
        msrs_save(last->msr);
    } else {
        msrs_save(cpu->host_msr);
        if (resident_xcr0)
            cpu->host_xcr0 = xgetbv(0);
    }
    fpu_restore(next ? next->fpu : nobody.fpu);
    debug_restore(next ? next : &nobody);
    msrs_restore(next ? next->msr : cpu->host_msr);
    if (resident_xcr0)
        set_xcr0(next ? next->xcr0 : cpu->host_xcr0);
    write_cr0(read_cr0() | CR0_TS);
    cpu->now = next;
    speculation_between_guests();
    this_cpu()->put_guest = next ? put_resident : NULL;
}

uint64_t resident_xcr0_of(const struct resident *v)
{
    return resident_xcr0 && here()->now == v ? xgetbv(0) : v->xcr0;
}

void resident_drop(struct resident *v)
{
    if (here()->now == v)
        resident_switch(NULL);
}

void resident_copy(struct resident *to, struct resident *from)
{
    void *area = to->fpu;
    hpa_t frame = to->fpu_frame;

    resident_drop(from);
    resident_drop(to);
    memcpy(area, from->fpu, PAGE_SIZE << resident_fpu_order);
    *to = *from;
    to->fpu = area;
    to->fpu_frame = frame;
}
