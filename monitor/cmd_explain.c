/*
 * `explain`: why an access goes through or does not, reference by reference.
 */
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/cpu_state.h"
#include "arch/x86_64/guest/read_linear.h"
#include "arch/x86_64/mm/explain.h"
#include "arch/x86_64/mm/kernel.h"
#include "arch/x86_64/mm/physical.h"
#include "lib/string.h"
#include "monitor/commands.h"
#include "monitor/tables.h"
#include "vm/guest.h"
#include "vm/symbols.h"
#include "x86/msr.h"

static const struct column reference_columns[] = {
    {"reference", COLUMN_NUMBER, 3}, {"table", COLUMN_TEXT, 5}, {"level", COLUMN_TEXT, 5},
    {"index", COLUMN_NUMBER, 5},     {"gpa", COLUMN_HEX, 12},   {"hpa", COLUMN_HEX, 12},
    {"raw", COLUMN_HEX, 18},         {"is", COLUMN_TEXT, 6},    {"to", COLUMN_HEX, 12},
    {"rights", COLUMN_TEXT, 6},      {"type", COLUMN_TEXT, 4},  {"A", COLUMN_FLAG, 3},
    {"D", COLUMN_FLAG, 3},
};
static const struct record reference_record =
    RECORD_NARROW("reference", reference_columns, "D,A,type,is,index,rights,reference=#");

static const struct column verdict_columns[] = {
    {"verdict", COLUMN_TEXT, 0},
    {"access", COLUMN_TEXT, 0},
    {"hva", COLUMN_HEX, 0},
    {"gva", COLUMN_HEX, 0},
    {"gpa", COLUMN_HEX, 0},
    {"hpa", COLUMN_HEX, 0},
    {"page", COLUMN_SIZE, 0},
    {"rights", COLUMN_TEXT, 0},
    {"type", COLUMN_TEXT, 0},
    {"error code", COLUMN_HEX, 0},
    {"the code says", COLUMN_TEXT, 0},
    {"qualification", COLUMN_HEX, 0},
    {"it says", COLUMN_TEXT, 0},
    {"decided at", COLUMN_TEXT, 0},
    {"rule", COLUMN_TEXT, 0},
    {"manual", COLUMN_TEXT, 0},
    {"slot", COLUMN_TEXT, 0},
    {"symbol", COLUMN_TEXT, 0},
};
static const struct record verdict_record = RECORD("verdict", verdict_columns);

static struct value number_if(bool condition, uint64_t number)
{
    return condition ? as_number(number) : as_nothing();
}

static struct value text_if(const char *text)
{
    return text && *text ? as_text(text) : as_nothing();
}

static void show_reference(struct output *out, const struct explanation *e,
                           const struct explain_step *step)
{
    static const char *const classes[] = {
        [ENTRY_ABSENT] = "absent",
        [ENTRY_TABLE] = "table",
        [ENTRY_LEAF] = "leaf",
        [ENTRY_BAD] = "bad",
    };
    const struct walk_step *entry = &step->entry;
    bool present = entry->class == ENTRY_TABLE || entry->class == ENTRY_LEAF;
    bool leaf = entry->class == ENTRY_LEAF;
    bool in_memory = step->table != EXPLAIN_REGISTER;
    char rights[RIGHTS_TEXT];

    output_row(out, &reference_record,
               (struct value[]){
                   number_if(in_memory, step->reference), as_text(explain_table_name(e, step)),
                   as_text(level_name(entry->level)), as_number(entry->index),
                   number_if(step->table == EXPLAIN_FIRST && e->two_levels, entry->address.v),
                   number_if(in_memory, step->hpa.v), as_number(entry->raw),
                   as_text(classes[entry->class]), number_if(present, step->to),
                   present ? as_text(rights_text(rights, entry->attrs.rights)) : as_nothing(),
                   leaf ? as_text(pat_type_name(step->type)) : as_nothing(),
                   number_if(present && in_memory, entry->accessed),
                   number_if(leaf, entry->dirty)});
}

