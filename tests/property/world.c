/* See world.h. */
#include "tests/property/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mm/frames/buddy.h"
#include "tests/property/five_levels.h"
#include "tests/property/pte_hooks.h"

#define ARENA_BYTES (24 * MiB)
#define FRAMES (ARENA_BYTES / PAGE_SIZE)

/* Beyond what the buddy has: the data blocks that a page source hands out, round and round. */
#define DATA_BYTES (8 * MiB)

/* Two blocks of 512 cells, with 64 cells on either side; a boundary of higher tables in the middle.
 */
#define SIDE_CELLS 64
#define BLOCK_CELLS 512
#define AROUND(boundary, unit) ((boundary) - (SIDE_CELLS + BLOCK_CELLS) * (unit))

const struct land lands[LANDS] = {
    {"kernel", &kernel_kind, SDM_HOST, AROUND(0xffff800000000000 + GiB, PAGE_SIZE),
     AROUND(0xffff900000000000, 2 * MiB)},
    {"user", &user_kind, SDM_HOST, AROUND(0x7f0000000000 + GiB, PAGE_SIZE),
     AROUND(0x10000000000, 2 * MiB)},
    {"EPT", &ept_kind, SDM_EPT, AROUND(GiB, PAGE_SIZE), AROUND(512 * GiB, 2 * MiB)},
    {"kernel, 5 levels", &kernel5_kind, SDM_HOST, AROUND(0xff01000000000000, PAGE_SIZE),
     AROUND(0xff81000000000000, 2 * MiB)},
    {"user, 5 levels", &user5_kind, SDM_HOST, AROUND(UINT64_C(1) << 48, PAGE_SIZE),
     AROUND(UINT64_C(3) << 48, 2 * MiB)},
    {"EPT, 5 levels", &ept5_kind, SDM_EPT, AROUND(UINT64_C(1) << 48, PAGE_SIZE),
     AROUND(UINT64_C(9) << 39, 2 * MiB)},
};

struct world w;

static uint8_t *arena;
static struct sdm_cpu sdm_cpu;

/* ---- Hardware: CPUs with TLBs and paging-structure caches -------------------------------------
 */

/* The pages of a cell that CPUs use, and that are watched: its first, and of 2 MiB its last. */
#define PARTS 2

#define CPUS 3
#define STRUCTURES 64 /* paging-structure entries of one level, by the low bits of their prefix */

struct translation {
    bool valid, dirty;
    uint64_t in, bytes, out; /* of the whole page */
    struct attrs attrs;
};

struct structure {
    bool valid;
    uint64_t prefix, table;
    unsigned rights;
};

static struct cpu {
    struct translation tlb[CELLS][PARTS];
    struct structure structure[MAX_LEVELS][STRUCTURES];
} cpus[CPUS];

static struct random chance; /* of what hardware does */

/* ---- Copies of all live tables
 * ---------------------------------------------------------------------- */

struct shadow {
    uint64_t entry[512];
    uint64_t in; /* the lowest input address that it covers */
    unsigned level;
    bool main; /* of the world's own table */
    bool dead; /* taken out, and not yet given back: hardware alone may write to it ... */
    bool gone; /* ... until a flush has made every CPU forget it */
};

static struct shadow *shadows[FRAMES];

/* ---- The operation that is under way
 * -------------------------------------------------------------- */

static struct {
    bool active;
    unsigned quiet; /* of so many moments one is used */
    struct world_call call;
    struct cell after[CELLS];
    bool kept[CELLS]; /* the same page before and after: its A and D must survive */
    bool seen_new[CELLS][PARTS];
    bool cleared_a[CELLS][PARTS], cleared_d[CELLS][PARTS]; /* by a harvest, which must tell */
    bool told_a[CELLS][PARTS], told_d[CELLS][PARTS];
    uint64_t block[CELLS][PARTS]; /* what a page source has supplied: the page's address */
    uint64_t next;                /* the input address of the next block */
    unsigned blocks;              /* supplied, not taken back */
    bool owes;                    /* something stored since the last flush needs one */
    bool destroying;
} op;

/* What a CPU has set in the page that a cell maps (or, the second pair, will map). */
static bool accessed[CELLS][PARTS], dirty[CELLS][PARTS];
static bool accessed_new[CELLS][PARTS], dirty_new[CELLS][PARTS];

void wrong(const char *format, ...)
{
    static const char *const names[OP_COUNT] = {"map",   "replace", "unmap", "protect",
                                                "split", "merge",   "sweep", "harvest",
                                                "clone", "copy",    "fresh"};
    char text[400];
    va_list args;

    va_start(args, format);
    int length = vsnprintf(text, sizeof(text) - 128, format, args);
    va_end(args);
    snprintf(text + length, sizeof(text) - (size_t)length,
             " (%s, cells of %lu KiB; %s of %u cells from %u, to %#lx, %u)",
             w.land ? w.land->name : "?", (w.unit / KiB), names[op.call.op], op.call.count,
             op.call.first, op.call.out, op.call.flags);
    world_fail(text);
}

static uint8_t *world_memory(uint64_t address)
{
    if (address >= ARENA_BYTES)
        wrong("a table at %#lx, outside memory", address);
    return arena + address;
}

static uint64_t *table_at(uint64_t frame)
{
    return (uint64_t *)(void *)world_memory(frame);
}

/* ---- The manual's walk, made for speed: whether entries are legal is judged when they are stored
 * - */

static uint64_t frame_in(uint64_t entry)
{
    return entry & 0x000ffffffffff000;
}

static bool present(uint64_t entry)
{
    if (w.land->format == SDM_EPT)
        return (entry & (sdm_cpu.user_execute ? 0x407 : 7)) != 0;
    return entry & 1;
}

static bool page(uint64_t entry, unsigned level)
{
    return level == 1 || (level <= 3 && sdm_bit(entry, 7));
}

static unsigned rights_of(uint64_t entry)
{
    if (w.land->format == SDM_EPT)
        return (unsigned)(entry & 7) | (sdm_cpu.user_execute && sdm_bit(entry, 10) ? RIGHT_U : 0u);
    return RIGHT_R | (sdm_bit(entry, 1) ? RIGHT_W : 0u) | (sdm_bit(entry, 63) ? 0u : RIGHT_X) |
           (sdm_bit(entry, 2) ? RIGHT_U : 0u);
}

/* The type and the global flag of a page's entry. */
static struct attrs attrs_in(uint64_t entry, unsigned level, unsigned rights)
{
    static const uint8_t pat[8] = {6, 4, 0, 0, 1, 5, 0, 0}; /* as loaded: sdm_rules.c */

    rights &= rights_of(entry);
    if (w.land->format == SDM_EPT)
        return attrs_of(rights, (enum mem_type)((entry >> 3) & 7));
    unsigned index = (unsigned)((entry >> 3) & 3) | (sdm_bit(entry, level == 1 ? 7 : 12) ? 4 : 0);
    return attrs_of(rights | (sdm_bit(entry, 8) ? RIGHT_G : 0), (enum mem_type)pat[index]);
}

