/*
 * CPUs with TLBs and paging-structure caches. They use pages at the worst moments, set A and D,
 * also through entries that have gone stale, and forget exactly what a flush names.
 *
 * The flush goes to them by the hypervisor's own protocol (arch/x86_64/mm/shootdown.h). The first
 * CPU writes; the others take their NMIs late, and go on meanwhile. But for the kernel's table,
 * which all have at all times, each loads the table and leaves it; what it has cached it keeps, as
 * under a tag, and may use again where it has missed no flush.
 */
#include "arch/x86_64/mm/shootdown.h"
#include "tests/property/world_internal.h"

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
    bool loaded;   /* it has the table as its context; of the kernel's, see has_loaded() */
    uint64_t seen; /* of the table's flushes */
    struct translation tlb[CELLS][PARTS];
    struct structure structure[MAX_LEVELS][STRUCTURES];
} cpus[CPUS];

static unsigned acting; /* the CPU whose instructions are run */
static uint64_t nmis;   /* a bit for each CPU that has one coming */
static uint64_t clock_ticks;

struct random chance;

static bool has_loaded(const struct cpu *cpu)
{
    return w.land->kind->id == KIND_KERNEL || cpu->loaded;
}

/* Whether it may use what it has cached, now or after its next load. */
static bool may_use_caches(const struct cpu *cpu)
{
    return has_loaded(cpu) || cpu->seen == w.table.generation + 1;
}

static void forget_all(struct cpu *cpu)
{
    memset(cpu->tlb, 0, sizeof(cpu->tlb));
    memset(cpu->structure, 0, sizeof(cpu->structure));
}

/* CPU `number` loads the table or leaves it. */
static void load(unsigned number, bool on)
{
    struct cpu *cpu = &cpus[number];
    unsigned was = acting;

    if (w.land->kind->id == KIND_KERNEL || cpu->loaded == on)
        return;
    acting = number;
    if (shootdown_load(CONTEXT_GUEST, on ? &w.table : NULL, &cpu->seen))
        forget_all(cpu);
    cpu->loaded = on;
    acting = was;
}

