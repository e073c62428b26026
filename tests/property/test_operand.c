/*
 * The memory operand of an instruction carried out for a guest (arch/x86_64/mm/operand.h) against a
 * model, over random segments, modes, sizes, paging formats, tables and addresses.
 *
 * The model is written from the manual on its own: byte by byte, with its own walk of each paging
 * format. Both have the same guest-physical memory to begin with, every page of which is a table, a
 * page of data, or both; afterwards all of it must be equal, and so must the accessed and dirty
 * marks that stand for the second-level table's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86_64/mm/operand.h"
#include "lib/bits.h"
#include "lib/error.h"
#include "tests/unit/random.h"

#define PAGES 64
#define MEMORY (PAGES * 4096)
#define WORLDS 2000
#define CASES 500 /* in each world: a million in all */

enum format { REAL, FLAT, PAGED32, PAGED_PAE, PAGED64, FORMATS };

struct memory {
    uint8_t bytes[MEMORY];
    bool accessed[PAGES], dirty[PAGES];
};

static struct random chance;
static struct memory *actual, *model;
static uint8_t second[PAGES]; /* rights; 0x80: an illegal entry */

static uint64_t pick(uint64_t n)
{
    return random_below(&chance, n);
}

static bool once_in(unsigned n)
{
    return pick(n) == 0;
}

/* ---- What the operand's code asks of the second level ---------------------------------------- */

static int reach(void *ctx, gpa_t at, unsigned access, uint8_t **bytes, unsigned *allowed)
{
    (void)ctx;
    if (at.v >= MEMORY)
        return E_NOENT;
    if (second[at.v / 4096] & 0x80)
        return E_ILLEGAL;
    *allowed = second[at.v / 4096];
    if (access & ~*allowed)
        return E_PERM;
    *bytes = actual->bytes + at.v;
    return E_OK;
}

static void mark(void *ctx, gpa_t at, bool write)
{
    (void)ctx;
    assert_true(at.v < MEMORY);
    actual->accessed[at.v / 4096] = true;
    if (write)
        actual->dirty[at.v / 4096] = true;
}

/* ---- The model ------------------------------------------------------------------------------- */

/* What comes out of it: an exception, a refusal of the second level, or the bytes' places. */
struct verdict {
    enum operand_outcome outcome;
    unsigned vector, code;
    uint64_t address; /* CR2, or the guest-physical address that was refused */
    uint64_t linear;
    bool walk;
    unsigned access;
    uint64_t byte[8];
};

static bool refused(struct verdict *v, uint64_t gpa, bool walk, unsigned access, uint64_t linear)
{
    unsigned rights = gpa < MEMORY ? second[gpa / 4096] : 0;

    if (rights != 0x80 && (access & rights) == access)
        return false;
    v->outcome = rights == 0x80 ? OPERAND_ILLEGAL : OPERAND_VIOLATION;
    v->address = gpa;
    v->walk = walk;
    v->access = access;
    v->linear = linear;
    return true;
}

static bool fault(struct verdict *v, unsigned vector, unsigned code, uint64_t address)
{
    v->outcome = OPERAND_EXCEPTION;
    v->vector = vector;
    v->code = code;
    v->address = address;
    return false;
}

static void touch(uint64_t gpa, bool write)
{
    model->accessed[gpa / 4096] = true;
    model->dirty[gpa / 4096] |= write;
}

/* The levels of each format, from the top: which bits of the linear address choose the entry. */
struct shape {
    unsigned shift[4], count, index_bits, entry_bytes;
};
static const struct shape shapes[FORMATS] = {
    [PAGED32] = {{22, 12}, 2, 10, 4},
    [PAGED_PAE] = {{21, 12}, 2, 9, 8},
    [PAGED64] = {{39, 30, 21, 12}, 4, 9, 8},
};

/* Whether an entry that is present has a bit set that must be 0 there. */
static bool reserved_bit(const struct operand_cpu *cpu, enum format format, unsigned shift,
                         bool leaf, uint64_t entry)
{
    const struct gva_context *r = &cpu->registers;
    uint64_t bad = 0;

    if (format == PAGED32)
        return leaf && shift == 22 && (entry >> 21 & 1); /* 40 bits: 20:13 are 39:32 */
    bad |= BITS(51, 40);
    if (!(r->efer & BIT(11)))
        bad |= BIT(63);
    if (format == PAGED_PAE)
        bad |= BITS(62, 52);
    if (leaf && shift == 21)
        bad |= BITS(20, 13);
    if (leaf && shift == 30)
        bad |= BITS(29, 13);
    if (shift == 39 || (shift == 30 && !r->page_1g))
        bad |= BIT(7);
    return (entry & bad) != 0;
}

