/* See speculation.h: the facts of this CPU, and what is carried out. */
#include "arch/x86_64/speculation.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/descriptors.h"
#include "arch/x86_64/trap.h"
#include "lib/string.h"

#define LEAF_FEATURES 7
#define EDX7_MD_CLEAR BIT(10)
#define EDX7_IBPB BIT(26)
#define EDX7_FLUSH_L1D BIT(28)
#define EDX7_CAPABILITIES BIT(29)
#define LEAF_ADDRESS_SIZES 0x80000008
#define EBX88_IBPB BIT(12)

#define PRED_CMD_IBPB BIT(0)
#define IA32_FLUSH_CMD 0x10b
#define FLUSH_CMD_L1D BIT(0)

/* entry.asm of both backends looks at this after each exit. */
uint8_t speculation_stuff_returns;

static struct speculation_plan plan;

static bool is_emulated(void)
{
    return strcmp(cpu_features.hypervisor, "TCGTCGTCGTCG") == 0 || tsc_counts_instructions();
}

static struct speculation_facts facts_of_this_cpu(void)
{
    struct speculation_facts facts = {
        .vendor = strcmp(cpu_features.vendor, "GenuineIntel") == 0   ? SPECULATION_INTEL
                  : strcmp(cpu_features.vendor, "AuthenticAMD") == 0 ? SPECULATION_AMD
                                                                     : SPECULATION_OTHER,
        .family = cpu_features.family,
        .model = cpu_features.model,
        .emulated = is_emulated(),
        .virtual = cpu_features.hypervisor[0] != 0,
    };
    uint32_t r[4];

    cpuid(0, 0, r);
    if (r[CPUID_EAX] >= LEAF_FEATURES) {
        cpuid(LEAF_FEATURES, 0, r);
        facts.md_clear = (r[CPUID_EDX] & EDX7_MD_CLEAR) != 0;
        facts.ibpb = (r[CPUID_EDX] & EDX7_IBPB) != 0;
        facts.flush_l1d = (r[CPUID_EDX] & EDX7_FLUSH_L1D) != 0;
        if (r[CPUID_EDX] & EDX7_CAPABILITIES)
            (void)rdmsr_safe(IA32_ARCH_CAPABILITIES, &facts.capabilities);
    }
    cpuid(0x80000000, 0, r);
    if (r[CPUID_EAX] >= LEAF_ADDRESS_SIZES) {
        cpuid(LEAF_ADDRESS_SIZES, 0, r);
        facts.ibpb = facts.ibpb || (r[CPUID_EBX] & EBX88_IBPB);
    }
    return facts;
}

void speculation_init(void)
{
    struct speculation_facts facts = facts_of_this_cpu();

    plan = speculation_decide(&facts);
    speculation_stuff_returns = plan.stuff_returns;
}

const struct speculation_plan *speculation_plan(void)
{
    return &plan;
}

/* With a selector in memory that can be written: the form that clears. */
static void clear_buffers(void)
{
    static const uint16_t selector = SELECTOR_KERNEL_DATA;

    __asm__ volatile("verw %0" : : "m"(selector) : "cc");
}

void speculation_before_entry(void)
{
    if (plan.flush_l1d_at_entry)
        wrmsr(IA32_FLUSH_CMD, FLUSH_CMD_L1D);
    if (plan.verw_at_entry)
        clear_buffers();
}

void speculation_between_guests(void)
{
    if (plan.ibpb_between_guests)
        wrmsr(IA32_PRED_CMD, PRED_CMD_IBPB);
}
