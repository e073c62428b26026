/*
 * Events on their way into a guest, and the ends of an instruction that exited. APM Vol. 2, 15.20
 * "Event Injection", 15.21 "Interrupt and Local APIC Support", 15.7.2 "Intercepts During IDT
 * Interrupt Delivery".
 */
#include "arch/x86_64/guest/debug.h"
#include "arch/x86_64/svm/vcpu.h"

static void set_rf(struct vmcb *vmcb, bool set)
{
    vmcb->rflags = set ? vmcb->rflags | RFLAGS_RF : vmcb->rflags & ~RFLAGS_RF;
}

static void set_event(struct svm_vcpu *v, enum svm_event_type type, uint8_t vector, bool has_code,
                      uint32_t code)
{
    v->vmcb->shadow &= ~SHADOW_ACTIVE;
    v->vmcb->event = EVENT_VALID | (uint64_t)type << EVENT_TYPE_SHIFT | vector;
    if (has_code)
        v->vmcb->event |= EVENT_CODE_VALID | (uint64_t)code << EVENT_CODE_SHIFT;
    v->halted = false;
}

void svm_inject_exception(struct svm_vcpu *v, uint8_t vector, uint32_t code)
{
    if (exception_is_fault(vector))
        set_rf(v->vmcb, true);
    set_event(v, EVENT_EXCEPTION, vector, exception_has_code(vector) && (v->vmcb->cr0 & CR0_PE),
              code);
}

/* The guest's IRET ends the blocking: it exits once, before it runs. */
static bool nmi_blocked(const struct svm_vcpu *v)
{
    return v->nmi_blocked || (v->iret && v->iret_rip == v->vmcb->rip);
}

static int inject_nmi(struct svm_vcpu *v)
{
    if (nmi_blocked(v) || (v->vmcb->shadow & SHADOW_ACTIVE))
        return E_STATE;
    set_event(v, EVENT_NMI, VECTOR_NMI, false, 0);
    v->nmi_blocked = true;
    v->iret = false;
    v->vmcb->intercept1 |= (uint32_t)INTERCEPT1_IRET;
    return E_OK;
}

int svm_inject(struct vcpu *vcpu, struct vm_event event)
{
    struct svm_vcpu *v = svm_vcpu_of(vcpu);

    if (v->vmcb->event & EVENT_VALID)
        return E_STATE;
    switch (event.kind) {
    case VM_EVENT_INTERRUPT:
        if (!svm_interrupts_open(vcpu))
            return E_STATE;
        set_event(v, EVENT_INTERRUPT, event.vector, false, 0);
        return E_OK;
    case VM_EVENT_NMI:
        return inject_nmi(v);
    case VM_EVENT_EXCEPTION:
        if (event.vector >= EXCEPTION_COUNT || event.vector == VECTOR_NMI)
            return E_INVAL;
        if (event.vector == VECTOR_PF)
            v->vmcb->cr2 = event.address;
        svm_inject_exception(v, event.vector, event.has_code ? event.code : 0);
        return E_OK;
    }
    return E_INVAL;
}

bool svm_interrupts_open(struct vcpu *vcpu)
{
    const struct vmcb *vmcb = svm_vcpu_of(vcpu)->vmcb;

    return (vmcb->rflags & RFLAGS_IF) && !(vmcb->event & EVENT_VALID) &&
           !(vmcb->shadow & SHADOW_ACTIVE);
}

/* A virtual interrupt of any priority, whose delivery is intercepted (15.21.4). */
void svm_want_window(struct vcpu *vcpu, bool wanted)
{
    svm_vcpu_of(vcpu)->window = wanted;
}

void svm_set_halted(struct vcpu *vcpu, bool halted)
{
    svm_vcpu_of(vcpu)->halted = halted;
}

/* ---- After an instruction ------------------------------------------------------------------ */

/* The debug registers hold the guest's: it is resident. */
static unsigned breakpoints_met(const struct svm_vcpu *v, enum debug_access access, uint64_t at,
                                unsigned bytes)
{
    uint64_t dr[4];

    if (!(v->vmcb->dr7 & DR7_ENABLES))
        return 0;
    resident_debug(dr);
    return debug_matches(dr, v->vmcb->dr7, access, at, bytes);
}