static uint64_t page_start(uint64_t entry, unsigned level)
{
    return frame_in(entry) & ~(sdm_page_bytes(level) - 1);
}

static unsigned index_in(uint64_t in, unsigned level)
{
    return (in >> (12 + 9 * (level - 1))) & 511;
}

struct found world_look(uint64_t root, uint64_t in)
{
    struct found found = {0};
    uint64_t table = root;
    unsigned rights = ~0u;

    w.walks++;
    for (unsigned level = w.land->kind->levels;; level--) {
        uint64_t *slot = &table_at(table)[index_in(in, level)];
        uint64_t entry = *slot;

        if (!present(entry))
            return found;
        if (page(entry, level)) {
            found.present = true;
            found.level = level;
            found.slot = slot;
            found.out =
                page_start(entry, level) + (in & (sdm_page_bytes(level) - 1) & ~UINT64_C(0xfff));
            found.attrs = attrs_in(entry, level, rights);
            found.accessed = entry & sdm_accessed(w.land->format);
            found.dirty = entry & sdm_dirty(w.land->format);
            return found;
        }
        rights &= rights_of(entry);
        table = frame_in(entry);
    }
}

static uint64_t cell_in(unsigned i)
{
    return w.base + i * w.unit;
}

static unsigned parts(void)
{
    return w.unit == PAGE_SIZE ? 1 : PARTS;
}

static uint64_t part_offset(unsigned part)
{
    return part ? w.unit - PAGE_SIZE : 0;
}

static bool part_within(unsigned i, unsigned part, uint64_t in, uint64_t bytes)
{
    return cell_in(i) + part_offset(part) - in < bytes;
}

/* The cells that [in, in + bytes) covers. */
static void cells_of(uint64_t in, uint64_t bytes, unsigned *first, unsigned *end)
{
    uint64_t last = in + bytes - 1;

    *first = *end = 0;
    if (last < w.base || in >= w.end)
        return;
    *first = in <= w.base ? 0 : (unsigned)((in - w.base) / w.unit);
    *end = last >= w.end ? CELLS : (unsigned)((last - w.base) / w.unit) + 1;
}

/* ---- What a CPU does
 * -------------------------------------------------------------------------------- */

static uint64_t hardware_sets(uint64_t *slot, uint64_t bits)
{
    struct shadow *shadow = shadows[(uint64_t)((uint8_t *)slot - arena) / PAGE_SIZE];

    if ((*slot & bits) != bits) {
        *slot |= bits;
        shadow->entry[((uint64_t)(uintptr_t)slot & 4095) / 8] |= bits;
    }
    return *slot;
}

static bool is_page_of(const struct cell *cell, uint64_t offset, uint64_t out)
{
    return cell->present && cell->out + offset == out;
}

/* A CPU has found `out` behind a cell, and has set A, and D with `write`. */
static void note_use(unsigned i, unsigned part, uint64_t out, bool write)
{
    bool now = is_page_of(&w.cell[i], part_offset(part), out);

    if (!op.active || op.kept[i]) {
        accessed[i][part] |= now;
        dirty[i][part] |= now && write;
    } else if (is_page_of(&op.after[i], part_offset(part), out) && !now) {
        accessed_new[i][part] = true;
        dirty_new[i][part] |= write;
    }
}

static void cpu_access(struct cpu *cpu, unsigned i, unsigned part, bool write, bool by_caches)
{
    enum sdm_format format = w.land->format;
    bool keeps_ad = w.table.caps.accessed_dirty;
    uint64_t in = cell_in(i) + part_offset(part);
    struct translation *cached = &cpu->tlb[i][part];
    unsigned level = w.land->kind->levels;
    uint64_t table = w.table.root.v;
    unsigned rights = ~0u;

    if (cached->valid && in - cached->in < cached->bytes &&
        (!write || cached->dirty || !keeps_ad || !(cached->attrs.rights & RIGHT_W)))
        return;
    for (unsigned l = 1; by_caches && l < w.land->kind->levels; l++) {
        uint64_t prefix = in / sdm_page_bytes(l + 1);
        const struct structure *known = &cpu->structure[l][prefix % STRUCTURES];

        if (known->valid && known->prefix == prefix) {
            level = l;
            table = known->table;
            rights = known->rights;
            break;
        }
    }
    for (;; level--) {
        if (!shadows[table / PAGE_SIZE])
            wrong("a CPU walks through %#lx, which is no table (any more)", table);
        uint64_t *slot = &table_at(table)[index_in(in, level)];
        uint64_t entry = *slot;

        if (!present(entry))
            return;
        if (page(entry, level)) {
            uint64_t bytes = sdm_page_bytes(level);

            write &= (rights & rights_of(entry) & RIGHT_W) != 0;
            if (keeps_ad) {
                entry = hardware_sets(slot, sdm_accessed(format) | (write ? sdm_dirty(format) : 0));
                note_use(i, part, page_start(entry, level) + (in & (bytes - 1)), write);
            }
            *cached = (struct translation){.valid = true,
                                           .dirty = entry & sdm_dirty(format),
                                           .in = in & ~(bytes - 1),
                                           .bytes = bytes,
                                           .out = page_start(entry, level),
                                           .attrs = attrs_in(entry, level, rights)};
            return;
        }
        if (format == SDM_HOST || keeps_ad)
            entry = hardware_sets(slot, sdm_accessed(format));
        rights &= rights_of(entry);
        table = frame_in(entry);
        uint64_t prefix = in / sdm_page_bytes(level);
        cpu->structure[level - 1][prefix % STRUCTURES] =
            (struct structure){.valid = true, .prefix = prefix, .table = table, .rights = rights};
    }
}

/*
 * A moment between two steps of the mapper: some CPU uses some page, often one that the step is
 * about. There are busy operations and quiet ones, in which a bit that is lost is not set again
 * soon. With w.strike one CPU writes once, at one moment, and that is all.
 */
static void some_access(uint64_t in, uint64_t bytes)
{
    unsigned first, end;

    if (w.strike && w.events == w.strike_at)
        cpu_access(&cpus[1], w.strike_cell, w.strike_part % parts(), true, true);
    w.events++;
    if (!w.hardware || random_below(&chance, op.quiet))
        return;
    if (op.quiet > 2) {
        in = cell_in(op.call.first);
        bytes = op.call.count * w.unit;
    }
    cells_of(in, bytes, &first, &end);
    unsigned i = first < end && random_below(&chance, 4)
                     ? first + (unsigned)random_below(&chance, end - first)
                     : (unsigned)random_below(&chance, CELLS);
    cpu_access(&cpus[random_below(&chance, CPUS)], i, (unsigned)random_below(&chance, parts()),
               random_below(&chance, 2), random_below(&chance, 3));
}

