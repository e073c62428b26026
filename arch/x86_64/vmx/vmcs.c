/* See vmcs.h. SDM Vol. 3, 25.11 "Software use of the VMCS and related structures" and chapter 31
 * "VMX instruction reference". */
#include "arch/x86_64/vmx/vmcs.h"

#include "arch/x86_64/vmx/instructions.h"
#include "arch/x86_64/vmx/names.h"
#include "arch/x86_64/vmx/vmx_caps.h"
#include "arch/x86_64/vmx/vmx_cpu.h"
#include "lib/error.h"

const uint32_t vmcs_control_field[CONTROLS_COUNT] = {
    [CONTROLS_PIN] = VMCS_PIN_CONTROLS,     [CONTROLS_PROC] = VMCS_PROC_CONTROLS,
    [CONTROLS_PROC2] = VMCS_PROC2_CONTROLS, [CONTROLS_EXIT] = VMCS_EXIT_CONTROLS,
    [CONTROLS_ENTRY] = VMCS_ENTRY_CONTROLS,
};

static void note_error(struct vmx_cpu *cpu)
{
    uint64_t error;
    struct vm_flags failed = insn_vmread(VMCS_INSTRUCTION_ERROR, &error);
    cpu->instruction_error = failed.invalid || failed.valid ? 0 : (uint32_t)error;
}

/* The error value of a VMX instruction's flags. */
static int outcome(struct vmx_cpu *cpu, struct vm_flags failed)
{
    if (failed.valid) {
        note_error(cpu);
        return E_HARDWARE;
    }
    return failed.invalid ? E_STATE : E_OK;
}

static struct vmx_cpu *cpu_in_vmx(void)
{
    struct vmx_cpu *cpu = vmx_cpu();
    return cpu && cpu->on ? cpu : NULL;
}

int vmcs_read(uint32_t field, uint64_t *out)
{
    struct vmx_cpu *cpu = cpu_in_vmx();
    uint64_t value;
    if (!cpu || !cpu->has_current)
        return E_STATE;
    int error = outcome(cpu, insn_vmread(field, &value));
    if (error == E_OK)
        *out = value;
    return error;
}

int vmcs_write(uint32_t field, uint64_t value)
{
    struct vmx_cpu *cpu = cpu_in_vmx();
    if (!cpu || !cpu->has_current)
        return E_STATE;
    return outcome(cpu, insn_vmwrite(field, value));
}

uint32_t vmcs_error(void)
{
    struct vmx_cpu *cpu = vmx_cpu();
    return cpu ? cpu->instruction_error : 0;
}

int vmcs_load(hpa_t region)
{
    struct vmx_cpu *cpu = cpu_in_vmx();
    if (!cpu)
        return E_STATE;
    if (cpu->has_current && cpu->current.v == region.v)
        return E_OK;
    struct vm_flags failed = insn_vmptrld(region.v);
    if (failed.valid || failed.invalid) {
        /* What was current stays current; with nothing current there is no number. */
        cpu->instruction_error = 0;
        if (failed.valid)
            note_error(cpu);
        return E_HARDWARE;
    }
    cpu->has_current = true;
    cpu->current = region;
    return E_OK;
}

int vmcs_clear(hpa_t region)
{
    struct vmx_cpu *cpu = cpu_in_vmx();
    if (!cpu)
        return E_STATE;
    struct vm_flags failed = insn_vmclear(region.v);
    if (failed.valid || failed.invalid) {
        cpu->instruction_error = 0;
        if (failed.valid)
            note_error(cpu);
        return E_HARDWARE;
    }
    if (cpu->has_current && cpu->current.v == region.v)
        cpu->has_current = false;
    return E_OK;
}

bool vmcs_current(hpa_t *region)
{
    struct vmx_cpu *cpu = cpu_in_vmx();
    if (!cpu || !cpu->has_current)
        return false;
    *region = cpu->current;
    return true;
}

int invept(unsigned type, uint64_t eptp)
{
    struct vmx_cpu *cpu = cpu_in_vmx();
    unsigned use;
    if (!cpu)
        return E_STATE;
    int error = invept_choose(vmx_caps.ept_vpid, type, &use);
    if (error != E_OK)
        return error;
    struct vm_flags failed = insn_invept(use, eptp, 0);
    if (failed.invalid)
        return E_HARDWARE; /* refused, and no current VMCS to say why */
    return outcome(cpu, failed);
}

int invvpid(unsigned type, uint16_t vpid, uint64_t gva)
{
    struct vmx_cpu *cpu = cpu_in_vmx();
    unsigned use;
    if (!cpu)
        return E_STATE;
    int error = invvpid_choose(vmx_caps.ept_vpid, type, &use);
    if (error != E_OK)
        return error;
    struct vm_flags failed = insn_invvpid(use, vpid, gva);
    if (failed.invalid)
        return E_HARDWARE;
    return outcome(cpu, failed);
}

void vmcs_panic(const char *instruction, enum vmcs_field field)
{
    struct vmx_cpu *cpu = cpu_in_vmx();

    if (cpu && cpu->has_current)
        note_error(cpu);
    panic("%s of field %#x: %s", instruction, field, vm_instruction_error_name(vmcs_error()));
}
