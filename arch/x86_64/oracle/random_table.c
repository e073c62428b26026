/* See random_table.h. */
#include "arch/x86_64/oracle/random_table.h"

#include "lib/format.h"
#include "lib/panic.h"
#include "lib/string.h"

/* splitmix64 */
uint64_t oracle_random(struct oracle *oracle)
{
    uint64_t z = oracle->random += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t oracle_below(struct oracle *oracle, uint64_t limit)
{
    return oracle_random(oracle) % limit;
}

/* ---- Filling -------------------------------------------------------------------------------- */

static struct attrs random_attrs(struct oracle *oracle, const struct random_table *random)
{
    return random->attrs[oracle_below(oracle, random->attrs_count)];
}

/* Somewhere for leaves of this size: anywhere, or beside a piece, where they share tables with it.
 */
static uint64_t random_place(struct oracle *oracle, const struct random_table *random,
                             uint64_t leaf)
{
    uint64_t in, span = random->last - random->first + 1;

    if (random->pieces == 0 || oracle_below(oracle, 3) == 0) {
        in = random->first + oracle_below(oracle, span);
    } else {
        const struct piece *piece = &random->piece[oracle_below(oracle, random->pieces)];
        uint64_t step = leaf * (1 + oracle_below(oracle, 3));
        in = oracle_below(oracle, 2) ? piece->in + piece->size + step : piece->in - step;
    }
    return align_down(in, leaf);
}

/* Memory of the oracle's for `count` leaves of a level; a leaf of 1 GiB is the one around it. */
static hpa_t random_memory(struct oracle *oracle, unsigned level, uint64_t leaf, uint64_t *count)
{
    uint64_t leaves = ORACLE_MEMORY / leaf, first;

    if (level == 3) {
        *count = 1;
        return hpa(align_down(oracle->memory.v, leaf));
    }
    first = oracle_below(oracle, leaves);
    if (*count > leaves - first)
        *count = leaves - first;
    return hpa_add(oracle->memory, first * leaf);
}

static int map_piece(struct oracle *oracle, struct random_table *random)
{
    struct table *table = random->table;
    unsigned level = 1 + (unsigned)oracle_below(oracle, table->caps.leaf_top);
    uint64_t leaf = level_size(table->kind, level);
    uint64_t count = 1 + oracle_below(oracle, level == 1 ? 24 : 2);
    hpa_t out = random_memory(oracle, level, leaf, &count);
    uint64_t in = random_place(oracle, random, leaf), size = count * leaf;
    unsigned flags = oracle_below(oracle, 4) != 0 ? MAP_DEFAULT
                     : level > 2                  ? MAP_CAP_2M
                                                  : MAP_CAP_4K;
    struct flush_batch batch;

    if (in < random->first || in > random->last || size - 1 > random->last - in)
        return E_OK;
    flush_begin(&batch, table);
    int error = table_map(table, in, out, size, random_attrs(oracle, random), flags, &batch);
    flush_commit(&batch);
    if (error == E_OK)
        random->piece[random->pieces++] = (struct piece){in, size, out};
    return error == E_EXIST ? E_OK : error;
}

/* A few pages in the part of a piece that shows the oracle's memory. */
static uint64_t random_part(struct oracle *oracle, const struct piece *piece, uint64_t *size)
{
    uint64_t offset = piece->out.v < oracle->memory.v ? oracle->memory.v - piece->out.v : 0;
    uint64_t room = piece->size - offset < ORACLE_MEMORY ? piece->size - offset : ORACLE_MEMORY;
    uint64_t at = align_down(oracle_below(oracle, room), PAGE_SIZE);

    *size = PAGE_SIZE * (1 + oracle_below(oracle, 8));
    if (*size > room - at)
        *size = room - at;
    return piece->in + offset + at;
}

/* What a piece shows becomes other memory, at the same place. */
static int replace_piece(struct oracle *oracle, struct random_table *random, struct piece *piece,
                         struct flush_batch *batch)
{
    struct table *table = random->table;
    unsigned level = table->caps.leaf_top;
    uint64_t leaf, count;

    while (piece->size % level_size(table->kind, level) != 0)
        level--;
    leaf = level_size(table->kind, level);
    count = piece->size / leaf;
    hpa_t out = random_memory(oracle, level, leaf, &count);
    if (count * leaf != piece->size)
        return E_OK;
    int error = table_map(table, piece->in, out, piece->size, random_attrs(oracle, random),
                          MAP_REPLACE, batch);
    if (error == E_OK)
        piece->out = out;
    return error;
}

int random_table_change(struct oracle *oracle, struct random_table *random)
{
    struct table *table = random->table;
    struct flush_batch batch;
    int error = E_OK;

    random->again = random->recents > 0 && oracle_below(oracle, 2) != 0;
    if (random->pieces == 0 || (random->pieces < PIECES && oracle_below(oracle, 8) == 0))
        return map_piece(oracle, random);
    struct piece *piece = &random->piece[oracle_below(oracle, random->pieces)];
    uint64_t size, in = random_part(oracle, piece, &size);
    flush_begin(&batch, table);
    switch (oracle_below(oracle, 6)) {
    case 0:
        error = table_protect(table, in, size, random_attrs(oracle, random), &batch);
        break;
    case 1:
        error = table_unmap(table, in, size, &batch);
        break;
    case 2:
        error = table_split(table, in, size, 1 + (unsigned)oracle_below(oracle, 2), &batch);
        break;
    case 3:
        error = table_merge(table, piece->in, piece->size, &batch);
        break;
    case 4: /* the whole piece, at its own page sizes */
        error = table_protect(table, piece->in, piece->size, random_attrs(oracle, random), &batch);
        break;
    case 5:
        error = replace_piece(oracle, random, piece, &batch);
        break;
    }
    flush_commit(&batch);
    return error;
}

int random_table_fill(struct oracle *oracle, struct random_table *random)
{
    int error = E_OK;

    random->pieces = random->damages = 0;
    random->through = random->first;
    for (unsigned i = 0; i < PIECES * 3 / 4 && error == E_OK; i++)
        error = map_piece(oracle, random);
    for (uint64_t i = oracle_below(oracle, 8); i > 0 && error == E_OK; i--)
        error = random_table_change(oracle, random);
    return error;
}

/* ---- Damage --------------------------------------------------------------------------------- */

static uint64_t one_bit_of(struct oracle *oracle, uint64_t bits)
{
    unsigned count = 0;

    for (uint64_t rest = bits; rest != 0; rest &= rest - 1)
        count++;
    for (uint64_t skip = oracle_below(oracle, count); skip > 0; skip--)
        bits &= bits - 1;
    return BIT(lowest_bit(bits));
}

/* As often one below a large page's size, where there are any, as any other. */
static uint64_t one_fatal_bit(struct oracle *oracle, uint64_t bits)
{
    uint64_t below = bits & BITS(29, PAGE_SHIFT);

    return one_bit_of(oracle, below != 0 && oracle_below(oracle, 2) ? below : bits);
}

static uint64_t random_in_piece(struct oracle *oracle, const struct random_table *random)
{
    const struct piece *piece = &random->piece[oracle_below(oracle, random->pieces)];
    uint64_t size, in = random_part(oracle, piece, &size);

    return in + oracle_below(oracle, PAGE_SIZE);
}

static bool is_kept(const struct random_table *random, hpa_t entry)
{
    struct walk walk;

    table_walk(random->table, random->keep, &walk);
    for (unsigned i = 0; i < walk.count; i++)
        if (walk.step[i].address.v == entry.v)
            return true;
    return false;
}

uint64_t long_mode_reserved(const struct table *table, unsigned level, bool leaf)
{
    uint64_t bits = table->caps.maxphyaddr < 52 ? BITS(51, table->caps.maxphyaddr) : 0;

    if (level >= 4)
        bits |= PTE_PS;
    if (leaf && level == 2)
        bits |= BITS(20, 13);
    if (leaf && level == 3)
        bits |= BITS(29, 13);
    return bits;
}

void random_table_damage(struct oracle *oracle, struct random_table *random, uint64_t harmless,
                         uint64_t (*fatal)(const struct table *table, unsigned level, bool leaf))
{
    unsigned count = DAMAGES / 2 + (unsigned)oracle_below(oracle, DAMAGES / 2 + 1);

    for (unsigned i = 0; i < count && random->pieces > 0; i++) {
        struct walk walk;

        uint64_t in = random_in_piece(oracle, random);

        table_walk(random->table, in, &walk);
        const struct walk_step *step = &walk.step[oracle_below(oracle, walk.count)];
        if ((step->class != ENTRY_TABLE && step->class != ENTRY_LEAF) ||
            is_kept(random, step->address))
            continue;
        uint64_t *slot = direct(step->address);
        uint64_t bits = one_bit_of(oracle, harmless);
        if (oracle_below(oracle, 3) == 0)
            bits =
                one_fatal_bit(oracle, fatal(random->table, step->level, step->class == ENTRY_LEAF));
        random->damage[random->damages++] = (struct damage){slot, *slot, in};
        *slot ^= bits;
    }
}

void random_table_clear(struct random_table *random)
{
    struct flush_batch batch;

    while (random->damages > 0) {
        random->damages--;
        *random->damage[random->damages].slot = random->damage[random->damages].was;
    }
    flush_begin(&batch, random->table);
    invariant(table_unmap(random->table, random->first, random->last - random->first + 1, &batch) ==
              E_OK);
    flush_commit(&batch);
}

/* ---- Pairs ---------------------------------------------------------------------------------- */

static uint64_t random_address(struct oracle *oracle, struct random_table *random)
{
    uint64_t kind = oracle_below(oracle, 16);

    if (random->again) {
        random->again = false;
        return random->through;
    }
    if (kind < 3 && random->recents > 0)
        return random->recent[oracle_below(oracle, random->recents)];
    if (kind < 6 && random->damages > 0)
        return random->damage[oracle_below(oracle, random->damages)].in;
    if (kind == 6 || random->pieces == 0)
        return random->first + oracle_below(oracle, random->last - random->first + 1);
    if (kind > 9)
        return random_in_piece(oracle, random);
    const struct piece *piece = &random->piece[oracle_below(oracle, random->pieces)];
    uint64_t edge = kind & 1 ? piece->in : piece->in + piece->size;
    return edge + oracle_below(oracle, 2 * PAGE_SIZE) - PAGE_SIZE;
}

static bool is_ours(const struct oracle *oracle, hpa_t at, unsigned width)
{
    return at.v >= oracle->memory.v && at.v - oracle->memory.v <= ORACLE_MEMORY - width;
}

void random_pair(struct oracle *oracle, struct random_table *random, unsigned width,
                 struct pair *pair)
{
    static const uint8_t accesses[] = {RIGHT_R, RIGHT_W, RIGHT_X};

    do {
        pair->in = random_address(oracle, random);
        if (PAGE_SIZE - pair->in % PAGE_SIZE < width)
            pair->in -= width;
        pair->access = accesses[oracle_below(oracle, 3)];
        table_walk(random->table, pair->in, &pair->walk);
        pair->to = hpa(0);
        if (pair->walk.error == E_OK)
            pair->to = hpa_add(pair->walk.mapping.out, pair->in - pair->walk.mapping.in);
        /* What is denied must not do harm either, if the CPU lets it through. */
    } while (pair->in < random->first || pair->in > random->last ||
             (pair->walk.error == E_OK && !is_ours(oracle, pair->to, width)));
    if (random->recents < RECENT)
        random->recent[random->recents++] = pair->in;
    else
        random->recent[oracle_below(oracle, RECENT)] = pair->in;
}

bool pair_is_consistent(struct table *table, const struct pair *pair)
{
    const struct walk *walk = &pair->walk;
    const struct walk_step *last = &walk->step[walk->count - 1];
    enum rule rule = walk->error == E_NOENT ? RULE_NOT_PRESENT : last->rule;
    struct mapping mapping;

    if (table_translate(table, pair->in, &mapping) != walk->error ||
        entry_rule(table->kind, &table->caps, last->level, last->raw) != rule)
        return false;
    return walk->error != E_OK ||
           (mapping.in == walk->mapping.in && mapping.last == walk->mapping.last &&
            mapping.out.v == walk->mapping.out.v && mapping.level == walk->mapping.level &&
            attrs_equal(mapping.attrs, walk->mapping.attrs));
}

const char *check_accessed_dirty(struct table *table, const struct pair *pair)
{
    struct walk after;

    if (!table->caps.accessed_dirty)
        return NULL;
    table_walk(table, pair->in, &after);
    if (after.error != E_OK)
        return "through, and the walk has changed";
    for (unsigned i = 0; i < after.count; i++)
        if (!after.step[i].accessed)
            return "through, without an accessed bit";
    if (pair->access == RIGHT_W && !after.mapping.dirty)
        return "through, without the dirty bit";
    if (pair->access != RIGHT_W && after.mapping.dirty && !pair->walk.mapping.dirty)
        return "through, with a dirty bit for no write";
    return NULL;
}

void count_pair(struct oracle *oracle, const struct pair *pair, bool refused)
{
    oracle->listener->progress(oracle->listener, ++oracle->tried);
    oracle->counts->pairs++;
    if (pair->walk.error == E_NOENT)
        oracle->counts->absent++;
    else if (pair->walk.error != E_OK)
        oracle->counts->illegal++;
    else if (refused)
        oracle->counts->refused++;
    else
        oracle->counts->through++;
}

void report_pair(struct oracle *oracle, const struct pair *pair, const char *conditions,
                 const char *predicted, const char *happened)
{
    const struct walk_step *last = &pair->walk.step[pair->walk.count - 1];
    struct oracle_disagreement disagreement = {
        .space = oracle->space,
        .address = pair->in,
        .access = pair->access,
        .entry = last->raw,
        .level = last->level,
    };

    oracle->counts->disagreements++;
    format_buffer(disagreement.conditions, ORACLE_TEXT, "%s", conditions);
    format_buffer(disagreement.predicted, ORACLE_TEXT, "%s", predicted);
    format_buffer(disagreement.happened, ORACLE_TEXT, "%s", happened);
    oracle->listener->report(oracle->listener, &disagreement);
}
