/* See monitor/map_saved.h. */
#include "monitor/map_saved.h"

#include "mm/frames/buddy.h"
#include "mm/paging/table.h"
#include "vm/guest.h"

#define SAVED_ORDER 5 /* 128 KiB for each map */

struct saved_run {
    uint64_t in, last, out;
    uint8_t rights, type, level;
};

struct saved_map {
    uint64_t runs;
    struct saved_run run[];
};

#define SAVED_RUNS                                                                                 \
    (((PAGE_SIZE << SAVED_ORDER) - sizeof(struct saved_map)) / sizeof(struct saved_run))

/* By guest; 0 is the host's. Their memory stays for the next map of the same table, until `forget`.
 */
static struct saved_map *saved[GUEST_LIMIT + 1];

static int save_run(void *ctx, const struct mapping *run)
{
    struct saved_map *map = ctx;

    if (map->runs == SAVED_RUNS)
        return E_FULL;
    map->run[map->runs++] = (struct saved_run){run->in,           run->last,       run->out.v,
                                               run->attrs.rights, run->attrs.type, run->level};
    return 0;
}

static int take_map(const struct command *command, struct output *out, struct table *table,
                    struct saved_map *map)
{
    map->runs = 0;
    int error = table_visit(table, table->kind->input_first, table->kind->input_last, VISIT_RUNS,
                            save_run, map);
    if (error == E_FULL)
        return command_refuse(command, out, error,
                              "the map has more than %lu runs, which is all "
                              "that is kept",
                              SAVED_RUNS);
    return error;
}

static int new_map(const struct command *command, struct output *out, struct saved_map **map)
{
    hpa_t block;
    int error = buddy_alloc(SAVED_ORDER, PURPOSE_HEAP, OWNER_HOST, &block);

    if (error)
        return command_refuse(command, out, error, "no memory to keep a map in: %s",
                              error_text(error));
    *map = direct(block);
    (*map)->runs = 0;
    return E_OK;
}

int map_save(const struct command *command, struct output *out, struct table *table,
             unsigned number)
{
    int error = saved[number] ? E_OK : new_map(command, out, &saved[number]);

    if (!error)
        error = take_map(command, out, table, saved[number]);
    if (!error)
        output_note(out, "%lu runs are kept; diff instead of save shows what has changed since.",
                    saved[number]->runs);
    return error;
}

int map_forget(const struct command *command, struct output *out, unsigned number)
{
    if (!saved[number])
        return command_refuse(command, out, E_NOENT, "no map of it has been saved");
    uint64_t runs = saved[number]->runs;
    buddy_free(direct_hpa(saved[number]), SAVED_ORDER, OWNER_HOST);
    saved[number] = NULL;
    output_note(out, "the map of %lu runs that was kept is forgotten", runs);
    return E_OK;
}

static const struct column change_columns[] = {
    {"change", COLUMN_TEXT, 7}, {"first", COLUMN_HEX, 18},    {"last", COLUMN_HEX, 18},
    {"size", COLUMN_SIZE, 7},   {"was page", COLUMN_SIZE, 4}, {"was to", COLUMN_HEX, 12},
    {"was", COLUMN_TEXT, 6},    {"page", COLUMN_SIZE, 4},     {"to", COLUMN_HEX, 12},
    {"rights", COLUMN_TEXT, 6},
};
static const struct record change_record =
    RECORD_NARROW("change", change_columns, "last,was page,page,was");

static const struct column difference_columns[] = {
    {"new", COLUMN_SIZE, 0},
    {"gone", COLUMN_SIZE, 0},
    {"changed", COLUMN_SIZE, 0},
};
static const struct record difference_record = RECORD("difference", difference_columns);

/* One of two maps on a walk through both. */
struct side {
    const struct saved_map *map;
    uint64_t next; /* the first run that does not lie before the position */
};

static const struct saved_run *side_at(struct side *side, uint64_t at)
{
    while (side->next < side->map->runs && side->map->run[side->next].last < at)
        side->next++;
    return side->next < side->map->runs ? &side->map->run[side->next] : NULL;
}

static bool same_there(const struct saved_run *a, const struct saved_run *b, uint64_t at)
{
    return a->out + (at - a->in) == b->out + (at - b->in) && a->rights == b->rights &&
           a->type == b->type && a->level == b->level;
}

static void show_change(struct output *out, const struct table_kind *kind, uint64_t first,
                        uint64_t last, const struct saved_run *was, const struct saved_run *is)
{
    char rights_was[RIGHTS_TEXT], rights_is[RIGHTS_TEXT];

    output_row(out, &change_record,
               (struct value[]){as_text(!was  ? "new"
                                        : !is ? "gone"
                                              : "changed"),
                                as_number(first), as_number(last), as_number(last - first + 1),
                                was ? as_number(level_size(kind, was->level)) : as_nothing(),
                                was ? as_number(was->out + (first - was->in)) : as_nothing(),
                                was ? as_text(rights_text(rights_was, was->rights)) : as_nothing(),
                                is ? as_number(level_size(kind, is->level)) : as_nothing(),
                                is ? as_number(is->out + (first - is->in)) : as_nothing(),
                                is ? as_text(rights_text(rights_is, is->rights)) : as_nothing()});
}

/* Goes through both maps from one place where either changes to the next. */
static void show_difference(struct output *out, const struct table_kind *kind,
                            const struct saved_map *before, const struct saved_map *now)
{
    struct side a = {before, 0}, b = {now, 0};
    uint64_t sums[3] = {0, 0, 0}; /* new, gone, changed */

    for (uint64_t at = 0;;) {
        const struct saved_run *was = side_at(&a, at), *is = side_at(&b, at);
        uint64_t last = UINT64_MAX;

        if (!was && !is)
            break;
        /* Where nothing is on either side, on to the next run. */
        uint64_t start_was = was ? was->in : UINT64_MAX, start_is = is ? is->in : UINT64_MAX;
        uint64_t start = start_was < start_is ? start_was : start_is;
        if (at < start)
            at = start;
        if (was && was->in <= at)
            last = was->last;
        else if (was)
            last = was->in - 1;
        if (is && is->in <= at && is->last < last)
            last = is->last;
        else if (is && is->in > at && is->in - 1 < last)
            last = is->in - 1;
        const struct saved_run *there = was && was->in <= at ? was : NULL;
        const struct saved_run *here = is && is->in <= at ? is : NULL;
        if (!there || !here || !same_there(there, here, at)) {
            show_change(out, kind, at, last, there, here);
            sums[!there ? 0 : !here ? 1 : 2] += last - at + 1;
        }
        if (last == UINT64_MAX)
            break;
        at = last + 1;
    }
    output_facts(out, &difference_record,
                 (struct value[]){as_number(sums[0]), as_number(sums[1]), as_number(sums[2])});
}

int map_diff(const struct command *command, struct output *out, struct table *table,
             unsigned number)
{
    struct saved_map *now;

    if (!saved[number])
        return command_refuse(command, out, E_STATE,
                              "no map of it has been saved: save instead of diff does that");
    int error = new_map(command, out, &now);
    if (error)
        return error;
    error = take_map(command, out, table, now);
    if (!error)
        show_difference(out, table->kind, saved[number], now);
    buddy_free(direct_hpa(now), SAVED_ORDER, OWNER_HOST);
    return error;
}
