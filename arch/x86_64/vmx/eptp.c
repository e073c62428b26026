/* See eptp.h, and arch/x86_64/mm/tlb.h for the flush. */
#include "arch/x86_64/vmx/eptp.h"

#include "arch/x86_64/mm/tlb.h"
#include "arch/x86_64/vmx/vmcs.h"
#include "lib/panic.h"

int ept_root_current(struct eptp *out)
{
    uint64_t raw;
    int error = vmcs_read(VMCS_EPT_POINTER, &raw);
    return error ? error : eptp_decode(raw, out);
}

int ept_root_set(const struct table *table)
{
    if (table->kind->id != KIND_EPT)
        return E_INVAL;
    return vmcs_write(VMCS_EPT_POINTER, ept_eptp(table));
}

void tlb_flush_ept(uint64_t eptp)
{
    tlb_count()->one_guest_table++;
    int error = invept(INVEPT_SINGLE_CONTEXT, eptp);
    if (error)
        panic("INVEPT of EPTP %#lx: %s", eptp, error_text(error));
}
