/* See mtrr.h: the registers of this CPU. SDM Vol. 3, 12.11.1 and 12.11.2. */
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/mtrr.h"
#include "arch/x86_64/trap.h"
#include "lib/string.h"
#include "x86/msr.h"

static const uint32_t fixed[MTRR_FIXED] = {0x250, 0x258, 0x259, 0x268, 0x269, 0x26a,
                                           0x26b, 0x26c, 0x26d, 0x26e, 0x26f};

/* APM Vol. 2, 7.9.4: what TOP_MEM2 says, and that it says so. */
static uint64_t top_of_memory(void)
{
    uint64_t config, top;

    if (strcmp(cpu_features.vendor, "AuthenticAMD") != 0 ||
        rdmsr_safe(AMD_SYSCFG, &config) != E_OK || !(config & SYSCFG_TOM2_ENABLED) ||
        !(config & SYSCFG_TOM2_WRITE_BACK) || rdmsr_safe(AMD_TOP_MEM2, &top) != E_OK)
        return 0;
    return top & BITS(51, 23);
}

static void read_all(struct mtrrs *out)
{
    if (!cpu_features.mtrr || rdmsr_safe(IA32_MTRRCAP, &out->cap) != E_OK ||
        rdmsr_safe(IA32_MTRR_DEF_TYPE, &out->def_type) != E_OK)
        return;
    out->there = true;
    out->maxphyaddr = cpu_features.maxphyaddr;
    for (unsigned i = 0; i < MTRR_FIXED && (out->cap & MTRRCAP_FIXED); i++)
        (void)rdmsr_safe(fixed[i], &out->fixed[i]);
    for (unsigned i = 0; i < MTRR_KEPT && i < (out->cap & MTRRCAP_COUNT); i++) {
        (void)rdmsr_safe(IA32_MTRR_PHYSBASE0 + 2 * i, &out->base[i]);
        (void)rdmsr_safe(IA32_MTRR_PHYSMASK0 + 2 * i, &out->mask[i]);
    }
    out->write_back_end = top_of_memory();
}

const struct mtrrs *mtrrs_of_this_cpu(void)
{
    static struct mtrrs mtrrs;

    if (!mtrrs.there)
        read_all(&mtrrs);
    return &mtrrs;
}
