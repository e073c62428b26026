/* See operand.h. SDM Vol. 3, 5.3 to 5.6 "Protection", 4.6 to 4.8 for paging, 6.15 for #AC, 29.3.5
 * for A and D of the EPT. */
#include "arch/x86_64/mm/operand.h"

#include "x86/control.h"
#include "arch/x86_64/mm/explain.h"
#include "arch/x86_64/mm/host_entry.h"
#include "lib/panic.h"
#include "lib/string.h"

/* A segment's access rights. */
#define TYPE_ACCESSIBLE BIT(1) /* data: writable; code: readable */
#define TYPE_CODE BIT(3)
#define SEGMENT_CODE_OR_DATA BIT(4)
#define SEGMENT_PRESENT BIT(7)
#define SEGMENT_BIG BIT(14) /* D/B */

/* ---- From segment and offset to a linear address ------------------------------------------- */

static uint64_t low_bytes(unsigned bytes)
{
    return bytes == 8 ? UINT64_MAX : BITS(8 * bytes - 1, 0);
}

static bool type_allows(const struct operand_segment *segment, unsigned access)
{
    unsigned code = segment->access & TYPE_CODE, accessible = segment->access & TYPE_ACCESSIBLE;

    if (access & RIGHT_W)
        return !code && accessible;
    return !code || accessible;
}

/* All of the operand between the segment's bounds (5.3 "Limit checking"). */
static bool within_limit(const struct operand_segment *segment, uint64_t first, unsigned bytes)
{
    uint64_t last = first + bytes - 1;

    if (segment_expands_down(segment)) {
        uint64_t top = segment->access & SEGMENT_BIG ? UINT32_MAX : UINT16_MAX;
        return first > segment->limit && last <= top;
    }
    /* A flat segment has no end: what goes beyond 4 GiB begins anew at 0. */
    return last <= segment->limit || (segment->limit == UINT32_MAX && segment->base == 0);
}

static bool segment_allows(const struct operand *operand, uint64_t offset)
{
    const struct operand_segment *segment = &operand->segment;

    return !segment->unusable && (segment->access & SEGMENT_PRESENT) &&
           (segment->access & SEGMENT_CODE_OR_DATA) && type_allows(segment, operand->access) &&
           within_limit(segment, offset, operand->bytes);
}

static enum operand_outcome exception(struct operand_place *out, uint8_t vector, uint64_t code)
{
    out->fault.vector = vector;
    out->fault.code = (uint32_t)code;
    return OPERAND_EXCEPTION;
}

/* Linear-address masking, by CR3 for pointers with bit 63 clear: the bits between that and the
 * address are the program's, and do not count (4.1.4). Data alone; a fetch has no operand. CR4 has
 * the bit for the others, which no guest is let set. */
static uint64_t without_metadata(uint64_t cr3, uint64_t at)
{
    if (at >> 63 || !(cr3 & (CR3_LAM_U57 | CR3_LAM_U48)))
        return at;
    return at & (cr3 & CR3_LAM_U57 ? BITS(56, 0) : BITS(47, 0));
}

/* In 64-bit mode segments have neither type nor limit, and ES, CS, SS and DS are one. */
static enum operand_outcome to_linear64(const struct operand_cpu *cpu,
                                        const struct operand *operand, uint64_t offset,
                                        struct operand_place *out)
{
    if (operand->which == OPERAND_FS || operand->which == OPERAND_GS)
        offset += operand->segment.base;
    out->linear = without_metadata(cpu->registers.cr3, offset);
    if (!linear_is_canonical(out->linear) || !linear_is_canonical(out->linear + operand->bytes - 1))
        return exception(out, VECTOR_GP, 0);
    return OPERAND_REACHED;
}

enum operand_outcome operand_linear(const struct operand_cpu *cpu, const struct operand *operand,
                                    struct operand_place *out)
{
    uint64_t offset = operand->offset & low_bytes(operand->address_bytes);