static void show_explanation(struct output *out, const struct explanation *e,
                             const struct guest *guest)
{
    char access[EXPLAIN_TEXT], code[EXPLAIN_TEXT], says[EXPLAIN_TEXT], decided[EXPLAIN_TEXT];
    char rule[EXPLAIN_TEXT], rights[RIGHTS_TEXT], symbol[SYMBOL_TEXT] = "";
    bool allowed = e->outcome == EXPLAIN_ALLOWED;
    bool exits = explain_exits(e);
    uint64_t gpa_shown = exits ? e->exit_gpa.v : e->gpa.v;
    const struct slot *slot =
        guest && (exits || e->has_gpa) ? guest_slot_at(guest, gpa(gpa_shown)) : NULL;

    if (guest && e->linear)
        symbol_text(symbol, guest, e->at);
    for (unsigned i = 0; i < e->count; i++)
        show_reference(out, e, &e->step[i]);
    output_facts(out, &verdict_record,
                 (struct value[]){
                     as_text(explain_outcome_name(e)), as_text(explain_access_text(access, e)),
                     number_if(e->linear && !guest, e->at), number_if(e->linear && guest, e->at),
                     number_if(guest && (exits || e->has_gpa), gpa_shown),
                     number_if(e->has_hpa, e->hpa.v), number_if(allowed && e->page, e->page),
                     allowed ? as_text(rights_text(rights, e->rights)) : as_nothing(),
                     allowed ? as_text(pat_type_name(e->type)) : as_nothing(),
                     number_if(e->has_code, e->code),
                     e->has_code ? as_text(explain_code_text(code, e->code)) : as_nothing(),
                     number_if(e->has_qualification, e->qualification),
                     e->has_qualification
                         ? as_text(explain_qualification_text(says, e->qualification))
                         : as_nothing(),
                     text_if(explain_decided_text(decided, e)), as_text(explain_rule_text(rule, e)),
                     text_if(explain_section(e)),
                     guest && (exits || e->has_gpa)
                         ? as_text(slot ? slot_kind_name(slot->kind) : "outside every slot")
                         : as_nothing(),
                     text_if(symbol)});
    if (e->rule == EXPLAIN_SECOND_ABSENT && slot && slot_fills(slot, e->access))
        output_note(out, "At this exit %s gets its frame, and the guest goes on.",
                    slot_kind_name(slot->kind));
}

/* The words behind the address: r, w or x, and `user`, each at most once. */
static int take_manner(const struct command *command, struct output *out,
                       const struct arguments *args, unsigned from, bool linear,
                       struct explain_query *query)
{
    bool access_given = false;

    query->access = RIGHT_R;
    for (unsigned i = from; i < args->count; i++) {
        const char *word = args->word[i];
        const char *letter = word[0] && !word[1] ? strchr("rwx", word[0]) : NULL;

        if (letter && !access_given) {
            query->access = *letter == 'r' ? RIGHT_R : *letter == 'w' ? RIGHT_W : RIGHT_X;
            access_given = true;
        } else if (strcmp(word, "user") == 0 && linear && !query->user) {
            query->user = true;
        } else if (strcmp(word, "user") == 0 && !linear) {
            return command_refuse(
                command, out, E_INVAL,
                "a guest-physical access has no privilege level: `user` goes with "
                "gva and host");
        } else {
            return command_refuse(command, out, E_INVAL,
                                  "\"%.20s\" after the address: there can be one of r (read), w "
                                  "(write), x (fetch)%s",
                                  word, linear ? ", and user" : "");
        }
    }
    return E_OK;
}

