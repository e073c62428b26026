/*
 * VMX as it stands, on a CPU that is played (tests/unit/model_vmx.h): whether it can be had, what a
 * VMCS holds, what goes into a guest's registers and comes out, and the end of it.
 */
#include "tests/unit/model_cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86_64/cpus.h"
#include "arch/x86_64/guest/slice_timer.h"
#include "arch/x86_64/lapic.h"
#include "arch/x86_64/mm/ept.h"
#include "arch/x86_64/mm/tlb.h"
#include "arch/x86_64/trap.h"
#include "arch/x86_64/vmx/vmcs.h"
#include "mm/frames/buddy.h"
#include "tests/unit/model_tlb.h"
#include "tests/unit/vmx_guest.h"

static int start(void **state)
{
    (void)state;
    vmx_machine_start();
    return 0;
}

static int stop(void **state)
{
    (void)state;
    model_guest_stop();
    return 0;
}

/* ---- Whether it can be had ------------------------------------------------------------------ */

/* On a machine of its own, after `change`: the sentence, or NULL. */
static const char *refusal(void (*change)(uint64_t with), uint64_t with)
{
    const struct vm_backend *backend = NULL;
    const char *why = NULL;

    model_machine_start();
    model_vmx_start();
    memset(&vmx_caps, 0, sizeof(vmx_caps));
    memset(&vmx_policy, 0, sizeof(vmx_policy));
    change(with);
    int error = vmx_init(&backend, &why);
    assert_int_equal(error == E_OK, backend != NULL);
    assert_int_equal(error != E_OK, why != NULL);
    model_machine_stop();
    return why;
}

static uint32_t without_msr;

static void clear_bits(uint64_t bits)
{
    *model_msr(without_msr) &= ~bits;
}

static void nothing(uint64_t bits)
{
    (void)bits;
}

static void set_msr(uint64_t value)
{
    *model_msr(without_msr) = value;
}

static void no_vmx(uint64_t unused)
{
    (void)unused;
    cpu_features.vmx = false;
}

static void assert_says(const char *said, const char *part)
{
    if (!said || !strstr(said, part))
        fail_msg("it says \"%s\", not \"%s\"", said ? said : "nothing", part);
}

static void refused_without(uint32_t msr, uint64_t bit, const char *said)
{
    without_msr = msr;
    assert_says(refusal(clear_bits, bit), said);
}

static void what_the_cpu_must_offer(void **state)
{
    static const struct {
        uint32_t msr;
        unsigned bits[12];
    } required[] = {
        {IA32_VMX_TRUE_PINBASED_CTLS, {0, 3}},
        {IA32_VMX_TRUE_PROCBASED_CTLS, {7, 10, 11, 19, 20, 24, 28, 29}},
        {IA32_VMX_TRUE_EXIT_CTLS, {2, 9, 15, 19, 20, 21}},
        {IA32_VMX_TRUE_ENTRY_CTLS, {2, 14, 15}},
    };

    (void)state;
    assert_null(refusal(nothing, 0));
    assert_says(refusal(no_vmx, 0), "this CPU has no VMX");
    for (unsigned i = 0; i < ARRAY_SIZE(required); i++)
        for (unsigned n = 0; n < 12 && (n == 0 || required[i].bits[n]); n++)
            refused_without(required[i].msr, BIT(32 + required[i].bits[n]), "lacks the");
    refused_without(IA32_VMX_TRUE_PROCBASED_CTLS, BIT(63), "without EPT");
    refused_without(IA32_VMX_PROCBASED_CTLS2, BIT(33), "without EPT");
    refused_without(IA32_VMX_PROCBASED_CTLS2, BIT(39), "without unrestricted guest");
    refused_without(IA32_VMX_EPT_VPID_CAP, BIT(6), "four-level walk");
    refused_without(IA32_VMX_EPT_VPID_CAP, BIT(14), "write-back tables");
    refused_without(IA32_VMX_EPT_VPID_CAP, BIT(20), "lacks INVEPT");
    refused_without(IA32_VMX_EPT_VPID_CAP, BIT(25) | BIT(26), "lacks INVEPT");
    without_msr = IA32_VMX_CR4_FIXED1;
    assert_says(refusal(clear_bits, CR4_PGE), "other bits of CR4");
}

static void no_lapic(uint64_t unused)
{
    (void)unused;
    model_cpu.lapic = false;
    *model_msr(IA32_VMX_TRUE_PINBASED_CTLS) &= ~BIT(32 + 6);
}

