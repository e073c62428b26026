/* See vmx.h. SDM Vol. 3, 24.6 "Discovering support for VMX" to 24.8 "Restrictions on VMX
 * operation". */
#include "arch/x86_64/vmx/vmx.h"

#include "arch/x86_64/cpus.h"
#include "arch/x86_64/lapic.h"
#include "arch/x86_64/mm/tlb.h"
#include "arch/x86_64/speculation.h"
#include "arch/x86_64/trap.h"
#include "arch/x86_64/vmx/create.h"
#include "arch/x86_64/vmx/instructions.h"
#include "arch/x86_64/vmx/names.h"
#include "arch/x86_64/guest/resident.h"
#include "arch/x86_64/guest/slice_timer.h"
#include "lib/log.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"

struct vmx_policy vmx_policy;

static char why[200];

/* Writes the sentence and passes the error on. */
static int because(int error, const char *text, ...) __attribute__((format(printf, 2, 3)));
static int because(int error, const char *text, ...)
{
    va_list args;
    va_start(args, text);
    vformat_buffer(why, sizeof(why), text, args);
    va_end(args);
    return error;
}

/* ---- What guests get ----------------------------------------------------------------------- */

static const struct {
    uint64_t required, wanted;
} control_wishes[CONTROLS_COUNT] = {
    [CONTROLS_PIN] = {PIN_EXTERNAL_INTERRUPT_EXITING | PIN_NMI_EXITING,
                      PIN_VIRTUAL_NMIS | PIN_PREEMPTION_TIMER},
    [CONTROLS_PROC] = {PROC_TSC_OFFSETTING | PROC_HLT_EXITING | PROC_MWAIT_EXITING |
                           PROC_RDPMC_EXITING | PROC_CR8_LOAD_EXITING | PROC_CR8_STORE_EXITING |
                           PROC_UNCONDITIONAL_IO_EXITING | PROC_MSR_BITMAPS | PROC_MONITOR_EXITING |
                           PROC_SECONDARY_CONTROLS,
                       0},
    /* RDTSCP, INVPCID, XSAVES and the like stay undefined: vm/cpuid.c does not offer them. */
    [CONTROLS_PROC2] = {PROC2_EPT | PROC2_UNRESTRICTED_GUEST,
                        PROC2_VPID | PROC2_WBINVD_EXITING | PROC2_ENCLS_EXITING},
    [CONTROLS_EXIT] = {EXIT_SAVE_DEBUG_CONTROLS | EXIT_HOST_64BIT | EXIT_ACKNOWLEDGE_INTERRUPT |
                           EXIT_LOAD_PAT | EXIT_SAVE_EFER | EXIT_LOAD_EFER,
                       0},
    [CONTROLS_ENTRY] = {ENTRY_LOAD_DEBUG_CONTROLS | ENTRY_LOAD_PAT | ENTRY_LOAD_EFER, 0},
};

static int settle_controls(void)
{
    for (unsigned word = 0; word < CONTROLS_COUNT; word++) {
        uint32_t missing;
        int error = control_adjust(vmx_caps.control[word], (uint32_t)control_wishes[word].required,
                                   (uint32_t)control_wishes[word].wanted, &vmx_policy.control[word],
                                   &missing);
        if (error != E_OK)
            return because(error, "this CPU's VMX lacks the %s control \"%s\"",
                           control_word_name((enum control_word)word),
                           control_name((enum control_word)word, lowest_bit(missing)));
    }
    return E_OK;
}

/* The bits of CR4 that a guest may set, where the CPU has them. Left out: VMXE and SMXE (not
 * offered to guests), LA57 (EPTs have four levels), PKE, CET, PKS and later ones (registers behind
 * them are not switched). */
static uint64_t guest_cr4(void)
{
    uint64_t bits = CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE |
                    CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_UMIP | CR4_FSGSBASE | CR4_PCIDE |
                    CR4_SMEP | CR4_SMAP;
    if (resident_xcr0)
        bits |= CR4_OSXSAVE;
    return bits & vmx_caps.cr4.fixed1;
}

/* A.10 says what EPT can do. Of the memory types an entry may always hold all five (29.3.7.2). */
static struct table_caps ept_table_caps(void)
{
    const struct ept_vpid_caps *ept = &vmx_caps.ept_vpid;
    uint8_t top = ept->page_1g ? 3 : ept->page_2m ? 2 : 1;

    return (struct table_caps){
        .maxphyaddr = cpu_features.maxphyaddr,
        .leaf_top = speculation_plan()->small_leaves ? 1 : top,
        .noexec_top = top,
        .nx = true,
        .accessed_dirty = ept->accessed_dirty,
        .execute_only = ept->execute_only,
        .mode_based_execute = false,
        .global = false,
        .mem_types = 1u << MEM_UC | 1u << MEM_WC | 1u << MEM_WT | 1u << MEM_WP | 1u << MEM_WB,
    };
}

