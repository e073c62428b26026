/*
 * `map` and `walk`: what the page tables of the host, of a ring-3 program and of the guests say, as a
 * whole and for one address.
 */
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/mm/guest_walk.h"
#include "arch/x86_64/mm/kernel.h"
#include "arch/x86_64/mm/layout.h"
#include "arch/x86_64/user_last.h"
#include "lib/string.h"
#include "monitor/commands.h"
#include "vm/guest.h"

/* --- map ------------------------------------------------------------------------------------- */

static const struct column run_columns[] = {
    {"first", COLUMN_HEX, 18}, {"last", COLUMN_HEX, 18}, {"size", COLUMN_SIZE, 7},
    {"page", COLUMN_SIZE, 4},  {"to", COLUMN_HEX, 12},   {"rights", COLUMN_TEXT, 6},
    {"type", COLUMN_TEXT, 4},  {"what", COLUMN_TEXT, 0},
};
static const struct record run_record = RECORD("run", run_columns);

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

/* One pass over a table, and what it has seen so far. */
struct map_pass {
    struct output *out;
    const struct table_kind *kind;
    const struct guest *guest;                            /* whose table it is, or NULL */
    uint64_t runs[MAX_LEVELS + 1], bytes[MAX_LEVELS + 1]; /* by the level of the leaves */
};

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

static const char *guest_area(const struct guest *guest, uint64_t at)
{
    const struct slot *slot = guest_slot_at(guest, gpa(at));

    return slot ? slot_kind_name(slot->kind) : "outside every slot";
}

static int show_run(void *ctx, const struct mapping *run)
{
    struct map_pass *pass = ctx;
    char rights[RIGHTS_TEXT];
    uint64_t size = run->last - run->in + 1;
    struct value what = as_nothing();

    if (pass->guest)
        what = as_text(guest_area(pass->guest, run->in));
    else if (pass->kind->id == KIND_KERNEL)
        what = as_text(host_window(run->in));
    pass->runs[run->level]++;
    pass->bytes[run->level] += size;
    output_row(pass->out, &run_record,
               (struct value[]){as_number(run->in), as_number(run->last), as_number(size),
                                as_number(level_size(pass->kind, run->level)),
                                as_number(run->out.v),
                                as_text(rights_text(rights, run->attrs.rights)),
                                as_text(mem_type_name((enum mem_type)run->attrs.type)), what});
    return 0;
}

/* The totals below the runs, and where the table itself is (or was). */
static void show_totals(struct map_pass *pass, hpa_t root, uint64_t table_frames)
{
    uint64_t runs = 0, bytes = 0;

    for (unsigned level = 1; level <= MAX_LEVELS; level++) {
        runs += pass->runs[level];
        bytes += pass->bytes[level];
        if (!pass->runs[level])
            continue;
        uint64_t page = level_size(pass->kind, level);
        output_row(pass->out, &total_record,
                   (struct value[]){as_number(page), as_number(pass->runs[level]),
                                    as_number(pass->bytes[level] / page),
                                    as_number(pass->bytes[level])});
    }
    output_facts(pass->out, &map_record,
                 (struct value[]){as_number(bytes), as_number(runs), as_number(root.v),
                                  as_number(table_frames)});
}

static int show_map(struct output *out, struct table *table, const struct guest *guest)
{
    struct map_pass pass = {.out = out, .kind = table->kind, .guest = guest};
    int error = table_visit(table, table->kind->input_first, table->kind->input_last, VISIT_RUNS,
                            show_run, &pass);

    if (!error)
        show_totals(&pass, table->root, table->table_frames);
    return error;
}

/* What was kept of a table that is gone. */
static void show_snapshot(struct output *out, const struct snapshot *map, const struct guest *guest)
{
    struct map_pass pass = {.out = out, .kind = map->kind, .guest = guest};

    for (uint64_t i = 0; i < map->runs && i < SNAPSHOT_RUNS; i++)
        show_run(&pass, &map->run[i]);
    if (map->runs > SNAPSHOT_RUNS)
        output_note(out, "... and %llu runs more, which were not kept; the totals lack them",
                    (unsigned long long)(map->runs - SNAPSHOT_RUNS));
    show_totals(&pass, map->root, map->table_frames);
}

/* A ring-3 program runs to its end before the console is asked again, so that what can be shown is
 * what was kept of the last one. */
static int map_user(const struct command *command, struct output *out)
{
    const struct user_last *last = user_last();

    if (!last->map.kind)
        return command_refuse(command, out, E_NOENT,
                              "no ring-3 program has run: a boot module whose line starts with "
                              "`user:NAME` is one");
    output_title(out, "program %s as it ended; its table has been given back", last->name);
    show_snapshot(out, &last->map, NULL);
    return E_OK;
}

