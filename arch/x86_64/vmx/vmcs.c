/* See vmcs.h. SDM Vol. 3, 25.11 "Software use of the VMCS and related structures" and chapter 31
 * "VMX instruction reference". */
#include "arch/x86_64/vmx/vmcs.h"

#include "arch/x86_64/vmx/names.h"
#include "arch/x86_64/vmx/vmx_caps.h"
#include "arch/x86_64/vmx/vmx_cpu.h"
#include "lib/error.h"

const uint32_t vmcs_control_field[CONTROLS_COUNT] = {
    [CONTROLS_PIN] = VMCS_PIN_CONTROLS,     [CONTROLS_PROC] = VMCS_PROC_CONTROLS,
    [CONTROLS_PROC2] = VMCS_PROC2_CONTROLS, [CONTROLS_EXIT] = VMCS_EXIT_CONTROLS,
    [CONTROLS_ENTRY] = VMCS_ENTRY_CONTROLS,
};

/* How a VMX instruction ends (31.2 "Conventions"). */
struct vm_flags {
    bool invalid; /* CF: VMfailInvalid, there is no current VMCS to hold a number */
    bool valid;   /* ZF: VMfailValid, the number is in the VM-instruction error field */
};

static uint64_t read_field(uint64_t field, struct vm_flags *failed)
{
    uint64_t value;
    __asm__ volatile("vmread %[field], %[value]"
                     : [value] "=r"(value), "=@ccc"(failed->invalid), "=@ccz"(failed->valid)
                     : [field] "r"(field));
    return value;
}

static void note_error(struct vmx_cpu *cpu)
{
    struct vm_flags failed;
    uint64_t error = read_field(VMCS_INSTRUCTION_ERROR, &failed);
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
    struct vm_flags failed;
    if (!cpu || !cpu->has_current)
        return E_STATE;
    uint64_t value = read_field(field, &failed);
    int error = outcome(cpu, failed);
    if (error == E_OK)
        *out = value;
    return error;
}

int vmcs_write(uint32_t field, uint64_t value)
{
    struct vmx_cpu *cpu = cpu_in_vmx();
    struct vm_flags failed;
    if (!cpu || !cpu->has_current)
        return E_STATE;
    __asm__ volatile("vmwrite %[value], %[field]"
                     : "=@ccc"(failed.invalid), "=@ccz"(failed.valid)
                     : [value] "r"(value), [field] "r"((uint64_t)field)
                     : "memory");
    return outcome(cpu, failed);
}

uint32_t vmcs_error(void)
{
    struct vmx_cpu *cpu = vmx_cpu();
    return cpu ? cpu->instruction_error : 0;
}

int vmcs_load(hpa_t region)
{
    struct vmx_cpu *cpu = cpu_in_vmx();
    struct vm_flags failed;
    if (!cpu)
        return E_STATE;
    if (cpu->has_current && cpu->current.v == region.v)
        return E_OK;
    __asm__ volatile("vmptrld %[region]"
                     : "=@ccc"(failed.invalid), "=@ccz"(failed.valid)
                     : [region] "m"(region.v)
                     : "memory");
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
    struct vm_flags failed;
    if (!cpu)
        return E_STATE;
    __asm__ volatile("vmclear %[region]"
                     : "=@ccc"(failed.invalid), "=@ccz"(failed.valid)
                     : [region] "m"(region.v)
                     : "memory");
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
    struct vm_flags failed;
    unsigned use;
    if (!cpu)
        return E_STATE;
    int error = invept_choose(vmx_caps.ept_vpid, type, &use);
    if (error != E_OK)
        return error;
    struct {
        uint64_t eptp, reserved;
    } descriptor = {eptp, 0};
    __asm__ volatile("invept %[descriptor], %[type]"
                     : "=@ccc"(failed.invalid), "=@ccz"(failed.valid)
                     : [descriptor] "m"(descriptor), [type] "r"((uint64_t)use)
                     : "memory");
    if (failed.invalid)
        return E_HARDWARE; /* refused, and no current VMCS to say why */
    return outcome(cpu, failed);
}

int invvpid(unsigned type, uint16_t vpid, uint64_t gva)
{
    struct vmx_cpu *cpu = cpu_in_vmx();
    struct vm_flags failed;
    unsigned use;
    if (!cpu)
        return E_STATE;
    int error = invvpid_choose(vmx_caps.ept_vpid, type, &use);
    if (error != E_OK)
        return error;
    struct {
        uint64_t vpid, gva;
    } descriptor = {vpid, gva};
    __asm__ volatile("invvpid %[descriptor], %[type]"
                     : "=@ccc"(failed.invalid), "=@ccz"(failed.valid)
                     : [descriptor] "m"(descriptor), [type] "r"((uint64_t)use)
                     : "memory");
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
