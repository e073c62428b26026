/*
 * `map`: what the page tables of the host, of a ring-3 program and of the guests say as a whole, in
 * runs of equal pages; a guest's own tables likewise; and what has changed since a map was saved.
 */
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/mm/explain.h"
#include "arch/x86_64/mm/kernel.h"
#include "arch/x86_64/mm/layout.h"
#include "arch/x86_64/mm/physical.h"
#include "arch/x86_64/user_last.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "mm/paging/typed.h"
#include "monitor/commands.h"
#include "monitor/tables.h"
#include "vm/guest.h"

static const struct column run_columns[] = {
    {"first", COLUMN_HEX, 18}, {"last", COLUMN_HEX, 18}, {"size", COLUMN_SIZE, 7},
    {"page", COLUMN_SIZE, 4},  {"to", COLUMN_HEX, 12},   {"rights", COLUMN_TEXT, 6},
    {"type", COLUMN_TEXT, 4},  {"what", COLUMN_TEXT, 0},
};
static const struct record run_record = RECORD_NARROW("run", run_columns, "last,type,page");

static const struct column total_columns[] = {
    {"page", COLUMN_SIZE, 4},
    {"runs", COLUMN_NUMBER, 6},
    {"pages", COLUMN_NUMBER, 10},
    {"mapped", COLUMN_SIZE, 10},
};
static const struct record total_record = RECORD("page size", total_columns);

static const struct column map_columns[] = {
    {"mapped", COLUMN_SIZE, 0},
    {"runs", COLUMN_NUMBER, 0},
    {"root", COLUMN_HEX, 0},
    {"table frames", COLUMN_FRAMES, 0},
};
static const struct record map_record = RECORD("map", map_columns);

/* --- Filters -----------------------------------------------------------------------------------
 */

struct filter {
    uint64_t first, last; /* of input addresses */
    unsigned rights;      /* all of them must be there */
    uint64_t page;        /* size; 0: any */
    const char *what;     /* how the area or slot is called; NULL: any */
    const char *purpose;  /* of the frames; NULL: any */
    bool any;             /* a filter was given */
};

static int take_rights(const struct command *command, struct output *out, const char *letters,
                       unsigned *rights)
{
    static const char known[] = "rwxug";

    for (; *letters; letters++) {
        const char *at = strchr(known, *letters);
        if (!at)
            return command_refuse(command, out, E_INVAL,
                                  "\"%c\" is no right: rights= takes letters of r w x u g",
                                  *letters);
        *rights |= 1u << (at - known);
    }
    return E_OK;
}

static int take_purpose(const struct command *command, struct output *out, const char *text,
                        const char **purpose)
{
    for (unsigned i = 0; i < PURPOSE_COUNT; i++)
        if (strcmp(text, purpose_name((enum frame_purpose)i)) == 0) {
            *purpose = text;
            return E_OK;
        }
    return command_refuse(command, out, E_INVAL,
                          "\"%.20s\" is no purpose: `frames` has their names; one with a blank is "
                          "quoted, \"purpose=guest memory\"",
                          text);
}

static const char *behind(const char *word, const char *key)
{
    size_t n = strlen(key);

    return strncmp(word, key, n) == 0 ? word + n : NULL;
}

static int take_filters(const struct command *command, struct output *out,
                        const struct arguments *args, unsigned from, struct filter *filter)
{
    int error = E_OK;

    *filter = (struct filter){.last = UINT64_MAX};
    for (unsigned i = from; i < args->count && !error; i++) {
        const char *word = args->word[i], *value;

        filter->any = true;
        if ((value = behind(word, "from=")))
            error = command_number(command, out, value, "address", &filter->first);
        else if ((value = behind(word, "to=")))
            error = command_number(command, out, value, "address", &filter->last);
        else if ((value = behind(word, "rights=")))
            error = take_rights(command, out, value, &filter->rights);
        else if ((value = behind(word, "page=")))
            error = command_number(command, out, value, "size", &filter->page);
        else if ((value = behind(word, "what=")))
            filter->what = value;
        else if ((value = behind(word, "purpose=")))
            error = take_purpose(command, out, value, &filter->purpose);
        else
            error =
                command_refuse(command, out, E_INVAL,
                               "\"%.20s\" is none of from= to= rights= page= what= purpose=", word);
    }
    if (!error && filter->first > filter->last)
        error = command_refuse(command, out, E_RANGE, "from=0x%lx lies behind to=0x%lx",
                               filter->first, filter->last);
    return error;
}

