/* See vm/cpuid.h. Feature names and bits: SDM Vol. 2, "CPUID - CPU Identification". */
#include "vm/cpuid.h"

#include "guests/abi.h"
#include "lib/bits.h"
#include "lib/error.h"
#include "lib/string.h"
#include "vm/inject.h"
#include "vm/lapic.h"
#include "vm/report.h"
#include "x86/control.h"

#define LEAF_TOPOLOGY 0xb
#define LEAF_XSAVE 0xd
#define LEAF_BASIC_MAX 0x16
#define LEAF_EXTENDED 0x80000000u
#define LEAF_EXTENDED_MAX 0x80000008u
#define LEAF_HYPERVISOR_MAX (QUIRE_CPUID_BASE + 1)

/* Guest-physical addresses end where a 4-level second-level table does. */
#define GUEST_PHYSICAL_BITS 48
#define GUEST_LINEAR_BITS 48

/*
 * Leaf 1. Left out of ECX: DTES64, MONITOR, guests of its own, SMX, EIST, TM2. Of EDX: MCE, MTRR,
 * MCA, DS, ACPI, SS (self-snoop), TM; HTT says that there are several. What belongs to XSAVE comes
 * with its components, what belongs to a local APIC with that, whatever the host's has.
 */
#define FEATURE_ECX                                                                                \
    (BIT(0) /* SSE3 */ | BIT(1) /* PCLMULQDQ */ | BIT(9) /* SSSE3 */ | BIT(13) /* CX16 */ |        \
     BIT(17) /* PCID */ | BIT(19) /* SSE4.1 */ | BIT(20) /* SSE4.2 */ | BIT(22) /* MOVBE */ |      \
     BIT(23) /* POPCNT */ | BIT(25) /* AES */ | BIT(30) /* RDRAND */)
#define FEATURE_ECX_XSAVE BIT(26)
#define FEATURE_ECX_OSXSAVE BIT(27)
#define FEATURE_ECX_AVX (BIT(12) /* FMA */ | BIT(28) /* AVX */ | BIT(29) /* F16C */)
#define FEATURE_ECX_APIC (BIT(21) /* x2APIC */ | BIT(24) /* TSC deadline */)
#define FEATURE_EDX_APIC BIT(9)
#define FEATURE_ECX_HYPERVISOR BIT(31)
#define FEATURE_EDX                                                                                \
    (BIT(0) /* FPU */ | BIT(1) /* VME */ | BIT(2) /* DE */ | BIT(3) /* PSE */ | BIT(4) /* TSC */ | \
     BIT(5) /* MSR */ | BIT(6) /* PAE */ | BIT(8) /* CX8 */ | BIT(11) /* SEP */ |                  \
     BIT(13) /* PGE */ | BIT(15) /* CMOV */ | BIT(16) /* PAT */ | BIT(17) /* PSE36 */ |            \
     BIT(19) /* CLFSH */ | BIT(23) /* MMX */ | BIT(24) /* FXSR */ | BIT(25) /* SSE */ |            \
     BIT(26) /* SSE2 */)
#define FEATURE_EBX_CLFLUSH BITS(15, 8)
#define FEATURE_EBX_CPUS_SHIFT 16 /* IDs of this package, and ... */
#define FEATURE_EBX_ID_SHIFT 24   /* ... this CPU's */
#define FEATURE_EDX_HTT BIT(28)   /* there is more than one */

/* Leaf 7. Left out: what needs a VM-execution control (INVPCID, RDPID, WAITPKG, XSAVES), MPX,
 * PKU, SGX, TSX, LA57, CET, and the speculation-control MSRs. */
#define STRUCTURED_EBX                                                                             \
    (BIT(0) /* FSGSBASE */ | BIT(3) /* BMI1 */ | BIT(7) /* SMEP */ | BIT(8) /* BMI2 */ |           \
     BIT(9) /* ERMS */ | BIT(18) /* RDSEED */ | BIT(19) /* ADX */ | BIT(20) /* SMAP */ |           \
     BIT(23) /* CLFLUSHOPT */ | BIT(24) /* CLWB */ | BIT(29) /* SHA */)
