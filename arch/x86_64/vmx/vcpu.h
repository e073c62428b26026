/*
 * A virtual CPU as VMX runs it: the VMCS and all that it does not hold. Internal to this folder;
 * vm/ sees the struct vcpu at its start.
 */
#ifndef QUIRE_ARCH_VMX_VCPU_H
#define QUIRE_ARCH_VMX_VCPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arch/x86_64/mm/operand.h"
#include "arch/x86_64/vmx/vmx_caps.h"
#include "arch/x86_64/vmx/vmx_cpu.h"
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
    bool launched;       /* since the last VMCLEAR */
    struct vmx_cpu *cpu; /* where its VMCS is active; NULL: nowhere */
    uint16_t vpid;       /* 0: none */

    /* What changes hands by resident.c while another vCPU has the CPU. */
    void *fpu; /* XSAVE area (FXSAVE image where there is no XSAVE) */
    hpa_t fpu_frame;
    unsigned fpu_order;
    uint64_t xcr0;
    uint64_t msr[SHARED_MSR_COUNT];
    uint64_t dr[4], dr6;

    unsigned traps; /* breakpoints that the instruction in progress has met: bits 3:0 of DR6 */
    uint64_t cr8;   /* virtual: the task priority of an APIC that is not there */
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
 * guests may set, the components of XCR0 likewise, and the MSR bitmap that all guests share. */
struct vmx_policy {
    uint32_t control[CONTROLS_COUNT];
    uint64_t guest_cr4;
    uint64_t guest_xcr0; /* 0: this CPU has no XSAVE */
    hpa_t msr_bitmap;
    unsigned fpu_order; /* of the block for one vCPU's XSAVE area */
    bool vpid;
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

/* vcpu.c: creation, and the state that vm/ sees. */
/* Once, before the first of them: their structures are small objects (mm/frames/slab.h). */
void vmx_vcpus_init(void);
int vmx_vcpu_create(struct guest *guest, struct table *table, owner_t owner, struct vcpu **out);
void vmx_vcpu_destroy(struct vcpu *vcpu);
int vmx_get_state(struct vcpu *vcpu, struct vcpu_state *out);
int vmx_set_state(struct vcpu *vcpu, const struct vcpu_state *in);
void vmx_dump(struct vcpu *vcpu, struct sink *to);

/* Makes the vCPU's VMCS the current one of this CPU. E_STATE when it is active on another (it has
 * to be put there first) or VMX is off; E_HARDWARE. */
int vmx_vcpu_load(struct vmx_vcpu *v);
/* Takes the vCPU off this CPU: its registers into its structure, its VMCS cleared. Nothing when it
 * is active nowhere. */
void vmx_vcpu_put(struct vmx_vcpu *v);

/* With the VMCS current: CR0 and CR4 as the guest sees them; a segment register; EFER.LMA and
 * CS.L. */
uint64_t vmx_guest_cr0(void);
uint64_t vmx_guest_cr4(void);
void vmx_read_segment(unsigned index, struct segment *out);
bool vmx_in_64bit_mode(void);
/* Writes CR0, CR4, EFER and the entry control that follows from them, legal values only. */
void vmx_write_crs(uint64_t cr0, uint64_t cr4, uint64_t efer);
/* Drops the translations that are tagged with the vCPU's VPID. */
void vmx_flush_vpid(struct vmx_vcpu *v);

/* events.c */
int vmx_inject(struct vcpu *vcpu, struct vm_event event);
void vmx_inject_exception(struct vmx_vcpu *v, uint8_t vector, bool has_code, uint32_t code);
bool vmx_interrupts_open(struct vcpu *vcpu);
void vmx_set_halted(struct vcpu *vcpu, bool halted);
bool vmx_skip(struct vcpu *vcpu, const struct vm_exit *exit);
/* The same for an instruction of `length` bytes that this folder emulated. */
bool vmx_skip_bytes(struct vmx_vcpu *v, unsigned length);
/* Right after an exit: what was pending of debug traps, and is not. */
void vmx_drop_traps(struct vmx_vcpu *v);
bool vmx_iterated(struct vcpu *vcpu);
void vmx_retry(struct vcpu *vcpu);
/* What the instruction in progress accesses, for breakpoints. */
void vmx_note_port(struct vcpu *vcpu, uint16_t port, unsigned width);
void vmx_note_memory(struct vmx_vcpu *v, uint64_t linear, unsigned bytes, bool write);
/* Every fault pushes RF as 1 (18.3.1.1). */
bool vmx_is_fault(uint8_t vector);
/* Puts the event whose delivery this exit interrupted back to be delivered by the next entry. */
void vmx_deliver_again(struct vmx_vcpu *v);
/* What a task switch ends: the shadow of STI or MOV SS, by IRET the blocking of NMIs. */
void vmx_leave_old_task(bool by_iret);
/* First thing after an exit: puts an event whose delivery was interrupted back to be delivered by
 * the next entry (28.2.4), and notes an NMI window that an IRET had opened too early (28.2.3). */
void vmx_requeue_event(struct vmx_vcpu *v, unsigned reason, uint64_t qualification);

/* guest_operand.c: the memory operand of an instruction carried out for the guest. */
enum vm_operand_outcome vmx_operand(struct vcpu *vcpu, const struct vm_exit *exit,
                                    const struct vm_operand *asked, struct vm_operand_place *out);
struct operand_cpu vmx_operand_cpu(struct vmx_vcpu *v);
/* An access that the second level refuses, as the exit that it would have been. */
void vmx_tell_refusal(const struct operand_place *place, enum operand_outcome outcome,
                      struct vm_exit *exit);
/* task_switch.c */
void vmx_task_switch(struct vmx_vcpu *v, struct vm_exit *exit);

/* exits.c: tells what happened in neutral terms, having dealt with what is VMX's own. */
void vmx_decode_exit(struct vmx_vcpu *v, uint32_t reason, struct vm_exit *exit);
/* A legal CR3 becomes the guest's. False: #GP has been raised, or the exit told that it has come
 * to. */
bool vmx_load_cr3(struct vmx_vcpu *v, uint64_t value, struct vm_exit *exit);
/* explain_exit.c: why an access ended in an EPT violation or misconfiguration. */
void vmx_explain_access(struct vcpu *vcpu, const struct vm_exit *exit, struct sink *to);
/* entry_failure.c: why the CPU did not enter the guest. */
void vmx_explain_fail(struct vmx_vcpu *v, enum vmx_enter outcome, struct vm_exit *exit);
void vmx_explain_entry(struct vmx_vcpu *v, uint32_t reason, struct vm_exit *exit);

#endif
