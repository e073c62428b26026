/*
 * `map`: what the page tables of the host, of a ring-3 program and of the guests say as a whole, in
 * runs of equal pages; a guest's own tables likewise; and what has changed since a map was saved.
 */
#include "arch/x86_64/guest/read_linear.h"
#include "arch/x86_64/mm/explain.h"
#include "arch/x86_64/mm/kernel.h"
#include "arch/x86_64/mm/layout.h"
#include "arch/x86_64/user_last.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "mm/paging/typed.h"
#include "monitor/commands.h"
#include "monitor/map_filter.h"
#include "monitor/map_saved.h"
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

/* --- Runs --------------------------------------------------------------------------------------
 */

/* Sizes of pages that one table can have: 4K, 2M or 4M, 1G. */
#define PAGE_SIZES 4

/* One pass over a table, and what it has seen so far. */
struct map_pass {
    struct output *out;
    const struct map_filter *filter;
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

#define NO_WINDOW "outside every window"
#define NO_SLOT "outside every slot"

static const struct {
    uint64_t base, size;
    const char *name;
} windows[] = {
    {DIRECT_BASE, DIRECT_SIZE, "direct map"}, {MMIO_BASE, MMIO_SIZE, "MMIO"},
    {STACKS_BASE, STACKS_SIZE, "stack"},      {IMAGE_BASE, IMAGE_SIZE, "image"},
    {FIXMAP_BASE, FIXMAP_SIZE, "fixmap"},
};

static const char *host_window(uint64_t at)
{
    for (unsigned i = 0; i < ARRAY_SIZE(windows); i++)
        if (at >= windows[i].base && at - windows[i].base < windows[i].size)
            return windows[i].name;
    return NO_WINDOW;
}

const char *table_guest_area(const struct guest *guest, uint64_t at)
{
    const struct slot *slot = guest_slot_at(guest, gpa(at));

    return slot ? slot_kind_name(slot->kind) : NO_SLOT;
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
    const struct map_filter *filter = pass->filter;

    if (run->last < filter->first || run->in > filter->last ||
        (filter->rights & ~(unsigned)run->attrs.rights) ||
        (filter->by_page && filter->page != pass->page[run->level]))
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

#define NAMES_TEXT 160

/* Number `i` of what can be in the column `what`; NULL behind the last. */
static const char *area_name(const struct map_pass *pass, unsigned i)
{
    unsigned count = pass->kind == KIND_KERNEL ? ARRAY_SIZE(windows) : pass->guest ? SLOT_KINDS : 0;

    if (i == count && count)
        return pass->kind == KIND_KERNEL ? NO_WINDOW : NO_SLOT;
    if (i >= count)
        return NULL;
    return pass->kind == KIND_KERNEL ? windows[i].name : slot_kind_name((enum slot_kind)i);
}

static int check_what(const struct command *command, const struct map_pass *pass)
{
    char names[NAMES_TEXT] = "";
    const char *name;
    size_t n = 0;

    if (!pass->filter->what)
        return E_OK;
    for (unsigned i = 0; (name = area_name(pass, i)); i++) {
        if (strcmp(name, pass->filter->what) == 0)
            return E_OK;
        /* Two kinds of slots are called alike. */
        if (pass->guest && i == SLOT_ROM_LAZY)
            continue;
        n += format_buffer(names + n, sizeof(names) - n, "%s%s", i ? ", " : "", name);
    }
    if (!n)
        return command_refuse(command, pass->out, E_INVAL,
                              "what= asks for slots of guests or areas of the host, and a ring-3 "
                              "program has neither");
    return command_refuse(command, pass->out, E_INVAL,
                          "what=%.20s: nothing is called so: there are %s", pass->filter->what,
                          names);
}

static int check_page(const struct command *command, const struct map_pass *pass)
{
    char sizes[NAMES_TEXT] = "", size[SIZE_TEXT];
    size_t n = 0;

    if (!pass->filter->by_page)
        return E_OK;
    for (unsigned level = 1; level < PAGE_SIZES; level++) {
        if (!pass->page[level])
            continue;
        if (pass->page[level] == pass->filter->page)
            return E_OK;
        n += format_buffer(sizes + n, sizeof(sizes) - n, "%s%s", n ? ", " : "",
                           size_text(size, pass->page[level]));
    }
    return command_refuse(command, pass->out, E_INVAL,
                          "page=%s: no page of such a table has this size: there are %s",
                          size_text(size, pass->filter->page), sizes);
}

/* What the filter asks for of pages and areas is something that such a table can have. */
static int check_filter(const struct command *command, const struct map_pass *pass)
{
    int error = check_page(command, pass);

    return error ? error : check_what(command, pass);
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
static bool clip(const struct map_filter *filter, const struct table_kind *kind, uint64_t *first,
                 uint64_t *last)
{
    *first = filter->first > kind->input_first ? filter->first : kind->input_first;
    *last = filter->last < kind->input_last ? filter->last : kind->input_last;
    return *first <= *last;
}

static int show_map(const struct command *command, struct output *out, struct table *table,
                    const struct guest *guest, const struct map_filter *filter)
{
    struct map_pass pass = {.out = out, .guest = guest, .filter = filter};
    uint64_t first, last;

    know_pages(&pass, table->kind);
    int wrong = check_filter(command, &pass);
    if (wrong)
        return wrong;
    if (clip(filter, table->kind, &first, &last)) {
        int error = table_visit(table, first, last, VISIT_RUNS, show_run, &pass);
        if (error)
            return error;
    }
    show_totals(&pass, table->root, as_number(table->table_frames));
    return E_OK;
}

/* What was kept of a table that is gone. */
static int show_snapshot(const struct command *command, struct output *out,
                         const struct snapshot *map, const struct guest *guest,
                         const struct map_filter *filter)
{
    struct map_pass pass = {.out = out, .guest = guest, .filter = filter};

    know_pages(&pass, map->kind);
    int error = check_filter(command, &pass);
    if (error)
        return error;
    for (uint64_t i = 0; i < map->runs && i < SNAPSHOT_RUNS; i++)
        show_run(&pass, &map->run[i]);
    if (map->runs > SNAPSHOT_RUNS)
        output_note(out, "... and %lu runs more, which were not kept; the totals lack them",
                    (map->runs - SNAPSHOT_RUNS));
    show_totals(&pass, map->root, as_number(map->table_frames));
    return E_OK;
}

/* A ring-3 program runs to its end before the console is asked again, so that what can be shown is
 * what was kept of the last one. */
static int map_user(const struct command *command, struct output *out,
                    const struct map_filter *filter)
{
    const struct user_last *last = user_last();

    if (!last->map.kind)
        return command_refuse(command, out, E_NOENT,
                              "no ring-3 program has run: a boot module whose line starts with "
                              "`user:NAME` is one");
    output_title(out, "program %s as it ended; its table has been given back", last->name);
    return show_snapshot(command, out, &last->map, NULL, filter);
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

static const struct column own_columns[] = {
    {"illegal entries", COLUMN_NUMBER, 0},
    {"tables that are not there", COLUMN_NUMBER, 0},
    {"walks", COLUMN_NUMBER, 0},
};
static const struct record own_record = RECORD("own tables", own_columns);

static int show_own_run(void *ctx, const struct mapping *run)
{
    struct map_pass *pass = ctx;

    if (pass->runs[1] + pass->runs[2] + pass->runs[3] == GVA_RUNS)
        return E_FULL;
    return show_run(pass, run);
}

static int map_gva(const struct command *command, struct output *out, struct guest *guest,
                   const struct map_filter *filter)
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
        .registers = guest_gva_context(&guest->table, &state),
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
    pass.page[3] = mode == PAGING_4LEVEL ? GiB : 0;
    error = check_filter(command, &pass);
    if (error)
        return error;
    if (table_visit_gva(&visit, filter->first, filter->last, show_own_run, &pass) == E_FULL)
        output_note(out, "There is more: `from=0x%lx` goes on from there.", visit.next);
    show_totals(&pass, hpa(state.cr3 & BITS(51, 12)), as_nothing());
    output_facts(out, &own_record,
                 (struct value[]){as_number(visit.illegal), as_number(visit.absent),
                                  as_number(visit.walks)});
    return E_OK;
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
    struct map_filter filter;
    int error = E_OK;

    if (!host && !user)
        error = command_guest(command, out, args->word[1], &guest);
    if (!error)
        error = map_take_filters(command, out, args, what == WHAT_MAP ? 2 : 3, &filter);
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
        return show_snapshot(command, out, &guest->last_map, guest, &filter);
    }
    struct table *table = host ? &kernel_table : &guest->table;
    unsigned number = host ? 0 : guest->number;
    switch (what) {
    case WHAT_MAP:
        return show_map(command, out, table, guest, &filter);
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
        .of_cpu = true,
        .usage = "host|user|gN [gva|save|diff|forget] [FILTER ...]",
        .words = "from=X to=X rights= page= what= purpose=",
        .summary = "what a table maps, as runs of equal pages",
        .details = "Each run is contiguous on both sides, in pages of one size with the same\n"
                   "rights and memory type. Rights: r read, w write, x execute, u from ring 3, g\n"
                   "global. `user` is the ring-3 program that ran last, as its table stood when\n"
                   "it ended; of a guest that has ended, likewise. `gva` is the guest's own\n"
                   "tables, as its CR3 stands now. `save` keeps the map as it is, `diff` shows\n"
                   "what has changed since, `forget` gives the memory of it back.\n"
                   "Filters: from=X to=X rights=wx page=2M what=stack purpose=heap; all must\n"
                   "hold.\n",
        .example = "map g1 rights=w page=4K",
        .least = 1,
        .most = 8,
        .run = map,
    },
};

const struct command_family map_family = FAMILY("map", map_commands);