/* --- Runs --------------------------------------------------------------------------------------
 */

/* Sizes of pages that one table can have: 4K, 2M or 4M, 1G. */
#define PAGE_SIZES 4

/* One pass over a table, and what it has seen so far. */
struct map_pass {
    struct output *out;
    const struct filter *filter;
    enum kind_id kind;
    const struct guest *guest; /* whose table it is, or NULL */
    uint64_t page[PAGE_SIZES]; /* by the level of the leaves, from 1 */
    uint64_t runs[PAGE_SIZES], pages[PAGE_SIZES], bytes[PAGE_SIZES];
    uint64_t after[PAGE_SIZES]; /* behind the last page that was counted */
};

static void know_pages(struct map_pass *pass, const struct table_kind *kind)
{
    pass->kind = kind->id;
    for (unsigned level = 1; level < PAGE_SIZES; level++)
        pass->page[level] = level_size(kind, level);
}

static const char *host_window(uint64_t at)
{
    static const struct {
        uint64_t base, size;
        const char *name;
    } windows[] = {
        {DIRECT_BASE, DIRECT_SIZE, "direct map"}, {MMIO_BASE, MMIO_SIZE, "MMIO"},
        {STACKS_BASE, STACKS_SIZE, "stack"},      {IMAGE_BASE, IMAGE_SIZE, "image"},
        {FIXMAP_BASE, FIXMAP_SIZE, "fixmap"},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(windows); i++)
        if (at >= windows[i].base && at - windows[i].base < windows[i].size)
            return windows[i].name;
    return "outside every window";
}

const char *table_guest_area(const struct guest *guest, uint64_t at)
{
    const struct slot *slot = guest_slot_at(guest, gpa(at));

    return slot ? slot_kind_name(slot->kind) : "outside every slot";
}

/* What lies at a run's start: for a guest's own table the slot behind it. */
static const char *what_is_there(const struct map_pass *pass, const struct mapping *run)
{
    if (pass->kind == KIND_KERNEL)
        return host_window(run->in);
    if (!pass->guest)
        return NULL;
    bool second_level = pass->kind == guests_backend()->kind->id;
    return table_guest_area(pass->guest, second_level ? run->in : run->out.v);
}

/* Parts of runs may lie in one large page, which is counted once. */
static void count_pages(struct map_pass *pass, const struct mapping *run)
{
    uint64_t page = pass->page[run->level];
    uint64_t first = run->in / page, last = run->last / page;

    if (first < pass->after[run->level])
        first = pass->after[run->level];
    if (last >= first)
        pass->pages[run->level] += last - first + 1;
    pass->after[run->level] = last + 1;
}

static void show_part(struct map_pass *pass, const struct mapping *run)
{
    char rights[RIGHTS_TEXT];
    uint64_t size = run->last - run->in + 1;
    const char *what = what_is_there(pass, run);

    pass->runs[run->level]++;
    pass->bytes[run->level] += size;
    count_pages(pass, run);
    output_row(pass->out, &run_record,
               (struct value[]){as_number(run->in), as_number(run->last), as_number(size),
                                as_number(pass->page[run->level]), as_number(run->out.v),
                                as_text(rights_text(rights, run->attrs.rights)),
                                as_text(pat_type_name(run->attrs.type)),
                                what ? as_text(what) : as_nothing()});
}