static uint64_t page_of(const struct shape *shape, unsigned shift, uint64_t entry, uint64_t linear)
{
    uint64_t base = entry & BITS(51, 12);

    if (shape->entry_bytes == 4) {
        base = entry & BITS(31, shift);
        if (shift == 22)
            base |= (entry >> 13 & 0xff) << 32;
    }
    return (base & ~((UINT64_C(1) << shift) - 1)) | (linear & ((UINT64_C(1) << shift) - 1));
}

/* False: *v says how it ended. */
static bool model_walk(const struct operand_cpu *cpu, enum format format, uint64_t linear,
                       unsigned access, struct verdict *v, uint64_t *gpa)
{
    const struct gva_context *r = &cpu->registers;
    const struct shape *shape = &shapes[format];
    bool write = access == RIGHT_W, writable = true, user = true;
    unsigned code = (write ? 2 : 0) | (cpu->user ? 4 : 0), depth = 0;
    uint64_t table = r->cr3 & BITS(51, 12), at[4], entry[4];

    if (format <= FLAT) {
        *gpa = linear;
        return true;
    }
    if (format == PAGED32)
        table = r->cr3 & BITS(31, 12);
    if (format == PAGED_PAE) {
        uint64_t pdpte = r->pdpte[linear >> 30];
        if (!(pdpte & 1))
            return fault(v, 14, code, linear);
        table = pdpte & BITS(51, 12);
    }
    for (;; depth++) {
        unsigned shift = shape->shift[depth];
        uint64_t index = linear >> shift & BITS(shape->index_bits - 1, 0), raw = 0;

        at[depth] = table + index * shape->entry_bytes;
        if (refused(v, at[depth], true, cpu->walks_write ? RIGHT_RW : RIGHT_R, linear))
            return false;
        touch(at[depth], cpu->walks_write);
        memcpy(&raw, model->bytes + at[depth], shape->entry_bytes);
        entry[depth] = raw;
        if (!(raw & 1))
            return fault(v, 14, code, linear);
        bool large = (raw & BIT(7)) && shift > 12 && shift < 39 && (shift < 30 || r->page_1g) &&
                     !(format == PAGED32 && !(r->cr4 & BIT(4)));
        if (reserved_bit(cpu, format, shift, shift == 12 || large, raw))
            return fault(v, 14, code | 9, linear);
        writable &= raw >> 1 & 1;
        user &= raw >> 2 & 1;
        if (shift == 12 || large)
            break;
        table = raw & (format == PAGED32 ? BITS(31, 12) : BITS(51, 12));
    }
    *gpa = page_of(shape, shape->shift[depth], entry[depth], linear);
    if (cpu->user && !user)
        return fault(v, 14, code | 1, linear);
    if (!cpu->user && user && (r->cr4 & BIT(21)) && !(cpu->rflags & BIT(18)))
        return fault(v, 14, code | 1, linear);
    if (write && !writable && (cpu->user || (r->cr0 & BIT(16))))
        return fault(v, 14, code | 1, linear);
    for (unsigned i = 0; i <= depth; i++) {
        uint64_t bits = BIT(5) | (write && i == depth ? BIT(6) : 0), now = 0;

        if ((entry[i] & bits) == bits)
            continue;
        if (refused(v, at[i], true, RIGHT_W, linear))
            return false;
        /* The same entry may stand at two levels: then the first update is seen by the second. */
        memcpy(&now, model->bytes + at[i], shape->entry_bytes);
        if (now != entry[i]) {
            v->outcome = OPERAND_AGAIN;
            return false;
        }
        now |= bits;
        memcpy(model->bytes + at[i], &now, shape->entry_bytes);
        touch(at[i], true);
    }
    return true;
}

