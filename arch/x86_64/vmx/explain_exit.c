/*
 * Why an access of a guest ended in an EPT violation or misconfiguration: the explanation of
 * arch/x86_64/mm/explain.h for what the exit says, held against the exit itself.
 */
#include "arch/x86_64/guest/read_linear.h"
#include "arch/x86_64/mm/explain.h"
#include "arch/x86_64/mm/physical.h"
#include "arch/x86_64/vmx/exits.h"
#include "arch/x86_64/vmx/state.h"
#include "lib/string.h"

#define QUALIFICATION_NMI_UNBLOCKED BIT(12) /* of the moment, not of the access */

/* The access that the instruction made, as far as the exit says it. Of one that ended at the
 * guest's own tables it does not; then any will do, for the walk is the same. */
static unsigned access_of(const struct vm_exit *exit)
{
    if (exit->kind == VM_EXIT_MEMORY && !exit->memory.walk) {
        if (exit->memory.access & RIGHT_W)
            return RIGHT_W;
        return exit->memory.access & RIGHT_X ? RIGHT_X : RIGHT_R;
    }
    return RIGHT_R;
}

/* The two have nothing in common but the tables and the manual. */
static void compare(const struct vm_exit *exit, const struct explanation *e, struct sink *to)
{
    if (exit->raw != EXIT_EPT_VIOLATION && exit->raw != EXIT_EPT_MISCONFIGURATION) {
        format(to, "the hypervisor made this access in the CPU's place (%s)\n", exit->name);
        return;
    }
    bool by_gva = exit->kind == VM_EXIT_MEMORY && exit->memory.gva_valid;
    bool misconfig = exit->kind == VM_EXIT_MISCONFIG;
    uint64_t told = exit->qualification & ~QUALIFICATION_NMI_UNBLOCKED;
    /* A walk that counts as a write is told as read and write; Bochs leaves out the read. */
    if (e->during_walk && (told & RIGHT_W))
        told |= e->qualification & RIGHT_R;
    if (misconfig ? e->outcome != EXPLAIN_MISCONFIG
                  : e->outcome != EXPLAIN_VIOLATION || (by_gva && e->qualification != told))
        format(to,
               "the CPU told %s, qualification 0x%lx: not what the walk as it stands foretells\n",
               exit->name, exit->qualification);
    else
        format(to, "the CPU told the same\n");
}

void vmx_explain_access(struct vcpu *vcpu, const struct vm_exit *exit, struct sink *to)
{
    struct vmx_vcpu *v = vmx_vcpu_of(vcpu);
    struct vcpu_state state;
    struct explanation e;
    struct explain_query query = {
        .second = v->table,
        .at = exit->memory.gpa.v,
        .access = access_of(exit),
        .advanced = vmx_caps.ept_vpid.advanced_exits,
        .load = physical_load,
    };

    if (vmx_get_state(vcpu, &state) != E_OK)
        return;
    const struct gva_context registers = guest_gva_context(v->table, &state);
    if (exit->kind == VM_EXIT_MEMORY && exit->memory.gva_valid) {
        query.registers = &registers;
        query.at = exit->memory.gva.v;
    }
    query.user = (state.segment[SEG_SS].access >> ACCESS_DPL_SHIFT & 3) == 3;
    query.rflags = state.rflags;
    query.pat = state.pat;
    explain(&query, &e);
    explain_print(to, &e);
    compare(exit, &e, to);
}