/* The parts of a run behind which frames of the purpose lie, block by block. */
static void show_purpose(struct map_pass *pass, const struct mapping *run)
{
    struct mapping part = *run;
    bool open = false;
    uint64_t step;

    for (uint64_t at = run->in;; at += step) {
        hpa_t frame = hpa_add(run->out, at - run->in);
        struct frame_info info;
        hpa_t head;
        bool wanted = false;

        step = PAGE_SIZE;
        if (frame_query(frame, &info, &head) == E_OK) {
            wanted = strcmp(purpose_name(info.state == FRAME_FREE ? PURPOSE_FREE : info.purpose),
                            pass->filter->purpose) == 0;
            if (info.state != FRAME_RESERVED)
                step = head.v + (PAGE_SIZE << info.order) - frame.v;
        }
        if (open && !wanted) {
            part.last = at - 1;
            show_part(pass, &part);
        } else if (wanted && !open) {
            part.in = at;
            part.out = frame;
        }
        open = wanted;
        if (step > run->last - at)
            break;
    }
    if (open) {
        part.last = run->last;
        show_part(pass, &part);
    }
}

static int show_run(void *ctx, const struct mapping *run)
{
    struct map_pass *pass = ctx;
    const struct filter *filter = pass->filter;

    if (run->last < filter->first || run->in > filter->last ||
        (filter->rights & ~(unsigned)run->attrs.rights) ||
        (filter->page && filter->page != pass->page[run->level]))
        return 0;
    if (filter->what) {
        const char *what = what_is_there(pass, run);
        if (!what || strcmp(what, filter->what) != 0)
            return 0;
    }
    if (filter->purpose)
        show_purpose(pass, run);
    else
        show_part(pass, run);
    return 0;
}

/* The totals below the runs, and where the table itself is (or was). */
static void show_totals(struct map_pass *pass, hpa_t root, struct value table_frames)
{
    uint64_t runs = 0, bytes = 0;

    for (unsigned level = 1; level < PAGE_SIZES; level++) {
        runs += pass->runs[level];
        bytes += pass->bytes[level];
        if (!pass->runs[level])
            continue;
        uint64_t page = pass->page[level];
        output_row(pass->out, &total_record,
                   (struct value[]){as_number(page), as_number(pass->runs[level]),
                                    as_number(pass->pages[level]), as_number(pass->bytes[level])});
    }
    output_facts(
        pass->out, &map_record,
        (struct value[]){as_number(bytes), as_number(runs), as_number(root.v), table_frames});
}

/* The part of the filter's range that the kind has; false when there is none. */
static bool clip(const struct filter *filter, const struct table_kind *kind, uint64_t *first,
                 uint64_t *last)
{
    *first = filter->first > kind->input_first ? filter->first : kind->input_first;
    *last = filter->last < kind->input_last ? filter->last : kind->input_last;
    return *first <= *last;
}

static int show_map(struct output *out, struct table *table, const struct guest *guest,
                    const struct filter *filter)
{
    struct map_pass pass = {.out = out, .guest = guest, .filter = filter};
    uint64_t first, last;

    know_pages(&pass, table->kind);
    if (clip(filter, table->kind, &first, &last)) {
        int error = table_visit(table, first, last, VISIT_RUNS, show_run, &pass);
        if (error)
            return error;
    }
    show_totals(&pass, table->root, as_number(table->table_frames));
    return E_OK;
}

/* What was kept of a table that is gone. */
static void show_snapshot(struct output *out, const struct snapshot *map, const struct guest *guest,
                          const struct filter *filter)
{
    struct map_pass pass = {.out = out, .guest = guest, .filter = filter};

    know_pages(&pass, map->kind);
    for (uint64_t i = 0; i < map->runs && i < SNAPSHOT_RUNS; i++)
        show_run(&pass, &map->run[i]);
    if (map->runs > SNAPSHOT_RUNS)
        output_note(out, "... and %lu runs more, which were not kept; the totals lack them",
                    (map->runs - SNAPSHOT_RUNS));
    show_totals(&pass, map->root, as_number(map->table_frames));
}