    if (cpu->code64)
        return to_linear64(cpu, operand, offset, out);
    if (!segment_allows(operand, offset))
        return exception(out, operand->which == OPERAND_SS ? VECTOR_SS : VECTOR_GP, 0);
    out->linear = (operand->segment.base + offset) & UINT32_MAX;
    return OPERAND_REACHED;
}

static bool is_misaligned(const struct operand_cpu *cpu, const struct operand *operand,
                          uint64_t linear)
{
    return cpu->user && (cpu->registers.cr0 & CR0_AM) && (cpu->rflags & RFLAGS_AC) &&
           linear % operand->bytes != 0;
}

/* ---- From there to memory ------------------------------------------------------------------ */

/* The walk of the guest's tables for one page: the entries that it went by. */
struct page_walk {
    const struct operand_cpu *cpu;
    struct operand_place *out;
    enum operand_outcome refusal; /* REACHED: none yet */
    unsigned entry_bytes;
    unsigned count;
    struct visited {
        gpa_t gpa;
        uint8_t *at;
        uint64_t raw;
    } entry[MAX_LEVELS];
};

/* The bytes at a guest-physical address, or the refusal noted. */
static bool reach(struct page_walk *walk, gpa_t at, bool of_walk, unsigned access, uint8_t **bytes)
{
    unsigned allowed = RIGHT_NONE;
    int error = walk->cpu->reach(walk->cpu->ctx, at, access, bytes, &allowed);

    if (error == E_OK && *bytes == NULL && of_walk) {
        error = E_NOENT; /* a device is no place for tables */
        allowed = RIGHT_NONE;
    }
    if (error == E_OK)
        return true;
    walk->refusal = error == E_ILLEGAL ? OPERAND_ILLEGAL : OPERAND_VIOLATION;
    walk->out->refused.gpa = at;
    walk->out->refused.walk = of_walk;
    walk->out->refused.access = access;
    walk->out->refused.allowed = allowed;
    return false;
}

static bool read_entry(void *ctx, gpa_t from, void *to, unsigned size)
{
    struct page_walk *walk = ctx;
    bool writes = walk->cpu->walks_write;
    uint8_t *at;

    if (!reach(walk, from, true, writes ? RIGHT_RW : RIGHT_R, &at))
        return false;
    walk->cpu->mark(walk->cpu->ctx, from, writes);
    uint64_t raw = size == 4 ? __atomic_load_n((const uint32_t *)at, __ATOMIC_ACQUIRE)
                             : __atomic_load_n((const uint64_t *)at, __ATOMIC_ACQUIRE);
    memcpy(to, &raw, size);
    walk->entry_bytes = size;
    walk->entry[walk->count++] = (struct visited){from, at, raw};
    return true;
}

/* 4.7 "Page-Fault Exceptions". */
static enum operand_outcome page_fault(const struct page_walk *walk, unsigned access,
                                       uint64_t linear, uint64_t code)
{
    const struct gva_context *registers = &walk->cpu->registers;
    bool executes =
        (registers->cr4 & CR4_SMEP) || ((registers->cr4 & CR4_PAE) && (registers->efer & EFER_NXE));

    if ((access & RIGHT_X) && executes)
        code |= PF_FETCH;
    walk->out->fault.address = linear;
    return exception(walk->out, VECTOR_PF,
                     code | (access & RIGHT_W ? PF_WRITE : 0) | (walk->cpu->user ? PF_USER : 0));
}

