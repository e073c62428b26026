/* SVM as struct vm_backend: the run of a vCPU, and the table of operations. */
#include "arch/x86_64/speculation.h"
#include "arch/x86_64/guest/read_linear.h"
#include "arch/x86_64/guest/slice_timer.h"
#include "arch/x86_64/mm/npt.h"
#include "arch/x86_64/mm/shootdown.h"
#include "arch/x86_64/mm/table_envs.h"
#include "arch/x86_64/mm/tlb.h"
#include "arch/x86_64/percpu.h"
#include "arch/x86_64/svm/asid.h"
#include "arch/x86_64/svm/svm.h"
#include "arch/x86_64/svm/vcpu.h"

/* The guest may have run elsewhere since, and changed its tables: its INVLPG there has dropped
 * nothing here (APM Vol. 2, 15.16.1). Of the VMCB no CPU keeps anything: its clean bits are 0
 * (15.15.1). */
static void come_back(struct svm_vcpu *v)
{
    if (v->last != shootdown_self())
        svm_forget(v);
}

/* This CPU is told now, the others when the guest comes to them. */
void svm_forget(struct svm_vcpu *v)
{
    tlb_flush_asid(v->asid);
    v->last = shootdown_self();
}

void svm_put_all(void)
{
    if (resident_now())
        resident_switch(NULL);
    shootdown_load(CONTEXT_GUEST, NULL, NULL);
}

/* What this CPU has to forget, for it was not told of a flush. From now on it is, by NMIs. */
static void load_table(struct svm_vcpu *v)
{
    if (shootdown_load(CONTEXT_GUEST, v->table, &v->seen[shootdown_self()])) {
        tlb_flush_asid(v->table->tag); /* all of the table's: the next load may not ask again */
        tlb_flush_asid(v->asid);
    }
}

/* What follows from the moment, for the entry that comes. An NMI that asks for a flush, or comes
 * with a nudge, must not come between the look at what is stale, or at the nudge, and VMRUN: with
 * GIF clear it waits, and then ends the guest's run at once (APM Vol. 2, 15.17). */
static void prepare_entry(struct svm_vcpu *v, uint64_t slice)
{
    struct vmcb *vmcb = v->vmcb;
    uint64_t window = V_IRQ | V_IGNORE_TPR | BITS(3, 0) << V_PRIORITY_SHIFT;

    clear_gif(); /* until svm_enter() is over */
    /* Again and again: the first may be lost (docs/SVM.md, "What QEMU leaves out"). */
    slice_timer_repeat(slice);
    if (vcpu_is_nudged(&v->vcpu))
        slice_timer_end_now();
    vmcb->interrupt = (uint32_t)(V_INTR_MASKING | (v->window ? window : 0));
    vmcb->tlb_control = !asid_take_stale(v->asid)  ? TLB_CONTROL_NOTHING
                        : svm_policy.flush_by_asid ? TLB_CONTROL_ASID
                                                   : TLB_CONTROL_ALL;
    vmcb->rax = v->vcpu.gpr[RAX];
}

/* An exit leaves the interrupt that caused it pending (APM Vol. 2, 15.13.1): the host takes it now,
 * by the gates that end it. */
static void take_interrupts(void)
{
    svm_policy.interrupts++;
    open_interrupts();
}

static uint64_t ticks(void)
{
    return rdtsc();
}

static void enter(struct svm_vcpu *v, uint64_t slice)
{
    prepare_entry(v, slice);
    speculation_before_entry();
    this_cpu()->in_guest = true;
    svm_until_show(v);
    svm_enter(v->vcpu.gpr, v->frame.v, this_cpu()->svm_host_vmcb.v,
              (v->vmcb->shadow & SHADOW_ACTIVE) != 0);
    this_cpu()->in_guest = false; /* an NMI that ended its run has come by now */
    slice_timer_stop();
    v->vcpu.gpr[RAX] = v->vmcb->rax;
}

/* Was it a memory fault, and is dealt with? */
static bool touched(struct svm_vcpu *v)
{
    const struct vmcb *vmcb = v->vmcb;

    if (vmcb->exit_code != SVM_EXIT_NPF || (vmcb->exit_info1 & (PF_PRESENT | PF_RESERVED)) ||
        !vcpu_touch(&v->vcpu, gpa(vmcb->exit_info2), npt_fault_access(vmcb->exit_info1)))
        return false;
    v->vcpu.entries++;
    svm_requeue_event(v);
    return true;
}

/* Between the two nothing but the CPU's own, and what has a lock for itself. */
static void run_unlocked(struct svm_vcpu *v, uint64_t slice)
{
    uint64_t end = v->vcpu.touch != NULL ? ticks() + slice : 0;

    vcpu_drop_lock(&v->vcpu);
    do
        enter(v, slice);
    while (slice_goes_on(end, ticks, &slice) && touched(v));
    vcpu_take_lock(&v->vcpu, ticks);
}