#define STRUCTURED_EBX_AVX BIT(5) /* AVX2 */
#define STRUCTURED_EBX_AVX512                                                                      \
    (BIT(16) /* F */ | BIT(17) /* DQ */ | BIT(21) /* IFMA */ | BIT(28) /* CD */ |                  \
     BIT(30) /* BW */ | BIT(31) /* VL */)
#define STRUCTURED_ECX (BIT(2) /* UMIP */ | BIT(8) /* GFNI */)
#define STRUCTURED_ECX_AVX (BIT(9) /* VAES */ | BIT(10) /* VPCLMULQDQ */)
#define STRUCTURED_ECX_AVX512                                                                      \
    (BIT(1) /* VBMI */ | BIT(6) /* VBMI2 */ | BIT(11) /* VNNI */ | BIT(12) /* BITALG */ |          \
     BIT(14) /* VPOPCNTDQ */)
#define STRUCTURED_EDX (BIT(4) /* fast short REP MOV */ | BIT(10) /* MD_CLEAR */)

/* Leaf 0xd, sub-leaf 1: XSAVEOPT, XSAVEC and XGETBV(1); XSAVES needs a VM-execution control. */
#define XSAVE_EXTENSIONS BITS(2, 0)
#define XSAVE_COMPACTS BIT(1)
#define XSAVE_ALIGNED BIT(1)  /* sub-leaf of a component, ECX */
#define XSAVE_LEGACY_SIZE 576 /* x87 and SSE state and the header */

/* Leaf 0x80000001. Left out: RDTSCP, which needs a VM-execution control. */
#define EXTENDED_ECX (BIT(0) /* LAHF */ | BIT(5) /* LZCNT */ | BIT(8) /* PREFETCHW */)
#define EXTENDED_EDX_SYSCALL BIT(11)
#define EXTENDED_EDX                                                                               \
    (EXTENDED_EDX_SYSCALL | BIT(20) /* NX */ | BIT(26) /* 1 GiB pages */ | BIT(29) /* LM */)

#define INVARIANT_TSC BIT(8)
#define CACHE_SHARING BITS(25, 14) /* leaf 4, EAX: logical CPUs that share the cache */
#define CACHE_SHARING_SHIFT 14
#define CACHE_CORES BITS(31, 26)
#define CACHE_CORES_SHIFT 26
#define CACHE_TYPE BITS(4, 0) /* 0: no more caches */
#define CACHE_LEVEL(eax) ((eax) >> 5 & 7)

/* AMD's, who has no leaf 4 (APM Vol. 3, appendix E): all CPUs are cores, not threads; their number
 * less one, and the bits of their IDs. */
#define EXTENDED_ECX_CMP_LEGACY BIT(1)
#define CORES_ID_BITS_SHIFT 12
#define AMD_EBX 0x68747541u /* "Auth", of "AuthenticAMD" */

typedef void (*cpuid_fn)(uint32_t leaf, uint32_t subleaf, uint32_t out[4]);

static struct cpuid_regs ask(cpuid_fn host, uint32_t leaf, uint32_t subleaf)
{
    uint32_t out[4];

    host(leaf, subleaf, out);
    return (struct cpuid_regs){out[0], out[1], out[2], out[3]};
}

static uint32_t min32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t basic_max(cpuid_fn host)
{
    return min32(ask(host, 0, 0).eax, LEAF_BASIC_MAX);
}

/* 0 when the CPU has no extended leaves at all. */
static uint32_t extended_max(cpuid_fn host)
{
    uint32_t max = ask(host, LEAF_EXTENDED, 0).eax;

    return max < LEAF_EXTENDED ? 0 : min32(max, LEAF_EXTENDED_MAX);
}

unsigned cpuid_guest_maxphyaddr(cpuid_fn host)
{
    unsigned width = 36; /* what a CPU without the leaf has */

    if (extended_max(host) >= 0x80000008u)
        width = ask(host, 0x80000008u, 0).eax & 0xff;
    return min32(width, GUEST_PHYSICAL_BITS);
}

