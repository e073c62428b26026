/* See arch/x86_64/cpu.h. */
#include "arch/x86_64/cpu.h"

#include "lib/string.h"

/* CPUID leaves and the feature bits in them (SDM Vol. 2, "CPUID"). */
#define LEAF_BASIC 0x0
#define LEAF_VERSION 0x1
#define LEAF_FEATURES 0x7
#define LEAF_XSAVE 0xd
#define LEAF_HYPERVISOR 0x40000000
#define LEAF_EXTENDED 0x80000000
#define LEAF_EXTENDED_FEATURES 0x80000001
#define LEAF_BRAND 0x80000002
#define LEAF_POWER 0x80000007
#define LEAF_ADDRESS_SIZES 0x80000008

#define ECX1_PCID 17
#define ECX1_VMX 5
#define ECX1_X2APIC 21
#define ECX1_TSC_DEADLINE 24
#define ECX1_XSAVE 26
#define ECX1_HYPERVISOR 31
#define EDX1_MCE 7
#define EDX1_MTRR 12
#define EDX1_PGE 13
#define EDX1_PAT 16
#define EDX1_FXSR 24
#define EBX7_FSGSBASE 0
#define EBX7_SMEP 7
#define EBX7_INVPCID 10
#define EBX7_SMAP 20
#define ECX7_UMIP 2
#define ECX7_LA57 16
#define EAX7_1_LAM 26 /* sub-leaf 1 */
#define ECX81_SVM 2
#define EDX81_SYSCALL 11
#define EDX81_NX 20
#define EDX81_PAGE1G 26
#define EDX81_RDTSCP 27
#define EDX87_INVARIANT_TSC 8

struct cpu_features cpu_features;

static bool has(uint32_t reg, unsigned bit)
{
    return (reg >> bit & 1) != 0;
}

/* Copies the four bytes of each of `count` registers into a text. */
static void text_of(char *text, const uint32_t *registers, unsigned count)
{
    memcpy(text, registers, count * sizeof(*registers));
    text[count * sizeof(*registers)] = 0;
}

/* Brand strings are padded with blanks in front. */
static void drop_leading_blanks(char *text)
{
    size_t blanks = 0;
    while (text[blanks] == ' ')
        blanks++;
    memmove(text, text + blanks, strlen(text + blanks) + 1);
}

static void detect_version(struct cpu_features *f, uint32_t eax)
{
    unsigned family = eax >> 8 & 0xf, model = eax >> 4 & 0xf;
    if (family == 0x6 || family == 0xf)
        model |= (eax >> 16 & 0xf) << 4;
    if (family == 0xf)
        family += eax >> 20 & 0xff;
    f->family = family;
    f->model = model;
    f->stepping = eax & 0xf;
}

static void detect_basic(struct cpu_features *f)
{
    uint32_t r[4];
    cpuid(LEAF_BASIC, 0, r);
    uint32_t highest = r[CPUID_EAX];
    uint32_t vendor[3] = {r[CPUID_EBX], r[CPUID_EDX], r[CPUID_ECX]};
    text_of(f->vendor, vendor, 3);

    cpuid(LEAF_VERSION, 0, r);
    detect_version(f, r[CPUID_EAX]);
    f->vmx = has(r[CPUID_ECX], ECX1_VMX);
    f->pcid = has(r[CPUID_ECX], ECX1_PCID);
    f->x2apic = has(r[CPUID_ECX], ECX1_X2APIC);
    f->tsc_deadline = has(r[CPUID_ECX], ECX1_TSC_DEADLINE);
    f->xsave = has(r[CPUID_ECX], ECX1_XSAVE);
    f->mce = has(r[CPUID_EDX], EDX1_MCE);
    f->mtrr = has(r[CPUID_EDX], EDX1_MTRR);
    f->pge = has(r[CPUID_EDX], EDX1_PGE);
    f->pat = has(r[CPUID_EDX], EDX1_PAT);
    f->fxsr = has(r[CPUID_EDX], EDX1_FXSR);
    bool hypervisor = has(r[CPUID_ECX], ECX1_HYPERVISOR);

    if (highest >= LEAF_FEATURES) {
        cpuid(LEAF_FEATURES, 0, r);
        f->fsgsbase = has(r[CPUID_EBX], EBX7_FSGSBASE);
        f->smep = has(r[CPUID_EBX], EBX7_SMEP);
        f->smap = has(r[CPUID_EBX], EBX7_SMAP);
        f->invpcid = has(r[CPUID_EBX], EBX7_INVPCID);
        f->umip = has(r[CPUID_ECX], ECX7_UMIP);
        f->la57 = has(r[CPUID_ECX], ECX7_LA57);
        if (r[CPUID_EAX] >= 1) {
            cpuid(LEAF_FEATURES, 1, r);
            f->lam = has(r[CPUID_EAX], EAX7_1_LAM);
        }
    }
    if (f->xsave && highest >= LEAF_XSAVE) {
        cpuid(LEAF_XSAVE, 0, r);
        f->xcr0 = (uint64_t)r[CPUID_EDX] << 32 | r[CPUID_EAX];
    }
    if (hypervisor) {
        cpuid(LEAF_HYPERVISOR, 0, r);
        text_of(f->hypervisor, &r[CPUID_EBX], 3);
    }
}