/* Breakpoints on the instruction that is next. */
static unsigned breakpoints_ahead(const struct svm_vcpu *v)
{
    return breakpoints_met(v, DEBUG_FETCH, svm_linear_rip(v->vmcb), 1);
}

/* The debug trap that the CPU would raise now. DR6 is set with it, as the CPU does; a breakpoint
 * ahead is told with it, for RF is clear, and is none by itself yet. */
static bool leave_traps(struct svm_vcpu *v)
{
    uint64_t causes = v->traps;

    v->traps = 0;
    if (v->vmcb->rflags & RFLAGS_TF)
        causes |= DEBUG_BS;
    if (!causes)
        return false;
    if (!(v->vmcb->rflags & RFLAGS_RF))
        causes |= breakpoints_ahead(v);
    v->vmcb->dr6 = (v->vmcb->dr6 & ~DEBUG_BREAKPOINTS) | causes;
    set_event(v, EVENT_EXCEPTION, VECTOR_DB, false, 0);
    return true;
}

bool svm_skip_to(struct svm_vcpu *v, uint64_t rip)
{
    v->vmcb->rip = svm_in_64bit_mode(v->vmcb) ? rip : rip & UINT32_MAX;
    v->vmcb->shadow &= ~SHADOW_ACTIVE;
    set_rf(v->vmcb, false);
    return leave_traps(v);
}

bool svm_skip(struct vcpu *vcpu, const struct vm_exit *exit)
{
    struct svm_vcpu *v = svm_vcpu_of(vcpu);

    return svm_skip_to(v, v->vmcb->rip + exit->length);
}

/* A trap between iterations pushes RF as 1. */
bool svm_iterated(struct vcpu *vcpu)
{
    struct svm_vcpu *v = svm_vcpu_of(vcpu);

    v->vmcb->shadow &= ~SHADOW_ACTIVE;
    set_rf(v->vmcb, true);
    return leave_traps(v);
}

void svm_retry(struct vcpu *vcpu)
{
    struct svm_vcpu *v = svm_vcpu_of(vcpu);

    v->traps = 0;
    set_rf(v->vmcb, true);
}

void svm_note_port(struct vcpu *vcpu, uint16_t port, unsigned width)
{
    struct svm_vcpu *v = svm_vcpu_of(vcpu);

    if (v->vmcb->cr4 & CR4_DE)
        v->traps |= breakpoints_met(v, DEBUG_PORT, port, width);
}

void svm_note_memory(struct vcpu *vcpu, uint64_t linear, unsigned bytes, bool write)
{
    struct svm_vcpu *v = svm_vcpu_of(vcpu);

    v->traps |= breakpoints_met(v, write ? DEBUG_WRITE : DEBUG_READ, linear, bytes);
}

bool svm_watches(struct vcpu *vcpu)
{
    return (svm_vcpu_of(vcpu)->vmcb->dr7 & DR7_ENABLES) != 0;
}

void svm_iret_exit(struct svm_vcpu *v)
{
    v->nmi_blocked = false;
    v->iret = true;
    v->iret_rip = v->vmcb->rip;
    v->vmcb->intercept1 &= ~(uint32_t)INTERCEPT1_IRET;
}

/* INT n, INT3 and INTO run once more from where RIP still is, for without next-RIP saving the entry
 * could not push the address behind them. */
void svm_requeue_event(struct svm_vcpu *v)
{
    uint64_t event = v->vmcb->exit_event;
    unsigned type = (unsigned)(event >> EVENT_TYPE_SHIFT & 7);
    uint8_t vector = (uint8_t)(event & EVENT_VECTOR);

    v->traps = 0;
    v->vmcb->event = 0;
    if (!(event & EVENT_VALID) || v->vmcb->exit_code == SVM_EXIT_SHUTDOWN)
        return;
    if (type == EVENT_SOFTWARE ||
        (type == EVENT_EXCEPTION && (vector == VECTOR_BP || vector == VECTOR_OF)))
        return;
    v->vmcb->event = event;
    v->reinjected++;
}