/* What it can do without. */
static void what_is_used_where_it_is(void **state)
{
    static const struct {
        uint32_t msr;
        uint64_t bits;
    } dispensable[] = {
        {IA32_VMX_TRUE_PINBASED_CTLS, BIT(32 + 5)}, /* virtual NMIs */
        {IA32_VMX_TRUE_PINBASED_CTLS, BIT(32 + 6)}, /* the preemption timer */
        {IA32_VMX_PROCBASED_CTLS2, BIT(32 + 5)},    /* VPID */
        {IA32_VMX_PROCBASED_CTLS2, BIT(32 + 6)},
        {IA32_VMX_PROCBASED_CTLS2, BIT(32 + 15)},
        {IA32_VMX_EPT_VPID_CAP, BIT(25)},
        {IA32_VMX_EPT_VPID_CAP, BIT(26)},
        {IA32_VMX_EPT_VPID_CAP, BIT(0) | BIT(16) | BIT(17) | BIT(21)},
        {IA32_VMX_EPT_VPID_CAP, BITS(43, 40)},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(dispensable); i++) {
        without_msr = dispensable[i].msr;
        assert_null(refusal(clear_bits, dispensable[i].bits));
    }
    assert_false(vmx_policy.vpid); /* a tag that cannot be cleared is not used */
    assert_false(vmx_policy.control[CONTROLS_PROC2] & PROC2_VPID);
    assert_says(refusal(no_lapic, 0), "neither a VMX-preemption timer nor a local APIC timer");
    without_msr = IA32_VMX_EPT_VPID_CAP;
    assert_null(refusal(clear_bits, BIT(17)));
    assert_int_equal(vmx_policy.ept.leaf_top, 2);
    assert_true(vmx_policy.ept.accessed_dirty && vmx_policy.ept.execute_only);
    assert_null(refusal(clear_bits, BIT(16) | BIT(17) | BIT(0)));
    assert_int_equal(vmx_policy.ept.leaf_top, 1);
    assert_false(vmx_policy.ept.execute_only);
    assert_null(refusal(clear_bits, BIT(21)));
    assert_int_equal(vmx_policy.ept.leaf_top, 3);
    assert_false(vmx_policy.ept.accessed_dirty);
}

/* IA32_FEATURE_CONTROL: 1 is the lock, 4 VMX outside SMX. */
static void the_firmware_has_its_say(void **state)
{
    (void)state;
    without_msr = IA32_FEATURE_CONTROL;
    assert_says(refusal(set_msr, 1), "locked VMX off");
    assert_says(refusal(set_msr, 3), "locked VMX off");
    assert_null(refusal(set_msr, 5));
    assert_null(refusal(set_msr, 0));
    assert_int_equal(*model_msr(IA32_FEATURE_CONTROL), 5);
    assert_null(refusal(set_msr, 2));
    assert_int_equal(*model_msr(IA32_FEATURE_CONTROL), 7);
}

/* What an earlier stay in VMX operation has left is gone (29.4.3.3, 29.4.3.4). */
static void leave_translations(uint64_t lacks)
{
    static const struct tlb_way old = {.sort = TLB_PHYSICAL, .eptp = 0x5000},
                                older = {.sort = TLB_COMBINED, .tag = 3, .eptp = 0x6000};

    *model_msr(IA32_VMX_EPT_VPID_CAP) &= ~lacks;
    tlb_add(&old, 0x1000, false);
    tlb_add(&older, 0x1000, true);
}

static void old_translations_go(void **state)
{
    static const struct tlb_way old = {.sort = TLB_PHYSICAL, .eptp = 0x5000},
                                older = {.sort = TLB_COMBINED, .tag = 3, .eptp = 0x6000};

    (void)state;
    assert_null(refusal(leave_translations, 0));
    assert_int_equal(tlb_cached(&old) + tlb_cached(&older), 0);
    assert_null(refusal(leave_translations, BIT(26))); /* without INVEPT of all contexts */
    assert_int_equal(tlb_cached(&older), 0);
}

/* Without INVEPT of all contexts each new table's EPTP is invalidated by itself. */
static void an_eptp_comes_again(void **state)
{
    const struct vm_backend *backend;
    struct tlb_way old = {.sort = TLB_PHYSICAL};
    const char *why;

    (void)state;
    model_machine_start();
    model_vmx_start();
    memset(&vmx_caps, 0, sizeof(vmx_caps));
    *model_msr(IA32_VMX_EPT_VPID_CAP) &= ~BIT(26);
    assert_int_equal(vmx_init(&backend, &why), E_OK);
    model_guest_start(backend);
    backend->vcpu_destroy(g.vcpu);
    old.eptp = ept_eptp(&g.table);
    tlb_add(&old, 0x1000, false);
    assert_int_equal(model_guest_add(&g.vcpu), E_OK);
    assert_int_equal(tlb_cached(&old), 0);
    model_guest_stop();
}

/* ---- What a VMCS holds ---------------------------------------------------------------------- */