void world_forget(void)
{
    memset(cpus, 0, sizeof(cpus));
}

void world_fill_caches(void)
{
    /* The first CPU knows all, the others this and that; often nobody writes, so that pages are
     * clean. */
    bool writing = random_below(&chance, 4) == 0;

    for (unsigned c = 0; c < CPUS; c++)
        for (unsigned i = 0; i < CELLS; i++)
            for (unsigned part = 0; part < parts(); part++)
                if (c == 0 || random_below(&chance, 4) == 0)
                    cpu_access(&cpus[c], i, part, writing && c && !random_below(&chance, 4), false);
}

/* As INVLPG at each stride of the range. */
static void invalidate_page(struct translation *cached, const struct flush_range *range,
                            uint64_t step)
{
    /* The first address of the range that lies in or above the page. */
    uint64_t at = range->first;

    if (at < cached->in)
        at += (cached->in - at + step - 1) / step * step;
    if (at <= range->last && at - cached->in < cached->bytes)
        cached->valid = false;
}

/* Of each range, page by page; or as a flush of the whole context. */
static void cpu_invalidate(struct cpu *cpu, const struct flush_batch *batch)
{
    if (batch->whole || batch->tables_died)
        memset(cpu->structure, 0, sizeof(cpu->structure));
    if (batch->whole) {
        memset(cpu->tlb, 0, sizeof(cpu->tlb));
        return;
    }
    for (unsigned n = 0; n < batch->count; n++) {
        const struct flush_range *range = &batch->range[n];
        uint64_t step = sdm_page_bytes(range->level);
        unsigned first, end;

        cells_of(range->first, range->last - range->first + 1, &first, &end);
        for (unsigned i = first; i < end; i++)
            for (unsigned part = 0; part < parts(); part++)
                invalidate_page(&cpu->tlb[i][part], range, step);
    }
}

void world_note(const uint64_t *slot)
{
    uint64_t at = (uint64_t)((const uint8_t *)slot - arena);
    shadows[at / PAGE_SIZE]->entry[at % PAGE_SIZE / 8] = *slot;
}

/* An EPT violation walks the tables anew before it is reported; a page fault goes to a handler, and
 * ours does not retry (SDM Vol. 3, 29.4.3.1 and 4.10.4.3). */
static bool added_rights_are_free(void)
{
    return w.land->format == SDM_EPT;
}

/* At rest: what a CPU holds is what the table says. */
static void check_caches(void)
{
    for (unsigned c = 0; c < CPUS; c++) {
        for (unsigned i = 0; i < CELLS; i++) {
            for (unsigned part = 0; part < parts(); part++) {
                const struct translation *cached = &cpus[c].tlb[i][part];
                uint64_t offset = cell_in(i) + part_offset(part) - cached->in;
                struct found now;

                if (!cached->valid)
                    continue;
                now = world_look(w.table.root.v, cached->in + offset);
                unsigned stale = cached->attrs.rights & ~now.attrs.rights;
                unsigned missing = now.attrs.rights & ~cached->attrs.rights;

                if (!now.present || now.out != cached->out + offset ||
                    now.attrs.type != cached->attrs.type || stale)
                    wrong("CPU %u holds a stale translation of %#lx", c, (cached->in + offset));
                if (missing && !added_rights_are_free())
                    wrong("CPU %u would fault at %#lx, which is allowed", c, (cached->in + offset));
                if (w.table.caps.accessed_dirty && (!now.accessed || (cached->dirty && !now.dirty)))
                    wrong("CPU %u uses %#lx without setting A or D again", c,
                          (cached->in + offset));
            }
        }
        for (unsigned level = 1; level < MAX_LEVELS; level++)
            for (unsigned n = 0; n < STRUCTURES; n++) {
                const struct structure *known = &cpus[c].structure[level][n];
                const struct shadow *shadow =
                    known->valid ? shadows[known->table / PAGE_SIZE] : NULL;
                if (known->valid &&
                    (!shadow || shadow->dead || !shadow->main || shadow->level != level ||
                     shadow->in / sdm_page_bytes(level + 1) != known->prefix))
                    wrong("CPU %u holds a stale entry for the table %#lx", c, known->table);
            }
    }
}

/* ---- Stores
 * ------------------------------------------------------------------------------------------ */

static uint64_t slot_in(const struct shadow *shadow, unsigned index)
{
    uint64_t in = shadow->in + index * sdm_page_bytes(shadow->level);
    unsigned top = 12 + 9 * w.land->kind->levels - 1;

    if (w.land->kind->sign_extended && shadow->level == w.land->kind->levels && sdm_bit(in, top))
        in |= ~UINT64_C(0) << top;
    return in;
}

/* Judges what is stored at `level`. */
static struct sdm_entry judge(uint64_t entry, unsigned level)
{
    struct sdm_entry said = sdm_judge(w.land->format, &sdm_cpu, level, entry);

    if (said.class == SDM_BAD)
        wrong("%#lx was stored at level %u: %s", entry, level, said.why);
    if (said.class == SDM_ABSENT && entry)
        wrong("%#lx was stored at level %u: absent, and not 0", entry, level);
    return said;
}

/* A table has become reachable: it must be whole, and so must all that is below it. */
static void adopt(uint64_t frame, unsigned level, uint64_t in, bool main)
{
    uint64_t pfn = frame / PAGE_SIZE;
    const uint64_t *table = table_at(frame);

    if (shadows[pfn] && !shadows[pfn]->gone)
        wrong("the table %#lx is reached twice", frame);
    struct shadow *shadow = shadows[pfn] ? shadows[pfn] : malloc(sizeof(*shadow));
    must(shadow);
    shadows[pfn] = shadow;
    memcpy(shadow->entry, table, PAGE_SIZE);
    shadow->in = in;
    shadow->level = level;
    shadow->main = main;
    shadow->dead = shadow->gone = false;
    for (unsigned i = 0; i < 512; i++) {
        struct sdm_entry said = judge(table[i], level);
        uint64_t at = slot_in(shadow, i);

        if (said.class == SDM_TABLE)
            adopt(said.address, level - 1, at, main);
        if (op.active && said.class == SDM_PAGE && (at < w.base || at >= w.end))
            wrong("a new table maps %#lx as well", at);
    }
}

static void bury(uint64_t frame)
{
    struct shadow *shadow = shadows[frame / PAGE_SIZE];

    must(shadow && !shadow->dead);
    shadow->dead = true;
    for (unsigned i = 0; i < 512; i++)
        if (present(shadow->entry[i]) && !page(shadow->entry[i], shadow->level))
            bury(frame_in(shadow->entry[i]));
}

static bool says(const struct found *found, const struct cell *cell, uint64_t offset)
{
    if (!found->present || !cell->present)
        return found->present == cell->present;
    return found->out == cell->out + offset && attrs_equal(found->attrs, cell->attrs);
}

