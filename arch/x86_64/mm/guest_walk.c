/*
 * See guest_walk.h. Three read-only kinds stand for the paging modes of SDM Vol. 3, chapter 4:
 * 32-bit (4.3), PAE (4.4) and 4-level (4.5). A PAE guest's top level is four registers instead of a
 * table in memory; what they hold is checked when they are loaded, so the walk begins below them.
 */
#include "arch/x86_64/mm/guest_walk.h"

#include "arch/x86_64/mm/host_entry.h"
#include "lib/string.h"
#include "mm/paging/walker.h"
#include "x86/control.h"

#define PDPTE_RESERVED (BITS(2, 1) | BITS(8, 5))

/* ---- 32-bit paging: 4-byte entries, 4 MiB pages whose address bits 39:32 lie in bits 20:13 ----
 */

static uint64_t no_encode(struct attrs attrs, unsigned level, const struct table_caps *caps)
{
    (void)attrs;
    (void)level;
    (void)caps;
    return 0;
}

static uint64_t guest32_reserved(unsigned level, bool leaf, const struct table_caps *caps)
{
    if (!leaf || level != 2)
        return 0;
    unsigned width = caps->maxphyaddr < 40 ? caps->maxphyaddr : 40;
    /* Bits 20:13 stand for 39:32; those past the width, and bit 21, are reserved. */
    return width >= 40 ? BIT(21) : BITS(21, 13 + (width > 32 ? width - 32 : 0));
}

static struct attrs guest32_decode(uint64_t entry, unsigned level, const struct table_caps *caps)
{
    struct attrs attrs = host_decode(entry, level, caps);
    attrs.rights |= RIGHT_X; /* 32-bit entries have no NX */
    return attrs;
}

static const struct table_kind guest32_kind = {
    .name = "guest 32-bit",
    .id = KIND_GUEST32,
    .levels = 2,
    .index_bits = 10,
    .entry_bytes = 4,
    .input_last = UINT32_MAX,
    .present_mask = PTE_P,
    .leaf_bit = PTE_PS,
    .accessed_bit = PTE_A,
    .dirty_bit = PTE_D,
    .read_only = true,
    .encode = no_encode,
    .decode = guest32_decode,
    .table_rights = host_table_rights,
    .reserved = guest32_reserved,
};

/* ---- PAE: two levels of 9 bits under the four PDPTE registers ---- */

static uint64_t pae_reserved(unsigned level, bool leaf, const struct table_caps *caps)
{
    return BITS(62, 52) | host_reserved(level, leaf, caps);
}

static const struct table_kind guestpae_kind = {
    .name = "guest PAE",
    .id = KIND_GUESTPAE,
    .levels = 2,
    .index_bits = 9,
    .entry_bytes = 8,
    .input_last = BITS(29, 0), /* what one PDPTE covers */
    .present_mask = PTE_P,
    .leaf_bit = PTE_PS,
    .accessed_bit = PTE_A,
    .dirty_bit = PTE_D,
    .read_only = true,
    .encode = no_encode,
    .decode = host_decode,
    .table_rights = host_table_rights,
    .reserved = pae_reserved,
};

static const struct table_kind guest64_kind = {
    .name = "guest 4-level",
    .id = KIND_GUEST64,
    .levels = 4,
    .index_bits = 9,
    .entry_bytes = 8,
    .sign_extended = true,
    .input_last = UINT64_MAX,
    .present_mask = PTE_P,
    .leaf_bit = PTE_PS,
    .accessed_bit = PTE_A,
    .dirty_bit = PTE_D,
    .read_only = true,
    .encode = no_encode,
    .decode = host_decode,
    .table_rights = host_table_rights,
    .reserved = host_reserved,
};

struct loader {
    const struct gva_context *context;
    unsigned bytes;
    bool large_pages; /* 32-bit: CR4.PSE */
    unsigned entries; /* 32-bit: read so far */
    uint64_t first;   /* the first of them, a PDE, as memory holds it */
    bool unbacked;
};

static bool load_guest(void *ctx, uint64_t table, unsigned index, uint64_t *raw)
{
    struct loader *loader = ctx;

    *raw = 0;
    if (!loader->context->read(loader->context->ctx, gpa(table + (uint64_t)index * loader->bytes),
                               raw, loader->bytes)) {
        loader->unbacked = true;
        return false;
    }
    return true;
}