static bool passes(uint32_t msr, bool write)
{
    const uint8_t *bitmap = direct(vmx_policy.msr_bitmap);
    uint32_t bit = (msr >= 0xc0000000 ? 8192 : 0) + (write ? 16384 : 0) + (msr & 0x1fff);

    return !(bitmap[bit / 8] >> bit % 8 & 1);
}

/* A guest reaches the registers that are its own, and no other. */
static void msrs_that_pass(void **state)
{
    static const uint32_t own[] = {0x174,      0x175,      0x176,      0xc0000080,
                                   0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084,
                                   0xc0000100, 0xc0000101, 0xc0000102};

    (void)state;
    for (unsigned half = 0; half < 2; half++)
        for (uint32_t i = 0; i < 0x2000; i++) {
            uint32_t msr = (half ? 0xc0000000 : 0) + i;
            bool wanted = false;

            for (unsigned n = 0; n < ARRAY_SIZE(own); n++)
                wanted |= own[n] == msr;
            if (passes(msr, false) != wanted || passes(msr, true) != wanted)
                fail_msg("MSR %#x", msr);
        }
    assert_int_equal(field(VMCS_MSR_BITMAP), vmx_policy.msr_bitmap.v);
}

static void what_exits(void **state)
{
    (void)state;
    /* Primary: TSC offset, HLT, MWAIT, RDPMC, CR8, I/O, MONITOR; not: RDTSC, INVLPG, CR3, MOV DR.
     */
    uint64_t proc = field(VMCS_PROC_CONTROLS), proc2 = field(VMCS_PROC2_CONTROLS);
    assert_int_equal(proc & 0xb1989e8c, 0xb1180c88);
    assert_int_equal(proc2, PROC2_EPT | PROC2_VPID | PROC2_WBINVD_EXITING |
                                PROC2_UNRESTRICTED_GUEST | PROC2_ENCLS_EXITING);
    assert_int_equal(field(VMCS_PIN_CONTROLS) & 0xe9, 0x69);
    assert_int_equal(field(VMCS_EXCEPTION_BITMAP), BIT(1) | BIT(17) | BIT(18));
    assert_int_equal(field(VMCS_ENCLS_EXITING), ~UINT64_C(0));
    assert_int_equal(field(VMCS_CR0_MASK), ~UINT64_C(0x8005000f));
    assert_int_equal(field(VMCS_CR4_MASK) & CR4_VMXE, CR4_VMXE);
    assert_int_equal(field(VMCS_CR4_MASK) & CR4_MCE, CR4_MCE);
    assert_int_equal(field(VMCS_CR4_MASK) & CR4_PAE, 0);
    assert_int_equal(vmx_policy.guest_cr4 & (CR4_VMXE | CR4_SMXE | CR4_LA57 | CR4_PKE), 0);
    assert_int_equal(field(VMCS_EPT_POINTER), g.table.root.v | 0x5e);
    assert_int_equal(field(VMCS_VPID), vmx_guest()->vpid);
    assert_int_equal(g.table.tag, vmx_guest()->vpid);
    assert_true(vmx_guest()->vpid != 0);
    assert_int_equal(field(VMCS_GUEST_PAT), 0x0007040600070406);
}

static void what_the_host_comes_back_to(void **state)
{
    (void)state;
    vmx_vcpu_put(vmx_guest()); /* whatever the host does with its x87 state in between */
    model_cpu.cr0 &= ~CR0_TS;
    uint64_t cr0 = model_cpu.cr0, gs = *model_msr(IA32_GS_BASE), efer = *model_msr(IA32_EFER);
    vmx_exit_by((struct model_exit){.reason = EXIT_CPUID, .length = 2});
    assert_int_equal(g.exit.kind, VM_EXIT_CPUID);
    assert_int_equal(model_cpu.cr0, cr0 | CR0_TS);
    assert_int_equal(model_cpu.cr3, 0x1000);
    assert_int_equal(*model_msr(IA32_GS_BASE), gs);
    assert_int_equal(*model_msr(IA32_EFER), efer);
    assert_int_equal(*model_msr(IA32_PAT), PAT_HOST);
    assert_int_equal(model_cpu.gdt.limit, 0x77);
    assert_int_equal(model_cpu.gdt.base, 0xffff800000001000);
    assert_int_equal(model_cpu.idt.limit, 0xfff);
    assert_int_equal(model_cpu.idt.base, 0xffff800000002000);
    assert_int_equal(field(VMCS_HOST_TR_BASE), (uint64_t)(uintptr_t)&model_cpu.percpu.tss);
    assert_int_equal(field(VMCS_HOST_CS_SELECTOR), 8);
    assert_int_equal(field(VMCS_HOST_SS_SELECTOR), 0x10);
    assert_int_equal(field(VMCS_HOST_TR_SELECTOR), 0x28);
    assert_int_equal(model_vmx.host_rip, (uint64_t)(uintptr_t)vmx_exited);
    assert_ptr_equal(model_cpu.resident, &vmx_guest()->resident);
}