/* A ring-3 program runs to its end before the console is asked again, so that what can be shown is
 * what was kept of the last one. */
static int map_user(const struct command *command, struct output *out, const struct filter *filter)
{
    const struct user_last *last = user_last();

    if (!last->map.kind)
        return command_refuse(command, out, E_NOENT,
                              "no ring-3 program has run: a boot module whose line starts with "
                              "`user:NAME` is one");
    output_title(out, "program %s as it ended; its table has been given back", last->name);
    show_snapshot(out, &last->map, NULL, filter);
    return E_OK;
}

void table_title_ended(struct output *out, const struct guest *guest)
{
    output_title(out, "g%u %s as it ended (%s); its table has been given back", guest->number,
                 guest->name, guest_state_name(guest->state));
}

int table_refuse_none(const struct command *command, struct output *out, const struct guest *guest)
{
    if (guest->state == GUEST_REFUSED)
        return command_refuse(command, out, E_STATE, "g%u %s was refused and never had a table: %s",
                              guest->number, guest->name, guest->reason);
    return command_refuse(command, out, E_STATE,
                          "g%u %s has no table (%s); `start g%u paused` makes it anew and holds it "
                          "before its first instruction",
                          guest->number, guest->name, guest_state_name(guest->state),
                          guest->number);
}

/* --- A guest's own tables ----------------------------------------------------------------------
 */

/* Walks of a guest's tables that one command makes, and runs that it shows: they are the guest's,
 * who may have built tables without end. */
#define GVA_WALKS 200000
#define GVA_RUNS 2000

/* Whatever the second level leads to, only RAM is read. */
static bool read_guest(void *ctx, gpa_t from, void *to, unsigned size)
{
    struct guest *guest = ctx;
    struct mapping mapping;

    return gpa_translate(&guest->table, from, &mapping) == E_OK &&
           physical_load(NULL, hpa_add(mapping.out, from.v - mapping.in), to, size);
}

struct gva_context table_guest_registers(struct guest *guest, const struct vcpu_state *state)
{
    struct gva_context registers = {
        .cr0 = state->cr0,
        .cr3 = state->cr3,
        .cr4 = state->cr4,
        .efer = state->efer,
        .maxphyaddr = cpu_features.maxphyaddr,
        .page_1g = cpu_features.page1g,
        .read = read_guest,
        .ctx = guest,
    };

    memcpy(registers.pdpte, state->pdpte, sizeof(registers.pdpte));
    return registers;
}

static const struct column own_columns[] = {
    {"illegal entries", COLUMN_NUMBER, 0},
    {"tables that are not there", COLUMN_NUMBER, 0},
    {"walks", COLUMN_NUMBER, 0},
};
static const struct record own_record = RECORD("own tables", own_columns);

/* How much of the address space the entry covers at which a walk ended. */
static uint64_t covered(enum paging_mode mode, const struct walk *walk)
{
    unsigned bits = mode == PAGING_32BIT ? 10 : 9;

    if (walk->count == 0)
        return mode == PAGING_PAE ? GiB : 0; /* a PDPTE; or nothing could be read at all */
    return UINT64_C(1) << (PAGE_SHIFT + bits * (walk->step[walk->count - 1].level - 1u));
}

static bool continues(const struct mapping *run, const struct mapping *page)
{
    return run->last + 1 == page->in && run->out.v + (page->in - run->in) == page->out.v &&
           run->level == page->level && attrs_equal(run->attrs, page->attrs);
}

/* The next address of the mode at or above `at`; `end` and more when there is none. */
static uint64_t next_address(enum paging_mode mode, uint64_t at)
{
    bool between = mode == PAGING_4LEVEL && at >> 47 && at >> 47 != BITS(16, 0);

    return between ? ~BITS(46, 0) : at; /* on to the upper half */
}

