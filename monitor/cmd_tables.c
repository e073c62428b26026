/*
 * `walk`: what the page tables of the host and of the guests say for one address.
 */
#include "arch/x86_64/guest/read_linear.h"
#include "arch/x86_64/mm/explain.h"
#include "arch/x86_64/mm/kernel.h"
#include "lib/string.h"
#include "monitor/commands.h"
#include "monitor/tables.h"
#include "vm/guest.h"
#include "vm/symbols.h"

/* --- walk ------------------------------------------------------------------------------------ */

static const struct column step_columns[] = {
    {"level", COLUMN_TEXT, 5},  {"index", COLUMN_NUMBER, 5}, {"entry at", COLUMN_HEX, 12},
    {"raw", COLUMN_HEX, 18},    {"is", COLUMN_TEXT, 6},      {"to", COLUMN_HEX, 12},
    {"rights", COLUMN_TEXT, 6}, {"type", COLUMN_TEXT, 4},    {"A", COLUMN_FLAG, 3},
    {"D", COLUMN_FLAG, 3},
};
static const struct record step_record = RECORD_NARROW("step", step_columns, "D,A,type,is");

#define VERDICT_COLUMNS(name, in, to)                                                              \
    static const struct column name##_columns[] = {                                                \
        {"verdict", COLUMN_TEXT, 0},  {in, COLUMN_HEX, 0},        {to, COLUMN_HEX, 0},             \
        {"page", COLUMN_SIZE, 0},     {"rights", COLUMN_TEXT, 0}, {"type", COLUMN_TEXT, 0},        \
        {"accessed", COLUMN_FLAG, 0}, {"dirty", COLUMN_FLAG, 0},  {"decided at", COLUMN_TEXT, 0},  \
        {"rule", COLUMN_TEXT, 0},     {"manual", COLUMN_TEXT, 0}, {"slot", COLUMN_TEXT, 0},        \
        {"symbol", COLUMN_TEXT, 0},                                                                \
    };                                                                                             \
    static const struct record name##_record = RECORD("verdict", name##_columns)

VERDICT_COLUMNS(host_verdict, "hva", "hpa");
VERDICT_COLUMNS(second_verdict, "gpa", "hpa");
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
                                    leaf ? as_text(pat_type_name(step->attrs.type)) : as_nothing(),
                                    present ? as_number(step->accessed) : as_nothing(),
                                    leaf ? as_number(step->dirty) : as_nothing()});
    }
}

/* What the walk came to. `failure` says why when no entry does; `slot` is as table_guest_area() or
 * NULL, `symbol` that of a guest's virtual address or "". */