static struct percpu other_cpu;
static const void *others_resident;

/* To the other of two CPUs, and back. */
static void change_cpu(void)
{
    struct percpu left = model_cpu.percpu;
    const void *resident = model_cpu.resident;

    model_cpu.percpu = other_cpu;
    model_cpu.resident = others_resident;
    other_cpu = left;
    others_resident = resident;
}

static void with_a_second_cpu(void)
{
    char why[CPU_WHY];

    memset(&other_cpu, 0, sizeof(other_cpu));
    others_resident = NULL;
    other_cpu.number = 1;
    change_cpu();
    *model_msr(IA32_GS_BASE) = 0xffff800000014000;
    assert_int_equal(vmx_enable_other(why), E_OK);
    change_cpu();
    *model_msr(IA32_GS_BASE) = 0xffff800000004000;
}

/* A VMCS is cleared where it is active, before it is loaded elsewhere; there the host is that CPU,
 * and what it has cached of the guest is gone: the guest may have changed its tables meanwhile. */
static void a_vcpu_moves_to_another_cpu(void **state)
{
    const uint64_t gs[2] = {0xffff800000004000, 0xffff800000014000};
    struct tlb_way way = {TLB_COMBINED, g.table.root, vmx_guest()->vpid, ept_eptp(&g.table), true};

    (void)state;
    with_a_second_cpu();
    for (unsigned i = 0; i < 4; i++) {
        unsigned clears = model_vmx.vmclears;

        *model_msr(IA32_GS_BASE) = gs[i & 1];
        tlb_add(&way, 0x1000, false);
        vmx_exit_by((struct model_exit){.reason = EXIT_PREEMPTION_TIMER});
        assert_int_equal(*model_msr(IA32_GS_BASE), gs[i & 1]);
        assert_int_equal(tlb_cached(&way), i == 0 ? 1 : 0);
        assert_ptr_equal(model_cpu.resident, &vmx_guest()->resident);
        g.backend->put_all();
        assert_int_equal(model_vmx.vmclears, clears + 1);
        assert_null(model_cpu.resident);
        change_cpu();
    }
    /* To the same CPU it comes back as it was. */
    tlb_empty();
    vmx_exit_by((struct model_exit){.reason = EXIT_PREEMPTION_TIMER});
    tlb_add(&way, 0x1000, false);
    g.backend->put_all();
    vmx_exit_by((struct model_exit){.reason = EXIT_PREEMPTION_TIMER});
    assert_int_equal(tlb_cached(&way), 1);
}

/* Until it has been put, no other CPU takes it. */
static void an_active_vcpu_is_nobody_elses(void **state)
{
    struct vcpu *extra;

    (void)state;
    with_a_second_cpu();
    assert_int_equal(model_guest_add(&extra), E_OK);
    vmx_exit_by((struct model_exit){.reason = EXIT_PREEMPTION_TIMER});
    change_cpu();
    assert_int_equal(g.backend->run(g.vcpu, 1, &g.exit), E_STATE);
    assert_int_equal(g.backend->run(extra, 1, &g.exit), E_STATE); /* where it was made */
    change_cpu();
    g.backend->put_all();
    change_cpu();
    g.backend->vcpu_destroy(extra);
    change_cpu();
}

static unsigned nmis_answered, locked_then, in_guest_then;
static struct wide_lock lock = WIDE_LOCK_INIT_AT(LOCK_GUESTS);

static void answer(const struct trap_frame *frame)
{
    assert_null(frame);
    nmis_answered++;
    locked_then += lock.held;
    in_guest_then += model_cpu.percpu.in_guest;
}

static void look_at_lock(void)
{
    assert_int_equal(lock.held, 0);
}

/* The lock is nobody's while the guest runs, and an NMI is answered before it is taken again: its
 * sender may hold it. */
static void the_lock_is_dropped_in_the_guest(void **state)
{
    (void)state;
    nmis_answered = locked_then = in_guest_then = 0;
    cpus_nmi = answer;
    g.vcpu->lock = &lock;
    wide_lock_take(&lock);
    vmx_exit_by((struct model_exit){
        .reason = EXIT_EXCEPTION_OR_NMI, .interruption = 0x80000202, .guest = look_at_lock});
    cpus_nmi = NULL;
    assert_int_equal(g.exit.kind, VM_EXIT_INTERRUPT);
    assert_int_equal(nmis_answered, 1);
    assert_int_equal(locked_then, 0);
    assert_int_equal(in_guest_then, 1);
    assert_false(model_cpu.percpu.in_guest);
    assert_int_equal(model_cpu.nmi_unblocked, 1);
    assert_int_equal(lock.held, 1);
    wide_lock_drop(&lock);
    g.vcpu->lock = NULL;
}