static void title_ended(struct output *out, const struct guest *guest)
{
    output_title(out, "g%u %s as it ended (%s); its table has been given back", guest->number,
                 guest->name, guest_state_name(guest->state));
}

/* Says why a guest has no table, not even the memory of one. */
static int refuse_no_table(const struct command *command, struct output *out,
                           const struct guest *guest)
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

static int map(const struct command *command, struct output *out, const struct arguments *args)
{
    struct guest *guest;
    int error;

    if (strcmp(args->word[1], "host") == 0)
        return show_map(out, &kernel_table, NULL);
    if (strcmp(args->word[1], "user") == 0)
        return map_user(command, out);
    error = command_guest(command, out, args->word[1], &guest);
    if (error)
        return error;
    if (guest->has_table)
        return show_map(out, &guest->table, guest);
    if (!guest->last_map.kind)
        return refuse_no_table(command, out, guest);
    title_ended(out, guest);
    show_snapshot(out, &guest->last_map, guest);
    return E_OK;
}

/* --- walk ------------------------------------------------------------------------------------ */

static const struct column step_columns[] = {
    {"level", COLUMN_TEXT, 5},  {"index", COLUMN_NUMBER, 5}, {"entry at", COLUMN_HEX, 12},
    {"raw", COLUMN_HEX, 18},    {"is", COLUMN_TEXT, 6},      {"to", COLUMN_HEX, 12},
    {"rights", COLUMN_TEXT, 6}, {"type", COLUMN_TEXT, 4},    {"A", COLUMN_FLAG, 3},
    {"D", COLUMN_FLAG, 3},
};
static const struct record step_record = RECORD("step", step_columns);

#define VERDICT_COLUMNS(name, in, to)                                                              \
    static const struct column name##_columns[] = {                                                \
        {"verdict", COLUMN_TEXT, 0},  {in, COLUMN_HEX, 0},        {to, COLUMN_HEX, 0},             \
        {"page", COLUMN_SIZE, 0},     {"rights", COLUMN_TEXT, 0}, {"type", COLUMN_TEXT, 0},        \
        {"accessed", COLUMN_FLAG, 0}, {"dirty", COLUMN_FLAG, 0},  {"decided at", COLUMN_TEXT, 0},  \
        {"rule", COLUMN_TEXT, 0},     {"manual", COLUMN_TEXT, 0}, {"slot", COLUMN_TEXT, 0},        \
    };                                                                                             \
    static const struct record name##_record = RECORD("verdict", name##_columns)

VERDICT_COLUMNS(host_verdict, "hva", "hpa");
VERDICT_COLUMNS(ept_verdict, "gpa", "hpa");
VERDICT_COLUMNS(guest_verdict, "gva", "gpa");

static const char *class_name(enum entry_class class)
{
    static const char *const names[] = {
        [ENTRY_ABSENT] = "absent",
        [ENTRY_TABLE] = "table",
        [ENTRY_LEAF] = "leaf",
        [ENTRY_BAD] = "bad",
    };

    return names[class];
}

/* Where a step leads: its leaf's frame, or the table that the next step reads. */
static struct value step_target(const struct walk *walk, unsigned i)
{
    if (walk->step[i].class == ENTRY_LEAF)
        return as_number(walk->mapping.out.v);
    if (i + 1 < walk->count)
        return as_number(align_down(walk->step[i + 1].address.v, PAGE_SIZE));
    return as_nothing();
}

static void show_steps(struct output *out, const struct walk *walk)
{
    char rights[RIGHTS_TEXT];

    for (unsigned i = 0; i < walk->count; i++) {
        const struct walk_step *step = &walk->step[i];
        bool present = step->class == ENTRY_TABLE || step->class == ENTRY_LEAF;
        bool leaf = step->class == ENTRY_LEAF;

        output_row(out, &step_record,
                   (struct value[]){as_text(level_name(step->level)), as_number(step->index),
                                    as_number(step->address.v), as_number(step->raw),
                                    as_text(class_name(step->class)), step_target(walk, i),
                                    present ? as_text(rights_text(rights, step->attrs.rights))
                                            : as_nothing(),
                                    leaf ? as_text(mem_type_name((enum mem_type)step->attrs.type))
                                         : as_nothing(),
                                    present ? as_number(step->accessed) : as_nothing(),
                                    leaf ? as_number(step->dirty) : as_nothing()});
    }
}