/* Leaf 0x15: the crystal's rate and the ratio to it; leaf 0x16: the base frequency in MHz. */
uint64_t cpuid_tsc_hz(cpuid_fn host)
{
    struct cpuid_regs ratio = {0}, base = {0};

    if (basic_max(host) >= 0x15)
        ratio = ask(host, 0x15, 0);
    if (basic_max(host) >= 0x16)
        base = ask(host, 0x16, 0);
    if (ratio.eax != 0 && ratio.ebx != 0 && ratio.ecx != 0)
        return (uint64_t)ratio.ecx * ratio.ebx / ratio.eax;
    return (base.eax & UINT16_MAX) * UINT64_C(1000000);
}

static struct cpuid_regs hypervisor_leaf(uint32_t leaf, unsigned number)
{
    struct cpuid_regs regs = {0};
    uint32_t text[3];

    switch (leaf) {
    case QUIRE_CPUID_BASE:
        memcpy(text, QUIRE_CPUID_TEXT, sizeof(text));
        regs = (struct cpuid_regs){LEAF_HYPERVISOR_MAX, text[0], text[1], text[2]};
        break;
    case QUIRE_CPUID_BASE + 1:
        regs.eax = QUIRE_ABI_VERSION;
        regs.ebx = number;
        break;
    }
    return regs;
}

static struct cpuid_regs feature_leaf(struct cpuid_regs regs, const struct cpuid_context *context)
{
    uint64_t ecx = FEATURE_ECX;

    if (context->xcr0_mask != 0)
        ecx |= FEATURE_ECX_XSAVE;
    if (context->xcr0_mask & XCR0_AVX)
        ecx |= FEATURE_ECX_AVX;
    regs.ebx = (uint32_t)(regs.ebx & FEATURE_EBX_CLFLUSH) |
               context->cpus << FEATURE_EBX_CPUS_SHIFT | context->cpu << FEATURE_EBX_ID_SHIFT;
    regs.ecx = (uint32_t)((regs.ecx & ecx) | FEATURE_ECX_HYPERVISOR);
    if (context->osxsave && context->xcr0_mask != 0)
        regs.ecx |= (uint32_t)FEATURE_ECX_OSXSAVE;
    regs.edx &= (uint32_t)FEATURE_EDX;
    if (context->apic)
        regs.ecx |= (uint32_t)FEATURE_ECX_APIC;
    if (context->apic_enabled)
        regs.edx |= (uint32_t)FEATURE_EDX_APIC;
    if (context->cpus > 1)
        regs.edx |= (uint32_t)FEATURE_EDX_HTT;
    return regs;
}

static struct cpuid_regs structured_leaf(struct cpuid_regs regs,
                                         const struct cpuid_context *context)
{
    uint64_t ebx = STRUCTURED_EBX, ecx = STRUCTURED_ECX;

    if (context->xcr0_mask & XCR0_AVX) {
        ebx |= STRUCTURED_EBX_AVX;
        ecx |= STRUCTURED_ECX_AVX;
    }
    if ((context->xcr0_mask & XCR0_AVX512) == XCR0_AVX512) {
        ebx |= STRUCTURED_EBX_AVX512;
        ecx |= STRUCTURED_ECX_AVX512;
    }
    return (struct cpuid_regs){
        .ebx = regs.ebx & (uint32_t)ebx,
        .ecx = regs.ecx & (uint32_t)ecx,
        .edx = regs.edx & (uint32_t)STRUCTURED_EDX,
    };
}

/* Bytes of an XSAVE area with these components: in the standard format each has its own place, in
 * the compacted one they follow one another (SDM Vol. 1, 13.4.3 "Extended Region of an XSAVE
 * Area"). */