static int explain_host(const struct command *command, struct output *out,
                        const struct arguments *args)
{
    struct explain_query query = {.load = physical_load, .pat = PAT_HOST};
    struct explanation e;
    struct cpu_state state;
    int error = command_number(command, out, args->word[2], "address", &query.at);

    if (!error)
        error = take_manner(command, out, args, 3, true, &query);
    if (error)
        return error;
    cpu_state_read(&state);
    struct gva_context registers = {
        .cr0 = state.cr0,
        .cr3 = kernel_table.root.v,
        .cr4 = state.cr4,
        .efer = state.efer,
        .maxphyaddr = cpu_features.maxphyaddr,
        .page_1g = cpu_features.page1g,
    };
    query.registers = &registers;
    explain(&query, &e);
    show_explanation(out, &e, NULL);
    return E_OK;
}

static int explain_guest(const struct command *command, struct output *out,
                         const struct arguments *args)
{
    struct explain_query query = {.load = physical_load};
    struct vcpu_state state;
    struct explanation e;
    struct guest *guest;
    bool linear = strcmp(args->word[2], "gva") == 0;
    int error = command_guest(command, out, args->word[1], &guest);

    if (error)
        return error;
    if (!linear && strcmp(args->word[2], "gpa") != 0)
        return command_refuse(command, out, E_INVAL,
                              "\"%.20s\" is no kind of address: a guest has gpa (physical) and gva "
                              "(virtual) ones",
                              args->word[2]);
    if (args->count < 4)
        return command_refuse(command, out, E_INVAL, "which %s? for example: %s", args->word[2],
                              command->example);
    error = linear ? command_gva(command, out, guest, args->word[3], "address", &query.at)
                   : command_number(command, out, args->word[3], "address", &query.at);
    if (!error)
        error = take_manner(command, out, args, 4, linear, &query);
    if (error)
        return error;
    if (!guest->has_table)
        return command_refuse(
            command, out, E_STATE,
            "g%u %s has no table (%s); `start g%u paused` makes it anew and holds "
            "it before its first instruction",
            guest->number, guest->name, guest_state_name(guest->state), guest->number);
    query.second = &guest->table;
    query.advanced = guests_backend()->tells_first_level && guests_backend()->tells_first_level();
    struct gva_context registers;
    if (linear) {
        error = command_state(command, out, guest, &state);
        if (error)
            return error;
        registers = guest_gva_context(&guest->table, &state);
        query.registers = &registers;
        query.rflags = state.rflags;
        query.pat = state.pat;
    }
    explain(&query, &e);
    if (linear)
        output_title(out, "%s of g%u %s, CR3 0x%lx", paging_mode_name(e.mode), guest->number,
                     guest->name, state.cr3);
    show_explanation(out, &e, guest);
    return E_OK;
}

static int explain_command(const struct command *command, struct output *out,
                           const struct arguments *args)
{
    if (strcmp(args->word[1], "host") == 0)
        return explain_host(command, out, args);
    return explain_guest(command, out, args);
}

static const struct command explain_commands[] = {
    {
        .name = "explain",
        .of_cpu = true,
        .usage = "host VA [r|w|x] [user] | gN gpa|gva X [r|w|x] [user]",
        .summary = "why an access goes through or not, reference by reference",
        .details = "Every memory reference that the CPU makes for the access, in its order: for\n"
                   "a guest's virtual address up to 24, since each entry of its tables lies at a\n"
                   "guest-physical address. Then the verdict: the frame, what may be done there\n"
                   "and the memory type; or the fault with its error code, or the exit with what\n"
                   "the CPU tells of it, and the rule. Without r, w or x it is a read; without\n"
                   "`user` it is made by supervisor mode. The registers are the guest's as they\n"
                   "stand, RFLAGS.AC included; nothing is changed. With gva the address may be a\n"
                   "symbol of the guest.\n",
        .example = "explain g1 gpa 0x101000 w",
        .least = 2,
        .most = 5,
        .run = explain_command,
    },
};

const struct command_family explain_family = FAMILY("explain", explain_commands);