/* What the walk came to. `failure` says why when no entry does; `slot` is as guest_area() or NULL. */
static void show_verdict(struct output *out, const struct record *record, enum kind_id kind,
                         uint64_t in, const struct walk *walk, const char *failure,
                         const char *slot)
{
    char rights[RIGHTS_TEXT], decided[32];
    const struct mapping *mapping = &walk->mapping;
    struct value of_slot = slot ? as_text(slot) : as_nothing();

    if (walk->error == E_OK && walk->count == 0) {
        /* A guest without paging: no entry was read, so there are no rights, type or A and D. */
        output_facts(out, record,
                     (struct value[]){as_text("not translated"), as_number(in), as_number(in),
                                      as_nothing(), as_nothing(), as_nothing(), as_nothing(),
                                      as_nothing(), as_nothing(), as_nothing(), as_nothing(),
                                      of_slot});
        return;
    }
    if (walk->error == E_OK) {
        output_facts(out, record,
                     (struct value[]){as_text("mapped"), as_number(in),
                                      as_number(mapping->out.v + (in - mapping->in)),
                                      as_number(mapping->last - mapping->in + 1),
                                      as_text(rights_text(rights, mapping->attrs.rights)),
                                      as_text(mem_type_name((enum mem_type)mapping->attrs.type)),
                                      as_number(mapping->accessed), as_number(mapping->dirty),
                                      as_nothing(), as_nothing(), as_nothing(), of_slot});
        return;
    }
    const struct walk_step *last = walk->count ? &walk->step[walk->count - 1] : NULL;
    enum rule rule = RULE_OK;
    if (last && last->class == ENTRY_ABSENT)
        rule = RULE_NOT_PRESENT;
    else if (last && last->class == ENTRY_BAD)
        rule = last->rule;
    if (last)
        format_buffer(decided, sizeof(decided), "%s entry %u", level_name(last->level),
                      last->index);
    output_facts(out, record,
                 (struct value[]){
                     as_text(rule == RULE_NOT_PRESENT ? "not mapped"
                             : rule != RULE_OK        ? "illegal entry"
                                                      : "no answer"),
                     as_number(in), as_nothing(), as_nothing(), as_nothing(), as_nothing(),
                     as_nothing(), as_nothing(), last ? as_text(decided) : as_nothing(),
                     as_text(rule != RULE_OK ? rule_text(rule) : failure),
                     rule != RULE_OK ? as_text(rule_section(kind, rule)) : as_nothing(), of_slot});
}

/* A walk through one of our own tables: the host's, a ring-3 program's, a guest's second level. */
static int walk_table(const struct command *command, struct output *out, struct table *table,
                      const struct guest *guest, uint64_t in)
{
    struct walk walk;

    if (in < table->kind->input_first || in > table->kind->input_last)
        return command_refuse(command, out, E_RANGE,
                              "0x%llx is no address of the %s table: those are 0x%llx to 0x%llx",
                              (unsigned long long)in, table->kind->name,
                              (unsigned long long)table->kind->input_first,
                              (unsigned long long)table->kind->input_last);
    table_walk(table, in, &walk);
    show_steps(out, &walk);
    show_verdict(out, guest ? &ept_verdict_record : &host_verdict_record, table->kind->id, in,
                 &walk, "", guest ? guest_area(guest, in) : NULL);
    return E_OK;
}

static bool read_guest(void *ctx, gpa_t from, void *to, unsigned size)
{
    return guest_read(ctx, from, to, size) == size;
}

/* The guest's own tables first, then where they lead through its second level. */
static int walk_gva(const struct command *command, struct output *out, struct guest *guest,
                    uint64_t in)
{
    struct vcpu_state state;
    struct gva_walk walk;
    int error = command_state(command, out, guest, &state);

    if (error)
        return error;
    struct gva_context context = {
        .cr0 = state.cr0,
        .cr3 = state.cr3,
        .cr4 = state.cr4,
        .efer = state.efer,
        .maxphyaddr = cpu_features.maxphyaddr,
        .page_1g = cpu_features.page1g,
        .read = read_guest,
        .ctx = guest,
    };
    memcpy(context.pdpte, state.pdpte, sizeof(context.pdpte));
    error = gva_walk(&context, gva(in), &walk);
    output_title(out, "%s of g%u %s, CR3 0x%llx", paging_mode_name(walk.mode), guest->number,
                 guest->name, (unsigned long long)state.cr3);
    if (error == E_UNSUPPORTED)
        return command_refuse(command, out, error,
                              "%s of a guest is not walked: 4-level, PAE and "
                              "32-bit paging are",
                              paging_mode_name(walk.mode));
    if (error == E_RANGE && !walk.table_unbacked)
        return command_refuse(command, out, error, "0x%llx is no linear address of this guest: %s",
                              (unsigned long long)in,
                              walk.mode == PAGING_4LEVEL
                                  ? "bits 63 to 47 must be equal (a canonical address)"
                                  : "it has 32 bits");
    show_steps(out, &walk.walk);
    show_verdict(out, &guest_verdict_record, KIND_GUEST64, in, &walk.walk,
                 walk.table_unbacked ? "the next table lies where the guest has no memory"
                                     : error_text(error),
                 NULL);
    if (error)
        return E_OK;
    output_title(out, "%s of g%u %s", guest->table.kind->name, guest->number, guest->name);
    return walk_table(command, out, &guest->table, guest, walk.gpa.v);
}

