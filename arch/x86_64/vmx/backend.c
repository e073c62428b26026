/* VMX as struct vm_backend: the run of a vCPU, and the table of operations. */
#include "arch/x86_64/mm/shootdown.h"
#include "arch/x86_64/mm/table_envs.h"
#include "arch/x86_64/vmx/create.h"
#include "arch/x86_64/vmx/eptp.h"
#include "arch/x86_64/vmx/events.h"
#include "arch/x86_64/vmx/exits.h"
#include "arch/x86_64/guest/machine_check_exit.h"
#include "arch/x86_64/guest/read_linear.h"
#include "arch/x86_64/guest/resident.h"
#include "arch/x86_64/guest/slice_timer.h"
#include "arch/x86_64/vmx/log.h"
#include "arch/x86_64/speculation.h"
#include "arch/x86_64/vmx/state.h"
#include "arch/x86_64/vmx/vmx.h"
#include "mm/paging/typed.h"

static bool has_preemption_timer(void)
{
    return (vmx_policy.control[CONTROLS_PIN] & PIN_PREEMPTION_TIMER) != 0;
}

/* SDM Vol. 3, 26.5.1 "VMX-preemption timer": it counts down at the TSC's rate divided by a power of
 * two. */
static inline void start_slice(uint64_t tsc_ticks)
{
    if (has_preemption_timer())
        vmwrite(VMCS_PREEMPTION_TIMER, timer_ticks(tsc_ticks, vmx_caps.misc.timer_shift));
    else
        slice_timer_start(tsc_ticks);
}

/* Rare: the usual way has start_slice() to itself. */
__attribute__((noinline)) void vmx_cut_slice(void)
{
    start_slice(0);
}

static void end_slice(void)
{
    if (!has_preemption_timer())
        slice_timer_stop();
}

/* An exit leaves the limits of GDTR and IDTR at 0xffff (28.5.2); ring 3 must not find descriptors
 * in what lies behind the tables. */
static void restore_limits(const struct vmx_cpu *cpu)
{
    lgdt(&cpu->gdt);
    lidt(&cpu->idt);
}

static uint64_t ticks(void)
{
    return rdtsc();
}

/* An NMI that comes with a nudge, but before the entry, cuts the slice (vmx_cut_slice()): it comes
 * before the slice starts, and then the nudge is seen, or after that. */
static enum vmx_enter enter(struct vmx_vcpu *v, uint64_t slice)
{
    this_cpu()->in_guest = true;
    start_slice(slice);
    if (vcpu_is_nudged(&v->vcpu))
        vmx_cut_slice();
    speculation_before_entry();
    enum vmx_enter outcome = vmx_enter(v->vcpu.gpr, &v->live, v->launched);
    if (outcome == VMX_ENTERED)
        vmx_take_nmi();
    this_cpu()->in_guest = false;
    end_slice();
    return outcome;
}

static void count_exit(struct vmx_vcpu *v, unsigned basic)
{
    v->reasons[basic < EXIT_REASON_COUNT ? basic : EXIT_REASON_COUNT - 1]++;
}

static void entered(struct vmx_vcpu *v)
{
    v->launched = true;
    v->vcpu.entries++;
}

/* Was it a memory fault, and is dealt with? The current VMCS is this CPU's alone. */
static bool touched(struct vmx_vcpu *v)
{
    struct ept_violation violation;
    uint64_t qualification;

    if (vmread(VMCS_EXIT_REASON) != EXIT_EPT_VIOLATION)
        return false;
    qualification = vmread(VMCS_EXIT_QUALIFICATION);
    violation = ept_violation_decode(qualification);
    if (violation.allowed != 0 ||
        !vcpu_touch(&v->vcpu, gpa(vmread(VMCS_GUEST_PHYSICAL_ADDRESS)), violation.access))
        return false;
    count_exit(v, EXIT_EPT_VIOLATION);
    entered(v);
    vmx_drop_traps(v);
    vmx_requeue_event(v, EXIT_EPT_VIOLATION, qualification);
    return true;
}

/* Between the two nothing but the CPU's own, and what has a lock for itself. */
static enum vmx_enter run_unlocked(struct vmx_vcpu *v, uint64_t slice)
{
    uint64_t end = v->vcpu.touch != NULL ? ticks() + slice : 0;
    enum vmx_enter outcome;

    vcpu_drop_lock(&v->vcpu);
    do
        outcome = enter(v, slice);
    while (outcome == VMX_ENTERED && slice_goes_on(end, ticks, &slice) && touched(v));
    vcpu_take_lock(&v->vcpu, ticks);
    return outcome;
}

