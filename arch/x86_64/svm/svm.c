/* See svm.h. APM Vol. 2, 15.4 "Enabling SVM", 15.25.12 "Detecting Nested Paging Support". */
#include "arch/x86_64/svm/svm.h"

#include "arch/x86_64/cpus.h"
#include "arch/x86_64/guest/slice_timer.h"
#include "arch/x86_64/lapic.h"
#include "arch/x86_64/mm/tlb.h"
#include "arch/x86_64/svm/asid.h"
#include "arch/x86_64/percpu.h"
#include "arch/x86_64/svm/vcpu.h"
#include "arch/x86_64/trap.h"
#include "lib/log.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"

#define LEAF_SVM 0x8000000a
#define EDX_NESTED_PAGING BIT(0)
#define EDX_FLUSH_BY_ASID BIT(6)
#define EDX_DECODE_ASSISTS BIT(7)

#define MSR_VM_CR 0xc0010114
#define VM_CR_SVMDIS BIT(4)
#define MSR_VM_HSAVE_PA 0xc0010117

#define IOPM_ORDER 2  /* 12 KiB (15.10.1) */
#define MSRPM_ORDER 1 /* 8 KiB (15.11) */

struct svm_policy svm_policy;

static char why[200];

static int because(int error, const char *text)
{
    format_buffer(why, sizeof(why), "%s", text);
    return error;
}

/* ---- Whether ------------------------------------------------------------------------------- */

static int judge_cpu(void)
{
    uint32_t r[4];
    uint64_t vm_cr;

    if (!cpu_features.svm)
        return because(E_UNSUPPORTED, "this CPU has no SVM");
    cpuid(LEAF_SVM, 0, r);
    svm_policy.revision = r[CPUID_EAX] & 0xff;
    svm_policy.asids = r[CPUID_EBX];
    svm_policy.flush_by_asid = (r[CPUID_EDX] & EDX_FLUSH_BY_ASID) != 0;
    svm_policy.decode_assists = (r[CPUID_EDX] & EDX_DECODE_ASSISTS) != 0;
    if (!(r[CPUID_EDX] & EDX_NESTED_PAGING))
        return because(E_UNSUPPORTED, "this CPU has SVM without nested paging");
    if (svm_policy.asids < 2)
        return because(E_UNSUPPORTED, "this CPU's SVM has no ASID for a guest");
    if (rdmsr_safe(MSR_VM_CR, &vm_cr) == E_OK && (vm_cr & VM_CR_SVMDIS))
        return because(E_PERM, "the firmware has locked SVM off (VM_CR.SVMDIS is 1): switch "
                               "virtualization on in its set-up");
    return E_OK;
}

/* The bits of CR4 that a guest may set, where the CPU has them: those whose state is switched. */
static uint64_t guest_cr4(void)
{
    const struct cpu_features *f = &cpu_features;

    return CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PCE |
           CR4_OSFXSR | CR4_OSXMMEXCPT | (f->pge ? CR4_PGE : 0) | (f->umip ? CR4_UMIP : 0) |
           (f->fsgsbase ? CR4_FSGSBASE : 0) | (f->pcid ? CR4_PCIDE : 0) | (f->smep ? CR4_SMEP : 0) |
           (f->smap ? CR4_SMAP : 0) | (resident_xcr0 ? CR4_OSXSAVE : 0);
}

/* A nested table is one of the host's paging mode: its EFER.NXE, its page sizes. */
static struct table_caps npt_table_caps(void)
{
    return (struct table_caps){
        .maxphyaddr = cpu_features.maxphyaddr,
        .leaf_top = cpu_features.page1g ? 3 : 2,
        .nx = true,
        .accessed_dirty = true,
        .mem_types = 1u << MEM_UC | 1u << MEM_WC | 1u << MEM_WT | 1u << MEM_WP | 1u << MEM_WB,
    };
}

/* ---- What all guests share ----------------------------------------------------------------- */

/* Two bits an MSR, read and write, for three ranges of 0x2000 (15.11). A clear bit lets the guest
 * through. */
static void pass_through(uint8_t *map, uint32_t msr)
{
    uint32_t range = msr >= 0xc0000000u ? 0x800 : 0, index = msr & 0x1fff;

    map[range + index / 4] &= (uint8_t) ~(3u << index % 4 * 2);
}