/* Of a table that is gone the runs are known, but not the steps. */
static int walk_snapshot(const struct command *command, struct output *out,
                         const struct guest *guest, uint64_t in)
{
    const struct snapshot *map = &guest->last_map;
    const struct mapping *found = NULL;
    char rights[RIGHTS_TEXT];

    for (uint64_t i = 0; i < map->runs && i < SNAPSHOT_RUNS; i++)
        if (in >= map->run[i].in && in <= map->run[i].last)
            found = &map->run[i];
    if (!found && map->runs > SNAPSHOT_RUNS && in > map->run[SNAPSHOT_RUNS - 1].last)
        return command_refuse(command, out, E_NOENT,
                              "g%u %s has ended, and of its map this part was not kept",
                              guest->number, guest->name);
    title_ended(out, guest);
    output_facts(
        out, &ept_verdict_record,
        (struct value[]){as_text(found ? "was mapped" : "was not mapped"), as_number(in),
                         found ? as_number(found->out.v + (in - found->in)) : as_nothing(),
                         found ? as_number(level_size(map->kind, found->level)) : as_nothing(),
                         found ? as_text(rights_text(rights, found->attrs.rights)) : as_nothing(),
                         found ? as_text(mem_type_name((enum mem_type)found->attrs.type))
                               : as_nothing(),
                         as_nothing(), as_nothing(), as_nothing(), as_nothing(), as_nothing(),
                         as_text(guest_area(guest, in))});
    output_note(out, "`start g%u paused` makes it anew, to be walked step by step.", guest->number);
    return E_OK;
}

static int walk_guest(const struct command *command, struct output *out,
                      const struct arguments *args)
{
    struct guest *guest;
    uint64_t in;
    int error = command_guest(command, out, args->word[1], &guest);
    bool is_gva = strcmp(args->word[2], "gva") == 0;

    if (error)
        return error;
    if (!is_gva && strcmp(args->word[2], "gpa") != 0)
        return command_refuse(command, out, E_INVAL,
                              "\"%.20s\" is no kind of address: a guest has gpa (physical) and gva "
                              "(virtual) ones",
                              args->word[2]);
    if (args->count < 4)
        return command_refuse(command, out, E_INVAL, "which %s? for example: walk g%u %s 0x101000",
                              args->word[2], guest->number, args->word[2]);
    error = command_number(command, out, args->word[3], "address", &in);
    if (error)
        return error;
    if (!guest->has_table && guest->last_map.kind && !is_gva)
        return walk_snapshot(command, out, guest, in);
    if (!guest->has_table)
        return refuse_no_table(command, out, guest);
    return is_gva ? walk_gva(command, out, guest, in)
                  : walk_table(command, out, &guest->table, guest, in);
}

static int walk(const struct command *command, struct output *out, const struct arguments *args)
{
    uint64_t in;
    int error;

    if (strcmp(args->word[1], "host") != 0)
        return walk_guest(command, out, args);
    if (args->count > 3)
        return command_refuse(command, out, E_INVAL, "one address follows host, not more");
    error = command_number(command, out, args->word[2], "address", &in);
    return error ? error : walk_table(command, out, &kernel_table, NULL, in);
}

static const struct command tables_commands[] = {
    {
        .name = "map",
        .usage = "host | user | gN",
        .summary = "what a table maps, as runs of equal pages",
        .details =
            "Each run is contiguous on both sides, in pages of one size with the same rights and\n"
            "memory type. Rights: r read, w write, x execute, u from ring 3, g global.\n"
            "`user` is the ring-3 program that ran last, as its table stood when it ended;\n"
            "of a guest that has ended, likewise.\n",
        .example = "map g1",
        .least = 1,
        .most = 1,
        .run = map,
    },
    {
        .name = "walk",
        .usage = "host VA | gN gpa X | gN gva X",
        .summary = "every step from an address to its frame",
        .details =
            "`walk host` goes through the hypervisor's own table, `gpa` through the guest's "
            "second\n"
            "level, `gva` through the guest's own tables first, as its CR3 stands now. Each step\n"
            "shows where the entry is, what it holds and what it lets through; the verdict holds\n"
            "what all levels together do, or the rule that stopped the walk.\n",
        .example = "walk g1 gpa 0x101000",
        .least = 2,
        .most = 3,
        .run = walk,
    },
};

const struct command_family tables_family = FAMILY("tables", tables_commands);