int table_visit_gva(struct gva_visit *visit, uint64_t first, uint64_t last, visit_fn fn, void *ctx)
{
    const struct gva_context *registers = &visit->registers;
    enum paging_mode mode = paging_mode_of(registers);
    uint64_t end = mode == PAGING_4LEVEL ? UINT64_MAX : UINT32_MAX;
    struct mapping run;
    bool open = false; /* a run has begun */
    int stopped = 0;

    if (last < end)
        end = last;
    for (uint64_t at = align_down(first, PAGE_SIZE);;) {
        struct gva_walk walk;
        uint64_t size;

        at = next_address(mode, at);
        if (at > end)
            break;
        visit->next = open ? run.in : at;
        if (visit->walks == visit->most_walks)
            return E_FULL;
        visit->walks++;
        int error = gva_walk(registers, gva(at), &walk);
        struct mapping page = walk.walk.mapping;
        if (error) {
            visit->illegal += error == E_ILLEGAL;
            visit->absent += walk.table_unbacked;
            size = covered(mode, &walk.walk);
            page.last = size ? at | (size - 1) : end;
        } else {
            page.attrs.type = (uint8_t)pat_of_leaf(visit->pat, page.raw, page.level);
            if (open && continues(&run, &page)) {
                run.last = page.last;
            } else {
                if (open && (stopped = fn(ctx, &run)))
                    return stopped;
                run = page;
                open = true;
            }
        }
        if (page.last >= end)
            break;
        at = page.last + 1;
    }
    return open ? fn(ctx, &run) : 0;
}

static int show_own_run(void *ctx, const struct mapping *run)
{
    struct map_pass *pass = ctx;

    if (pass->runs[1] + pass->runs[2] + pass->runs[3] == GVA_RUNS)
        return E_FULL;
    return show_run(pass, run);
}

static int map_gva(const struct command *command, struct output *out, struct guest *guest,
                   const struct filter *filter)
{
    struct map_pass pass = {.out = out, .guest = guest, .filter = filter, .kind = KIND_GUEST64};
    struct vcpu_state state;
    int error = command_state(command, out, guest, &state);

    if (error)
        return error;
    if (filter->purpose)
        return command_refuse(command, out, E_INVAL,
                              "purpose= asks for frames of the host, and a guest's own tables lead "
                              "to guest-physical addresses");
    struct gva_visit visit = {
        .registers = table_guest_registers(guest, &state),
        .pat = state.pat,
        .most_walks = GVA_WALKS,
    };
    enum paging_mode mode = paging_mode_of(&visit.registers);
    output_title(out, "%s of g%u %s, CR3 0x%lx", paging_mode_name(mode), guest->number, guest->name,
                 state.cr3);
    if (mode == PAGING_NONE)
        return command_refuse(command, out, E_STATE,
                              "without paging the guest has no tables: its linear addresses are "
                              "guest-physical ones");
    if (mode == PAGING_5LEVEL)
        return command_refuse(command, out, E_UNSUPPORTED,
                              "5-level paging of a guest is not walked: 4-level, PAE and 32-bit "
                              "paging are");
    pass.page[1] = PAGE_SIZE;
    pass.page[2] = mode == PAGING_32BIT ? 4 * MiB : 2 * MiB;
    pass.page[3] = GiB;
    if (table_visit_gva(&visit, filter->first, filter->last, show_own_run, &pass) == E_FULL)
        output_note(out, "There is more: `from=0x%lx` goes on from there.", visit.next);
    show_totals(&pass, hpa(state.cr3 & BITS(51, 12)), as_nothing());
    output_facts(out, &own_record,
                 (struct value[]){as_number(visit.illegal), as_number(visit.absent),
                                  as_number(visit.walks)});
    return E_OK;
}

/* --- Saved maps --------------------------------------------------------------------------------
 */

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

