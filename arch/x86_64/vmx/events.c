/*
 * Events on their way into a guest: injection by vm/ and by the exit handlers, and the second try
 * for one whose delivery an exit interrupted. SDM Vol. 3, 27.6 "Event injection", 28.2.3 and
 * 28.2.4.
 */
#include "arch/x86_64/vmx/events.h"

#include "arch/x86_64/guest/debug.h"
#include "arch/x86_64/guest/resident.h"
#include "arch/x86_64/vmx/state.h"

/* An event for the next entry is there already. */
static bool event_pending(void)
{
    return (vmread(VMCS_ENTRY_INTERRUPTION) & INTERRUPTION_VALID) != 0;
}

static bool in_protected_mode(void)
{
    return (vmread(VMCS_GUEST_CR0) & CR0_PE) != 0;
}

static void end_shadow(void)
{
    uint64_t state = vmread(VMCS_GUEST_INTERRUPTIBILITY);
    uint64_t shadow = BLOCKING_BY_STI | BLOCKING_BY_MOV_SS;

    if (state & shadow)
        vmwrite(VMCS_GUEST_INTERRUPTIBILITY, state & ~shadow);
}

/* Returns what RFLAGS is then. */
static uint64_t set_rf(bool set)
{
    uint64_t rflags = vmread(VMCS_GUEST_RFLAGS);
    uint64_t wanted = set ? rflags | RFLAGS_RF : rflags & ~RFLAGS_RF;

    if (wanted != rflags)
        vmwrite(VMCS_GUEST_RFLAGS, wanted);
    return wanted;
}

/* An event that is delivered ends the shadow of STI or MOV SS that its instruction stood in. */
static void set_event(uint32_t info, uint32_t code, uint64_t length)
{
    end_shadow();
    if (info & INTERRUPTION_CODE_VALID)
        vmwrite(VMCS_ENTRY_EXCEPTION_CODE, code);
    if (interruption_has_length(info))
        vmwrite(VMCS_ENTRY_LENGTH, length);
    vmwrite(VMCS_ENTRY_INTERRUPTION, info);
    /* An event wakes a halted CPU. */
    vmwrite(VMCS_GUEST_ACTIVITY, ACTIVITY_ACTIVE);
}

/* Whether an exception has an error code is not the caller's choice: the CPU refuses the entry when
 * it is wrong (27.2.1.3). In real mode none has. */
static uint32_t exception_info(uint8_t vector)
{
    bool has_code = exception_has_code(vector) && in_protected_mode();
    /* INT3 and INTO are raised by an instruction whose length has to be told. */
    bool software = vector == VECTOR_BP || vector == VECTOR_OF;
    return interruption(software ? INTERRUPTION_SOFTWARE_EXCEPTION : INTERRUPTION_EXCEPTION, vector,
                        has_code);
}

void vmx_inject_exception(struct vmx_vcpu *v, uint8_t vector, bool has_code, uint32_t code)
{
    (void)v;
    if (exception_is_fault(vector))
        set_rf(true);
    set_event(exception_info(vector), has_code ? code : 0, 1);
}

/* "NMI-window exiting" (SDM Vol. 3, 26.2): an exit as soon as an NMI can be taken. */
static void want_nmi_window(struct vmx_vcpu *v, bool wanted)
{
    if (!vmx_virtual_nmis() || !(vmx_caps.control[CONTROLS_PROC] >> 32 & PROC_NMI_WINDOW_EXITING) ||
        v->nmi_window == wanted)
        return;
    v->nmi_window = wanted;
    vmx_write_proc_controls(v);
}

/* One that is refused comes when the guest's IRET has ended the blocking, not at some later exit.
 * Behind STI the window may open at once (26.2), where none may be injected. */
static int inject_nmi(struct vmx_vcpu *v)
{
    uint64_t blocked = vmread(VMCS_GUEST_INTERRUPTIBILITY) &
                       (BLOCKING_BY_NMI | BLOCKING_BY_MOV_SS | BLOCKING_BY_STI);

    if (blocked || event_pending()) {
        want_nmi_window(v, !(blocked & BLOCKING_BY_STI));
        return E_STATE;
    }
    want_nmi_window(v, false);
    set_event(interruption(INTERRUPTION_NMI, VECTOR_NMI, false), 0, 0);
    return E_OK;
}

void vmx_nmi_window_exit(struct vmx_vcpu *v)
{
    want_nmi_window(v, false);
}