/* MSR bitmap (25.6.9): four tables of 1 KiB, a bit for each MSR of 0..0x1fff and
 * 0xc0000000..0xc0001fff, reads first, then writes. A clear bit lets the guest through to the
 * register. */
#define MSR_BITMAP_WRITES 2048
#define MSR_BITMAP_HIGH 1024

static void pass_through(uint8_t *bitmap, uint32_t msr)
{
    uint8_t *table = bitmap + (msr & 0xc0000000u ? MSR_BITMAP_HIGH : 0);
    uint32_t index = msr & 0x1fff;
    table[index / 8] &= (uint8_t) ~(1u << index % 8);
    table[MSR_BITMAP_WRITES + index / 8] &= (uint8_t) ~(1u << index % 8);
}

static int make_msr_bitmap(void)
{
    /* Registers of which each guest has its own: in the VMCS, or in resident.c. */
    static const uint32_t own[] = {
        IA32_SYSENTER_CS, IA32_SYSENTER_ESP, IA32_SYSENTER_EIP,   IA32_EFER,
        IA32_FS_BASE,     IA32_GS_BASE,      IA32_KERNEL_GS_BASE, IA32_STAR,
        IA32_LSTAR,       IA32_CSTAR,        IA32_FMASK,
    };
    int error = buddy_alloc(0, PURPOSE_VCPU, OWNER_HOST, &vmx_policy.msr_bitmap);
    if (error != E_OK)
        return because(error, "no frame for the MSR bitmap");
    uint8_t *bitmap = memset(direct(vmx_policy.msr_bitmap), 0xff, PAGE_SIZE);
    for (unsigned i = 0; i < ARRAY_SIZE(own); i++)
        pass_through(bitmap, own[i]);
    return E_OK;
}

/* ---- Whether ------------------------------------------------------------------------------- */

static int judge_cpu(void)
{
    uint32_t missing;

    if (!cpu_features.vmx)
        return because(E_UNSUPPORTED, "this CPU has no VMX, and no SVM either");
    if (vmx_caps_read(&missing) != E_OK)
        return because(E_UNSUPPORTED,
                       "VMX is announced by CPUID, but its capability MSR 0x%x is missing",
                       missing);
    if (!vmx_offers(CONTROLS_PROC2, PROC2_EPT))
        return because(E_UNSUPPORTED, "this CPU has VMX without EPT (nested paging)");
    if (!vmx_offers(CONTROLS_PROC2, PROC2_UNRESTRICTED_GUEST))
        return because(E_UNSUPPORTED,
                       "this CPU has EPT without unrestricted guest (real mode in a guest)");
    if (!vmx_caps.ept_vpid.walk_4 || !vmx_caps.ept_vpid.wb)
        return because(E_UNSUPPORTED, "this CPU's EPT lacks %s",
                       vmx_caps.ept_vpid.walk_4 ? "write-back tables" : "the four-level walk");
    if (!vmx_caps.ept_vpid.invept ||
        !(vmx_caps.ept_vpid.invept_single || vmx_caps.ept_vpid.invept_all))
        return because(E_UNSUPPORTED, "this CPU's EPT lacks INVEPT");
    return settle_controls();
}

/* IA32_FEATURE_CONTROL (24.7): the firmware locks it; where it has not, we say what it holds. */
static int claim_feature_control(void)
{
    uint64_t value, wanted = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX_OUTSIDE_SMX;

    if (rdmsr_safe(IA32_FEATURE_CONTROL, &value) != E_OK)
        return because(E_UNSUPPORTED, "IA32_FEATURE_CONTROL cannot be read");
    if (!(value & FEATURE_CONTROL_LOCK)) {
        if (wrmsr_safe(IA32_FEATURE_CONTROL, value | wanted) != E_OK ||
            rdmsr_safe(IA32_FEATURE_CONTROL, &value) != E_OK)
            return because(E_HARDWARE, "IA32_FEATURE_CONTROL is unlocked and cannot be written");
    }
    if ((value & wanted) != wanted)
        return because(E_PERM,
                       "the firmware has locked VMX off (IA32_FEATURE_CONTROL is 0x%lx): switch "
                       "virtualization on in its set-up",
                       value);
    return E_OK;
}

static int take_frame(hpa_t *out)
{
    int error = vmx_caps.basic.below_4g
                    ? buddy_alloc_within(0, 0, UINT32_MAX, PURPOSE_VCPU, OWNER_HOST, out)
                    : buddy_alloc(0, PURPOSE_VCPU, OWNER_HOST, out);
    if (error == E_OK)
        memset(direct(*out), 0, PAGE_SIZE);
    return error;
}