/* Old or new, and once new never old. */
static void check_moment(unsigned first, unsigned end)
{
    for (unsigned i = first; i < end; i++)
        for (unsigned part = 0; part < (parts() == 1 ? 1 : PARTS + 1); part++) {
            uint64_t offset = part < PARTS ? part_offset(part)
                                           : random_below(&chance, w.unit / PAGE_SIZE) * PAGE_SIZE;
            struct found found = world_look(w.table.root.v, cell_in(i) + offset);
            bool is_new = says(&found, &op.after[i], offset);
            bool was_new = part < PARTS && op.seen_new[i][part];

            if (!is_new && (was_new || !says(&found, &w.cell[i], offset)))
                wrong("after store %lu %#lx is %s", w.stores, (cell_in(i) + offset),
                      was_new ? "old again" : "neither old nor new");
            if (is_new && part < PARTS &&
                !(w.cell[i].present == op.after[i].present && w.cell[i].out == op.after[i].out &&
                  attrs_equal(w.cell[i].attrs, op.after[i].attrs)))
                op.seen_new[i][part] = true;
        }
}

/* Would a stale copy of `old` do harm once `new` stands there? */
static bool needs_flush(uint64_t old, uint64_t new, unsigned level)
{
    uint64_t ad = sdm_accessed(w.land->format) | sdm_dirty(w.land->format);

    if (!present(old) || (old | ad) == (new | ad))
        return present(old) && w.table.caps.accessed_dirty && (old & ad & ~new);
    if (!added_rights_are_free() || !present(new) || !page(old, level) || !page(new, level) ||
        page_start(old, level) != page_start(new, level))
        return true;
    struct attrs before = attrs_in(old, level, ~0u), after = attrs_in(new, level, ~0u);
    return before.type != after.type || (before.rights & ~after.rights);
}

/* A or D that an operation takes out of a page: it answers for it to the caller. */
static void note_cleared(uint64_t old, uint64_t new, uint64_t in, unsigned level)
{
    uint64_t gone = old & ~new;
    unsigned first, end;

    must(op.call.op == OP_HARVEST);
    cells_of(in, sdm_page_bytes(level), &first, &end);
    for (unsigned i = first; i < end; i++)
        for (unsigned part = 0; part < parts(); part++) {
            if (!part_within(i, part, in, sdm_page_bytes(level)))
                continue;
            if (gone & sdm_accessed(w.land->format)) {
                op.cleared_a[i][part] |= accessed[i][part];
                accessed[i][part] = false;
            }
            if (gone & sdm_dirty(w.land->format)) {
                op.cleared_d[i][part] |= dirty[i][part];
                dirty[i][part] = false;
            }
        }
}

void hook_touched(const uint64_t *slot)
{
    if (!op.active)
        return;
    uint64_t at = (uint64_t)((const uint8_t *)slot - arena);
    const struct shadow *shadow = at < ARENA_BYTES ? shadows[at / PAGE_SIZE] : NULL;

    if (shadow && shadow->main)
        some_access(slot_in(shadow, at % PAGE_SIZE / 8), sdm_page_bytes(shadow->level));
}

void hook_stored(uint64_t *slot)
{
    uint64_t at = (uint64_t)((uint8_t *)slot - arena);

    must(at < ARENA_BYTES);
    struct shadow *shadow = shadows[at / PAGE_SIZE];
    if (!shadow)
        return; /* not published yet */
    unsigned index = at % PAGE_SIZE / 8, level = shadow->level;
    uint64_t old = shadow->entry[index], new = *slot;
    uint64_t in = slot_in(shadow, index);
    uint64_t ad = sdm_accessed(w.land->format) | sdm_dirty(w.land->format);

    if (shadow->gone)
        return; /* private again */
    if (shadow->dead)
        wrong("a store into the table %#lx, which is dead", (at & ~(PAGE_SIZE - 1)));
    if (w.stores < STORE_EVENTS)
        w.store_event[w.stores] = w.events;
    w.stores++;
    w.all_stores++;
    shadow->entry[index] = new;
    struct sdm_entry said = judge(new, level);
    bool was_table = present(old) && !page(old, level);
    bool same_table = was_table && said.class == SDM_TABLE && frame_in(old) == said.address;

    if (was_table && !same_table)
        bury(frame_in(old));
    if (said.class == SDM_TABLE && !same_table)
        adopt(said.address, level - 1, in, shadow->main);
    if (!shadow->main)
        return;
    if (op.active && said.class == SDM_PAGE && (in < w.base || in >= w.end))
        wrong("%#lx was mapped, beside the range", in);
    if (!was_table && said.class == SDM_PAGE && (old & ad & ~new) && (old | ad) == (new | ad) &&
        op.active && op.call.op != OP_REPLACE)
        note_cleared(old, new, in, level);
    op.owes |= needs_flush(old, new, level);
    if (!op.active)
        return; /* a test of its own: nobody has said what is to come */

    unsigned first, end;
    cells_of(in, sdm_page_bytes(level), &first, &end);
    check_moment(first, end);
    /* All of the window: at each store of a short operation, now and then in a long one. */
    if ((w.stores < 48 || w.stores % 61 == 0) && !w.strike && !w.brief)
        check_moment(0, CELLS);
    for (unsigned n = 0; n < CPUS; n++)
        some_access(in, sdm_page_bytes(level));
}

/* ---- The table's environment
 * -------------------------------------------------------------------------- */

static int take(const struct table_env *env, struct table *table, hpa_t *out)
{
    (void)env;
    if (w.fail_in == 0)
        return E_NOMEM;
    if (w.fail_in != UINT64_MAX)
        w.fail_in--;
    int error = buddy_alloc(0, table->purpose, table->owner, out);
    if (!error) {
        memset(table_at(out->v), 0xa5, PAGE_SIZE); /* the mapper must not lean on what is there */
        w.taken++;
    }
    return error;
}

/* All or none, and nothing but what it says when it is none. */
static int take_many(const struct table_env *env, struct table *table, hpa_t *frames,
                     unsigned count)
{
    must(count);
    if (w.fail_in < count)
        return E_NOMEM;
    for (unsigned i = 0; i < count; i++)
        must(take(env, table, &frames[i]) == E_OK);
    return E_OK;
}

static void check_unreachable(uint64_t first, uint64_t bytes)
{
    for (unsigned c = 0; c < CPUS; c++) {
        for (unsigned level = 1; level < MAX_LEVELS; level++)
            for (unsigned n = 0; n < STRUCTURES; n++)
                if (cpus[c].structure[level][n].valid &&
                    cpus[c].structure[level][n].table - first < bytes)
                    wrong("table frame %#lx given back while CPU %u still walks through it", first,
                          c);
        for (unsigned i = 0; i < CELLS * PARTS; i++) {
            const struct translation *cached = &cpus[c].tlb[i / PARTS][i % PARTS];
            if (cached->valid && cached->out < first + bytes && first < cached->out + cached->bytes)
                wrong("frame %#lx given back while CPU %u still translates to it", first, c);
        }
    }
}