/* Two vCPUs in turn, and what has changed in the host in between. */
static void vcpus_in_turn(void **state)
{
    struct vcpu *first = g.vcpu, *second;
    struct vcpu_state s = model_long_mode(0x3000);

    (void)state;
    assert_int_equal(model_guest_add(&second), E_OK);
    assert_int_not_equal(vmx_vcpu_of(first)->vpid, vmx_vcpu_of(second)->vpid);
    assert_int_equal(g.backend->set_state(second, &s), E_OK);
    for (unsigned i = 0; i < 6; i++) {
        g.vcpu = i & 1 ? second : first;
        model_cpu.cr3 = 0x1000 + (i / 3) * 0x1000;
        model_cpu.cr4 ^= CR4_PCE;
        uint64_t cr3 = model_cpu.cr3, cr4 = model_cpu.cr4;
        vmx_exit_by((struct model_exit){.reason = EXIT_PREEMPTION_TIMER});
        assert_int_equal(g.exit.kind, VM_EXIT_SLICE);
        assert_int_equal(g.exit.rip, i & 1 ? 0x3000 : 0x1000);
        assert_int_equal(g.vcpu->entries, i / 2 + 1);
        assert_int_equal(model_cpu.cr3, cr3);
        assert_int_equal(model_cpu.cr4, cr4);
        assert_int_equal(model_vmx.timer, 1000000 >> 5);
    }
    g.backend->vcpu_destroy(second);
    g.vcpu = first;
    vmx_exit_by((struct model_exit){.reason = EXIT_PREEMPTION_TIMER}); /* by VMRESUME, as before */
    vmx_vcpu_put(vmx_guest());
    vmx_exit_by((struct model_exit){.reason = EXIT_PREEMPTION_TIMER}); /* after VMCLEAR: VMLAUNCH */
    assert_true(vmx_guest()->launched);
}

static void nmi_in_the_guest(void)
{
    model_cpu.percpu.cut_slice();
}

/* A nudge whose NMI has come before the entry, or right before it: the slice is over at once. */
static void a_nudge_before_the_entry(void **state)
{
    static bool nudged;

    (void)state;
    model_vmx.next = (struct model_exit){.reason = EXIT_PREEMPTION_TIMER};
    g.vcpu->nudged = &nudged;
    assert_int_equal(g.backend->run(g.vcpu, UINT64_C(1) << 30, &g.exit), E_OK);
    assert_true(model_vmx.timer > 1000);
    nudged = true;
    assert_int_equal(g.backend->run(g.vcpu, UINT64_C(1) << 30, &g.exit), E_OK);
    assert_int_equal(model_vmx.timer, 1);
    nudged = false;
    model_vmx.next.guest = nmi_in_the_guest;
    assert_int_equal(g.backend->run(g.vcpu, UINT64_C(1) << 30, &g.exit), E_OK);
    assert_int_equal(vmread(VMCS_PREEMPTION_TIMER), 1);
    g.vcpu->nudged = NULL;
}

/* Without the preemption timer the local APIC's ends a slice, and is stopped behind it. */
static void slices_by_the_local_apic(void **state)
{
    (void)state;
    vmx_policy.control[CONTROLS_PIN] &= ~(uint32_t)PIN_PREEMPTION_TIMER;
    vmwrite(VMCS_PIN_CONTROLS, vmx_policy.control[CONTROLS_PIN]);
    assert_int_equal(slice_timer_init(), E_OK);
    uint32_t vector = (uint32_t)BIT(31) | VECTOR_TIMER;
    vmx_exit_by((struct model_exit){.reason = EXIT_EXTERNAL_INTERRUPT, .interruption = vector});
    assert_int_equal(g.exit.kind, VM_EXIT_SLICE);
    assert_int_equal(model_cpu.ended, 1);
    assert_int_equal(model_cpu.timer, 0);
    assert_int_equal(model_vmx.timer, 0);
}