/* 5.3: is this byte within the segment? */
static bool byte_within(const struct operand_segment *s, uint64_t offset)
{
    bool down = (s->access & 0xc) == 4;

    if (!down)
        return offset <= s->limit || (s->base == 0 && s->limit == UINT32_MAX);
    return offset > s->limit && offset <= (s->access & BIT(14) ? UINT32_MAX : UINT16_MAX);
}

static bool model_linear(const struct operand_cpu *cpu, const struct operand *o, struct verdict *v)
{
    const struct operand_segment *s = &o->segment;
    uint64_t offset = o->address_bytes == 8   ? o->offset
                      : o->address_bytes == 4 ? (uint32_t)o->offset
                                              : (uint16_t)o->offset;
    bool code = s->access & 8, fits = true;

    v->linear = offset + (!cpu->code64 || o->which >= OPERAND_FS ? s->base : 0);
    if (!cpu->code64)
        v->linear = (uint32_t)v->linear;
    if (cpu->code64) {
        /* LAM: bits 62:57, else 62:48, of a pointer with bit 63 clear do not count. */
        for (unsigned bit = 48; bit < 63 && !(v->linear >> 63); bit++)
            if (cpu->registers.cr3 >> 61 & 1 ? bit >= 57 : cpu->registers.cr3 >> 62 & 1)
                v->linear &= ~(UINT64_C(1) << bit);
        for (unsigned i = 0; i < o->bytes; i++) {
            uint64_t high = (v->linear + i) >> 47;
            fits &= high == 0 || high == BITS(16, 0);
        }
        return fits || fault(v, 13, 0, 0);
    }
    for (unsigned i = 0; i < o->bytes; i++)
        fits &= byte_within(s, offset + i);
    if (s->unusable || !(s->access & BIT(7)) || !(s->access & BIT(4)))
        fits = false;
    if (o->access == RIGHT_W ? code || !(s->access & 2) : code && !(s->access & 2))
        fits = false;
    return fits || fault(v, o->which == OPERAND_SS ? 12 : 13, 0, 0);
}

static void judge(const struct operand_cpu *cpu, enum format format, const struct operand *o,
                  struct verdict *v)
{
    *v = (struct verdict){.outcome = OPERAND_REACHED};
    if (!model_linear(cpu, o, v))
        return;
    uint64_t linear = v->linear, gpa = 0;
    if (cpu->user && (cpu->registers.cr0 & BIT(18)) && (cpu->rflags & BIT(18)) &&
        linear & (o->bytes - 1u)) {
        fault(v, 17, 0, 0);
        return;
    }
    for (unsigned i = 0; i < o->bytes; i++) {
        uint64_t at = cpu->code64 ? linear + i : (uint32_t)(linear + i);

        if (i == 0 || at % 4096 == 0) {
            if (!model_walk(cpu, format, at, o->access, v, &gpa) ||
                refused(v, gpa, false, o->access, at))
                return;
        } else {
            gpa++;
        }
        v->byte[i] = gpa;
    }
    for (unsigned i = 0; i < o->bytes; i++)
        touch(v->byte[i], o->access == RIGHT_W);
}

/* ---- Chance ---------------------------------------------------------------------------------- */

static uint64_t any_entry(enum format format)
{
    uint64_t entry = pick(PAGES) << 12, flags = random_next(&chance);

    if (once_in(30))
        entry = random_next(&chance) & BITS(39, 12);
    if (once_in(8)) {
        entry |= BIT(7);
        if (!once_in(6))
            entry &= ~BITS(29, 12);
    }
    entry |= flags & (BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(8) | BIT(9));
    entry |= (once_in(16) ? 0 : BIT(0)) | (once_in(5) ? 0 : BIT(1)) | (once_in(4) ? 0 : BIT(2));
    if (format == PAGED32)
        return (uint32_t)entry | (once_in(40) ? BIT(13 + pick(9)) : 0);
    if (once_in(12))
        entry |= BIT(63);
    if (once_in(60))
        entry |= BIT(40 + pick(23));
    if (once_in(60))
        entry |= BIT(13 + pick(16));
    return entry;
}