/* Until a flush, nobody but hardware writes into a dead table. */
static void check_undisturbed(uint64_t frame)
{
    const struct shadow *shadow = shadows[frame / PAGE_SIZE];

    if (!shadow->gone && memcmp(shadow->entry, table_at(frame), PAGE_SIZE))
        wrong("table %#lx was written to after its death", frame);
}

static void give(const struct table_env *env, struct table *table, hpa_t frame)
{
    struct shadow *shadow = shadows[frame.v / PAGE_SIZE];

    (void)env;
    if (shadow) {
        if (!shadow->dead && !op.destroying)
            wrong("table %#lx given back while the tables reach it", frame.v);
        check_undisturbed(frame.v);
        free(shadow);
        shadows[frame.v / PAGE_SIZE] = NULL;
    }
    for (unsigned c = 0; c < CPUS; c++)
        for (unsigned level = 1; level < MAX_LEVELS; level++)
            for (unsigned n = 0; n < STRUCTURES; n++)
                if (cpus[c].structure[level][n].valid &&
                    cpus[c].structure[level][n].table == frame.v)
                    wrong("table %#lx given back while CPU %u still walks through it", frame.v, c);
    memset(table_at(frame.v), 0xff, PAGE_SIZE);
    int error = buddy_free(frame, 0, table->owner);
    if (error)
        wrong("table %#lx given back: %d", frame.v, error);
    w.taken--;
}

/* Nobody walks through a table any more that was dead when everybody forgot. */
static void forget_dead(bool main, const struct flush_batch *batch)
{
    if (!batch->whole && !batch->tables_died)
        return;
    for (uint64_t pfn = 0; pfn < FRAMES; pfn++)
        if (shadows[pfn] && shadows[pfn]->dead && shadows[pfn]->main == main) {
            check_undisturbed(pfn * PAGE_SIZE);
            shadows[pfn]->gone = true;
        }
}

static void flush(const struct table_env *env, struct table *table, const struct flush_batch *batch)
{
    unsigned start = (unsigned)random_below(&chance, CPUS);

    (void)env;
    if (table != &w.table) {
        forget_dead(false, batch);
        return;
    }
    w.flushes++;
    w.needless += !op.owes;
    op.owes = false;
    must(batch->count <= FLUSH_RANGES);
    for (unsigned i = 0; i < batch->count; i++)
        must(batch->range[i].first <= batch->range[i].last);
    /* One CPU after the other, while the rest go on. */
    for (unsigned n = 0; n < CPUS; n++) {
        for (unsigned times = 0; times < 4 && op.active; times++)
            some_access(w.base, w.end - w.base);
        cpu_invalidate(&cpus[(start + n) % CPUS], batch);
    }
    forget_dead(true, batch);
}

int world_buddy_free(hpa_t head, unsigned order, owner_t owner);
int world_buddy_free(hpa_t head, unsigned order, owner_t owner)
{
    check_unreachable(head.v, PAGE_SIZE << order);
    return buddy_free(head, order, owner);
}

static void give_many(const struct table_env *env, struct table *table, const hpa_t *frames,
                      unsigned count)
{
    must(count);
    for (unsigned i = 0; i < count; i++)
        give(env, table, frames[i]);
}

struct table_env world_env = {.take = take, .give = give, .flush = flush, .frame_records = true};

/* ---- At rest
 * ------------------------------------------------------------------------------------------ */

static void check_cell(unsigned i)
{
    const struct cell *cell = &w.cell[i];

    for (unsigned part = 0; part < parts(); part++) {
        uint64_t offset = part_offset(part);
        uint64_t in = cell_in(i) + offset;
        struct found found = world_look(w.table.root.v, in);
        struct mapping mapping;
        int error = table_translate(&w.table, in + 0x123, &mapping);

        if (!says(&found, cell, offset))
            wrong("%#lx is not what was asked for", in);
        must(error == (cell->present ? E_OK : E_NOENT));
        if (!cell->present)
            continue;
        must(mapping.out.v + (in - mapping.in) == cell->out + offset);
        must(attrs_equal(mapping.attrs, cell->attrs));
        must(mapping.level == found.level && mapping.raw == *found.slot);
        must(mapping.accessed == found.accessed && mapping.dirty == found.dirty);
        must(mapping.last - mapping.in + 1 == sdm_page_bytes(found.level));
        if (w.table.caps.accessed_dirty &&
            (accessed[i][part] > found.accessed || dirty[i][part] > found.dirty))
            wrong("%#lx has lost its %s bit", in, dirty[i][part] > found.dirty ? "D" : "A");
    }
}

struct run_check {
    unsigned next; /* cell */
    struct mapping last;
    bool any;
};

/* The visitor's runs, cut to the window, are the model's runs. */
static int check_run(void *ctx, const struct mapping *run)
{
    struct run_check *check = ctx;
    uint64_t first = run->in < w.base ? w.base : run->in;

    must(run->in <= run->last);
    if (check->any) {
        must(run->in > check->last.last);
        bool joins = check->last.last + 1 == run->in && check->last.level == run->level &&
                     check->last.out.v + (run->in - check->last.in) == run->out.v &&
                     attrs_equal(check->last.attrs, run->attrs);
        must(!joins); /* it should have been one run */
    }
    check->last = *run;
    check->any = true;
    for (; check->next < CELLS && cell_in(check->next) < first; check->next++)
        must(!w.cell[check->next].present);
    for (; check->next < CELLS && cell_in(check->next) <= run->last; check->next++) {
        must(w.cell[check->next].present);
        if (run->in <= cell_in(check->next))
            must(w.cell[check->next].out == run->out.v + (cell_in(check->next) - run->in));
        must(attrs_equal(w.cell[check->next].attrs, run->attrs));
    }
    return 0;
}

struct frame_check {
    const struct table *table;
    uint64_t frames;
};

static int check_frame(void *ctx, hpa_t frame, unsigned level, uint64_t entries)
{
    struct frame_check *check = ctx;
    const struct shadow *shadow = shadows[frame.v / PAGE_SIZE];
    struct frame_info info;
    uint64_t present_slots[4] = {0};

    must(frame_query(frame, &info, NULL) == E_OK);
    must(info.state == FRAME_USED && info.purpose == PURPOSE_TEST && info.owner == WORLD_OWNER);
    must(shadow && !shadow->dead && shadow->level == level);
    for (unsigned i = 0; i < 512; i++)
        present_slots[i / 128] += present(shadow->entry[i]);
    must(info.payload == (present_slots[0] | present_slots[1] << 10 | present_slots[2] << 20 |
                          present_slots[3] << 30));
    must(entries == info.payload);
    if (entries == 0 && level < w.land->kind->levels) /* no other empty table is kept */
        must(check->table->root_pinned && level == w.land->kind->levels - 1u);
    check->frames++;
    return 0;
}

