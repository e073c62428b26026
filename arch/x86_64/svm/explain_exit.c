/*
 * Why an access of a guest ended in a nested page fault: the explanation of
 * arch/x86_64/mm/explain.h, held against the exit itself. The exit tells the guest-physical address
 * alone (APM Vol. 2, 15.25.6), so the linear one is looked for in the instruction: of the addresses
 * that it goes to, the one by which the walk comes to this very exit.
 */
#include "arch/x86_64/mm/explain.h"
#include "arch/x86_64/mm/npt.h"
#include "arch/x86_64/mm/physical.h"
#include "arch/x86_64/svm/vcpu.h"

#define CODE_OF_ACCESS (~(NPT_FAULT_FINAL | NPT_FAULT_WALK))

static bool is_the_cpus(const struct vm_exit *exit)
{
    return exit->raw == SVM_EXIT_NPF;
}

/* QEMU leaves P out where a reserved bit is set, which 15.25.6 has set for whatever is present. */
static uint64_t told_by(const struct vm_exit *exit)
{
    return exit->qualification | (exit->qualification & PF_RESERVED ? PF_PRESENT : 0);
}

static bool foretells(const struct explanation *e, const struct vm_exit *exit, uint64_t mask)
{
    return explain_exits(e) && e->exit_gpa.v == exit->memory.gpa.v &&
           (!is_the_cpus(exit) || (e->code & mask) == (told_by(exit) & mask));
}

/* Tries the addresses of the instruction. True: *e is the walk that came to the exit. */
static bool by_linear(struct svm_vcpu *v, const struct vm_exit *exit, struct explain_query *query,
                      struct explanation *e)
{
    struct guest_access access = svm_guest_access(v);
    struct guest_place place[GUEST_PLACES];
    struct operand_cpu cpu = guest_operand_cpu(&access);
    unsigned count = guest_insn_places(&access, place);

    query->registers = &cpu.registers;
    query->user = cpu.user;
    query->rflags = cpu.rflags;
    query->pat = v->vmcb->pat;
    for (unsigned i = 0; i < count; i++)
        for (unsigned page = 0; page < 2; page++) { /* the place may go on in the next page */
            query->at = page ? align_down(place[i].linear, PAGE_SIZE) + PAGE_SIZE : place[i].linear;
            query->access = place[i].access & RIGHT_W   ? RIGHT_W
                            : place[i].access & RIGHT_X ? RIGHT_X
                                                        : RIGHT_R;
            explain(query, e);
            if (foretells(e, exit, UINT64_MAX))
                return true;
        }
    return false;
}

void svm_explain_access(struct vcpu *vcpu, const struct vm_exit *exit, struct sink *to)
{
    struct svm_vcpu *v = svm_vcpu_of(vcpu);
    struct explain_query query = {.second = v->table, .load = physical_load};
    struct explanation e;
    uint64_t info = exit->qualification;
    bool found = by_linear(v, exit, &query, &e);

    if (!found) {
        query.registers = NULL;
        query.at = exit->memory.gpa.v;
        query.access = info & PF_WRITE ? RIGHT_W : info & PF_FETCH ? RIGHT_X : RIGHT_R;
        explain(&query, &e);
    }
    explain_print(to, &e);
    if (!found)
        format(to, "no address of the instruction at RIP leads there: the walk is that of the "
                   "guest-physical address alone\n");
    if (!is_the_cpus(exit))
        format(to, "the hypervisor made this access in the CPU's place (%s)\n", exit->name);
    else if (found || foretells(&e, exit, CODE_OF_ACCESS))
        format(to, "the CPU told the same\n");
    else
        format(to, "the CPU told %s, error code 0x%lx: not what the walk as it stands foretells\n",
               exit->name, info);
}
