/*
 * The legality checker: is this entry one that the CPU accepts at this level? Everything that asks
 * this question asks it here: map, the console's explanations, the auditor, the fuzzer.
 *
 * SDM Vol. 3, 4.5 (4-level and 5-level paging) and 4.7 (reserved bits and page faults); 29.3.3.1
 * (EPT misconfigurations); AMD APM Vol. 2, 5.3.3 and 15.25.5 (nested tables).
 */
#include "mm/paging/kind.h"

enum rule entry_rule(const struct table_kind *kind, const struct table_caps *caps, unsigned level,
                     uint64_t entry)
{
    return entry_judge(kind, caps, level, entry);
}

const char *rule_text(enum rule rule)
{
    static const char *const text[RULE_COUNT] = {
        [RULE_OK] = "legal",
        [RULE_NOT_PRESENT] = "not present",
        [RULE_RESERVED_BITS] = "a reserved bit is set",
        [RULE_REQUIRED_BITS] = "a bit that must be 1 is clear",
        [RULE_BEYOND_MAXPHYADDR] = "the address exceeds the CPU's physical address width",
        [RULE_MISALIGNED_LEAF] = "a large page whose address is no multiple of its size",
        [RULE_NO_SUCH_LEAF] = "the leaf bit at a level where this CPU has no such page",
        [RULE_WRITE_ONLY] = "writable but not readable",
        [RULE_EXECUTE_ONLY] = "executable but not readable, which this CPU does not offer",
        [RULE_MEM_TYPE] = "a reserved memory type",
        [RULE_NX_DISABLED] = "the no-execute bit while EFER.NXE is 0",
    };
    return rule < RULE_COUNT ? text[rule] : "unknown rule";
}

const char *rule_section(enum kind_id kind, enum rule rule)
{
    if (rule == RULE_OK || rule == RULE_NOT_PRESENT)
        return kind == KIND_EPT   ? "SDM Vol. 3, 29.3.2"
               : kind == KIND_NPT ? "APM Vol. 2, 5.3.3"
                                  : "SDM Vol. 3, 4.5";
    if (kind == KIND_EPT)
        return "SDM Vol. 3, 29.3.3.1 EPT Misconfigurations";
    if (kind == KIND_NPT)
        return "APM Vol. 2, 15.25.5 Nested Table Walk";
    return "SDM Vol. 3, 4.7 Page-Fault Exceptions";
}

const char *level_name(unsigned level)
{
    static const char *const name[] = {"?", "PT", "PD", "PDPT", "PML4", "PML5"};
    return level < sizeof(name) / sizeof(name[0]) ? name[level] : name[0];
}