static uint32_t xsave_size(const struct cpuid_context *context, uint64_t components, bool compacted)
{
    uint32_t size = XSAVE_LEGACY_SIZE;

    for (uint64_t left = components & ~(XCR0_X87 | XCR0_SSE); left != 0; left &= left - 1) {
        struct cpuid_regs regs = ask(context->host, LEAF_XSAVE, lowest_bit(left));
        uint32_t at = regs.ebx;

        if (compacted)
            at = regs.ecx & XSAVE_ALIGNED ? (uint32_t)align_up(size, 64) : size;
        if (at + regs.eax > size)
            size = at + regs.eax;
    }
    return size;
}

static struct cpuid_regs xsave_leaf(struct cpuid_regs regs, uint32_t subleaf,
                                    const struct cpuid_context *context)
{
    uint64_t mask = context->xcr0_mask;

    if (mask == 0)
        return (struct cpuid_regs){0};
    switch (subleaf) {
    case 0:
        return (struct cpuid_regs){
            .eax = (uint32_t)mask,
            .ebx = xsave_size(context, context->xcr0, false),
            .ecx = xsave_size(context, mask, false),
            .edx = (uint32_t)(mask >> 32),
        };
    case 1:
        regs.eax &= (uint32_t)XSAVE_EXTENSIONS;
        return (struct cpuid_regs){
            .eax = regs.eax,
            .ebx = regs.eax & XSAVE_COMPACTS ? xsave_size(context, context->xcr0, true) : 0,
        };
    default:
        return subleaf < 63 && mask & BIT(subleaf) ? regs : (struct cpuid_regs){0};
    }
}

/* By how many bits an APIC ID is shifted for the number of the package. */
static unsigned id_bits(const struct cpuid_context *context)
{
    return context->cpus > 1 ? highest_bit(context->cpus - 1) + 1 : 0;
}

/* One thread in each core, all cores in one package. EAX is by how many bits to shift the x2APIC ID
 * for the next level, EBX how many CPUs there are in this one, ECX its kind and number, EDX the ID.
 */
static struct cpuid_regs topology_leaf(uint32_t subleaf, const struct cpuid_context *context)
{
    switch (subleaf) {
    case 0:
        return (struct cpuid_regs){.ebx = 1, .ecx = 0x100 /* SMT */, .edx = context->cpu};
    case 1:
        return (struct cpuid_regs){
            .eax = id_bits(context),
            .ebx = context->cpus,
            .ecx = 0x201 /* core */,
            .edx = context->cpu,
        };
    }
    return (struct cpuid_regs){.ecx = subleaf & 0xff, .edx = context->cpu};
}

/* Each core has the caches of levels 1 and 2 to itself, and all share those above. Both fields are
 * numbers of IDs, less one. */
static struct cpuid_regs cache_leaf(struct cpuid_regs regs, const struct cpuid_context *context)
{
    uint32_t ids = (1u << id_bits(context)) - 1;

    if ((regs.eax & CACHE_TYPE) == 0)
        return regs;
    regs.eax &= (uint32_t) ~(CACHE_SHARING | CACHE_CORES);
    if (CACHE_LEVEL(regs.eax) > 2)
        regs.eax |= ids << CACHE_SHARING_SHIFT;
    regs.eax |= ids << CACHE_CORES_SHIFT;
    return regs;
}

static struct cpuid_regs basic_leaf(uint32_t leaf, uint32_t subleaf,
                                    const struct cpuid_context *context)
{
    struct cpuid_regs regs = ask(context->host, leaf, subleaf);

    switch (leaf) {
    case 0:
        regs.eax = basic_max(context->host);
        return regs;
    case 1:
        return feature_leaf(regs, context);
    case 2: /* cache descriptors */
        return regs;
    case 4:
        return cache_leaf(regs, context);
    case 7:
        return subleaf == 0 ? structured_leaf(regs, context) : (struct cpuid_regs){0};
    case LEAF_XSAVE:
        return xsave_leaf(regs, subleaf, context);
    case 6: /* of power management only that the local APIC's timer never stops (ARAT) */
        return (struct cpuid_regs){.eax = context->apic ? (uint32_t)BIT(2) : 0};
    case LEAF_TOPOLOGY:
        return context->apic ? topology_leaf(subleaf, context) : (struct cpuid_regs){0};
    case 0x15: /* clock ratios */
    case 0x16:
        return regs;
    default: /* serial number, MONITOR, power, performance counters, topology, ... */
        return (struct cpuid_regs){0};
    }
}