static int map_save(const struct command *command, struct output *out, struct table *table,
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

static int map_forget(const struct command *command, struct output *out, unsigned number)
{
    if (!saved[number])
        return command_refuse(command, out, E_NOENT, "no map of it has been saved");
    buddy_free(direct_hpa(saved[number]), SAVED_ORDER, OWNER_HOST);
    saved[number] = NULL;
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

static int map_diff(const struct command *command, struct output *out, struct table *table,
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

/* --- The command -------------------------------------------------------------------------------
 */

enum what { WHAT_MAP, WHAT_GVA, WHAT_SAVE, WHAT_DIFF, WHAT_FORGET };

static enum what take_what(const struct arguments *args)
{
    static const char *const words[] = {
        [WHAT_GVA] = "gva", [WHAT_SAVE] = "save", [WHAT_DIFF] = "diff", [WHAT_FORGET] = "forget"};

    for (enum what what = WHAT_GVA; what <= WHAT_FORGET; what++)
        if (args->count > 2 && strcmp(args->word[2], words[what]) == 0)
            return what;
    return WHAT_MAP;
}

static int map(const struct command *command, struct output *out, const struct arguments *args)
{
    bool host = strcmp(args->word[1], "host") == 0, user = strcmp(args->word[1], "user") == 0;
    enum what what = take_what(args);
    struct guest *guest = NULL;
    struct filter filter;
    int error = E_OK;

    if (!host && !user)
        error = command_guest(command, out, args->word[1], &guest);
    if (!error)
        error = take_filters(command, out, args, what == WHAT_MAP ? 2 : 3, &filter);
    if (error)
        return error;
    if (what >= WHAT_SAVE && filter.any)
        return command_refuse(command, out, E_INVAL,
                              "save, diff and forget are of the whole map: no filter "
                              "goes with them");
    if ((what == WHAT_GVA && !guest) || (what != WHAT_MAP && user))
        return command_refuse(command, out, E_INVAL, "\"%s\" goes with a guest%s, not with %s",
                              args->word[2], what == WHAT_GVA ? "" : " or host", args->word[1]);
    if (what == WHAT_FORGET)
        return map_forget(command, out, host ? 0 : guest->number);
    if (user)
        return map_user(command, out, &filter);
    if (guest && !guest->has_table) {
        if (what != WHAT_MAP || !guest->last_map.kind)
            return table_refuse_none(command, out, guest);
        table_title_ended(out, guest);
        show_snapshot(out, &guest->last_map, guest, &filter);
        return E_OK;
    }
    struct table *table = host ? &kernel_table : &guest->table;
    unsigned number = host ? 0 : guest->number;
    switch (what) {
    case WHAT_MAP:
        return show_map(out, table, guest, &filter);
    case WHAT_GVA:
        return map_gva(command, out, guest, &filter);
    case WHAT_SAVE:
        return map_save(command, out, table, number);
    case WHAT_DIFF:
        return map_diff(command, out, table, number);
    case WHAT_FORGET:
        break;
    }
    return E_OK;
}

static const struct command map_commands[] = {
    {
        .name = "map",
        .usage = "host|user|gN [gva|save|diff|forget] [FILTER ...]",
        .words = "from=X to=X rights= page= what= purpose=",
        .summary = "what a table maps, as runs of equal pages",
        .details =
            "Each run is contiguous on both sides, in pages of one size with the same rights and\n"
            "memory type. Rights: r read, w write, x execute, u from ring 3, g global.\n"
            "`user` is the ring-3 program that ran last, as its table stood when it ended;\n"
            "of a guest that has ended, likewise. `gva` is the guest's own tables, as its CR3\n"
            "stands now. `save` keeps the map as it is, `diff` shows what has changed since,\n"
            "`forget` gives the memory of it back.\n"
            "Filters: from=X to=X rights=wx page=2M what=stack purpose=heap; all must hold.\n",
        .example = "map g1 rights=w page=4K",
        .least = 1,
        .most = 8,
        .run = map,
    },
};

const struct command_family map_family = FAMILY("map", map_commands);