/* What a table remembers of its last pages is so. */
static void check_remembered(const struct table *t)
{
    uint64_t in = t->near.which * 512 * KiB, table = t->root.v;

    must(t->known_page == NO_PAGE || world_look(t->root.v, t->known_page).present);
    if (t->near.which == NEAR_NONE)
        return;
    for (unsigned level = w.land->kind->levels; level > 1; level--) {
        uint64_t entry = table_at(table)[index_in(in, level)];
        must(present(entry) && !page(entry, level));
        table = frame_in(entry);
    }
    must(t->near.table == table_at(table));
    must(t->near.record == &frame_records[table / PAGE_SIZE]);
    must(t->near.one == UINT64_C(1) << (24 + 10 * (in / (512 * KiB) % 4)));
}

void world_check_frames(struct table *table)
{
    struct frame_check frames = {.table = table};

    must(table_visit_frames(table, check_frame, &frames) == 0);
    must(frames.frames == table->table_frames);
    check_remembered(table);
}

/* No store went round the hooks, and every table that was taken is reached. */
static void check_shadows(void)
{
    uint64_t live = 0;

    for (uint64_t pfn = 0; pfn < FRAMES; pfn++) {
        if (!shadows[pfn])
            continue;
        live++;
        if (shadows[pfn]->dead)
            wrong("table %#lx is dead and was not given back", (pfn * PAGE_SIZE));
        if (memcmp(shadows[pfn]->entry, table_at(pfn * PAGE_SIZE), PAGE_SIZE))
            wrong("table %#lx was changed by a store that nobody saw", (pfn * PAGE_SIZE));
    }
    must(live == w.taken);
}

void world_check(void)
{
    struct run_check check = {0};

    for (unsigned i = 0; i < CELLS; i++)
        check_cell(i);
    must(table_visit(&w.table, w.base, w.end - 1, VISIT_RUNS, check_run, &check) == 0);
    for (; check.next < CELLS; check.next++)
        must(!w.cell[check.next].present);
    must(!world_look(w.table.root.v, w.base - PAGE_SIZE).present);
    must(!world_look(w.table.root.v, w.end).present);

    check_shadows();
    world_check_frames(&w.table);
    must(w.other.table_frames == 1 || op.call.op == OP_CLONE || op.call.op == OP_COPY);
    must(w.table.open_batches == 0);
    must(!lock_held(&w.table.lock));
}

/* ---- A source of data blocks
 * ----------------------------------------------------------------------- */

static int take_block(struct page_source *source, uint64_t size, hpa_t *out)
{
    static uint64_t next;
    unsigned first, end;

    (void)source;
    if (w.fail_in == 0 || size > 2 * MiB || (size < w.unit && op.call.op == OP_FRESH))
        return E_NOMEM;
    if (w.fail_in != UINT64_MAX)
        w.fail_in--;
    next = align_up(next, size) + size > DATA_BYTES ? 0 : align_up(next, size);
    *out = hpa(ARENA_BYTES + next);
    next += size;
    memset(direct(*out), 0x5a, 64);
    op.blocks++;
    if (op.call.op == OP_FRESH) {
        /* Blocks are taken in the order in which they will be mapped. */
        cells_of(op.next, size, &first, &end);
        must(end - first == size / w.unit);
        for (unsigned i = first; i < end; i++)
            op.after[i].out = out->v + (cell_in(i) - op.next);
        op.next += size;
    }
    return E_OK;
}

static void give_block(struct page_source *source, hpa_t block, uint64_t size)
{
    (void)source;
    must(block.v >= ARENA_BYTES && block.v + size <= ARENA_BYTES + DATA_BYTES);
    must(op.blocks);
    op.blocks--;
}

static void fill_block(struct page_source *source, hpa_t block, uint64_t size,
                       const struct mapping *from)
{
    static const uint8_t nothing[24];
    unsigned first, end;

    (void)source;
    must(is_aligned(block.v, size));
    must(memcmp(direct(block), nothing, sizeof(nothing)) == 0); /* no note of ours is left in it */
    must((from != NULL) == (op.call.op == OP_COPY));
    if (!from)
        return;
    must(from->last - from->in + 1 == size);
    cells_of(from->in, size, &first, &end);
    must(first < end);
    for (unsigned i = first; i < end; i++)
        for (unsigned part = 0; part < parts(); part++) {
            uint64_t in = cell_in(i) + part_offset(part);
            if (!part_within(i, part, from->in, size))
                continue;
            must(from->out.v + (in - from->in) == w.cell[i].out + part_offset(part));
            must(op.block[i][part] == 0);
            op.block[i][part] = block.v + (in - from->in);
        }
}

static struct page_source world_source = {.take = take_block,
                                          .give = give_block,
                                          .fill = fill_block};

/* What a clone or a copy has put into the other table; and out with it. */
static void check_other(void)
{
    uint64_t first = cell_in(op.call.first), size = op.call.count * w.unit;
    struct flush_batch batch;

    for (unsigned i = 0; i < CELLS; i++)
        for (unsigned part = 0; part < parts(); part++) {
            bool within = i - op.call.first < op.call.count;
            uint64_t in = cell_in(i) + part_offset(part);
            struct found found = world_look(w.other.root.v, in);
            struct cell expected = within ? w.cell[i] : (struct cell){0};

            if (expected.present && op.call.op == OP_COPY)
                expected.out = op.block[i][part] - part_offset(part);
            if (!says(&found, &expected, part_offset(part)))
                wrong("%#lx is not in the copy as it should be", in);
        }
    world_check_frames(&w.other);
    flush_begin(&batch, &w.other);
    must(table_unmap(&w.other, first, size, &batch) == E_OK);
    flush_commit(&batch);
    must(w.other.table_frames == 1 && !lock_held(&w.other.lock));
}

/* ---- Operations
 * ---------------------------------------------------------------------------------------- */

static int note_harvested(void *ctx, const struct mapping *mapping)
{
    unsigned first, end;

    (void)ctx;
    must(mapping->accessed || mapping->dirty);
    cells_of(mapping->in, mapping->last - mapping->in + 1, &first, &end);
    must(first < end);
    for (unsigned i = first; i < end; i++)
        for (unsigned part = 0; part < parts(); part++)
            if (part_within(i, part, mapping->in, mapping->last - mapping->in + 1)) {
                op.told_a[i][part] |= mapping->accessed;
                op.told_d[i][part] |= mapping->dirty;
            }
    return 0;
}