static int vmxon(struct vmx_cpu *cpu)
{
    uint64_t cr0 = cr_force(read_cr0(), vmx_caps.cr0), cr4 = read_cr4() | CR4_VMXE;

    if (!cr_fits(cr4, vmx_caps.cr4))
        return because(E_UNSUPPORTED, "VMX operation needs other bits of CR4 than 0x%lx", cr4);
    write_cr0(cr0 | CR0_TS);
    write_cr4(cr4);
    struct vm_flags failed = insn_vmxon(cpu->vmxon_region.v);
    if (!failed.invalid && !failed.valid)
        return E_OK;
    write_cr4(cr4 & ~CR4_VMXE);
    return because(E_HARDWARE, "VMXON failed (%s)",
                   failed.valid ? vm_instruction_error_name(15)
                                : "VMfailInvalid: the region or its address");
}

/* What an earlier stay in VMX operation left cached must not serve this one: the manual asks for
 * both invalidations after VMXON (29.4.3.3, 29.4.3.4). Without INVEPT of all contexts each new EPTP
 * is invalidated on its own (vcpu.c). */
static void forget_translations(void)
{
    if (vmx_caps.ept_vpid.invept_all) {
        tlb_count()->all_guest_tables++;
        invariant(invept(INVEPT_ALL_CONTEXTS, 0) == E_OK);
    }
    if (vmx_policy.vpid && vmx_caps.ept_vpid.invvpid_all) {
        tlb_count()->guest_tag++;
        invariant(invvpid(INVVPID_ALL_CONTEXTS, 0, 0) == E_OK);
    }
}

int vmx_enable_cpu(void)
{
    hpa_t frame, region;
    struct percpu *self = this_cpu();

    if (self->vmx)
        return self->vmx->on ? E_OK : E_STATE;
    int error = claim_feature_control();
    if (error != E_OK)
        return error;
    error = take_frame(&frame);
    if (error != E_OK)
        return because(error, "no frame for the VMX state of a CPU");
    error = take_frame(&region);
    if (error != E_OK) {
        invariant(buddy_free(frame, 0, OWNER_HOST) == E_OK);
        return because(error, "no frame for the VMXON region");
    }
    struct vmx_cpu *cpu = direct(frame);
    cpu->vmxon_region = region;
    list_init(&cpu->active);
    cpu->gdt = sgdt();
    cpu->idt = sidt();
    cpu->lapic = lapic_enable() == E_OK;
    *(uint32_t *)direct(region) = vmx_caps.basic.revision;
    error = vmxon(cpu);
    if (error != E_OK) {
        invariant(buddy_free(region, 0, OWNER_HOST) == E_OK);
        invariant(buddy_free(frame, 0, OWNER_HOST) == E_OK);
        return error;
    }
    cpu->on = true;
    self->vmx = cpu;
    self->cut_slice = vmx_cut_slice;
    forget_translations();
    return E_OK;
}

static bool same_caps(const struct vmx_caps *a, const struct vmx_caps *b)
{
    return a->basic_raw == b->basic_raw && a->misc_raw == b->misc_raw &&
           a->ept_vpid_raw == b->ept_vpid_raw &&
           memcmp(a->control, b->control, sizeof(a->control)) == 0 &&
           memcmp(&a->cr0, &b->cr0, sizeof(a->cr0)) == 0 &&
           memcmp(&a->cr4, &b->cr4, sizeof(a->cr4)) == 0;
}

int vmx_enable_other(char *why_not)
{
    struct vmx_caps first = vmx_caps;
    uint32_t missing;
    int error = vmx_caps_read(&missing);

    if (error != E_OK)
        because(error, "its VMX lacks the capability MSR 0x%x", missing);
    else if (!same_caps(&vmx_caps, &first))
        error = because(E_UNSUPPORTED, "its VMX offers other things than that of the CPU that "
                                       "booted");
    vmx_caps = first;
    if (error == E_OK)
        error = vmx_enable_cpu();
    if (error != E_OK)
        format_buffer(why_not, CPU_WHY, "%s", why);
    why[0] = 0;
    return error;
}

static int find_slice_timer(void)
{
    if (vmx_policy.control[CONTROLS_PIN] & PIN_PREEMPTION_TIMER)
        return E_OK;
    if (!vmx_cpu()->lapic || slice_timer_init() != E_OK)
        return because(E_UNSUPPORTED,
                       "this CPU has neither a VMX-preemption timer nor a local APIC timer");
    log_line("VMX: no preemption timer; the local APIC's timer ends time slices");
    return E_OK;
}

