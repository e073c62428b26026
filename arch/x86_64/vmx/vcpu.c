/* See vcpu.h. */
#include "arch/x86_64/vmx/vcpu.h"

#include "arch/x86_64/guest/resident.h"
#include "arch/x86_64/mm/ept.h"
#include "arch/x86_64/mm/shootdown.h"
#include "arch/x86_64/mm/tlb.h"
#include "arch/x86_64/vmx/vpid.h"

/* What may have changed in the host since this CPU last held the VMCS: a ring-3 program's table,
 * bits that boot sets late. */
static void write_changing_host_state(void)
{
    vmwrite(VMCS_HOST_CR3, read_cr3());
    vmwrite(VMCS_HOST_CR4, read_cr4());
    vmwrite(VMCS_HOST_EFER, rdmsr(IA32_EFER));
}

/* The CPU's own, wherever the vCPU runs next (25.5, 27.2.2). */
static void write_host_state(const struct vmx_cpu *cpu)
{
    /* TS: see resident.h. */
    vmwrite(VMCS_HOST_CR0, read_cr0() | CR0_TS);
    write_changing_host_state();
    vmwrite(VMCS_HOST_PAT, rdmsr(IA32_PAT));

    vmwrite(VMCS_HOST_CS_SELECTOR, SELECTOR_KERNEL_CODE);
    vmwrite(VMCS_HOST_SS_SELECTOR, SELECTOR_KERNEL_DATA);
    vmwrite(VMCS_HOST_DS_SELECTOR, 0);
    vmwrite(VMCS_HOST_ES_SELECTOR, 0);
    vmwrite(VMCS_HOST_FS_SELECTOR, 0);
    vmwrite(VMCS_HOST_GS_SELECTOR, 0);
    vmwrite(VMCS_HOST_TR_SELECTOR, SELECTOR_TSS);
    vmwrite(VMCS_HOST_FS_BASE, rdmsr(IA32_FS_BASE));
    vmwrite(VMCS_HOST_GS_BASE, rdmsr(IA32_GS_BASE));
    vmwrite(VMCS_HOST_TR_BASE, (uint64_t)(uintptr_t)&this_cpu()->tss);
    vmwrite(VMCS_HOST_GDTR_BASE, cpu->gdt.base);
    vmwrite(VMCS_HOST_IDTR_BASE, cpu->idt.base);
    vmwrite(VMCS_HOST_SYSENTER_CS, 0);
    vmwrite(VMCS_HOST_SYSENTER_ESP, 0);
    vmwrite(VMCS_HOST_SYSENTER_EIP, 0);
    vmwrite(VMCS_HOST_RIP, (uint64_t)(uintptr_t)vmx_exited);
}

/* The guest may have run elsewhere since, and changed its tables: its INVLPG there has dropped
 * nothing here (29.4.3.3, 29.4.3.1). */
static void come_back(struct vmx_vcpu *v)
{
    if (v->last && v->last != v->cpu)
        vpid_flush(v->vpid);
    v->last = v->cpu;
}

int vmx_vcpu_make_current(struct vmx_vcpu *v)
{
    struct vmx_cpu *cpu = vmx_cpu();

    if (!cpu || !cpu->on || (v->cpu && v->cpu != cpu))
        return E_STATE;
    int error = vmcs_load(v->vmcs);
    if (error != E_OK)
        return error;
    if (v->cpu == cpu) {
        write_changing_host_state();
    } else {
        v->cpu = cpu;
        list_append(&cpu->active, &v->active);
        v->live.host_rsp = 0;
        write_host_state(cpu);
        come_back(v);
    }
    return E_OK;
}

void vmx_vcpu_put(struct vmx_vcpu *v)
{
    if (!v->cpu)
        return;
    invariant(v->cpu == vmx_cpu());
    if (resident_now() == &v->resident)
        resident_switch(NULL);
    invariant(vmcs_clear(v->vmcs) == E_OK);
    v->launched = false;
    v->cpu = NULL;
    list_remove(&v->active);
}

void vmx_put_all(void)
{
    struct vmx_cpu *cpu = vmx_cpu();

    while (cpu && cpu->on && !list_empty(&cpu->active))
        vmx_vcpu_put(container_of(cpu->active.next, struct vmx_vcpu, active));
    shootdown_load(CONTEXT_GUEST, NULL, NULL);
}

/* INVEPT drops combined and guest-physical mappings; under the VPID another guest's linear ones may
 * be left, from before the tag was this one's (29.4.3.3). */
void vmx_vcpu_forget(const struct vmx_vcpu *v)
{
    tlb_flush_ept(ept_eptp(v->table));
    vpid_flush(v->vpid);
}