static int apply(const struct world_call *call, struct flush_batch *batch)
{
    uint64_t in = cell_in(call->first), size = call->count * w.unit;

    switch (call->op) {
    case OP_MAP:
        return table_map(&w.table, in, hpa(call->out), size, call->attrs, call->flags, batch);
    case OP_REPLACE:
        return table_map(&w.table, in, hpa(call->out), size, call->attrs, call->flags | MAP_REPLACE,
                         batch);
    case OP_UNMAP:
        return table_unmap(&w.table, in, size, batch);
    case OP_PROTECT:
        return table_protect(&w.table, in, size, call->attrs, batch);
    case OP_SPLIT:
        return table_split(&w.table, in, size, call->flags, batch);
    case OP_MERGE:
        return table_merge(&w.table, in, size, batch);
    case OP_SWEEP:
        for (int error = E_OK; !error;)
            error = table_merge_sweep(&w.table, &in, batch);
        must(in == w.land->kind->input_first);
        return E_OK;
    case OP_CLONE:
        return table_clone(&w.other, &w.table, in, size, batch);
    case OP_COPY:
        memset(op.block, 0, sizeof(op.block));
        return table_copy(&w.other, &w.table, in, size, &world_source);
    case OP_FRESH:
        op.next = in;
        return table_map_fresh(&w.table, in, size, call->attrs, call->flags, &world_source);
    default:
        return table_harvest(&w.table, in, size, call->flags, note_harvested, NULL, batch);
    }
}

/* What each cell should be afterwards; returns what the mapper should say. */
static int expect(const struct world_call *call)
{
    memcpy(op.after, w.cell, sizeof(op.after));
    for (unsigned i = 0; i < CELLS; i++)
        op.kept[i] = w.cell[i].present;
    if (call->op == OP_HARVEST && !w.table.caps.accessed_dirty)
        return E_UNSUPPORTED;
    for (unsigned i = call->first; i < call->first + call->count; i++)
        if ((call->op == OP_MAP || call->op == OP_FRESH) && w.cell[i].present)
            return E_EXIST;
    for (unsigned i = call->first; i < call->first + call->count; i++) {
        struct cell *cell = &op.after[i];

        if (call->op == OP_MAP || call->op == OP_REPLACE || call->op == OP_FRESH) {
            *cell = (struct cell){.present = true,
                                  .out = call->out + (i - call->first) * w.unit,
                                  .attrs = call->attrs};
            op.kept[i] = false;
        } else if (call->op == OP_UNMAP) {
            *cell = (struct cell){0};
            op.kept[i] = false;
        } else if (call->op == OP_PROTECT && cell->present) {
            cell->attrs = call->attrs;
        } else if (call->op == OP_CLONE) {
            cell->attrs.rights &= (uint8_t)~RIGHT_W;
        }
    }
    return E_OK;
}

static void check_harvest(const struct world_call *call, bool (*accessed_before)[PARTS],
                          bool (*dirty_before)[PARTS])
{
    for (unsigned i = 0; i < CELLS; i++)
        for (unsigned p = 0; p < PARTS; p++) {
            bool within = i >= call->first && i < call->first + call->count;

            if ((within && accessed_before[i][p] > op.told_a[i][p]) ||
                (within && dirty_before[i][p] > op.told_d[i][p]) ||
                op.cleared_a[i][p] > op.told_a[i][p] || op.cleared_d[i][p] > op.told_d[i][p])
                wrong("harvest has not told of %#lx", cell_in(i));
        }
}

int world_run(const struct world_call *call)
{
    static bool accessed_before[CELLS][PARTS], dirty_before[CELLS][PARTS];
    struct flush_batch batch;
    uint64_t taken = w.taken;
    int result = E_NOMEM;

    memset(&op, 0, sizeof(op));
    op.call = *call;
    op.quiet = (unsigned[]){1, 2, 40, 600}[random_below(&chance, 4)];
    w.events = 0;
    int expected = expect(call);
    memcpy(accessed_before, accessed, sizeof(accessed));
    memcpy(dirty_before, dirty, sizeof(dirty));
    memset(accessed_new, 0, sizeof(accessed_new));
    memset(dirty_new, 0, sizeof(dirty_new));
    op.active = true;
    for (unsigned k = 0; result == E_NOMEM && k <= call->refuse; k++) {
        w.fail_in = k < call->refuse ? k : UINT64_MAX;
        w.stores = 0;
        flush_begin(&batch, &w.table);
        result = apply(call, &batch);
        if (result) {
            must(flush_empty(&batch));
            must(w.stores == 0);
            must(w.taken == taken);
            must(op.blocks == 0);
        }
        op.active = result == E_OK || result == E_NOMEM;
        flush_commit(&batch);
    }
    op.active = false;
    w.fail_in = UINT64_MAX;
    if (result != expected)
        wrong("the mapper says %d, and %d was expected", result, expected);
    if (op.owes)
        wrong("a flush is owed that was not done");
    if (result == E_OK) {
        for (unsigned i = 0; i < CELLS; i++)
            if (!op.kept[i]) {
                memcpy(accessed[i], accessed_new[i], sizeof(accessed[i]));
                memcpy(dirty[i], dirty_new[i], sizeof(dirty[i]));
            }
        memcpy(w.cell, op.after, sizeof(w.cell));
        if (call->op == OP_HARVEST)
            check_harvest(call, accessed_before, dirty_before);
    }
    if (w.brief)
        return result;
    check_caches();
    world_check();
    if (result == E_OK && (call->op == OP_CLONE || call->op == OP_COPY))
        check_other();
    return result;
}

static struct attrs random_attrs(void)
{
    static const uint8_t types[] = {MEM_WB, MEM_WB, MEM_WB, MEM_UC, MEM_WC, MEM_WT, MEM_WP};
    static const uint8_t rights[] = {RIGHT_R, RIGHT_RW, RIGHT_RX, RIGHT_RWX};
    struct random *r = &w.random;
    unsigned chosen = rights[random_below(r, 4)];
    enum kind_id id = w.land->kind->id;

    if (id == KIND_USER && random_below(r, 2))
        chosen |= RIGHT_U;
    if (id == KIND_KERNEL && w.table.caps.global && random_below(r, 2))
        chosen |= RIGHT_G;
    if (id == KIND_EPT && w.table.caps.execute_only && random_below(r, 5) == 0)
        chosen = RIGHT_X;
    if (!w.table.caps.nx)
        chosen |= RIGHT_X;
    enum mem_type type = (enum mem_type)types[random_below(r, sizeof(types))];
    return attrs_of(chosen, w.table.caps.mem_types & (1u << type) ? type : MEM_UC);
}

/* Cells of 2 MiB are not cut into so many pages of 4 KiB that they take all memory. */
void world_tame(struct world_call *call)
{
    bool small_cells = w.unit == PAGE_SIZE;
    unsigned most = CELLS;

    switch (call->op) {
    case OP_SPLIT:
        call->flags = small_cells || call->flags == 1 ? 1 : 2;
        most = call->flags == 1 && !small_cells ? 16 : CELLS;
        break;
    case OP_MAP:
    case OP_REPLACE:
        call->flags &= MAP_CAP_2M | MAP_CAP_4K;
        most = (call->flags & MAP_CAP_4K) && !small_cells ? 16 : CELLS;
        break;
    case OP_FRESH:
        call->flags &= small_cells ? MAP_CAP_2M | MAP_CAP_4K : 0;
        most = small_cells ? CELLS : 3;
        break;
    case OP_COPY:
        most = small_cells ? CELLS : 3;
        break;
    case OP_HARVEST:
        call->flags &= HARVEST_CLEAR_A | HARVEST_CLEAR_D;
        break;
    default:
        break;
    }
    if (call->count > most)
        call->count = most;
}