static void show_verdict(struct output *out, const struct record *record, enum kind_id kind,
                         uint64_t in, const struct walk *walk, const char *failure,
                         const char *slot, const char *symbol)
{
    struct value of_symbol = *symbol ? as_text(symbol) : as_nothing();
    char rights[RIGHTS_TEXT], decided[32];
    const struct mapping *mapping = &walk->mapping;
    struct value of_slot = slot ? as_text(slot) : as_nothing();

    if (walk->error == E_OK && walk->count == 0) {
        /* A guest without paging: no entry was read, so there are no rights, type or A and D. */
        output_facts(out, record,
                     (struct value[]){as_text("not translated"), as_number(in), as_number(in),
                                      as_nothing(), as_nothing(), as_nothing(), as_nothing(),
                                      as_nothing(), as_nothing(), as_nothing(), as_nothing(),
                                      of_slot, of_symbol});
        return;
    }
    if (walk->error == E_OK) {
        output_facts(out, record,
                     (struct value[]){as_text("mapped"), as_number(in),
                                      as_number(mapping->out.v + (in - mapping->in)),
                                      as_number(mapping->last - mapping->in + 1),
                                      as_text(rights_text(rights, mapping->attrs.rights)),
                                      as_text(pat_type_name(mapping->attrs.type)),
                                      as_number(mapping->accessed), as_number(mapping->dirty),
                                      as_nothing(), as_nothing(), as_nothing(), of_slot,
                                      of_symbol});
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
    output_facts(
        out, record,
        (struct value[]){as_text(rule == RULE_NOT_PRESENT ? "not mapped"
                                 : rule != RULE_OK        ? "illegal entry"
                                                          : "no answer"),
                         as_number(in), as_nothing(), as_nothing(), as_nothing(), as_nothing(),
                         as_nothing(), as_nothing(), last ? as_text(decided) : as_nothing(),
                         as_text(rule != RULE_OK ? rule_text(rule) : failure),
                         rule != RULE_OK ? as_text(rule_section(kind, rule)) : as_nothing(),
                         of_slot, of_symbol});
}

/* A walk through one of our own tables: the host's, a ring-3 program's, a guest's second level. */
static int walk_table(const struct command *command, struct output *out, struct table *table,
                      const struct guest *guest, uint64_t in)
{
    struct walk walk;

    if (in < table->kind->input_first || in > table->kind->input_last)
        return command_refuse(command, out, E_RANGE,
                              "0x%lx is no address of the %s table: those are 0x%lx to 0x%lx", in,
                              table->kind->name, table->kind->input_first, table->kind->input_last);
    table_walk(table, in, &walk);
    show_steps(out, &walk);
    show_verdict(out, guest ? &second_verdict_record : &host_verdict_record, table->kind->id, in,
                 &walk, "", guest ? table_guest_area(guest, in) : NULL, "");
    return E_OK;
}

/* The types in a guest's tables are those of its own PAT. */
static void take_guest_types(struct walk *walk, uint64_t pat)
{
    for (unsigned i = 0; i < walk->count; i++)
        if (walk->step[i].class == ENTRY_LEAF)
            walk->step[i].attrs.type = walk->mapping.attrs.type =
                (uint8_t)pat_of_leaf(pat, walk->step[i].raw, walk->step[i].level);
}

/* The guest's own tables first, then where they lead through its second level. */
static int walk_gva(const struct command *command, struct output *out, struct guest *guest,
                    uint64_t in)
{
    char symbol[SYMBOL_TEXT];
    struct vcpu_state state;
    struct gva_walk walk;
    int error = command_state(command, out, guest, &state);

    if (error)
        return error;
    struct gva_context context = guest_gva_context(&guest->table, &state);
    error = gva_walk(&context, gva(in), &walk);
    output_title(out, "%s of g%u %s, CR3 0x%lx", paging_mode_name(walk.mode), guest->number,
                 guest->name, state.cr3);
    if (error == E_UNSUPPORTED)
        return command_refuse(command, out, error,
                              "%s of a guest is not walked: 4-level, PAE and "
                              "32-bit paging are",
                              paging_mode_name(walk.mode));
    if (error == E_RANGE && !walk.table_unbacked)
        return command_refuse(
            command, out, error, "0x%lx is no linear address of this guest: %s", in,
            walk.mode == PAGING_4LEVEL ? "bits 63 to 47 must be equal (a canonical address)"
                                       : "it has 32 bits");
    take_guest_types(&walk.walk, state.pat);
    show_steps(out, &walk.walk);
    show_verdict(out, &guest_verdict_record, KIND_GUEST64, in, &walk.walk,
                 walk.table_unbacked ? "the next table lies where the guest has no memory"
                                     : error_text(error),
                 NULL, symbol_text(symbol, guest, in));
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
    table_title_ended(out, guest);
    output_facts(
        out, &second_verdict_record,
        (struct value[]){as_text(found ? "was mapped" : "was not mapped"), as_number(in),
                         found ? as_number(found->out.v + (in - found->in)) : as_nothing(),
                         found ? as_number(level_size(map->kind, found->level)) : as_nothing(),
                         found ? as_text(rights_text(rights, found->attrs.rights)) : as_nothing(),
                         found ? as_text(mem_type_name((enum mem_type)found->attrs.type))
                               : as_nothing(),
                         as_nothing(), as_nothing(), as_nothing(), as_nothing(), as_nothing(),
                         as_text(table_guest_area(guest, in)), as_nothing()});
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
    error = is_gva ? command_gva(command, out, guest, args->word[3], "address", &in)
                   : command_number(command, out, args->word[3], "address", &in);
    if (error)
        return error;
    if (!guest->has_table && guest->last_map.kind && !is_gva)
        return walk_snapshot(command, out, guest, in);
    if (!guest->has_table)
        return table_refuse_none(command, out, guest);
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
        .name = "walk",
        .of_cpu = true,
        .usage = "host VA | gN gpa|gva X",
        .summary = "every step from an address to its frame",
        .details = "`walk host` goes through the hypervisor's own table, `gpa` through the\n"
                   "guest's second level, `gva` through the guest's own tables first, as its CR3\n"
                   "stands now. Each step shows where the entry is, what it holds and what it\n"
                   "lets through; the verdict holds what all levels together do, or the rule\n"
                   "that stopped the walk. With gva the address may be a symbol of the guest.\n",
        .example = "walk g1 gpa 0x101000",
        .least = 2,
        .most = 3,
        .run = walk,
    },
};

const struct command_family tables_family = FAMILY("tables", tables_commands);