static uint64_t hardware_sets(uint64_t *slot, uint64_t bits)
{
    struct shadow *shadow = shadow_of((uint64_t)((uint8_t *)slot - arena));

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

/* Where a walk begins: at the lowest node that the CPU's caches lead to, or at the root. Returns
 * the node's level. */
static unsigned walk_from(const struct cpu *cpu, uint64_t in, bool by_caches,
                          struct structure *from)
{
    for (unsigned l = 1; by_caches && l < w.land->kind->levels; l++) {
        uint64_t prefix = in / sdm_page_bytes(l + 1);

        *from = cpu->structure[l][prefix % STRUCTURES];
        if (from->valid && from->prefix == prefix)
            return l;
    }
    *from = (struct structure){.table = w.table.root.v, .rights = ~0u};
    return w.land->kind->levels;
}

static void cpu_access(struct cpu *cpu, unsigned i, unsigned part, bool write, bool by_caches)
{
    enum sdm_format format = w.land->format;
    bool keeps_ad = w.table.caps.accessed_dirty;
    uint64_t in = cell_in(i) + part_offset(part);
    struct translation *cached = &cpu->tlb[i][part];
    struct structure from;

    if (!has_loaded(cpu))
        return;
    if (cached->valid && in - cached->in < cached->bytes &&
        (!write || cached->dirty || !keeps_ad || !(cached->attrs.rights & RIGHT_W)))
        return;
    unsigned level = walk_from(cpu, in, by_caches, &from), rights = from.rights;
    uint64_t table = from.table;

    for (;; level--) {
        if (!shadow_of(table))
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
void some_access(uint64_t in, uint64_t bytes)
{
    unsigned first, end;

    if (w.strike && w.events == w.strike_at) {
        load(1, true);
        cpu_access(&cpus[1], w.strike_cell, w.strike_part % parts(), true, true);
    }
    w.events++;
    if (!w.hardware || random_below(&chance, op.quiet))
        return;
    if (op.quiet > 2) {
        in = cell_in(op.call.first);
        bytes = op.call.count * w.unit;
    }
    cells_of(in, bytes, &first, &end);
    if (random_below(&chance, 16) == 0) {
        unsigned number = (unsigned)random_below(&chance, CPUS);

        load(number, !cpus[number].loaded);
    }
    unsigned i = first < end && random_below(&chance, 4)
                     ? first + (unsigned)random_below(&chance, end - first)
                     : (unsigned)random_below(&chance, CELLS);
    cpu_access(&cpus[random_below(&chance, CPUS)], i, (unsigned)random_below(&chance, parts()),
               random_below(&chance, 2), random_below(&chance, 3));
}

static void start_protocol(void);

void world_forget(void)
{
    memset(cpus, 0, sizeof(cpus));
    start_protocol();
}

void world_fill_caches(void)
{
    /* The first CPU knows all, the others this and that; often nobody writes, so that pages are
     * clean. */
    bool writing = random_below(&chance, 4) == 0;

    for (unsigned c = 0; c < CPUS; c++)
        load(c, c < 2 || random_below(&chance, 4));
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

static unsigned self(void)
{
    return acting;
}

static void send(unsigned cpu)
{
    must(cpu != acting && cpu < CPUS);
    nmis |= UINT64_C(1) << cpu;
}

static void forget(struct table *table, const struct flush_batch *batch)
{
    must(table == &w.table && batch->table == table);
    cpu_invalidate(&cpus[acting], batch);
}

/* A look at the clock, while answers are missing: the others go on, and some CPU takes its NMI. */
static uint64_t now(void)
{
    for (unsigned times = 0; times < 4 && op.active; times++)
        some_access(w.base, w.end - w.base);
    unsigned cpu = (unsigned)random_below(&chance, CPUS);
    if (nmis >> cpu & 1) {
        nmis &= ~(UINT64_C(1) << cpu);
        acting = cpu;
        shootdown_answer();
        acting = 0;
    }
    return clock_ticks++;
}

static void missing(unsigned cpu, const struct table *table)
{
    wrong("CPU %u never answers a flush of the %s table", cpu, table->kind->name);
}

static void start_protocol(void)
{
    static const struct shootdown_ops ops = {.self = self,
                                             .send = send,
                                             .forget = forget,
                                             .now = now,
                                             .resend = 1000,
                                             .patience = 100000,
                                             .missing = missing};

    nmis = 0;
    acting = 0;
    shootdown_init(&ops);
    for (acting = 1; acting < CPUS; acting++)
        shootdown_join();
    acting = 0;
}

void cpus_invalidate(const struct flush_batch *batch)
{
    for (unsigned times = 0; times < 4 && op.active; times++)
        some_access(w.base, w.end - w.base);
    shootdown_flush(&w.table, batch);
    must(nmis == 0);
}

bool added_rights_are_free(void)
{
    return w.land->format == SDM_EPT;
}

static void check_tlb(const struct cpu *cpu)
{
    for (unsigned i = 0; i < CELLS; i++)
        for (unsigned part = 0; part < parts(); part++) {
            const struct translation *cached = &cpu->tlb[i][part];
            uint64_t offset = cell_in(i) + part_offset(part) - cached->in;
            uint64_t in = cached->in + offset;

            if (!cached->valid)
                continue;
            struct found now = world_look(w.table.root.v, in);
            unsigned stale = cached->attrs.rights & ~now.attrs.rights;
            unsigned missing = now.attrs.rights & ~cached->attrs.rights;

            if (!now.present || now.out != cached->out + offset ||
                now.attrs.type != cached->attrs.type || stale)
                wrong("a CPU holds a stale translation of %#lx", in);
            if (missing && !added_rights_are_free())
                wrong("a CPU would fault at %#lx, which is allowed", in);
            if (w.table.caps.accessed_dirty && (!now.accessed || (cached->dirty && !now.dirty)))
                wrong("a CPU uses %#lx without setting A or D again", in);
        }
}

static void check_structures(const struct cpu *cpu)
{
    for (unsigned level = 1; level < MAX_LEVELS; level++)
        for (unsigned n = 0; n < STRUCTURES; n++) {
            const struct structure *known = &cpu->structure[level][n];

            if (!known->valid)
                continue;
            const struct shadow *shadow = shadow_of(known->table);
            if (!shadow || shadow->dead || !shadow->main || shadow->level != level ||
                shadow->in / sdm_page_bytes(level + 1) != known->prefix)
                wrong("a CPU holds a stale entry for the node %#lx", known->table);
        }
}

void check_caches(void)
{
    for (unsigned c = 0; c < CPUS; c++)
        if (may_use_caches(&cpus[c])) {
            check_tlb(&cpus[c]);
            check_structures(&cpus[c]);
        }
}

void check_not_walked(uint64_t first, uint64_t bytes)
{
    for (unsigned c = 0; c < CPUS; c++)
        for (unsigned level = 1; level < MAX_LEVELS; level++)
            for (unsigned n = 0; n < STRUCTURES; n++) {
                const struct structure *known = &cpus[c].structure[level][n];

                if (may_use_caches(&cpus[c]) && known->valid && known->table - first < bytes)
                    wrong("frame %#lx given back while CPU %u still walks through it", first, c);
            }
}

void check_unreachable(uint64_t first, uint64_t bytes)
{
    check_not_walked(first, bytes);
    for (unsigned c = 0; c < CPUS; c++)
        for (unsigned i = 0; i < CELLS * PARTS; i++) {
            const struct translation *cached = &cpus[c].tlb[i / PARTS][i % PARTS];

            if (may_use_caches(&cpus[c]) && cached->valid && cached->out < first + bytes &&
                first < cached->out + cached->bytes)
                wrong("frame %#lx given back while CPU %u still translates to it", first, c);
        }
}