/* All that a vCPU took is given back; also by one that could not be made. */
static void frames_come_back(void **state)
{
    struct vcpu *extra;

    (void)state;
    assert_int_equal(model_guest_add(&extra), E_OK); /* the cache of structures is there now */
    g.backend->vcpu_destroy(extra);
    uint64_t free_before = model_free_frames();
    uint64_t vpid = vmx_guest()->vpid + 1u, quota = buddy_quota(GUEST_OWNER);
    uint64_t owned = buddy_owner_frames(GUEST_OWNER);
    for (unsigned i = 0; i < 3; i++) {
        unsigned cleared = model_vmx.vmclears;

        assert_int_equal(model_guest_add(&extra), E_OK);
        assert_int_equal(vmx_vcpu_of(extra)->vpid, vpid);
        assert_int_equal(free_before - model_free_frames(), extra->frames);
        resident_switch(&vmx_vcpu_of(extra)->resident);
        g.backend->vcpu_destroy(extra);
        assert_int_equal(model_free_frames(), free_before);
        assert_int_equal(model_vmx.vmclears, cleared + 2); /* at its beginning and at its end */
        assert_null(model_cpu.resident);
    }
    for (unsigned limit = 0; limit < 2; limit++) {
        buddy_set_quota(GUEST_OWNER, owned + limit);
        assert_int_equal(model_guest_add(&extra), E_QUOTA);
        assert_int_equal(model_free_frames(), free_before);
    }
    buddy_set_quota(GUEST_OWNER, quota);
    assert_int_equal(model_guest_add(&extra), E_OK);
    assert_int_equal(vmx_vcpu_of(extra)->vpid, vpid);
    g.backend->vcpu_destroy(extra);
    struct table other = {.kind = NULL};
    assert_int_equal(g.backend->vcpu_create(NULL, &other, GUEST_OWNER, &extra), E_INVAL);
}

static void the_root_reads_back(void **state)
{
    struct vm_root root;

    (void)state;
    assert_int_equal(g.backend->read_root(g.vcpu, &root), E_OK);
    assert_int_equal(root.frame.v, g.table.root.v);
    assert_int_equal(root.levels, 4);
    assert_int_equal(root.type, MEM_WB);
    assert_true(root.accessed_dirty);
}

/* ---- Registers ------------------------------------------------------------------------------ */

static void assert_same_state(const struct vcpu_state *a, const struct vcpu_state *b)
{
    struct vcpu_state copy = *b;

    copy.pat = a->pat; /* not to be set */
    copy.xcr0 = a->xcr0;
    assert_memory_equal(a->gpr, copy.gpr, sizeof(a->gpr));
    assert_int_equal(a->rip, copy.rip);
    assert_int_equal(a->rflags, copy.rflags);
    assert_int_equal(a->cr0, copy.cr0);
    assert_int_equal(a->cr2, copy.cr2);
    assert_int_equal(a->cr3, copy.cr3);
    assert_int_equal(a->cr4, copy.cr4);
    assert_int_equal(a->efer, copy.efer);
    assert_memory_equal(a->pdpte, copy.pdpte, sizeof(a->pdpte));
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        assert_int_equal(a->segment[i].selector, copy.segment[i].selector);
        assert_int_equal(a->segment[i].base, copy.segment[i].base);
        assert_int_equal(a->segment[i].limit, copy.segment[i].limit);
        assert_int_equal(a->segment[i].unusable, copy.segment[i].unusable);
        if (!a->segment[i].unusable)
            assert_int_equal(a->segment[i].access, copy.segment[i].access);
    }
    assert_int_equal(a->gdt_base, copy.gdt_base);
    assert_int_equal(a->gdt_limit, copy.gdt_limit);
    assert_int_equal(a->idt_base, copy.idt_base);
    assert_int_equal(a->idt_limit, copy.idt_limit);
    assert_int_equal(a->dr7, copy.dr7);
    assert_int_equal(a->halted, copy.halted);
}

static struct vcpu_state motley(void)
{
    struct vcpu_state s = model_long_mode(0x123456789);

    for (unsigned i = 0; i < GPR_COUNT; i++)
        s.gpr[i] = 0x0101010101010101 * (i + 1);
    s.rflags |= RFLAGS_IF | RFLAGS_DF;
    s.cr2 = 0x8877665544332211;
    s.cr4 |= CR4_PGE | CR4_OSFXSR | CR4_MCE;
    for (unsigned i = 0; i < 4; i++)
        s.pdpte[i] = 0x1000 * i + 1;
    s.segment[SEG_FS].base = 0xffff800000000000;
    s.segment[SEG_GS].base = 0x7fffffffffff;
    s.segment[SEG_DS].selector = 0x23;
    s.gdt_base = 0xffff900000000000;
    s.gdt_limit = 0x127;
    s.idt_base = 0xffff910000000000;
    s.idt_limit = 0xfff;
    s.dr7 = 0x455;
    return s;
}

