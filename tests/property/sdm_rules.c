/* See sdm_rules.h. */
#include "tests/property/sdm_rules.h"

static bool any_bit(uint64_t entry, unsigned high, unsigned low)
{
    for (unsigned n = low; n <= high; n++)
        if (sdm_bit(entry, n))
            return true;
    return false;
}

static uint64_t field(uint64_t entry, unsigned high, unsigned low)
{
    uint64_t value = 0;

    for (unsigned n = low; n <= high; n++)
        value |= entry & (UINT64_C(1) << n);
    return value;
}

static struct sdm_entry bad(const char *why)
{
    return (struct sdm_entry){.class = SDM_BAD, .why = why};
}

/* Bits M-1..12 are the address, bits 51..M are reserved: the same in both formats. */
static bool beyond_width(const struct sdm_cpu *cpu, uint64_t entry)
{
    return cpu->maxphyaddr < 52 && any_bit(entry, 51, cpu->maxphyaddr);
}

/* Which memory type the PAT that the hypervisor loads gives: PA0 WB, PA1 WT, PA2 UC-, PA3 UC, PA4
 * WC, PA5 WP, PA6 UC-, PA7 UC. (UC- is UC as long as no MTRR says WC.) */
static unsigned pat_entry(unsigned index)
{
    switch (index) {
    case 0:
        return 6;
    case 1:
        return 4;
    case 4:
        return 1;
    case 5:
        return 5;
    default:
        return 0;
    }
}

static struct sdm_entry judge_host(const struct sdm_cpu *cpu, unsigned level, uint64_t entry)
{
    struct sdm_entry said = {.class = SDM_ABSENT};

    if (!sdm_bit(entry, 0))
        return said;
    if (beyond_width(cpu, entry))
        return bad("bits 51:M are reserved");
    if (sdm_bit(entry, 63) && !cpu->nxe)
        return bad("bit 63 is reserved where IA32_EFER.NXE is 0");

    bool ps = sdm_bit(entry, 7);
    unsigned pat_bit = 12;
    switch (level) {
    case 1:
        said.class = SDM_PAGE;
        pat_bit = 7;
        break;
    case 2:
        said.class = ps ? SDM_PAGE : SDM_TABLE;
        if (ps && !cpu->page_2m)
            return bad("2-MByte pages are not to be had");
        if (ps && any_bit(entry, 20, 13))
            return bad("bits 20:13 of a PDE for a 2-MByte page are reserved");
        break;
    case 3:
        said.class = ps ? SDM_PAGE : SDM_TABLE;
        if (ps && !cpu->page_1g)
            return bad("the PS flag of a PDPTE is reserved where there are no 1-GByte pages");
        if (ps && any_bit(entry, 29, 13))
            return bad("bits 29:13 of a PDPTE for a 1-GByte page are reserved");
        break;
    default:
        said.class = SDM_TABLE;
        if (ps)
            return bad("bit 7 of a PML4E or PML5E is reserved");
        break;
    }
    said.read = true;
    said.write = sdm_bit(entry, 1);
    said.user = sdm_bit(entry, 2);
    said.execute = !sdm_bit(entry, 63);
    said.accessed = sdm_bit(entry, 5);
    said.address = field(entry, 51, 12);
    if (said.class == SDM_PAGE) {
        said.address = field(entry, 51, 12 + 9 * (level - 1));
        said.dirty = sdm_bit(entry, 6);
        said.global = sdm_bit(entry, 8);
        said.type = pat_entry((unsigned)sdm_bit(entry, 3) + 2u * sdm_bit(entry, 4) +
                              4u * sdm_bit(entry, pat_bit));
    }
    return said;
}

static struct sdm_entry judge_ept(const struct sdm_cpu *cpu, unsigned level, uint64_t entry)
{
    struct sdm_entry said = {.class = SDM_ABSENT};
    bool r = sdm_bit(entry, 0), w = sdm_bit(entry, 1), x = sdm_bit(entry, 2);
    bool xu = cpu->user_execute && sdm_bit(entry, 10);

    if (!r && !w && !x && !xu)
        return said;
    if (w && !r)
        return bad("bit 0 is clear and bit 1 is set");
    if (!r && (x || xu) && !cpu->execute_only)
        return bad("executable and not readable, which is not supported");
    if (beyond_width(cpu, entry))
        return bad("bits 51:M are reserved");

    switch (level) {
    case 1:
        said.class = SDM_PAGE;
        break;
    case 2:
        said.class = sdm_bit(entry, 7) ? SDM_PAGE : SDM_TABLE;
        if (said.class == SDM_PAGE && !cpu->page_2m)
            return bad("bit 7 is reserved where there are no 2-MByte pages");
        if (said.class == SDM_PAGE && any_bit(entry, 20, 12))
            return bad("bits 20:12 of a PDE that maps a 2-MByte page are reserved");
        break;
    case 3:
        said.class = sdm_bit(entry, 7) ? SDM_PAGE : SDM_TABLE;
        if (said.class == SDM_PAGE && !cpu->page_1g)
            return bad("bit 7 is reserved where there are no 1-GByte pages");
        if (said.class == SDM_PAGE && any_bit(entry, 29, 12))
            return bad("bits 29:12 of a PDPTE that maps a 1-GByte page are reserved");
        break;
    default:
        said.class = SDM_TABLE;
        if (any_bit(entry, 7, 3))
            return bad("bits 7:3 of a PML4E or PML5E are reserved");
        break;
    }
    if (said.class == SDM_TABLE && any_bit(entry, 6, 3))
        return bad("bits 6:3 of an entry that references a table are reserved");
    said.address = field(entry, 51, 12);
    if (said.class == SDM_PAGE) {
        said.type = (unsigned)((entry >> 3) & 7);
        if (said.type == 2 || said.type == 3 || said.type == 7)
            return bad("a reserved EPT memory type");
        said.address = field(entry, 51, 12 + 9 * (level - 1));
        said.dirty = sdm_bit(entry, 9);
    }
    said.read = r;
    said.write = w;
    said.execute = x;
    said.user = xu;
    said.accessed = sdm_bit(entry, 8);
    return said;
}

/* Long-mode entries, of which a nested walk asks that U/S be 1 and ignores G; bits 8:7 of a PML4E
 * must be 0, and so must bit 8 of a PDPE without PS. */
static struct sdm_entry judge_npt(const struct sdm_cpu *cpu, unsigned level, uint64_t entry)
{
    struct sdm_entry said = judge_host(cpu, level, entry);

    if (said.class != SDM_TABLE && said.class != SDM_PAGE)
        return said;
    if (!sdm_bit(entry, 2))
        return bad("an access of a guest is a user access, and U/S is 0");
    if (level >= 4 && sdm_bit(entry, 8))
        return bad("bit 8 of a PML4E or PML5E must be 0");
    if (level == 3 && said.class == SDM_TABLE && sdm_bit(entry, 8))
        return bad("bit 8 of a PDPE that refers to a table must be 0");
    said.user = false;
    said.global = false;
    return said;
}

struct sdm_entry sdm_judge(enum sdm_format format, const struct sdm_cpu *cpu, unsigned level,
                           uint64_t entry)
{
    if (format == SDM_NPT)
        return judge_npt(cpu, level, entry);
    return format == SDM_EPT ? judge_ept(cpu, level, entry) : judge_host(cpu, level, entry);
}