static int prepare(void)
{
    int error = judge_cpu();
    if (error != E_OK)
        return error;
    resident_init();
    vmx_policy.guest_cr4 = guest_cr4();
    vmx_policy.ept = ept_table_caps();
    /* A tag that cannot be cleared of stale translations is of no use. */
    unsigned ignored;
    vmx_policy.vpid = (vmx_policy.control[CONTROLS_PROC2] & PROC2_VPID) &&
                      invvpid_choose(vmx_caps.ept_vpid, INVVPID_SINGLE_CONTEXT, &ignored) == E_OK;
    if (!vmx_policy.vpid)
        vmx_policy.control[CONTROLS_PROC2] &= ~(uint32_t)PROC2_VPID;
    vmx_policy.log = vmx_policy.ept.accessed_dirty && vmx_offers(CONTROLS_PROC2, PROC2_PML);
    vmx_vcpus_init();
    error = vmx_enable_cpu();
    if (error == E_OK)
        error = find_slice_timer();
    return error == E_OK ? make_msr_bitmap() : error;
}

int vmx_init(const struct vm_backend **backend, const char **why_not)
{
    int error = prepare();

    *backend = error == E_OK ? &vmx_backend : NULL;
    *why_not = error == E_OK ? NULL : why;
    if (error == E_OK)
        log_line("VMX: on, revision 0x%x, EPT with %s pages%s%s%s", vmx_caps.basic.revision,
                 vmx_policy.ept.leaf_top == 3   ? "1G"
                 : vmx_policy.ept.leaf_top == 2 ? "2M"
                                                : "4K",
                 vmx_policy.ept.accessed_dirty ? ", A/D" : "",
                 vmx_policy.ept.execute_only ? ", execute-only" : "",
                 vmx_policy.vpid ? ", VPID" : "");
    return error;
}

/* ---- For the console ----------------------------------------------------------------------- */

/* The named controls that are in use (+), and those that were wished for in vain (-). */
static void show_controls(struct sink *to)
{
    for (unsigned n = 0; n < CONTROLS_COUNT; n++) {
        enum control_word word = (enum control_word)n;
        uint64_t wish = control_wishes[n].required | control_wishes[n].wanted;

        format(to, "%s controls 0x%08x of 0x%08lx:\n", control_word_name(word),
               vmx_policy.control[n], (vmx_caps.control[n] >> 32));
        for (unsigned bit = 0; bit < 32; bit++) {
            bool used = vmx_policy.control[n] >> bit & 1;
            if (control_is_named(word, bit) && (used || (wish >> bit & 1)))
                format(to, "  %s %s\n", used ? "+" : "-", control_name(word, bit));
        }
    }
}

void vmx_show(struct sink *to)
{
    const struct vmx_cpu *cpu = vmx_cpu();
    const struct ept_vpid_caps *ept = &vmx_caps.ept_vpid;
    struct tlb_counters tlb = tlb_counters_total();

    if (why[0])
        format(to, "VMX: %s\n", why);
    if (vmx_caps.basic_raw == 0)
        return;
    format(to, "VMX: %s, revision 0x%x, regions of %u bytes, %s capability MSRs\n",
           cpu && cpu->on ? "on" : "off", vmx_caps.basic.revision, vmx_caps.basic.region_size,
           vmx_caps.basic.true_controls ? "TRUE" : "original");
    format(to, "CR0 must have 0x%lx, may have 0x%lx; CR4 must have 0x%lx, may have 0x%lx\n",
           vmx_caps.cr0.fixed0, vmx_caps.cr0.fixed1, vmx_caps.cr4.fixed0, vmx_caps.cr4.fixed1);
    format(to, "EPT:%s%s%s%s%s%s%s%s\n", ept->walk_4 ? " 4-level" : " none",
           ept->walk_5 ? " 5-level" : "", ept->page_2m ? " 2M" : "", ept->page_1g ? " 1G" : "",
           ept->wb ? " WB" : "", ept->uc ? " UC" : "", ept->execute_only ? " execute-only" : "",
           ept->accessed_dirty ? " A/D" : "");
    format(to, "INVEPT:%s%s  INVVPID:%s%s%s%s\n", ept->invept_single ? " single" : "",
           ept->invept_all ? " all" : "", ept->invvpid_address ? " address" : "",
           ept->invvpid_single ? " single" : "", ept->invvpid_all ? " all" : "",
           ept->invvpid_keep_globals ? " keep-globals" : "");
    format(to, "preemption timer: %s, one tick for %u of the TSC\n",
           vmx_offers(CONTROLS_PIN, PIN_PREEMPTION_TIMER) ? "yes" : "no",
           1u << vmx_caps.misc.timer_shift);
    if (!cpu || !cpu->on)
        return;
    format(to, "guests may set CR4 0x%lx, XCR0 0x%lx\n", vmx_policy.guest_cr4, resident_xcr0);
    show_controls(to);
    format(to, "exits by interrupt %lu, by NMI %lu; INVEPT single %lu, all %lu; INVVPID %lu\n",
           cpu->external_interrupts, cpu->nmis, tlb.one_guest_table, tlb.all_guest_tables,
           tlb.guest_tag);
}