static void state_goes_in_and_out(void **state)
{
    struct vcpu_state modes[4], out;

    (void)state;
    modes[0] = motley();
    modes[1] = model_flat_mode(0x7c00);
    modes[2] = modes[1]; /* real mode */
    modes[2].cr0 = CR0_ET;
    for (unsigned i = SEG_ES; i <= SEG_GS; i++)
        modes[2].segment[i] = (struct segment){.limit = 0xffff,
                                               .selector = 0x100,
                                               .base = 0x1000,
                                               .access = i == SEG_CS ? 0x9b : 0x93};
    modes[3] = model_long_mode(0x2000); /* ring 3, with CD and NW */
    modes[3].segment[SEG_CS].access = 0xa0fb;
    modes[3].segment[SEG_SS].access = 0xc0f3;
    modes[3].cr0 |= CR0_CD | CR0_NW;
    for (unsigned i = 0; i < 4; i++) {
        model_set(&modes[i]);
        out = model_state();
        assert_same_state(&out, &modes[i]);
        vmx_exit_by((struct model_exit){.reason = EXIT_PREEMPTION_TIMER});
        out = model_state();
        assert_same_state(&out, &modes[i]);
    }
    struct vm_modes modes_of;
    assert_int_equal(g.backend->get_modes(g.vcpu, &modes_of), E_OK);
    assert_true(modes_of.code64);
    assert_int_equal(modes_of.cr4, modes[3].cr4);
}

/* Of a segment as a descriptor has it the CPU wants accessed ones and a busy TSS. */
static void segments_are_loaded(void **state)
{
    struct vcpu_state s = model_flat_mode(0x7c00);

    (void)state;
    s.segment[SEG_DS].access = 0xc092;
    s.segment[SEG_CS].access = 0xc09a;
    s.segment[SEG_TR].access = 0x89;
    model_set(&s);
    assert_int_equal(field(VMCS_GUEST_DS_ACCESS), 0xc093);
    assert_int_equal(field(VMCS_GUEST_CS_ACCESS), 0xc09b);
    assert_int_equal(field(VMCS_GUEST_TR_ACCESS), 0x8b);
    assert_int_equal(field(VMCS_GUEST_LDTR_ACCESS) & BIT(16), BIT(16));
    vmx_exit_by((struct model_exit){.reason = EXIT_PREEMPTION_TIMER});
}

/* What the guest sees of CR0 and CR4, and what the CPU has. */
static void bits_that_are_kept_from_it(void **state)
{
    struct vcpu_state s = model_flat_mode(0x7c00);

    (void)state;
    s.cr0 |= CR0_CD | CR0_NW;
    model_set(&s);
    assert_int_equal(field(VMCS_GUEST_CR0), CR0_PE | CR0_ET | CR0_NE);
    assert_int_equal(field(VMCS_CR0_SHADOW), CR0_PE | CR0_ET | CR0_CD | CR0_NW);
    assert_int_equal(field(VMCS_GUEST_CR4), CR4_VMXE | CR4_MCE);
    assert_int_equal(field(VMCS_CR4_SHADOW), 0);
    /* What it owns it has changed without an exit. */
    set_field(VMCS_GUEST_CR0, field(VMCS_GUEST_CR0) | CR0_WP | CR0_TS);
    set_field(VMCS_GUEST_CR4, field(VMCS_GUEST_CR4) | CR4_PSE);
    s = model_state();
    assert_int_equal(s.cr0, CR0_PE | CR0_ET | CR0_CD | CR0_NW | CR0_WP | CR0_TS);
    assert_int_equal(s.cr4, CR4_PSE);
}

static void state_that_is_refused(void **state)
{
    const struct vcpu_state good = motley();
    struct vcpu_state s;
    unsigned before = (unsigned)field(VMCS_GUEST_RIP);

    (void)state;
#define REFUSED(error, change)                                                                     \
    do {                                                                                           \
        s = good;                                                                                  \
        change;                                                                                    \
        assert_int_equal(g.backend->set_state(g.vcpu, &s), error);                                 \
        assert_int_equal(field(VMCS_GUEST_RIP), before);                                           \
    } while (0)
    REFUSED(E_INVAL, s.cr0 |= BIT(32));
    REFUSED(E_INVAL, s.cr0 &= ~CR0_PE);
    REFUSED(E_INVAL, s.efer |= EFER_SVME);
    REFUSED(E_INVAL, s.dr7 |= BIT(32));
    REFUSED(E_UNSUPPORTED, s.cr4 |= CR4_VMXE);
    REFUSED(E_UNSUPPORTED, s.cr4 |= CR4_LA57);
#undef REFUSED
}

