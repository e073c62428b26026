/*
 * See guest_walk.h. A PAE guest's top level is four registers, below which the walk begins; or, as
 * the context says, four entries in memory.
 */
#include "arch/x86_64/mm/guest_walk.h"

#include "arch/x86_64/mm/guest_kinds.h"
#include "arch/x86_64/mm/host_entry.h"
#include "lib/list.h"
#include "lib/string.h"
#include "mm/paging/ops.h"
#include "x86/control.h"

/* SDM Vol. 3, table 4-8; APM Vol. 2, 5.2.3. */
#define PDPTE_RESERVED (BITS(2, 1) | BITS(8, 5))

uint64_t guest_load(const struct table_cursor *c, uint64_t node, unsigned index)
{
    struct guest_table *guest = container_of(c->table, struct guest_table, table);
    unsigned bytes = c->table->kind->entry_bytes;
    uint64_t entry = 0;

    if (!guest->context->read(guest->context->ctx, gpa(node + (uint64_t)index * bytes), &entry,
                              bytes)) {
        guest->unbacked = true;
        return 0;
    }
    return entry;
}

/* Walks the table of `kind` at `root`, which is guest-physical. */
static void walk_guest(struct guest_table *guest, const struct table_kind *kind, uint64_t root,
                       uint64_t at, struct walk *walk)
{
    guest->table.kind = kind;
    guest->table.root = hpa(root);
    kind->ops->walk(&guest->table, at, walk);
    if (guest->unbacked) { /* the last step is none: its entry could not be read */
        walk->count--;
        walk->error = E_RANGE;
    }
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

/* Where the PDPTE lies in memory; it has neither rights nor A. */
static struct walk_step pdpte_step(const struct guest_table *guest, unsigned index, uint64_t raw,
                                   int error)
{
    return (struct walk_step){
        .level = 3,
        .index = (uint16_t)index,
        .address = hpa((guest->context->cr3 & BITS(31, 5)) + index * sizeof(raw)),
        .raw = raw,
        .class = error == E_NOENT ? ENTRY_ABSENT
                 : error          ? ENTRY_BAD
                                  : ENTRY_TABLE,
        .rule = error == E_ILLEGAL ? RULE_RESERVED_BITS : RULE_OK,
        .attrs = attrs_of(RIGHT_RWX | RIGHT_U, MEM_WB),
    };
}

static void walk_below_pdpte(struct guest_table *guest, uint64_t pdpte, uint64_t at,
                             struct walk *walk)
{
    uint64_t base = align_down(at, GiB);

    walk_guest(guest, &guestpae_kind, pdpte & ENTRY_ADDRESS, at - base, walk);
    walk->mapping.in += base;
    walk->mapping.last += base;
}

static void walk_pae(struct guest_table *guest, uint64_t at, struct walk *walk)
{
    const struct gva_context *context = guest->context;
    unsigned index = (unsigned)(at >> 30) & 3;
    uint64_t pdpte = context->pdpte[index];

    walk->count = 0;
    walk->error = E_RANGE;
    if (at > UINT32_MAX)
        return;
    if (context->pdpte_in_memory &&
        !context->read(context->ctx, gpa((context->cr3 & BITS(31, 5)) + index * sizeof(pdpte)),
                       &pdpte, sizeof(pdpte))) {
        guest->unbacked = true;
        return;
    }
    /* QEMU sets A in what it reads from memory, where the manual has a reserved bit. */
    uint64_t reserved = PDPTE_RESERVED | BITS(63, guest->table.caps.maxphyaddr);
    if (context->pdpte_in_memory)
        reserved &= ~PTE_A;
    walk->error = !(pdpte & PTE_P) ? E_NOENT : pdpte & reserved ? E_ILLEGAL : E_OK;
    struct walk_step first = pdpte_step(guest, index, pdpte, walk->error);
    if (walk->error == E_OK)
        walk_below_pdpte(guest, pdpte, at, walk);
    if (context->pdpte_in_memory) {
        memmove(&walk->step[1], &walk->step[0], walk->count * sizeof(walk->step[0]));
        walk->step[0] = first;
        walk->count++;
    }
}

int gva_walk(const struct gva_context *context, gva_t at, struct gva_walk *out)
{
    struct guest_table guest = {
        .table.caps = {.maxphyaddr = context->maxphyaddr,
                       .leaf_top = 2,
                       .nx = (context->efer & EFER_NXE) != 0,
                       .accessed_dirty = true,
                       .global = (context->cr4 & CR4_PGE) != 0},
        .context = context,
    };
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
        guest.large_pages = (context->cr4 & CR4_PSE) != 0;
        walk_guest(&guest, &guest32_kind, context->cr3 & BITS(31, 12), at.v, walk);
        if (walk->count)
            walk->step[0].raw = guest.directory_entry;
        if (walk->error == E_OK && walk->mapping.level == 2) {
            uint64_t entry = walk->mapping.raw; /* PSE-36 */
            walk->mapping.out = hpa((entry & BITS(31, 22)) | ((entry & BITS(20, 13)) << 19));
        }
        break;
    case PAGING_PAE:
        walk_pae(&guest, at.v, walk);
        break;
    case PAGING_4LEVEL:
        guest.table.caps.leaf_top = context->page_1g ? 3 : 2;
        if ((uint64_t)((int64_t)(at.v << 16) >> 16) != at.v)
            walk->error = E_RANGE; /* not canonical */
        else
            walk_guest(&guest, &guest64_kind, context->cr3 & ENTRY_ADDRESS, at.v, walk);
        break;
    case PAGING_5LEVEL:
        walk->error = E_UNSUPPORTED;
        break;
    }
    out->table_unbacked = guest.unbacked;
    if (walk->error == E_OK)
        out->gpa = gpa(walk->mapping.out.v + (at.v - walk->mapping.in));
    return walk->error;
}