int vmx_inject(struct vcpu *vcpu, struct vm_event event)
{
    struct vmx_vcpu *v = vmx_vcpu_of(vcpu);
    int error = vmx_vcpu_load(v);
    if (error != E_OK)
        return error;
    if (event_pending() && event.kind != VM_EVENT_NMI)
        return E_STATE;
    switch (event.kind) {
    case VM_EVENT_INTERRUPT:
        if (!vmx_interrupts_open(vcpu))
            return E_STATE;
        set_event(interruption(INTERRUPTION_EXTERNAL, event.vector, false), 0, 0);
        return E_OK;
    case VM_EVENT_NMI:
        return inject_nmi(v);
    case VM_EVENT_EXCEPTION:
        if (event.vector >= EXCEPTION_COUNT || event.vector == VECTOR_NMI)
            return E_INVAL;
        if (event.vector == VECTOR_PF)
            v->live.cr2 = event.address;
        vmx_inject_exception(v, event.vector, event.has_code, event.code);
        return E_OK;
    }
    return E_INVAL;
}

bool vmx_interrupts_open(struct vcpu *vcpu)
{
    if (vmx_vcpu_load(vmx_vcpu_of(vcpu)) != E_OK)
        return false;
    return (vmread(VMCS_GUEST_RFLAGS) & RFLAGS_IF) && !event_pending() &&
           !(vmread(VMCS_GUEST_INTERRUPTIBILITY) & (BLOCKING_BY_STI | BLOCKING_BY_MOV_SS));
}

/* SDM Vol. 3, 26.6.2, "interrupt-window exiting", which every CPU with VMX has. */
void vmx_want_window(struct vcpu *vcpu, bool wanted)
{
    struct vmx_vcpu *v = vmx_vcpu_of(vcpu);

    if (v->window == wanted || vmx_vcpu_load(v) != E_OK)
        return;
    v->window = wanted;
    vmx_write_proc_controls(v);
}

void vmx_set_halted(struct vcpu *vcpu, bool halted)
{
    if (vmx_vcpu_load(vmx_vcpu_of(vcpu)) != E_OK)
        return;
    /* Where the CPU cannot be entered halted, the guest spins on its HLT: it exits there again. */
    if (halted && !vmx_caps.misc.activity_hlt)
        return;
    vmwrite(VMCS_GUEST_ACTIVITY, halted ? ACTIVITY_HLT : ACTIVITY_ACTIVE);
}

/* ---- After an instruction ------------------------------------------------------------------ */

/* The debug traps that the CPU would raise now are left to the next entry (25.4.2, "pending debug
 * exceptions"). */
static bool leave_traps(struct vmx_vcpu *v, uint64_t rflags)
{
    uint64_t traps = v->traps ? v->traps | DEBUG_ENABLED_BREAKPOINT : 0;

    v->traps = 0;
    if (rflags & RFLAGS_TF)
        traps |= DEBUG_BS;
    uint64_t pending = vmread(VMCS_GUEST_PENDING_DEBUG);
    if (traps & ~pending)
        vmwrite(VMCS_GUEST_PENDING_DEBUG, pending | traps);
    return (pending | traps) != 0;
}

/* An exit leaves debug exceptions pending in the shadow of MOV SS alone (28.3.4). Bochs leaves the
 * step of an instruction that has not taken place, too, which would be one too many. */
void vmx_drop_traps(struct vmx_vcpu *v)
{
    v->traps = 0;
    if (vmread(VMCS_GUEST_PENDING_DEBUG) &&
        !(vmread(VMCS_GUEST_INTERRUPTIBILITY) & BLOCKING_BY_MOV_SS))
        vmwrite(VMCS_GUEST_PENDING_DEBUG, 0);
}

bool vmx_skip_bytes(struct vmx_vcpu *v, unsigned length)
{
    return vmx_skip_to(v, vmread(VMCS_GUEST_RIP) + length);
}

bool vmx_skip_to(struct vmx_vcpu *v, uint64_t rip)
{
    bool wraps = rip > UINT32_MAX && !vmx_in_64bit_mode();

    vmwrite(VMCS_GUEST_RIP, wraps ? rip & UINT32_MAX : rip);
    end_shadow();                         /* it covered one instruction, and this was it */
    return leave_traps(v, set_rf(false)); /* likewise */
}

bool vmx_skip(struct vcpu *vcpu, const struct vm_exit *exit)
{
    struct vmx_vcpu *v = vmx_vcpu_of(vcpu);

    return vmx_vcpu_load(v) == E_OK && vmx_skip_bytes(v, exit->length);
}