static void make_world(enum format format)
{
    for (unsigned i = 0; i < MEMORY; i += 8) {
        uint64_t entry = any_entry(format);

        if (format == PAGED32)
            entry |= any_entry(format) << 32;
        memcpy(actual->bytes + i, &entry, 8);
    }
    memset(actual->accessed, 0, sizeof(actual->accessed));
    memset(actual->dirty, 0, sizeof(actual->dirty));
    memcpy(model, actual, sizeof(*model));
    for (unsigned i = 0; i < PAGES; i++)
        second[i] = once_in(12) ? (uint8_t)(once_in(3)   ? 0x80
                                            : once_in(2) ? RIGHT_RX
                                                         : RIGHT_NONE)
                                : RIGHT_RWX;
}

static struct operand_segment any_segment(enum format format)
{
    static const uint32_t limits[] = {0,      1,      0xfff,   0x7fff,     0xffff,
                                      0xffff, 0xffff, 0xfffff, 0xffffffff, 0xffffffff};
    struct operand_segment s = {
        .limit = limits[pick(ARRAY_SIZE(limits))],
        .access = (uint16_t)(BIT(7) | BIT(4) | pick(16) | (pick(4) << 14) | pick(4) << 5),
        .unusable = once_in(20),
    };

    if (!once_in(3))
        s.access = (uint16_t)((s.access & ~0xfu) | 3); /* ordinary data */
    if (once_in(40))
        s.access &= (uint16_t)~BIT(7);
    if (once_in(40))
        s.access &= (uint16_t)~BIT(4);
    if (once_in(2))
        s.base = format == REAL ? pick(0x10000) << 4 : random_next(&chance) & UINT32_MAX;
    if (once_in(8))
        s.base = UINT32_MAX - pick(0x2000);
    return s;
}

static uint64_t any_offset(const struct operand_segment *s)
{
    uint64_t near = pick(16) - 8;

    switch (pick(6)) {
    case 0:
        return s->limit + near;
    case 1:
        return UINT16_MAX + near;
    case 2:
        return UINT32_MAX + near;
    case 3:
        return near;
    case 4:
        return (pick(0x40) << 12) + near - s->base; /* a page's border */
    default:
        return random_next(&chance);
    }
}

static uint64_t any_linear64(void)
{
    uint64_t at = random_next(&chance);

    if (once_in(3))
        at &= BITS(17, 0) | BITS(47, 30);
    at = (uint64_t)((int64_t)(at << 16) >> 16);
    if (once_in(2))
        at = align_down(at, 4096) + pick(16) - 8;
    if (once_in(12))
        at = BIT(47) + pick(16) - 8;
    if (once_in(12))
        at = 0 - BIT(47) + pick(16) - 8;
    if (once_in(12))
        at = 0 - pick(9);
    if (once_in(6)) /* a tag above the address */
        at ^= random_next(&chance) & (once_in(2) ? BITS(62, 57) : BITS(62, 48));
    return once_in(20) ? random_next(&chance) : at;
}

static void any_case(enum format format, struct operand_cpu *cpu, struct operand *o)
{
    struct gva_context *r = &cpu->registers;

    *cpu = (struct operand_cpu){
        .registers =
            {
                .cr0 = (pick(2) << 16) | (pick(2) << 18) | (format != REAL ? 1 : 0) |
                       (format > FLAT ? BIT(31) : 0),
                .cr3 = pick(PAGES) << 12 | pick(32) | (once_in(4) ? pick(4) << 61 : 0),
                .cr4 = (once_in(3) ? BIT(21) : 0) | (format == PAGED32 && pick(4) ? BIT(4) : 0) |
                       (format > PAGED32 ? BIT(5) : 0),
                .efer = (once_in(4) ? 0 : BIT(11)) | (format == PAGED64 ? BIT(8) | BIT(10) : 0),
                .maxphyaddr = 40,
                .page_1g = pick(4) != 0,
            },
        .rflags = 2 | (pick(2) << 18),
        .user = format != REAL && pick(2),
        .code64 = format == PAGED64 && pick(4) != 0,
        .walks_write = pick(2),
        .reach = reach,
        .mark = mark,
    };
    for (unsigned i = 0; i < 4; i++)
        r->pdpte[i] = pick(PAGES) << 12 | (once_in(8) ? 0 : 1);
    *o = (struct operand){
        .which = (enum operand_register)pick(6),
        .segment = any_segment(format),
        .address_bytes = (uint8_t)(cpu->code64 ? 4u << pick(2) : 2u << pick(2)),
        .bytes = (uint8_t)(1u << pick(4)),
        .access = pick(2) ? RIGHT_W : RIGHT_R,
    };
    o->offset = any_offset(&o->segment);
    if (cpu->code64) {
        o->segment.base = once_in(2) ? any_linear64() : 0;
        o->offset = any_linear64() - (o->which >= OPERAND_FS ? o->segment.base : 0);
    }
}