/* What was under way is dropped with the state before. */
static void a_new_state_is_a_new_beginning(void **state)
{
    struct tlb_way mine = {
        .sort = TLB_COMBINED, .tag = vmx_guest()->vpid, .eptp = ept_eptp(&g.table)};
    struct vcpu_state s = motley();

    (void)state;
    model_set(&s);
    assert_int_equal(g.backend->inject(g.vcpu, (struct vm_event){VM_EVENT_EXCEPTION, 6, 0, 0, 0}),
                     E_OK);
    set_field(VMCS_GUEST_INTERRUPTIBILITY, BLOCKING_BY_NMI | BLOCKING_BY_STI);
    set_field(VMCS_GUEST_PENDING_DEBUG, BIT(14));
    tlb_add(&mine, 0x1000, true);
    model_set(&s);
    assert_int_equal(tlb_cached(&mine), 0);
    assert_int_equal(field(VMCS_GUEST_INTERRUPTIBILITY), 0);
    vmx_exit_by((struct model_exit){.reason = EXIT_PREEMPTION_TIMER});
    assert_int_equal(model_vmx.event, 0);
    assert_int_equal(model_vmx.pending_debug, 0);
    s.halted = true;
    model_set(&s);
    assert_int_equal(field(VMCS_GUEST_ACTIVITY), 1);
    s.halted = false;
    model_set(&s);
    assert_int_equal(field(VMCS_GUEST_ACTIVITY), 0);
}

/* ---- The instructions ----------------------------------------------------------------------- */

static void failures_are_values(void **state)
{
    uint64_t value = 7;
    hpa_t region, mine = vmx_guest()->vmcs;

    (void)state;
    assert_int_equal(vmcs_read((enum vmcs_field)0x6abc, &value), E_HARDWARE);
    assert_int_equal(vmcs_error(), 12);
    assert_int_equal(value, 7);
    assert_int_equal(vmcs_write(VMCS_EXIT_REASON, 1), E_HARDWARE);
    assert_int_equal(vmcs_error(), 13);
    assert_int_equal(vmcs_write(VMCS_GUEST_RIP, 0x77), E_OK);
    assert_int_equal(vmcs_read(VMCS_GUEST_RIP, &value), E_OK);
    assert_int_equal(value, 0x77);
    assert_int_equal(vmcs_load(hpa(0x800)), E_HARDWARE);
    assert_int_equal(vmcs_error(), 9);
    assert_true(vmcs_current(&region));
    assert_int_equal(region.v, mine.v);
    assert_int_equal(vmcs_clear(hpa(BIT(45))), E_HARDWARE);
    assert_int_equal(vmcs_error(), 2);
    assert_int_equal(invept(3, 0), E_INVAL);
    assert_int_equal(invept(INVEPT_SINGLE_CONTEXT, 0x7), E_HARDWARE);
    assert_int_equal(invvpid(INVVPID_SINGLE_CONTEXT, 0, 0), E_HARDWARE);
    assert_int_equal(vmcs_clear(mine), E_OK);
    assert_false(vmcs_current(&region));
    assert_int_equal(vmcs_read(VMCS_GUEST_RIP, &value), E_STATE);
    assert_int_equal(vmcs_write(VMCS_GUEST_RIP, value), E_STATE);
    vmx_cpu()->on = false;
    assert_int_equal(vmcs_load(mine), E_STATE);
    assert_int_equal(vmcs_clear(mine), E_STATE);
    assert_int_equal(invept(INVEPT_ALL_CONTEXTS, 0), E_STATE);
    assert_int_equal(invvpid(INVVPID_ALL_CONTEXTS, 0, 0), E_STATE);
    assert_int_equal(g.backend->run(g.vcpu, 1, &g.exit), E_STATE);
    vmx_cpu()->on = true;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_cpu_must_offer),
        cmocka_unit_test(what_is_used_where_it_is),
        cmocka_unit_test(the_firmware_has_its_say),
        cmocka_unit_test(old_translations_go),
        cmocka_unit_test(an_eptp_comes_again),
#define WITH_GUEST(test) cmocka_unit_test_setup_teardown(test, start, stop)
        WITH_GUEST(msrs_that_pass),
        WITH_GUEST(what_exits),
        WITH_GUEST(what_the_host_comes_back_to),
        WITH_GUEST(vcpus_in_turn),
        WITH_GUEST(a_vcpu_moves_to_another_cpu),
        WITH_GUEST(an_active_vcpu_is_nobody_elses),
        WITH_GUEST(the_lock_is_dropped_in_the_guest),
        WITH_GUEST(a_nudge_before_the_entry),
        WITH_GUEST(slices_by_the_local_apic),
        WITH_GUEST(frames_come_back),
        WITH_GUEST(the_root_reads_back),
        WITH_GUEST(state_goes_in_and_out),
        WITH_GUEST(segments_are_loaded),
        WITH_GUEST(bits_that_are_kept_from_it),
        WITH_GUEST(state_that_is_refused),
        WITH_GUEST(a_new_state_is_a_new_beginning),
        WITH_GUEST(failures_are_values),
    };
    return cmocka_run_group_tests_name("vmx", tests, NULL, NULL);
}