struct world_call world_random_call(void)
{
    static const unsigned caps[] = {MAP_DEFAULT, MAP_DEFAULT, MAP_CAP_2M, MAP_CAP_4K};
    struct random *r = &w.random;
    static const uint8_t ops[] = {OP_MAP,   OP_MAP,   OP_MAP,     OP_REPLACE, OP_REPLACE,
                                  OP_UNMAP, OP_UNMAP, OP_PROTECT, OP_PROTECT, OP_PROTECT,
                                  OP_SPLIT, OP_MERGE, OP_SWEEP,   OP_HARVEST, OP_HARVEST,
                                  OP_CLONE, OP_COPY,  OP_FRESH};
    struct world_call call = {.op = (enum world_op)ops[random_below(r, sizeof(ops))]};
    static const uint8_t then[] = {OP_MERGE, OP_MERGE, OP_SWEEP, OP_SPLIT, OP_PROTECT, OP_HARVEST};
    bool again = w.block && random_below(r, 3);

    /* What has just been mapped as a block, often in small pages, is often joined or taken apart.
     */
    if (again)
        call.op = (enum world_op)then[random_below(r, sizeof(then))];
    call.first = (unsigned)random_below(r, CELLS);
    switch (again ? 0 : random_below(r, 5)) {
    case 0: /* what a large leaf fits, whole */
        call.first = SIDE_CELLS + (unsigned)random_below(r, 2) * BLOCK_CELLS;
        call.count = BLOCK_CELLS;
        break;
    case 1:
        call.count = 1 + (unsigned)random_below(r, CELLS - call.first);
        break;
    case 2:
        call.count = 1;
        break;
    default:
        call.count = 1 + (unsigned)random_below(r, 24);
        break;
    }
    if (call.first + call.count > CELLS)
        call.count = CELLS - call.first;
    if (again) {
        call.first = w.block;
        call.count = random_below(r, 8) ? BLOCK_CELLS : BLOCK_CELLS - 1;
    }
    bool block = call.count == BLOCK_CELLS;
    if (call.op == OP_MAP && call.count > 24 && random_below(r, 4))
        call.op = OP_REPLACE; /* a large range is seldom free */
    /* Often aligned as the input is, so that large leaves and merges come about. */
    call.out = block || random_below(r, 2) ? cell_in(call.first) & BITS(34, 12)
                                           : random_below(r, 2048) * w.unit;
    call.attrs = random_attrs();
    call.flags = caps[random_below(r, 4)];
    if (call.op == OP_SPLIT)
        call.flags = 1 + (unsigned)random_below(r, 2);
    if (call.op == OP_HARVEST)
        call.flags = (unsigned)random_below(r, 4);
    world_tame(&call);
    call.refuse = random_below(r, 4) ? 3 : 12;
    w.block = block && (call.op == OP_MAP || call.op == OP_REPLACE || call.op == OP_PROTECT)
                  ? call.first
                  : 0;
    return call;
}

/* ---- Beginning and end
 * ---------------------------------------------------------------------------------- */

struct table_caps world_caps(enum sdm_format format)
{
    return (struct table_caps){.maxphyaddr = 40,
                               .leaf_top = 3,
                               .nx = true,
                               .accessed_dirty = true,
                               .execute_only = true,
                               .global = format == SDM_HOST,
                               .mem_types = 1 << MEM_UC | 1 << MEM_WC | 1 << MEM_WT | 1 << MEM_WP |
                                            1 << MEM_WB};
}

void world_table_init(struct table *table)
{
    must(table_init(table, w.land->kind, &w.table.caps, &world_env, PURPOSE_TEST, WORLD_OWNER) ==
         E_OK);
    adopt(table->root.v, table->kind->levels, 0, table == &w.table);
}

void world_table_end(struct table *table)
{
    op.destroying = true;
    must(table_destroy(table) == E_OK);
    op.destroying = false;
}

void world_start(const struct land *land, uint64_t unit, const struct table_caps *caps,
                 uint64_t seed)
{
    static uint8_t *metadata;
    uint64_t metadata_size = align_up(buddy_metadata_size(ARENA_BYTES), PAGE_SIZE);

    five_levels_init();
    if (!arena) {
        arena = aligned_alloc(2 * MiB, ARENA_BYTES + DATA_BYTES);
        metadata = aligned_alloc(PAGE_SIZE, metadata_size);
    }
    memset(metadata, 0xa5, metadata_size);
    direct_base = (uint64_t)(uintptr_t)arena;
    must(buddy_init(metadata, metadata_size, ARENA_BYTES) == E_OK);
    must(buddy_add(hpa(PAGE_SIZE), ARENA_BYTES - PAGE_SIZE) == E_OK);
    for (uint64_t pfn = 0; pfn < FRAMES; pfn++) {
        free(shadows[pfn]);
        shadows[pfn] = NULL;
    }
    memset(&w, 0, sizeof(w));
    memset(&op, 0, sizeof(op));
    memset(cpus, 0, sizeof(cpus));
    memset(accessed, 0, sizeof(accessed));
    memset(dirty, 0, sizeof(dirty));
    w.land = land;
    w.unit = unit;
    w.base = unit == PAGE_SIZE ? land->window_4k : land->window_2m;
    w.end = w.base + CELLS * unit;
    w.fail_in = UINT64_MAX;
    w.hardware = true;
    w.random.state = seed;
    chance.state = ~seed;
    w.table.caps = *caps;
    world_env.give_many = seed & 2 ? give_many : NULL;
    world_env.take_many = seed & 4 ? take_many : NULL;
    sdm_cpu = (struct sdm_cpu){.maxphyaddr = caps->maxphyaddr,
                               .page_2m = caps->leaf_top >= 2,
                               .page_1g = caps->leaf_top >= 3,
                               .nxe = caps->nx,
                               .execute_only = caps->execute_only,
                               .user_execute = caps->mode_based_execute};
    world_table_init(&w.table);
    world_table_init(&w.other);
}

void world_end(void)
{
    char why[160];

    if (w.hardware)
        world_fill_caches(); /* which is to be forgotten */
    world_table_end(&w.table);
    world_table_end(&w.other);
    must(w.taken == 0);
    must(buddy_owner_frames(WORLD_OWNER) == 0);
    if (buddy_verify(why, sizeof(why)) != E_OK)
        wrong("%s", why);
}