static void detect_extended(struct cpu_features *f)
{
    uint32_t r[4];
    cpuid(LEAF_EXTENDED, 0, r);
    uint32_t highest = r[CPUID_EAX];

    cpuid(LEAF_EXTENDED_FEATURES, 0, r);
    f->svm = has(r[CPUID_ECX], ECX81_SVM);
    f->syscall = has(r[CPUID_EDX], EDX81_SYSCALL);
    f->nx = has(r[CPUID_EDX], EDX81_NX);
    f->page1g = has(r[CPUID_EDX], EDX81_PAGE1G);
    f->rdtscp = has(r[CPUID_EDX], EDX81_RDTSCP);

    if (highest >= LEAF_BRAND + 2) {
        for (unsigned i = 0; i < 3; i++) {
            cpuid(LEAF_BRAND + i, 0, r);
            text_of(f->brand + i * sizeof(r), r, 4);
        }
        drop_leading_blanks(f->brand);
    }
    if (highest >= LEAF_POWER) {
        cpuid(LEAF_POWER, 0, r);
        f->invariant_tsc = has(r[CPUID_EDX], EDX87_INVARIANT_TSC);
    }
    /* Without the leaf: the widths of the first 64-bit CPUs (SDM Vol. 3, 4.1.4). */
    f->maxphyaddr = 36;
    f->linear_bits = 48;
    if (highest >= LEAF_ADDRESS_SIZES) {
        cpuid(LEAF_ADDRESS_SIZES, 0, r);
        f->maxphyaddr = r[CPUID_EAX] & 0xff;
        f->linear_bits = r[CPUID_EAX] >> 8 & 0xff;
    }
}

void cpu_features_read(struct cpu_features *out)
{
    *out = (struct cpu_features){0};
    detect_basic(out);
    detect_extended(out);
}

void cpu_ways(struct cpu_way out[CPU_WAYS])
{
    const struct cpu_features *f = &cpu_features;

    out[0] = (struct cpu_way){"VMX", "guests, on Intel's CPUs", f->vmx,
                              f->vmx && (read_cr4() & CR4_VMXE)};
    out[1] = (struct cpu_way){"SVM", "guests, on AMD's CPUs", f->svm,
                              f->svm && (rdmsr(IA32_EFER) & EFER_SVME)};
}

void cpu_detect(void)
{
    cpu_features_read(&cpu_features);
}

/*
 * Times two loops of equally many instructions, one of cheap ones, the other of multiplications
 * that wait for each other. Only a counter of instructions makes them equal, and as long as they
 * are many; an emulator may be off by as much as it translates at a time.
 */
bool tsc_counts_instructions(void)
{
    enum { ROUNDS = 4000, EACH = 3, TOLERANCE = 100 };
    uint64_t start = rdtsc(), left = ROUNDS, product = 3;
    __asm__ volatile("1:\tnop\n\tdecq %0\n\tjnz 1b" : "+r"(left) : : "cc");
    uint64_t middle = rdtsc();
    left = ROUNDS;
    __asm__ volatile("1:\timulq %1, %1\n\tdecq %0\n\tjnz 1b" : "+r"(left), "+r"(product) : : "cc");
    uint64_t end = rdtsc();
    uint64_t low = ROUNDS * EACH - TOLERANCE, high = ROUNDS * EACH + TOLERANCE;
    return middle - start >= low && middle - start <= high && end - middle >= low &&
           end - middle <= high;
}

void cpu_enable(void)
{
    const struct cpu_features *f = &cpu_features;

    uint64_t cr0 = read_cr0() & ~(CR0_EM | CR0_TS | CR0_AM | CR0_NW | CR0_CD);
    write_cr0(cr0 | CR0_PE | CR0_PG | CR0_WP | CR0_NE | CR0_MP);

    wrmsr(IA32_EFER, rdmsr(IA32_EFER) | EFER_NXE);

    uint64_t cr4 = read_cr4() | CR4_PAE;
    if (f->pge)
        cr4 |= CR4_PGE;
    if (f->mce)
        cr4 |= CR4_MCE;
    if (f->fxsr)
        cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
    if (f->xsave)
        cr4 |= CR4_OSXSAVE;
    if (f->umip)
        cr4 |= CR4_UMIP;
    if (f->smep)
        cr4 |= CR4_SMEP;
    if (f->smap)
        cr4 |= CR4_SMAP;
    write_cr4(cr4);

    /* Only entries that no table uses yet change, so stale translations are all that must go. */
    if (f->pat) {
        wrmsr(IA32_PAT, PAT_HOST);
        write_cr4(cr4 & ~CR4_PGE);
        write_cr4(cr4);
        write_cr3(read_cr3());
    }
}

void cpu_enable_pcid(void)
{
    if (cpu_features.pcid)
        write_cr4(read_cr4() | CR4_PCIDE);
}

/* STAC and CLAC are undefined opcodes where there is no SMAP. */
void user_access_begin(void)
{
    if (cpu_features.smap)
        __asm__ volatile("stac" : : : "memory", "cc");
}

void user_access_end(void)
{
    if (cpu_features.smap)
        __asm__ volatile("clac" : : : "memory", "cc");
}
