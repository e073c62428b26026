/*
 * A virtual CPU as VMX runs it: the VMCS and all that it does not hold. Internal to this folder;
 * vm/ sees the struct vcpu at its start.
 */
#ifndef QUIRE_ARCH_VMX_VCPU_H
#define QUIRE_ARCH_VMX_VCPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arch/x86_64/guest/debug_loan.h"
#include "arch/x86_64/guest/resident.h"
#include "arch/x86_64/mm/shootdown.h"
#include "arch/x86_64/vmx/vmx_caps.h"
#include "arch/x86_64/vmx/vmx_cpu.h"
#include "lib/error.h"
#include "lib/list.h"
#include "mm/frames/frame.h"
#include "vm/backend.h"

/* Known to entry.asm. */
struct vmx_live {
    uint64_t cr2;
    uint64_t host_rsp; /* what the VMCS holds; 0: nothing yet */
};

#define VMX_FAILURE 240

struct vmx_vcpu {
    struct vcpu vcpu;
    struct vmx_live live;
    struct table *table; /* its EPT */
    owner_t owner;       /* of its frames */
    hpa_t vmcs;
    bool launched;                 /* since the last VMCLEAR */
    struct vmx_cpu *cpu;           /* where its VMCS is active; NULL: nowhere */
    struct list active;            /* among those of that CPU */
    const struct vmx_cpu *last;    /* where it was active last; NULL: nowhere yet */
    uint16_t vpid;                 /* 0: none */
    uint64_t seen[SHOOTDOWN_CPUS]; /* of the table's flushes, on each CPU: shootdown_load() */

    struct resident resident;

    hpa_t log; /* page-modification log; 0: none */

    bool window;     /* it exits as soon as it can take an interrupt */
    bool nmi_window; /* ... or an NMI */
    bool dr_exits;   /* MOV to and from debug registers exits */
    unsigned traps;  /* breakpoints that the instruction in progress has met: bits 3:0 of DR6 */
    struct debug_loan until; /* for the hypervisor's breakpoint, and the exit behind it: until.c */
    uint64_t reasons[EXIT_REASON_COUNT]; /* exits by basic reason */
    uint64_t reinjected;                 /* events whose delivery an exit interrupted */
    char failure[VMX_FAILURE];           /* text of the last failed entry */
};

_Static_assert(offsetof(struct vmx_live, cr2) == 0 && offsetof(struct vmx_live, host_rsp) == 8,
               "entry.asm");
_Static_assert(RBX == 3 && RBP == 5 && RDI == 7 && R8 == 8 && R15 == 15, "entry.asm");
_Static_assert(VMCS_HOST_RSP == 0x6c14, "entry.asm");

static inline struct vmx_vcpu *vmx_vcpu_of(struct vcpu *vcpu)
{
    return container_of(vcpu, struct vmx_vcpu, vcpu);
}

/* The settled controls (all but "IA-32e mode guest", which follows the guest), the bits of CR4 that
 * guests may set, and the MSR bitmap that all guests share. */
struct vmx_policy {
    uint32_t control[CONTROLS_COUNT];
    uint64_t guest_cr4;
    hpa_t msr_bitmap;
    bool vpid;
    bool log; /* page-modification logging */
    struct table_caps ept;
};
extern struct vmx_policy vmx_policy;

/* Bits of CR0 that a guest owns; it reads the others from the shadow and exits when it would change
 * them. PE and PG are its own thanks to "unrestricted guest". */
#define CR0_GUEST_OWNED (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_WP | CR0_AM | CR0_PG)
/* Of CR4 it owns what it may set, but for MCE: the CPU's stays on, or a machine check while the
 * guest runs would shut the machine down. */
static inline uint64_t cr4_guest_owned(void)
{
    return vmx_policy.guest_cr4 & ~CR4_MCE;
}

static inline bool vmx_virtual_nmis(void)
{
    return (vmx_policy.control[CONTROLS_PIN] & PIN_VIRTUAL_NMIS) != 0;
}

/* entry.asm */
enum vmx_enter { VMX_ENTERED, VMX_FAIL_VALID, VMX_FAIL_INVALID };
enum vmx_enter vmx_enter(uint64_t gpr[GPR_COUNT], struct vmx_live *live, bool launched);
void vmx_exited(void);
void vmx_unblock_nmi(void);

/* Makes the vCPU's VMCS the current one of this CPU. E_STATE when it is active on another (it has
 * to be put there first) or VMX is off; E_HARDWARE. */
int vmx_vcpu_make_current(struct vmx_vcpu *v);
static inline int vmx_vcpu_load(struct vmx_vcpu *v)
{
    const struct vmx_cpu *cpu = vmx_cpu();

    if (__builtin_expect(
            cpu && cpu->on && cpu == v->cpu && cpu->has_current && cpu->current.v == v->vmcs.v, 1))
        return E_OK;
    return vmx_vcpu_make_current(v);
}
/* Has this CPU forget what it has cached by the vCPU's EPT and VPID: INVEPT, INVVPID. */
void vmx_vcpu_forget(const struct vmx_vcpu *v);

/* Takes the vCPU off this CPU: its registers into its structure, its VMCS cleared. Nothing when it
 * is active nowhere. */
void vmx_vcpu_put(struct vmx_vcpu *v);

/* The same with all that are active on this CPU. None of their tables is published any more. */
void vmx_put_all(void);

#endif
