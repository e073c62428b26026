/*
 * Instructions that are carried out for a guest (arch/x86_64/mm/operand.h, emulate.h), with what a
 * backend says of the guest's CPU: what the operations of vm/backend.h of the same names stand on.
 */
#ifndef QUIRE_ARCH_GUEST_ACCESS_H
#define QUIRE_ARCH_GUEST_ACCESS_H

#include "arch/x86_64/mm/emulate.h"
#include "arch/x86_64/mm/guest_memory.h"
#include "vm/backend.h"

/* A vCPU that has exited, as its backend shows it, for one instruction. */
struct guest_access {
    struct vcpu *vcpu;
    struct guest_view memory; /* by its second level */
    const uint8_t *fetched;   /* the instruction at RIP, as far as the exit tells its bytes; ... */
    unsigned fetched_bytes;   /* ... 0: it does not */

    /* All but reach(), mark() and ctx. */
    void (*registers)(struct vcpu *vcpu, struct operand_cpu *out);
    void (*segment)(struct vcpu *vcpu, enum segment_index index, struct segment *out);
    void (*place)(struct vcpu *vcpu, uint64_t *rip, uint64_t *rsp);
    /* RSP and RFLAGS as an instruction has left them; `old`: as they were. */
    void (*store)(struct vcpu *vcpu, uint64_t rsp, uint64_t rflags, uint64_t old);
    bool (*skip_to)(struct vcpu *vcpu, uint64_t rip);
    bool (*iterated)(struct vcpu *vcpu);
    void (*retry)(struct vcpu *vcpu);
    /* What the instruction in progress accesses, for breakpoints. */
    void (*note_memory)(struct vcpu *vcpu, uint64_t linear, unsigned bytes, bool write);
    /* Could a breakpoint be met by an access? */
    bool (*watches)(struct vcpu *vcpu);
    /* A refused access as this backend's exits tell it, for people. */
    uint64_t (*tell)(const struct operand_place *refused);
    /* The event whose delivery the exit interrupted; 0: it was an instruction. */
    uint64_t (*delivering)(struct vcpu *vcpu);
};

struct operand_cpu guest_operand_cpu(struct guest_access *access);
struct operand_segment guest_operand_segment(const struct guest_access *access,
                                             enum segment_index index);

/* The guest's own fault, for injection. */
struct vm_event guest_fault(const struct operand_place *place);
/* An access that the second level refuses, as the exit that it would have been. */
void guest_tell_refusal(const struct guest_access *access, const struct operand_place *place,
                        enum operand_outcome outcome, struct vm_exit *exit);

enum vm_operand_outcome guest_operand(struct guest_access *access, const struct vm_exit *exit,
                                      const struct vm_operand *asked, struct vm_operand_place *out);
/* Where the instruction at RIP goes: its accesses in the CPU's order, as linear addresses, the
 * fetch at RIP first. Returns how many. Reads the instruction and nothing else. */
#define GUEST_PLACES (1 + INSN_PLACES)
struct guest_place {
    uint64_t linear;
    unsigned access; /* RIGHT_R, RIGHT_W, both, or RIGHT_X */
};
unsigned guest_insn_places(struct guest_access *access, struct guest_place out[GUEST_PLACES]);
enum vm_operand_outcome guest_emulate(struct guest_access *access, const struct vm_exit *exit,
                                      const struct vm_bus *bus, struct vm_emulation *out);

#endif
