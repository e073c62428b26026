/* See mtrr.h: what the registers mean. SDM Vol. 3, 12.11.2 to 12.11.4. */
#include "arch/x86_64/mtrr.h"

#include "lib/bits.h"
#include "x86/msr.h"

#define DEF_TYPE BITS(7, 0)
#define DEF_FIXED_ENABLED BIT(10)
#define DEF_ENABLED BIT(11)
#define RANGE_TYPE BITS(7, 0)
#define RANGE_VALID BIT(11)
#define FIXED_TYPE BITS(2, 0) /* AMD has others above it (APM Vol. 2, 7.9.1) */
#define FIXED_END MiB
#define FIXED_PER_REGISTER 8

static bool is_type(uint64_t type)
{
    return type == MEM_UC || type == MEM_WC || type == MEM_WT || type == MEM_WP || type == MEM_WB;
}

static enum mem_type type_of(uint64_t type)
{
    return is_type(type) ? (enum mem_type)type : MEM_UC;
}

bool mtrrs_enabled(const struct mtrrs *mtrrs)
{
    return mtrrs->there && (mtrrs->def_type & DEF_ENABLED);
}

/* One register of ranges of 64K, two of 16K, eight of 4K (12.11.2.2). */
static enum mem_type fixed_at(const struct mtrrs *mtrrs, uint64_t at, uint64_t *last)
{
    uint64_t first = 0, size = 64 * KiB;
    unsigned index = 0;

    if (at >= 0xc0000) {
        first = 0xc0000;
        size = 4 * KiB;
        index = 3;
    } else if (at >= 0x80000) {
        first = 0x80000;
        size = 16 * KiB;
        index = 1;
    }
    uint64_t range = (at - first) / size;
    *last = first + (range + 1) * size - 1;
    index += (unsigned)(range / FIXED_PER_REGISTER);
    return type_of(mtrrs->fixed[index] >> (8 * (range % FIXED_PER_REGISTER)) & FIXED_TYPE);
}

/* Does the range have the address? *last: where that may change next, less one. The mask need not
 * be of one piece; what changes then changes at multiples of its lowest bit. */
static bool range_has(const struct mtrrs *mtrrs, unsigned index, uint64_t at, uint64_t *last)
{
    uint64_t width = BITS(mtrrs->maxphyaddr - 1, 12);
    uint64_t mask = mtrrs->mask[index] & width, base = mtrrs->base[index] & mask;

    if (mask == 0)
        return true;
    uint64_t size = UINT64_C(1) << lowest_bit(mask);
    bool has = (at & mask) == base;
    if (mask != (width & ~(size - 1)) || has)
        *last = at | (size - 1);
    else if (at < base)
        *last = base - 1;
    return has;
}

/* 12.11.4.1: UC over all, WT over WB; what else overlaps is undefined. */
static enum mem_type combined(enum mem_type a, enum mem_type b)
{
    if (a == b)
        return a;
    bool through = (a == MEM_WT && b == MEM_WB) || (a == MEM_WB && b == MEM_WT);
    return through ? MEM_WT : MEM_UC;
}

static unsigned ranges(const struct mtrrs *mtrrs)
{
    unsigned count = (unsigned)(mtrrs->cap & MTRRCAP_COUNT);

    return count < MTRR_KEPT ? count : MTRR_KEPT;
}

/* AMD's TOP_MEM2 stands in place of the default type (APM Vol. 2, 7.9.4 "Top of Memory"). */
static enum mem_type default_at(const struct mtrrs *mtrrs, uint64_t at, uint64_t *last)
{
    uint64_t end = mtrrs->write_back_end;

    if (at < 4 * GiB || at >= end) {
        if (at < 4 * GiB && end > 4 * GiB && *last >= 4 * GiB)
            *last = 4 * GiB - 1;
        return type_of(mtrrs->def_type & DEF_TYPE);
    }
    if (*last >= end)
        *last = end - 1;
    return MEM_WB;
}

enum mem_type mtrr_type_at(const struct mtrrs *mtrrs, uint64_t at, uint64_t *last)
{
    enum mem_type type = MEM_UC;
    bool found = false;

    *last = BITS(mtrrs->maxphyaddr - 1, 0);
    if (!mtrrs_enabled(mtrrs))
        return MEM_UC;
    if (at < FIXED_END && (mtrrs->cap & MTRRCAP_FIXED) && (mtrrs->def_type & DEF_FIXED_ENABLED))
        return fixed_at(mtrrs, at, last);
    if (at < FIXED_END)
        *last = FIXED_END - 1;
    for (unsigned i = 0; i < ranges(mtrrs); i++) {
        uint64_t here = *last;

        if (!(mtrrs->mask[i] & RANGE_VALID))
            continue;
        if (range_has(mtrrs, i, at, &here)) {
            enum mem_type own = type_of(mtrrs->base[i] & RANGE_TYPE);

            type = found ? combined(type, own) : own;
            found = true;
        }
        if (here < *last)
            *last = here;
    }
    return found ? type : default_at(mtrrs, at, last);
}

enum mem_type mtrr_run_at(const struct mtrrs *mtrrs, uint64_t at, uint64_t limit, uint64_t *last)
{
    enum mem_type type = mtrr_type_at(mtrrs, at, last);
    uint64_t end;

    while (*last < limit && mtrr_type_at(mtrrs, *last + 1, &end) == type)
        *last = end;
    if (*last > limit)
        *last = limit;
    return type;
}