/* A trap between iterations pushes RF as 1 (18.3.1.1). */
bool vmx_iterated(struct vcpu *vcpu)
{
    struct vmx_vcpu *v = vmx_vcpu_of(vcpu);

    if (vmx_vcpu_load(v) != E_OK)
        return true;
    end_shadow();
    return leave_traps(v, set_rf(true));
}

/* In the shadow of MOV SS the entry demands that the step which is held back be told (27.3.1.5). */
void vmx_retry(struct vcpu *vcpu)
{
    struct vmx_vcpu *v = vmx_vcpu_of(vcpu);

    if (vmx_vcpu_load(v) != E_OK)
        return;
    v->traps = 0;
    uint64_t rflags = set_rf(true);
    if (vmread(VMCS_GUEST_INTERRUPTIBILITY) & BLOCKING_BY_MOV_SS)
        leave_traps(v, rflags);
}

bool vmx_watches(void)
{
    return (vmread(VMCS_GUEST_DR7) & DR7_ENABLES) != 0;
}

/* The debug registers hold the guest's: it is resident. */
static void note(struct vmx_vcpu *v, enum debug_access access, uint64_t at, unsigned bytes)
{
    uint64_t dr7 = vmread(VMCS_GUEST_DR7), dr[4];

    if (!(dr7 & DR7_ENABLES))
        return;
    resident_debug(dr);
    v->traps |= debug_matches(dr, dr7, access, at, bytes);
}

void vmx_note_port(struct vcpu *vcpu, uint16_t port, unsigned width)
{
    struct vmx_vcpu *v = vmx_vcpu_of(vcpu);

    if (vmx_vcpu_load(v) == E_OK && vmx_watches() && (vmx_guest_cr4() & CR4_DE))
        note(v, DEBUG_PORT, port, width);
}

void vmx_note_memory(struct vmx_vcpu *v, uint64_t linear, unsigned bytes, bool write)
{
    note(v, write ? DEBUG_WRITE : DEBUG_READ, linear, bytes);
}

static void set_nmi_blocking(bool blocked)
{
    uint64_t state = vmread(VMCS_GUEST_INTERRUPTIBILITY);
    vmwrite(VMCS_GUEST_INTERRUPTIBILITY,
            blocked ? state | BLOCKING_BY_NMI : state & ~(uint64_t)BLOCKING_BY_NMI);
}

/* An IRET that faulted had already ended NMI blocking, as it does before it can fault. Where the
 * IRET runs again, blocking holds until then (28.2.3, 32.7.1.2); a fault that goes to the guest, as
 * #AC does, finds NMIs unblocked, as on a CPU by itself (6.7.1). */
static void block_nmi_again(unsigned reason, uint64_t qualification)
{
    bool unblocked = false;

    if (reason == EXIT_EPT_VIOLATION || reason == EXIT_LOG_FULL) /* both: bit 12 */
        unblocked = ept_violation_decode(qualification).nmi_unblocked;
    if (reason == EXIT_EXCEPTION_OR_NMI) {
        uint64_t info = vmread(VMCS_EXIT_INTERRUPTION);
        unblocked = (info & INTERRUPTION_NMI_UNBLOCKED) && (info & INTERRUPTION_VALID) &&
                    (info & INTERRUPTION_VECTOR) == VECTOR_MC;
    }
    if (unblocked && vmx_virtual_nmis())
        set_nmi_blocking(true);
}

void vmx_requeue_event(struct vmx_vcpu *v, unsigned reason, uint64_t qualification)
{
    uint32_t info = (uint32_t)vmread(VMCS_IDT_VECTORING);

    if (!(info & INTERRUPTION_VALID)) {
        block_nmi_again(reason, qualification);
        return;
    }
    /* A task switch is part of the delivery and a triple fault its end: nothing is left of it. */
    if (reason != EXIT_TASK_SWITCH && reason != EXIT_TRIPLE_FAULT)
        vmx_deliver_again(v);
}

void vmx_deliver_again(struct vmx_vcpu *v)
{
    uint32_t info = (uint32_t)vmread(VMCS_IDT_VECTORING);

    info &= (uint32_t)(INTERRUPTION_VALID | BITS(11, 0)); /* bit 12 is undefined here */
    if (interruption_type(info) == INTERRUPTION_NMI && vmx_virtual_nmis())
        set_nmi_blocking(false); /* the delivery set it; the entry will again (27.3.1.5) */
    set_event(info, (uint32_t)vmread(VMCS_IDT_VECTORING_CODE), vmread(VMCS_EXIT_LENGTH));
    v->reinjected++;
}

void vmx_leave_old_task(bool by_iret)
{
    end_shadow();
    if (by_iret)
        set_nmi_blocking(false);
}
