/*
 * A virtual CPU as SVM runs it, and what all of them share. Internal to this folder; vm/ sees the
 * struct vcpu at its start.
 */
#ifndef QUIRE_ARCH_SVM_VCPU_H
#define QUIRE_ARCH_SVM_VCPU_H

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/guest/access.h"
#include "arch/x86_64/guest/debug.h"
#include "arch/x86_64/guest/debug_loan.h"
#include "arch/x86_64/guest/legal.h"
#include "arch/x86_64/guest/resident.h"
#include "arch/x86_64/mm/shootdown.h"
#include "arch/x86_64/svm/vmcb.h"
#include "lib/error.h"
#include "lib/list.h"
#include "lib/panic.h"
#include "mm/paging/table.h"

struct svm_vcpu {
    struct vcpu vcpu;
    struct table *table; /* its nested table */
    owner_t owner;       /* of its frames */
    hpa_t frame;         /* of the VMCB */
    struct vmcb *vmcb;
    uint16_t asid;
    uint64_t seen[SHOOTDOWN_CPUS]; /* of the table's flushes, on each CPU: shootdown_load() */
    struct resident resident;
    unsigned last; /* the CPU that knows what it has cached of the guest: where it ran last */

    bool window;      /* it exits as soon as it can take an interrupt */
    bool halted;      /* it waits behind a HLT */
    bool nmi_blocked; /* an NMI was injected; until its IRET, ... */
    bool iret;        /* ... which exited, and runs at `iret_rip` */
    uint64_t iret_rip;
    bool mce;                /* CR4.MCE as the guest has it: svm_guest_cr4() */
    unsigned traps;          /* breakpoints that the instruction in progress has met */
    struct debug_loan until; /* for the hypervisor's breakpoint, and the exit behind it: until.c */
    uint64_t own_dr6;        /* the guest's, likewise */
    uint64_t reinjected;     /* events whose delivery an exit interrupted */
};

static inline struct svm_vcpu *svm_vcpu_of(struct vcpu *vcpu)
{
    return container_of(vcpu, struct svm_vcpu, vcpu);
}

/* What was found and settled at start. */
struct svm_policy {
    uint32_t revision, asids;
    bool on, flush_by_asid, decode_assists;
    uint64_t guest_cr4; /* bits that guests may set */
    hpa_t iopm, msrpm;
    struct table_caps npt;
    uint64_t interrupts, nmis; /* exits by them */
};
extern struct svm_policy svm_policy;

/* entry.asm; `shadow`: of interrupts, as the VMCB has it. */
void svm_enter(uint64_t gpr[GPR_COUNT], uint64_t guest, uint64_t host, bool shadow);

/* backend.c */
void svm_put_all(void);
/* What any CPU has cached of the guest is forgotten before it runs there again. */
void svm_forget(struct svm_vcpu *v);

/* create.c */
void svm_vcpus_init(void);
int svm_vcpu_create(struct guest *guest, struct table *table, owner_t owner, struct vcpu **out);
void svm_vcpu_destroy(struct vcpu *vcpu);
int svm_vcpu_copy(struct vcpu *to, struct vcpu *from);

/* state.c. The VMCB's CR4 has MCE where the host has it, for without it a machine check in the
 * guest is a shutdown, and not the exit that it is to be (APM Vol. 2, 9.5.3). */
uint64_t svm_guest_cr4(const struct svm_vcpu *v);
void svm_set_guest_cr4(struct svm_vcpu *v, uint64_t value);
int svm_get_state(struct vcpu *vcpu, struct vcpu_state *out);
int svm_get_modes(struct vcpu *vcpu, struct vm_modes *out);
int svm_set_state(struct vcpu *vcpu, const struct vcpu_state *in);
void svm_set_clock(struct vcpu *vcpu, uint64_t offset);
void svm_read_segment(const struct vmcb *vmcb, enum segment_index index, struct segment *out);
bool svm_in_64bit_mode(const struct vmcb *vmcb);
uint64_t svm_linear_rip(const struct vmcb *vmcb);
void svm_dump(struct vcpu *vcpu, struct sink *to);

/* rest.c */
int svm_get_rest(struct vcpu *vcpu, struct vcpu_rest *out);
int svm_set_rest(struct vcpu *vcpu, const struct vcpu_rest *in);

/* events.c */
int svm_inject(struct vcpu *vcpu, struct vm_event event);
void svm_inject_exception(struct svm_vcpu *v, uint8_t vector, uint32_t code);
bool svm_interrupts_open(struct vcpu *vcpu);
void svm_want_window(struct vcpu *vcpu, bool wanted);
void svm_set_halted(struct vcpu *vcpu, bool halted);
bool svm_skip(struct vcpu *vcpu, const struct vm_exit *exit);
bool svm_skip_to(struct svm_vcpu *v, uint64_t rip);
bool svm_iterated(struct vcpu *vcpu);
void svm_retry(struct vcpu *vcpu);
void svm_note_port(struct vcpu *vcpu, uint16_t port, unsigned width);
bool svm_watches(struct vcpu *vcpu);
void svm_note_memory(struct vcpu *vcpu, uint64_t linear, unsigned bytes, bool write);
void svm_iret_exit(struct svm_vcpu *v);
/* First thing after an exit: an event whose delivery it interrupted is delivered by the next entry.
 */
void svm_requeue_event(struct svm_vcpu *v);

/* until.c: `until` of the vCPU, right before an entry and right after. False: the guest leaves no
 * debug register for it. */
bool svm_until_arm(struct svm_vcpu *v);
void svm_until_show(const struct svm_vcpu *v);
void svm_until_disarm(struct svm_vcpu *v);
/* Is it by this that a #DB has exited? */
bool svm_until_met(struct svm_vcpu *v);
/* MOV to or from a debug register, but for RIP and what it raises. */
enum debug_outcome svm_move_dr(struct svm_vcpu *v, unsigned dr, bool write, unsigned gpr);

/* exits.c */
void svm_decode_exit(struct svm_vcpu *v, struct vm_exit *exit);

/* explain_exit.c: why an access ended in a nested page fault. */
void svm_explain_access(struct vcpu *vcpu, const struct vm_exit *exit, struct sink *to);

/* access.c */
struct guest_access svm_guest_access(struct svm_vcpu *v);

#endif