/* ---- The comparison -------------------------------------------------------------------------- */

static void compare(const struct operand *o, enum operand_outcome outcome,
                    const struct operand_place *place, const struct verdict *v)
{
    uint8_t bytes[8], *first = place->piece[0].at;

    assert_int_equal(outcome, v->outcome);
    switch (outcome) {
    case OPERAND_EXCEPTION:
        assert_int_equal(place->fault.vector, v->vector);
        assert_int_equal(place->fault.code, v->code);
        assert_int_equal(place->fault.address, v->address);
        return;
    case OPERAND_VIOLATION:
        assert_int_equal(place->refused.walk, v->walk);
        assert_int_equal(place->refused.access, v->access);
        assert_int_equal(place->refused.gva.v, v->linear);
        if (v->address < MEMORY)
            assert_int_equal(place->refused.allowed, second[v->address / 4096]);
        /* fall through */
    case OPERAND_ILLEGAL:
        assert_int_equal(place->refused.gpa.v, v->address);
        return;
    case OPERAND_AGAIN:
        return;
    case OPERAND_REACHED:
        break;
    }
    assert_int_equal(place->linear, v->linear);
    assert_int_equal(place->piece[0].bytes + place->piece[1].bytes, o->bytes);
    assert_ptr_equal(first, actual->bytes + v->byte[0]);
    operand_load(place, bytes);
    for (unsigned i = 0; i < o->bytes; i++)
        assert_int_equal(bytes[i], model->bytes[v->byte[i]]);
    if (o->access != RIGHT_W)
        return;
    for (unsigned i = 0; i < o->bytes; i++)
        bytes[i] = (uint8_t)(model->bytes[v->byte[i]] ^ (i == 0 ? BIT(4) : 0));
    operand_store(place, bytes);
    for (unsigned i = 0; i < o->bytes; i++)
        model->bytes[v->byte[i]] = bytes[i];
}

static void operands_as_modelled(void **state)
{
    uint64_t outcomes[5] = {0}, vectors[32] = {0};

    (void)state;
    actual = malloc(sizeof(*actual));
    model = malloc(sizeof(*model));
    assert_non_null(actual);
    assert_non_null(model);
    chance = (struct random){20261129};
    for (unsigned world = 0; world < WORLDS; world++) {
        enum format format = (enum format)(world % FORMATS);

        make_world(format);
        for (unsigned i = 0; i < CASES; i++) {
            struct operand_place place;
            struct operand_cpu cpu;
            struct verdict verdict;
            struct operand operand;

            any_case(format, &cpu, &operand);
            judge(&cpu, format, &operand, &verdict);
            enum operand_outcome outcome = operand_reach(&cpu, &operand, &place);
            compare(&operand, outcome, &place, &verdict);
            outcomes[outcome]++;
            if (outcome == OPERAND_EXCEPTION)
                vectors[verdict.vector]++;
        }
        assert_memory_equal(actual, model, sizeof(*model));
    }
    printf("reached %lu, exceptions %lu (#SS %lu #GP %lu #PF %lu #AC %lu), violations %lu, illegal "
           "%lu, again %lu\n",
           outcomes[OPERAND_REACHED], outcomes[OPERAND_EXCEPTION], vectors[12], vectors[13],
           vectors[14], vectors[17], outcomes[OPERAND_VIOLATION], outcomes[OPERAND_ILLEGAL],
           outcomes[OPERAND_AGAIN]);
    /* None of them is a rarity, or the test would be none. */
    assert_true(outcomes[OPERAND_REACHED] > WORLDS * CASES / 20);
    assert_true(outcomes[OPERAND_VIOLATION] > WORLDS * CASES / 50);
    assert_true(outcomes[OPERAND_ILLEGAL] > WORLDS * CASES / 500);
    assert_true(vectors[12] > 5000 && vectors[13] > 50000);
    assert_true(vectors[14] > 50000 && vectors[17] > 5000);
    free(actual);
    free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(operands_as_modelled),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