/* Without CR4.PSE bit 7 of a 32-bit PDE is ignored (SDM Vol. 3, 4.3, table 4-4 is for PSE = 1). */
static bool load_guest32(void *ctx, uint64_t table, unsigned index, uint64_t *raw)
{
    struct loader *loader = ctx;

    if (!load_guest(ctx, table, index, raw))
        return false;
    /* By its place in the walk: a directory may also be reached as a table, from one of its own
     * entries. */
    if (loader->entries++ > 0)
        return true;
    loader->first = *raw;
    if (!loader->large_pages)
        *raw &= ~PTE_PS;
    return true;
}

enum paging_mode paging_mode_of(const struct gva_context *context)
{
    if (!(context->cr0 & CR0_PG))
        return PAGING_NONE;
    if (!(context->cr4 & CR4_PAE))
        return PAGING_32BIT;
    if (!(context->efer & EFER_LMA))
        return PAGING_PAE;
    return context->cr4 & CR4_LA57 ? PAGING_5LEVEL : PAGING_4LEVEL;
}

const char *paging_mode_name(enum paging_mode mode)
{
    switch (mode) {
    case PAGING_NONE:
        return "no paging";
    case PAGING_32BIT:
        return "32-bit paging";
    case PAGING_PAE:
        return "PAE paging";
    case PAGING_4LEVEL:
        return "4-level paging";
    case PAGING_5LEVEL:
        return "5-level paging";
    }
    return "?";
}

static void walk_pae(const struct gva_context *context, const struct table_caps *caps, uint64_t at,
                     struct loader *loader, struct walk *walk)
{
    uint64_t pdpte = context->pdpte[(at >> 30) & 3];
    uint64_t base = align_down(at, GiB);

    walk->count = 0;
    if (at > UINT32_MAX) {
        walk->error = E_RANGE;
        return;
    }
    if (!(pdpte & PTE_P)) {
        walk->error = E_NOENT;
    } else if (pdpte & (PDPTE_RESERVED | BITS(63, caps->maxphyaddr))) {
        walk->error = E_ILLEGAL;
    } else {
        walk_steps(&guestpae_kind, caps, pdpte & ENTRY_ADDRESS, at - base, load_guest, loader,
                   walk);
        walk->mapping.in += base;
        walk->mapping.last += base;
    }
}

int gva_walk(const struct gva_context *context, gva_t at, struct gva_walk *out)
{
    struct table_caps caps = {
        .maxphyaddr = context->maxphyaddr,
        .leaf_top = 2,
        .nx = (context->efer & EFER_NXE) != 0,
        .accessed_dirty = true,
        .global = (context->cr4 & CR4_PGE) != 0,
    };
    struct loader loader = {.context = context, .bytes = 8};
    struct walk *walk = &out->walk;

    memset(out, 0, sizeof(*out));
    out->mode = paging_mode_of(context);
    switch (out->mode) {
    case PAGING_NONE:
        if (at.v > UINT32_MAX) {
            walk->error = E_RANGE;
            break;
        }
        out->gpa = gpa(at.v);
        walk->mapping = (struct mapping){.in = align_down(at.v, PAGE_SIZE),
                                         .last = at.v | (PAGE_SIZE - 1),
                                         .out = hpa(align_down(at.v, PAGE_SIZE)),
                                         .attrs = attrs_of(RIGHT_RWX | RIGHT_U, MEM_WB),
                                         .level = 1};
        return E_OK;
    case PAGING_32BIT:
        loader.bytes = 4;
        loader.large_pages = (context->cr4 & CR4_PSE) != 0;
        walk_steps(&guest32_kind, &caps, context->cr3 & BITS(31, 12), at.v, load_guest32, &loader,
                   walk);
        if (walk->count)
            walk->step[0].raw = loader.first;
        if (walk->error == E_OK && walk->mapping.level == 2) {
            uint64_t entry = walk->mapping.raw; /* PSE-36 */
            walk->mapping.out = hpa((entry & BITS(31, 22)) | ((entry & BITS(20, 13)) << 19));
        }
        break;
    case PAGING_PAE:
        walk_pae(context, &caps, at.v, &loader, walk);
        break;
    case PAGING_4LEVEL:
        caps.leaf_top = context->page_1g ? 3 : 2;
        if ((uint64_t)((int64_t)(at.v << 16) >> 16) != at.v)
            walk->error = E_RANGE; /* not canonical */
        else
            walk_steps(&guest64_kind, &caps, context->cr3 & ENTRY_ADDRESS, at.v, load_guest,
                       &loader, walk);
        break;
    case PAGING_5LEVEL:
        walk->error = E_UNSUPPORTED;
        break;
    }
    out->table_unbacked = loader.unbacked;
    if (walk->error == E_OK)
        out->gpa = gpa(walk->mapping.out.v + (at.v - walk->mapping.in));
    return walk->error;
}
