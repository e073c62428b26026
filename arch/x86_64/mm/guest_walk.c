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
static int walk_guest(struct guest_table *guest, const struct table_kind *kind, uint64_t root,
                      uint64_t at, struct mapping *out)
{
    struct walk *steps = guest->steps;
    int error;

    guest->table.kind = kind;
    guest->table.root = hpa(root);
    if (steps == NULL) {
        error = kind->ops->translate(&guest->table, at, out);
    } else {
        kind->ops->walk(&guest->table, at, steps);
        steps->count -= guest->unbacked; /* the last step is none: its entry could not be read */
        *out = steps->mapping;
        error = steps->error;
    }
    return guest->unbacked ? E_RANGE : error;
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

static int walk_below_pdpte(struct guest_table *guest, uint64_t pdpte, uint64_t at,
                            struct mapping *out)
{
    uint64_t base = align_down(at, GiB);
    int error = walk_guest(guest, &guestpae_kind, pdpte & ENTRY_ADDRESS, at - base, out);

    if (error == E_OK) {
        out->in += base;
        out->last += base;
    }
    return error;
}

static void put_first(struct walk *steps, struct walk_step first)
{
    memmove(&steps->step[1], &steps->step[0], steps->count * sizeof(steps->step[0]));
    steps->step[0] = first;
    steps->count++;
}

static int walk_pae(struct guest_table *guest, uint64_t at, struct mapping *out)
{
    const struct gva_context *context = guest->context;
    unsigned index = (unsigned)(at >> 30) & 3;
    uint64_t pdpte = context->pdpte[index];

    if (at > UINT32_MAX)
        return E_RANGE;
    if (context->pdpte_in_memory &&
        !context->read(context->ctx, gpa((context->cr3 & BITS(31, 5)) + index * sizeof(pdpte)),
                       &pdpte, sizeof(pdpte))) {
        guest->unbacked = true;
        return E_RANGE;
    }
    /* QEMU sets A in what it reads from memory, where the manual has a reserved bit. */
    uint64_t reserved = PDPTE_RESERVED | BITS(63, guest->table.caps.maxphyaddr);
    if (context->pdpte_in_memory)
        reserved &= ~PTE_A;
    int error = !(pdpte & PTE_P) ? E_NOENT : pdpte & reserved ? E_ILLEGAL : E_OK;
    struct walk_step first = pdpte_step(guest, index, pdpte, error);
    if (error == E_OK)
        error = walk_below_pdpte(guest, pdpte, at, out);
    if (context->pdpte_in_memory && guest->steps != NULL)
        put_first(guest->steps, first);
    return error;
}

static int walk_32bit(struct guest_table *guest, uint64_t at, struct mapping *out)
{
    const struct gva_context *context = guest->context;

    guest->large_pages = (context->cr4 & CR4_PSE) != 0;
    int error = walk_guest(guest, &guest32_kind, context->cr3 & BITS(31, 12), at, out);
    if (guest->steps != NULL && guest->steps->count)
        guest->steps->step[0].raw = guest->directory_entry;
    if (error == E_OK && out->level == 2) /* PSE-36 */
        out->out = hpa((out->raw & BITS(31, 22)) | ((out->raw & BITS(20, 13)) << 19));
    return error;
}

static int without_tables(uint64_t at, struct mapping *out)
{
    if (at > UINT32_MAX)
        return E_RANGE;
    *out = (struct mapping){.in = align_down(at, PAGE_SIZE),
                            .last = at | (PAGE_SIZE - 1),
                            .out = hpa(align_down(at, PAGE_SIZE)),
                            .attrs = attrs_of(RIGHT_RWX | RIGHT_U, MEM_WB),
                            .level = 1};
    return E_OK;
}

static int translate(struct guest_table *guest, enum paging_mode mode, uint64_t at,
                     struct mapping *out)
{
    const struct gva_context *context = guest->context;

    guest->table.caps = (struct table_caps){.maxphyaddr = context->maxphyaddr,
                                            .leaf_top = 2,
                                            .nx = (context->efer & EFER_NXE) != 0,
                                            .accessed_dirty = true,
                                            .global = (context->cr4 & CR4_PGE) != 0};
    switch (mode) {
    case PAGING_NONE:
        return without_tables(at, out);
    case PAGING_32BIT:
        return walk_32bit(guest, at, out);
    case PAGING_PAE:
        return walk_pae(guest, at, out);
    case PAGING_4LEVEL:
        guest->table.caps.leaf_top = context->page_1g ? 3 : 2;
        if ((uint64_t)sign_extend(at, 48) != at)
            return E_RANGE; /* not canonical */
        return walk_guest(guest, &guest64_kind, context->cr3 & ENTRY_ADDRESS, at, out);
    case PAGING_5LEVEL:
        break;
    }
    return E_UNSUPPORTED;
}

int gva_translate(const struct gva_context *context, gva_t at, struct mapping *out)
{
    struct guest_table guest = {.context = context};

    return translate(&guest, paging_mode_of(context), at.v, out);
}

int gva_walk(const struct gva_context *context, gva_t at, struct gva_walk *out)
{
    struct guest_table guest = {.context = context, .steps = &out->walk};
    struct mapping mapping = {0};

    memset(out, 0, sizeof(*out));
    out->mode = paging_mode_of(context);
    out->walk.error = translate(&guest, out->mode, at.v, &mapping);
    out->walk.mapping = mapping;
    out->table_unbacked = guest.unbacked;
    if (out->walk.error == E_OK)
        out->gpa = gva_mapped(&mapping, at);
    return out->walk.error;
}