/* One entry as a locked update leaves it, if it is still what the walk read. */
static bool exchange_entry(const struct visited *entry, unsigned bytes, uint64_t value)
{
    uint64_t old = entry->raw;
    uint32_t old32 = (uint32_t)old;

    if (bytes == 4)
        return __atomic_compare_exchange_n((uint32_t *)entry->at, &old32, (uint32_t)value, false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return __atomic_compare_exchange_n((uint64_t *)entry->at, &old, value, false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_SEQ_CST);
}

/* A in each entry that led here, D in the last for a write (4.8 "Accessed and Dirty Flags"). */
static enum operand_outcome set_accessed(struct page_walk *walk, unsigned access)
{
    for (unsigned i = 0; i < walk->count; i++) {
        struct visited *entry = &walk->entry[i];
        bool leaf = i + 1 == walk->count;
        uint64_t value = entry->raw | PTE_A | (leaf && (access & RIGHT_W) ? PTE_D : 0);

        if (value == entry->raw)
            continue;
        if (!reach(walk, entry->gpa, true, RIGHT_W, &entry->at))
            return walk->refusal;
        if (!exchange_entry(entry, walk->entry_bytes, value))
            return OPERAND_AGAIN;
        walk->cpu->mark(walk->cpu->ctx, entry->gpa, true);
    }
    return OPERAND_REACHED;
}

/* The guest's own translation of one linear address. */
static enum operand_outcome translate(struct page_walk *walk, unsigned access, uint64_t linear,
                                      gpa_t *gpa)
{
    const struct operand_cpu *cpu = walk->cpu;
    struct gva_context context = cpu->registers;
    struct mapping page;

    context.read = read_entry;
    context.ctx = walk;
    int error = gva_translate(&context, gva(linear), &page);
    if (walk->refusal != OPERAND_REACHED)
        return walk->refusal;
    if (error == E_NOENT)
        return page_fault(walk, access, linear, 0);
    if (error == E_ILLEGAL)
        return page_fault(walk, access, linear, PF_PRESENT | PF_RESERVED);
    invariant(error == E_OK); /* every linear address is in range, and no guest has five levels */
    *gpa = gva_mapped(&page, gva(linear));
    if (!(context.cr0 & CR0_PG))
        return OPERAND_REACHED;
    if (paging_refusal(&context, cpu->user, cpu->rflags, access, page.attrs.rights) !=
        EXPLAIN_RULE_NONE)
        return page_fault(walk, access, linear, PF_PRESENT);
    return set_accessed(walk, access);
}

/* Has the CPU come to this page, for such an access (28.2.1: where the linear address is valid and
 * the violation is the final address's, the guest's tables have been gone through)? */
static bool is_exited(const struct operand_cpu *cpu, unsigned access, uint64_t linear)
{
    return cpu->exited.access != RIGHT_NONE && !(access & ~cpu->exited.access) &&
           align_down(linear, PAGE_SIZE) == align_down(cpu->exited.linear, PAGE_SIZE);
}

static enum operand_outcome reach_page(const struct operand_cpu *cpu, unsigned access,
                                       uint64_t linear, struct operand_place *out,
                                       struct operand_piece *piece)
{
    if (is_exited(cpu, access, linear)) {
        piece->gpa = gpa(align_down(cpu->exited.gpa.v, PAGE_SIZE) | (linear & (PAGE_SIZE - 1)));
        piece->at = NULL;
        return OPERAND_REACHED;
    }
    struct page_walk walk = {.cpu = cpu, .out = out, .refusal = OPERAND_REACHED};
    enum operand_outcome outcome = translate(&walk, access, linear, &piece->gpa);

    if (outcome == OPERAND_REACHED && !reach(&walk, piece->gpa, false, access, &piece->at))
        outcome = walk.refusal;
    if (outcome != OPERAND_REACHED)
        out->refused.gva = gva(linear);
    return outcome;
}

/* ---- The whole ----------------------------------------------------------------------------- */

enum operand_outcome operand_reach(const struct operand_cpu *cpu, const struct operand *operand,
                                   struct operand_place *out)
{
    memset(out, 0, sizeof(*out));
    enum operand_outcome outcome = operand_linear(cpu, operand, out);
    if (outcome != OPERAND_REACHED)
        return outcome;
    if (is_misaligned(cpu, operand, out->linear))
        return exception(out, VECTOR_AC, 0);

    uint64_t left = PAGE_SIZE - (out->linear & (PAGE_SIZE - 1));
    unsigned first = left < operand->bytes ? (unsigned)left : operand->bytes;
    uint64_t next = (out->linear + first) & (cpu->code64 ? UINT64_MAX : UINT32_MAX);

    outcome = reach_page(cpu, operand->access, out->linear, out, &out->piece[0]);
    if (outcome == OPERAND_REACHED && first < operand->bytes)
        outcome = reach_page(cpu, operand->access, next, out, &out->piece[1]);
    if (outcome != OPERAND_REACHED)
        return outcome;
    out->piece[0].bytes = first;
    out->piece[1].bytes = operand->bytes - first;
    for (unsigned i = 0; i < 2 && out->piece[i].bytes; i++)
        if (out->piece[i].at != NULL)
            cpu->mark(cpu->ctx, out->piece[i].gpa, (operand->access & RIGHT_W) != 0);
    return OPERAND_REACHED;
}

static bool look_at_entry(void *ctx, gpa_t from, void *to, unsigned size)
{
    const struct operand_cpu *cpu = ctx;
    unsigned allowed;
    uint8_t *at;

    if (cpu->reach(cpu->ctx, from, RIGHT_R, &at, &allowed) != E_OK || at == NULL)
        return false;
    memcpy(to, at, size);
    return true;
}

/* Where code is that the CPU has fetched: the marks are there, and so is the right. NULL: they are
 * not, for the guest has changed its tables meanwhile. */
static uint8_t *fetched(const struct operand_cpu *cpu, uint64_t linear)
{
    struct gva_context context = cpu->registers;
    struct mapping page;
    unsigned allowed;
    uint8_t *at;

    context.read = look_at_entry;
    context.ctx = (void *)(uintptr_t)cpu;
    if (gva_translate(&context, gva(linear), &page) != E_OK)
        return NULL;
    if ((context.cr0 & CR0_PG) &&
        (!page.accessed || paging_refusal(&context, cpu->user, cpu->rflags, RIGHT_X,
                                          page.attrs.rights) != EXPLAIN_RULE_NONE))
        return NULL;
    if (cpu->reach(cpu->ctx, gva_mapped(&page, gva(linear)), RIGHT_X, &at, &allowed) != E_OK)
        return NULL;
    return at;
}

enum operand_outcome operand_fetch(const struct operand_cpu *cpu, uint64_t linear, unsigned most,
                                   uint8_t *to, unsigned *count, struct operand_place *out)
{
    uint64_t left = PAGE_SIZE - (linear & (PAGE_SIZE - 1));
    const uint8_t *at = fetched(cpu, linear);

    if (at == NULL) {
        memset(out, 0, sizeof(*out));
        enum operand_outcome outcome = reach_page(cpu, RIGHT_X, linear, out, &out->piece[0]);
        if (outcome != OPERAND_REACHED)
            return outcome;
        at = out->piece[0].at;
    }
    *count = left < most ? (unsigned)left : most;
    if (at == NULL)
        *count = 0; /* no device has code */
    else
        memcpy(to, at, *count);
    return OPERAND_REACHED;
}

void operand_load(const struct operand_place *place, void *to)
{
    memcpy(to, place->piece[0].at, place->piece[0].bytes);
    if (place->piece[1].bytes)
        memcpy((uint8_t *)to + place->piece[0].bytes, place->piece[1].at, place->piece[1].bytes);
}

void operand_store(const struct operand_place *place, const void *from)
{
    memcpy(place->piece[0].at, from, place->piece[0].bytes);
    if (place->piece[1].bytes)
        memcpy(place->piece[1].at, (const uint8_t *)from + place->piece[0].bytes,
               place->piece[1].bytes);
}