bool cpuid_is_amd(cpuid_fn host)
{
    return ask(host, 0, 0).ebx == AMD_EBX;
}

static struct cpuid_regs extended_leaf(uint32_t leaf, const struct cpuid_context *context)
{
    cpuid_fn host = context->host;
    struct cpuid_regs regs = ask(host, leaf, 0);

    switch (leaf) {
    case LEAF_EXTENDED:
        return (struct cpuid_regs){.eax = extended_max(host)};
    case 0x80000001u:
        regs.edx &= (uint32_t)EXTENDED_EDX;
        if (!context->code64) /* it is an instruction of 64-bit mode alone */
            regs.edx &= (uint32_t)~EXTENDED_EDX_SYSCALL;
        regs.ecx &= (uint32_t)EXTENDED_ECX;
        if (context->cpus > 1 && cpuid_is_amd(host))
            regs.ecx |= (uint32_t)EXTENDED_ECX_CMP_LEGACY;
        return (struct cpuid_regs){.ecx = regs.ecx, .edx = regs.edx};
    case 0x80000002u: /* brand */
    case 0x80000003u:
    case 0x80000004u:
    case 0x80000005u: /* caches */
    case 0x80000006u:
        return regs;
    case 0x80000007u:
        return (struct cpuid_regs){.edx = regs.edx & (uint32_t)INVARIANT_TSC};
    case 0x80000008u:
        return (struct cpuid_regs){
            .eax = cpuid_guest_maxphyaddr(host) | GUEST_LINEAR_BITS << 8,
            .ecx = context->cpus > 1 && cpuid_is_amd(host)
                       ? (context->cpus - 1) | id_bits(context) << CORES_ID_BITS_SHIFT
                       : 0,
        };
    default:
        return (struct cpuid_regs){0};
    }
}

struct cpuid_regs cpuid_answer(uint32_t leaf, uint32_t subleaf, const struct cpuid_context *context)
{
    if (leaf >= QUIRE_CPUID_BASE && leaf <= LEAF_HYPERVISOR_MAX)
        return hypervisor_leaf(leaf, context->number);
    if (leaf >= LEAF_EXTENDED && leaf <= extended_max(context->host))
        return extended_leaf(leaf, context);
    if (leaf > basic_max(context->host))
        leaf = basic_max(context->host);
    return basic_leaf(leaf, subleaf, context);
}

void exit_cpuid(struct guest *guest, const struct vm_exit *exit)
{
    uint64_t *gpr = guest->vcpu->gpr;
    uint32_t leaf = (uint32_t)gpr[RAX];
    struct vm_modes modes;

    if (guests_backend()->get_modes(guest->vcpu, &modes) != E_OK) {
        guest_stop(guest, exit, "CPUID, and its state cannot be read");
        return;
    }
    const struct cpuid_context context = {
        .host = guests_backend()->cpuid,
        .number = guest->number,
        .cpus = guest->cpus,
        .cpu = guest->now,
        .xcr0_mask = guests_backend()->xcr0_mask(),
        .xcr0 = modes.xcr0,
        .osxsave = (modes.cr4 & CR4_OSXSAVE) != 0,
        .apic = guest_has_apic(guest),
        .apic_enabled =
            guest_has_apic(guest) && guest->devices.lapic[guest->now].base & APIC_BASE_EN,
        .code64 = modes.code64,
    };
    struct cpuid_regs regs = cpuid_answer(leaf, (uint32_t)gpr[RCX], &context);

    gpr[RAX] = regs.eax;
    gpr[RBX] = regs.ebx;
    gpr[RCX] = regs.ecx;
    gpr[RDX] = regs.edx;
    skip_instruction(guest, exit);
}
