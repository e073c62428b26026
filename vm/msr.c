/* See vm/msr.h. Names and numbers: SDM Vol. 4, chapter 2. */
#include "vm/msr.h"

#include "lib/bits.h"
#include "vm/cpuid.h"
#include "vm/exits.h"
#include "vm/inject.h"
#include "vm/lapic.h"
#include "x86/msr.h"

#define IA32_PLATFORM_ID 0x017
#define MSR_SMI_COUNT 0x034
#define MSR_PLATFORM_INFO 0x0ce
#define IA32_PERF_STATUS 0x198

/* AMD's (APM Vol. 2, appendix A; BKDG of family 0Fh). No bit of CPUID tells of them, so that
 * kernels use them unasked: four counters, of which none counts here; HWCR, where firmware has the
 * TSC count at P0; and what the chipset is told as the CPU halts: nothing. */
#define PERF_CTL0 0xc0010000u
#define PERF_CTR3 0xc0010007u
#define HWCR 0xc0010015u
#define INTERRUPT_PENDING 0xc0010055u
#define HWCR_TSC_FREQ_SEL BIT(24)

#define MISC_ENABLE_FAST_STRINGS BIT(0)
#define MISC_ENABLE_NO_BTS BIT(11)
#define MISC_ENABLE_NO_PEBS BIT(12)

/* The place of the local APIC, which is switched off for good in guests without one: CPUID says
 * there is none, the guest never sees the host's, and its page is a hole. With one see vm/lapic.h.
 */
#define APIC_BASE_VALUE (UINT64_C(0xfee00000) | APIC_BASE_BSP)

static const struct msr_policy policies[] = {
    {IA32_TIME_STAMP_COUNTER, IA32_TIME_STAMP_COUNTER, MSR_READ_CLOCK, MSR_WRITE_IGNORE, 0, "TSC"},
    {IA32_PLATFORM_ID, IA32_PLATFORM_ID, MSR_READ_VALUE, MSR_WRITE_FAULT, 0, "PLATFORM_ID"},
    {IA32_APIC_BASE, IA32_APIC_BASE, MSR_READ_VALUE, MSR_WRITE_SAME, APIC_BASE_VALUE, "APIC_BASE"},
    {MSR_SMI_COUNT, MSR_SMI_COUNT, MSR_READ_VALUE, MSR_WRITE_FAULT, 0, "SMI_COUNT"},
    {IA32_BIOS_UPDT_TRIG, IA32_BIOS_UPDT_TRIG, MSR_READ_FAULT, MSR_WRITE_IGNORE, 0,
     "BIOS_UPDT_TRIG"},
    {IA32_BIOS_SIGN_ID, IA32_BIOS_SIGN_ID, MSR_READ_VALUE, MSR_WRITE_IGNORE, 0, "BIOS_SIGN_ID"},
    {MSR_PLATFORM_INFO, MSR_PLATFORM_INFO, MSR_READ_VALUE, MSR_WRITE_FAULT, 0, "PLATFORM_INFO"},
    {IA32_PERF_STATUS, IA32_PERF_STATUS, MSR_READ_VALUE, MSR_WRITE_IGNORE, 0, "PERF_STATUS"},
    {IA32_MISC_ENABLE, IA32_MISC_ENABLE, MSR_READ_VALUE, MSR_WRITE_IGNORE,
     MISC_ENABLE_FAST_STRINGS | MISC_ENABLE_NO_BTS | MISC_ENABLE_NO_PEBS, "MISC_ENABLE"},
    {IA32_DEBUGCTL, IA32_DEBUGCTL, MSR_READ_VALUE, MSR_WRITE_SAME, 0, "DEBUGCTL"},
};

static const struct msr_policy amd_policies[] = {
    {PERF_CTL0, PERF_CTR3, MSR_READ_VALUE, MSR_WRITE_IGNORE, 0, "PERF_CTL"},
    {HWCR, HWCR, MSR_READ_VALUE, MSR_WRITE_IGNORE, HWCR_TSC_FREQ_SEL, "HWCR"},
    {INTERRUPT_PENDING, INTERRUPT_PENDING, MSR_READ_VALUE, MSR_WRITE_IGNORE, 0,
     "INTERRUPT_PENDING"},
};

static const struct msr_policy *find(const struct msr_policy *from, unsigned count, uint32_t index)
{
    for (unsigned i = 0; i < count; i++) {
        if (index >= from[i].first && index <= from[i].last)
            return &from[i];
    }
    return NULL;
}

const struct msr_policy *msr_policy_of(uint32_t index)
{
    const struct msr_policy *policy = find(policies, ARRAY_SIZE(policies), index);

    if (policy == NULL && cpuid_is_amd(guests_backend()->cpuid))
        policy = find(amd_policies, ARRAY_SIZE(amd_policies), index);
    return policy;
}

static bool msr_read(const struct guest *guest, uint32_t index, uint64_t *value)
{
    const struct msr_policy *policy = msr_policy_of(index);

    if (policy == NULL || policy->read == MSR_READ_FAULT)
        return false;
    *value = policy->read == MSR_READ_CLOCK ? guest_now(guest) : policy->value;
    return true;
}

static bool msr_write(uint32_t index, uint64_t value)
{
    const struct msr_policy *policy = msr_policy_of(index);

    if (policy == NULL || policy->write == MSR_WRITE_FAULT)
        return false;
    return policy->write == MSR_WRITE_IGNORE || value == policy->value;
}

void exit_msr(struct guest *guest, const struct vm_exit *exit)
{
    uint64_t *gpr = guest->vcpu->gpr;
    uint64_t value = (gpr[RDX] & UINT32_MAX) << 32 | (gpr[RAX] & UINT32_MAX);
    uint32_t index = exit->msr.index;
    bool fine;

    if (lapic_has_msr(guest, index))
        fine =
            exit->msr.write ? lapic_wrmsr(guest, index, value) : lapic_rdmsr(guest, index, &value);
    else
        fine = exit->msr.write ? msr_write(index, value) : msr_read(guest, index, &value);

    if (!fine) {
        inject_gp(guest);
        return;
    }
    if (!exit->msr.write) {
        gpr[RAX] = value & UINT32_MAX;
        gpr[RDX] = value >> 32;
    }
    skip_instruction(guest, exit);
}