static int run(struct vcpu *vcpu, uint64_t slice, struct vm_exit *exit)
{
    struct vmx_vcpu *v = vmx_vcpu_of(vcpu);

    int error = vmx_vcpu_load(v);
    if (error != E_OK) {
        *exit =
            (struct vm_exit){.kind = VM_EXIT_BAD_STATE, .name = "the VMCS cannot be made current"};
        exit->bad.error = vmcs_error();
        return error;
    }
    resident_switch(&v->resident);
    /* 29.4.3.3: what this CPU has cached of the EPT it has to forget, if it was not told of a
     * flush. An NMI that asks for one between here and the entry is taken at once. */
    if (shootdown_load(CONTEXT_GUEST, v->table, &v->seen[shootdown_self()]))
        vmx_vcpu_forget(v);
    bool until = vmx_until_concerns(v);
    if (until && !vmx_until_arm(v)) {
        *exit = (struct vm_exit){.kind = VM_EXIT_NO_BREAKPOINT, .rip = vmread(VMCS_GUEST_RIP)};
        return E_OK;
    }
    enum vmx_enter outcome = run_unlocked(v, slice);
    if (until)
        vmx_until_disarm(v);
    if (outcome != VMX_ENTERED) {
        vmx_explain_fail(v, outcome, exit);
        return E_HARDWARE;
    }
    restore_limits(v->cpu);

    uint32_t reason = (uint32_t)vmread(VMCS_EXIT_REASON);
    unsigned basic = (unsigned)(reason & EXIT_REASON_BASIC);
    count_exit(v, basic);
    if (basic == EXIT_ENTRY_MACHINE_CHECK) { /* 27.9 */
        *exit = (struct vm_exit){.raw = reason, .rip = vmread(VMCS_GUEST_RIP)};
        machine_check_exit(exit);
        return E_OK;
    }
    if (reason & EXIT_REASON_ENTRY_FAILURE) {
        vmx_explain_entry(v, reason, exit);
        return E_HARDWARE;
    }
    entered(v);
    vmx_decode_exit(v, reason, exit);
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

static const struct table_caps *ept_caps(void)
{
    return &vmx_policy.ept;
}

static const struct table_env *ept_env(void)
{
    return &buddy_table_env;
}

static int read_root(struct vcpu *vcpu, struct vm_root *out)
{
    struct eptp eptp;
    int error = vmx_vcpu_load(vmx_vcpu_of(vcpu));
    if (error == E_OK)
        error = ept_root_current(&eptp);
    if (error != E_OK)
        return error;
    *out = (struct vm_root){
        .raw = eptp.raw,
        .frame = eptp.root,
        .type = eptp.type,
        .levels = eptp.levels,
        .accessed_dirty = eptp.accessed_dirty,
    };
    return E_OK;
}

static bool read_linear(struct vcpu *vcpu, const struct vcpu_state *state, uint64_t at, void *to,
                        unsigned size)
{
    return guest_read_linear(vmx_vcpu_of(vcpu)->table, state, at, to, size);
}

static bool tells_first_level(void)
{
    return vmx_caps.ept_vpid.advanced_exits;
}

const struct vm_backend vmx_backend = {
    .name = "VMX",
    .detail = "qualification",
    .cpuid = ask_cpuid,
    .ticks = ticks,
    .xcr0_mask = xcr0_mask,
    .table_caps = ept_caps,
    .table_env = ept_env,
    .kind = &ept_kind,
    .vcpu_create = vmx_vcpu_create,
    .vcpu_destroy = vmx_vcpu_destroy,
    .vcpu_copy = vmx_vcpu_copy,
    .get_state = vmx_get_state,
    .get_modes = vmx_get_modes,
    .set_state = vmx_set_state,
    .get_rest = vmx_get_rest,
    .set_rest = vmx_set_rest,
    .set_clock = vmx_set_clock,
    .put_all = vmx_put_all,
    .run = run,
    .skip = vmx_skip,
    .iterated = vmx_iterated,
    .retry = vmx_retry,
    .note_port = vmx_note_port,
    .inject = vmx_inject,
    .set_halted = vmx_set_halted,
    .interrupts_open = vmx_interrupts_open,
    .want_window = vmx_want_window,
    .operand = vmx_operand,
    .emulate = vmx_emulate,
    .log_start = vmx_log_start,
    .log_stop = vmx_log_stop,
    .log_take = vmx_log_take,
    .read_root = read_root,
    .read_linear = read_linear,
    .tells_first_level = tells_first_level,
    .explain = vmx_explain_access,
    .dump = vmx_dump,
};