static int run(struct vcpu *vcpu, uint64_t slice, struct vm_exit *exit)
{
    struct svm_vcpu *v = svm_vcpu_of(vcpu);

    if (v->halted) { /* what wakes it is an event */
        *exit = (struct vm_exit){.kind = VM_EXIT_SLICE, .name = "halted", .rip = v->vmcb->rip};
        return E_OK;
    }
    resident_switch(&v->resident);
    come_back(v);
    if (!svm_until_arm(v)) {
        *exit = (struct vm_exit){.kind = VM_EXIT_NO_BREAKPOINT, .rip = v->vmcb->rip};
        return E_OK;
    }
    load_table(v);
    run_unlocked(v, slice);
    svm_until_disarm(v);
    if (v->vmcb->exit_code == SVM_EXIT_INVALID) {
        *exit = (struct vm_exit){
            .kind = VM_EXIT_BAD_STATE,
            .name = "the VMCB is not consistent (APM Vol. 2, 15.5.1)",
            .raw = SVM_EXIT_INVALID,
            .rip = v->vmcb->rip,
        };
        return E_HARDWARE;
    }
    vcpu->entries++;
    svm_decode_exit(v, exit);
    if (v->vmcb->exit_code == SVM_EXIT_INTR)
        take_interrupts();
    return E_OK;
}

static void ask_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    cpuid(leaf, subleaf, out);
}

static uint64_t xcr0_mask(void)
{
    return resident_xcr0;
}

static const struct table_caps *npt_caps(void)
{
    return &svm_policy.npt;
}

static const struct table_env *npt_env(void)
{
    return &buddy_table_env;
}

static enum vm_operand_outcome operand(struct vcpu *vcpu, const struct vm_exit *exit,
                                       const struct vm_operand *asked, struct vm_operand_place *out)
{
    struct guest_access access = svm_guest_access(svm_vcpu_of(vcpu));

    return guest_operand(&access, exit, asked, out);
}

static enum vm_operand_outcome emulate(struct vcpu *vcpu, const struct vm_exit *exit,
                                       const struct vm_bus *bus, struct vm_emulation *out)
{
    struct guest_access access = svm_guest_access(svm_vcpu_of(vcpu));

    return guest_emulate(&access, exit, bus, out);
}

static int read_root(struct vcpu *vcpu, struct vm_root *out)
{
    const struct vmcb *vmcb = svm_vcpu_of(vcpu)->vmcb;
    struct ncr3 root;
    int error = ncr3_decode(vmcb->ncr3, cpu_features.maxphyaddr, &root);

    if (error != E_OK || !(vmcb->nested & NESTED_PAGING))
        return E_ILLEGAL;
    *out = (struct vm_root){
        .raw = root.raw,
        .frame = root.root,
        .type = root.type,
        .levels = read_cr4() & CR4_LA57 ? 5 : 4, /* the host's (15.25.3), and so are ... */
        .accessed_dirty = true,                  /* ... A and D, always set (15.25.5) */
    };
    return E_OK;
}

static bool read_linear(struct vcpu *vcpu, const struct vcpu_state *state, uint64_t at, void *to,
                        unsigned size)
{
    return guest_read_linear(svm_vcpu_of(vcpu)->table, state, at, to, size);
}

const struct vm_backend svm_backend = {
    .name = "SVM",
    .detail = "EXITINFO1",
    .cpuid = ask_cpuid,
    .ticks = ticks,
    .xcr0_mask = xcr0_mask,
    .table_caps = npt_caps,
    .table_env = npt_env,
    .kind = &npt_kind,
    .vcpu_create = svm_vcpu_create,
    .vcpu_destroy = svm_vcpu_destroy,
    .vcpu_copy = svm_vcpu_copy,
    .get_state = svm_get_state,
    .get_modes = svm_get_modes,
    .set_state = svm_set_state,
    .get_rest = svm_get_rest,
    .set_rest = svm_set_rest,
    .set_clock = svm_set_clock,
    .put_all = svm_put_all,
    .run = run,
    .skip = svm_skip,
    .iterated = svm_iterated,
    .retry = svm_retry,
    .note_port = svm_note_port,
    .inject = svm_inject,
    .set_halted = svm_set_halted,
    .interrupts_open = svm_interrupts_open,
    .want_window = svm_want_window,
    .operand = operand,
    .emulate = emulate,
    .read_root = read_root,
    .read_linear = read_linear,
    .explain = svm_explain_access,
    .dump = svm_dump,
};