static void fill_maps(void)
{
    /* Registers of which each guest has its own, by VMLOAD and VMSAVE. */
    static const uint32_t own[] = {
        IA32_SYSENTER_CS, IA32_SYSENTER_ESP,   IA32_SYSENTER_EIP, IA32_FS_BASE, IA32_GS_BASE,
        IA32_STAR,        IA32_KERNEL_GS_BASE, IA32_LSTAR,        IA32_CSTAR,   IA32_FMASK,
    };
    uint8_t *map = memset(direct(svm_policy.msrpm), 0xff, PAGE_SIZE << MSRPM_ORDER);

    memset(direct(svm_policy.iopm), 0xff, PAGE_SIZE << IOPM_ORDER);
    for (unsigned i = 0; i < ARRAY_SIZE(own); i++)
        pass_through(map, own[i]);
}

static int take_blocks(void)
{
    const struct {
        hpa_t *at;
        unsigned order;
    } blocks[] = {
        {&svm_policy.iopm, IOPM_ORDER},
        {&svm_policy.msrpm, MSRPM_ORDER},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(blocks); i++) {
        if (buddy_alloc(blocks[i].order, PURPOSE_VCPU, OWNER_HOST, blocks[i].at) != E_OK)
            return because(E_NOMEM, "no frames for SVM's permission maps and host state");
        memset(direct(*blocks[i].at), 0, PAGE_SIZE << blocks[i].order);
    }
    fill_maps();
    return E_OK;
}

/* 15.4, 15.30.4: where VMRUN keeps this CPU's state, and where entry.asm keeps the rest. */
static int switch_on(void)
{
    struct percpu *cpu = this_cpu();
    hpa_t *const frames[] = {&cpu->svm_host_save, &cpu->svm_host_vmcb};

    for (unsigned i = 0; i < ARRAY_SIZE(frames); i++) {
        if (buddy_alloc(0, PURPOSE_VCPU, OWNER_HOST, frames[i]) != E_OK)
            return because(E_NOMEM, "no frames for SVM's host state of a CPU");
        memset(direct(*frames[i]), 0, PAGE_SIZE);
    }
    wrmsr(IA32_EFER, rdmsr(IA32_EFER) | EFER_SVME);
    wrmsr(MSR_VM_HSAVE_PA, cpu->svm_host_save.v);
    return E_OK;
}

static int prepare(void)
{
    int error = judge_cpu();

    if (error == E_OK && (lapic_enable() != E_OK || slice_timer_init() != E_OK))
        error = because(E_UNSUPPORTED, "this CPU has no local APIC timer to end time slices");
    if (error == E_OK)
        error = take_blocks();
    if (error != E_OK)
        return error;
    resident_init();
    svm_policy.guest_cr4 = guest_cr4();
    svm_policy.npt = npt_table_caps();
    asid_init(svm_policy.asids);
    svm_vcpus_init();
    error = switch_on();
    svm_policy.on = error == E_OK;
    return error;
}

int svm_enable_cpu(char *why_not)
{
    struct svm_policy first = svm_policy;
    int error = judge_cpu();

    if (error == E_OK &&
        (svm_policy.revision != first.revision || svm_policy.asids != first.asids ||
         svm_policy.flush_by_asid != first.flush_by_asid))
        error = because(E_UNSUPPORTED, "its SVM has another revision or other ASIDs than that of "
                                       "the CPU that booted");
    svm_policy = first;
    if (error == E_OK)
        error = switch_on();
    if (error != E_OK)
        format_buffer(why_not, CPU_WHY, "%s", why);
    why[0] = 0;
    return error;
}

int svm_init(const struct vm_backend **backend, const char **why_not)
{
    int error = prepare();

    *backend = error == E_OK ? &svm_backend : NULL;
    *why_not = error == E_OK ? NULL : why;
    if (error == E_OK)
        log_line("SVM: on, revision 0x%x, nested paging with %s pages, %u ASIDs%s",
                 svm_policy.revision, svm_policy.npt.leaf_top == 3 ? "1G" : "2M", svm_policy.asids,
                 svm_policy.flush_by_asid ? ", flushed one by one" : "");
    return error;
}

void svm_show(struct sink *to)
{
    if (why[0])
        format(to, "SVM: %s\n", why);
    if (!svm_policy.on)
        return;
    format(to, "SVM: on, revision 0x%x, nested paging with %s pages, %u ASIDs%s\n",
           svm_policy.revision, svm_policy.npt.leaf_top == 3 ? "1G" : "2M", svm_policy.asids,
           svm_policy.flush_by_asid ? ", flushed one by one" : "");
    format(to, "guests may set CR4 0x%lx, XCR0 0x%lx\n", svm_policy.guest_cr4, resident_xcr0);
    format(to, "exits by interrupt %lu, by NMI %lu; flushes of an ASID %lu\n",
           svm_policy.interrupts, svm_policy.nmis, tlb_counters_total().guest_tag_at_entry);
}
