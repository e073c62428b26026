/*
 * The checks that VM entry makes on the guest state, done over in software, for a CPU that has
 * refused an entry says no more than "invalid guest state". Pure: it judges a copy of the state.
 * SDM Vol. 3, 27.3.1 "Checks on the guest state area".
 */
#ifndef QUIRE_ARCH_VMX_ENTRY_CHECK_H
#define QUIRE_ARCH_VMX_ENTRY_CHECK_H

#include "arch/x86_64/vmx/controls.h"
#include "vm/backend.h"

struct entry_state {
    uint64_t cr0, cr3, cr4, efer, dr7, pat, debugctl;
    uint64_t rip, rflags, sysenter_esp, sysenter_eip;
    uint64_t pdpte[4];
    struct {
        uint64_t base;
        uint32_t limit, access; /* with ACCESS_UNUSABLE */
        uint16_t selector;
    } segment[SEG_COUNT];
    uint64_t gdt_base, idt_base;
    uint32_t gdt_limit, idt_limit;
    uint32_t activity, interruptibility;
    uint64_t pending_debug, link_pointer;
    uint32_t entry_controls, event; /* event: VM-entry interruption information */

    bool unrestricted, virtual_nmis;
    struct cr_fixed cr0_fixed, cr4_fixed;
    unsigned maxphyaddr, linear_bits;
    bool lam;
};

/* The first rule that the state breaks, in words; NULL when none of those known here is broken. */
const char *entry_state_rule(const struct entry_state *state);

#endif
