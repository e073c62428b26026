/*
 * The machine and the hypervisor as a whole: `cpu`, `log`, `version`, `check`, `quit`.
 */
#include "arch/x86_64/speculation.h"
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/cpu_state.h"
#include "arch/x86_64/mm/kernel_space.h"
#include "arch/x86_64/mtrr.h"
#include "arch/x86_64/power.h"
#include "lib/bits.h"
#include "lib/list.h"
#include "lib/log.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "mm/frames/slab.h"
#include "monitor/commands.h"
#include "monitor/machine_audit.h"
#include "monitor/monitor.h"
#include "vm/guest.h"

/* What another part writes for people, as quoted lines of an answer. */
struct quoting_sink {
    struct sink sink;
    struct output *out;
    struct quote quote;
};

static void write_quoted(struct sink *sink, const char *bytes, size_t n)
{
    struct quoting_sink *quoting = container_of(sink, struct quoting_sink, sink);

    output_quote(quoting->out, &quoting->quote, bytes, n);
}

static struct quoting_sink quote_into(struct output *out)
{
    return (struct quoting_sink){.sink = {write_quoted}, .out = out};
}

/* --- cpu ------------------------------------------------------------------------------------- */

static const struct column cpu_columns[] = {
    {"vendor", COLUMN_TEXT, 0},
    {"brand", COLUMN_TEXT, 0},
    {"family", COLUMN_NUMBER, 0},
    {"model", COLUMN_NUMBER, 0},
    {"stepping", COLUMN_NUMBER, 0},
    {"runs under", COLUMN_TEXT, 0},
    {"physical address bits", COLUMN_NUMBER, 0},
    {"linear address bits", COLUMN_NUMBER, 0},
};
static const struct record cpu_record = RECORD("cpu", cpu_columns);

static const struct column control_columns[] = {
    {"cr0", COLUMN_HEX, 18},
    {"cr3", COLUMN_HEX, 18},
    {"cr4", COLUMN_HEX, 18},
    {"efer", COLUMN_HEX, 18},
};
static const struct record control_record = RECORD("control", control_columns);

static const struct column feature_columns[] = {
    {"feature", COLUMN_TEXT, 12},
    {"offered", COLUMN_FLAG, 7},
    {"on", COLUMN_FLAG, 3},
    {"what it is for", COLUMN_TEXT, 0},
};
static const struct record feature_record = RECORD("feature", feature_columns);

static void show_features(struct output *out, uint64_t cr4, uint64_t efer)
{
    const struct cpu_features *f = &cpu_features;
    const struct {
        const char *name;
        bool offered;
        struct value on; /* nothing where no control bit turns it on */
        const char *purpose;
    } rows[] = {
        {"NX", f->nx, as_number((efer & EFER_NXE) != 0), "pages that are not executable"},
        {"1G pages", f->page1g, as_nothing(), "host leaves of 1 GiB"},
        {"PGE", f->pge, as_number((cr4 & CR4_PGE) != 0), "global pages"},
        {"PCID", f->pcid, as_number((cr4 & CR4_PCIDE) != 0), "tagged translations"},
        {"INVPCID", f->invpcid, as_nothing(), "invalidation by tag"},
        {"SMEP", f->smep, as_number((cr4 & CR4_SMEP) != 0), "no execution of user pages in ring 0"},
        {"SMAP", f->smap, as_number((cr4 & CR4_SMAP) != 0), "no access to user pages in ring 0"},
        {"UMIP", f->umip, as_number((cr4 & CR4_UMIP) != 0), "no SGDT, SIDT, ... in ring 3"},
        {"PAT", f->pat, as_nothing(), "memory types by page"},
        {"LA57", f->la57, as_number((cr4 & CR4_LA57) != 0), "5-level paging"},
        {"XSAVE", f->xsave, as_number((cr4 & CR4_OSXSAVE) != 0), "extended state"},
        {"TSC deadline", f->tsc_deadline, as_nothing(), "timer by time stamp"},
        {"x2APIC", f->x2apic, as_nothing(), "interrupt controller by MSR"},
    };
    struct cpu_way ways[CPU_WAYS];

    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
        output_row(out, &feature_record,
                   (struct value[]){as_text(rows[i].name), as_number(rows[i].offered), rows[i].on,
                                    as_text(rows[i].purpose)});
    cpu_ways(ways);
    for (unsigned i = 0; i < CPU_WAYS; i++)
        output_row(out, &feature_record,
                   (struct value[]){as_text(ways[i].name), as_number(ways[i].offered),
                                    as_number(ways[i].on), as_text(ways[i].purpose)});
}

static const struct column speculation_columns[] = {
    {"ahead of time", COLUMN_TEXT, 19},
    {"this CPU", COLUMN_TEXT, 12},
    {"what is done", COLUMN_TEXT, 0},
};
static const struct record speculation_record = RECORD("speculation", speculation_columns);

static void show_speculation(struct output *out)
{
    const struct speculation_plan *plan = speculation_plan();

    for (enum speculation_issue issue = 0; issue < ISSUE_COUNT; issue++) {
        enum speculation_state state = plan->state[issue];

        output_row(out, &speculation_record,
                   (struct value[]){as_text(speculation_issue_name(issue)),
                                    as_text(speculation_state_name(state)),
                                    state == SPECULATION_DEFENDED
                                        ? as_text(speculation_defence(issue))
                                        : as_nothing()});
    }
}

/* As much as an answer has room for; no firmware makes so many. */
#define TYPES_SHOWN 64

static const struct column type_columns[] = {
    {"first", COLUMN_HEX, 12},
    {"last", COLUMN_HEX, 12},
    {"memory by MTRRs", COLUMN_TEXT, 0},
};
static const struct record type_record = RECORD("memory type", type_columns);

static void show_memory_types(struct output *out)
{
    const struct mtrrs *mtrrs = mtrrs_of_this_cpu();
    uint64_t at = 0, last, end = BITS(cpu_features.maxphyaddr - 1, 0);

    if (!mtrrs_enabled(mtrrs)) {
        output_note(out, "MTRRs: %s", mtrrs->there ? "off" : "none");
        return;
    }
    for (unsigned n = 0; n < TYPES_SHOWN && at <= end; n++, at = last + 1) {
        enum mem_type type = mtrr_run_at(mtrrs, at, end, &last);

        output_row(out, &type_record,
                   (struct value[]){as_number(at), as_number(last), as_text(mem_type_name(type))});
    }
}

static int cpu(const struct command *command, struct output *out, const struct arguments *args)
{
    const struct cpu_features *f = &cpu_features;
    struct quoting_sink quoting = quote_into(out);
    struct cpu_state state;

    (void)command;
    (void)args;
    cpu_state_read(&state);
    output_facts(out, &cpu_record,
                 (struct value[]){as_text(f->vendor),
                                  f->brand[0] ? as_text(f->brand) : as_nothing(),
                                  as_number(f->family), as_number(f->model), as_number(f->stepping),
                                  f->hypervisor[0] ? as_text(f->hypervisor) : as_nothing(),
                                  as_number(f->maxphyaddr), as_number(f->linear_bits)});
    output_row(out, &control_record,
               (struct value[]){as_number(state.cr0), as_number(state.cr3), as_number(state.cr4),
                                as_number(state.efer)});
    show_features(out, state.cr4, state.efer);
    show_speculation(out);
    show_memory_types(out);
    output_title(out, "guests run by: %s",
                 guests_backend()   ? guests_backend()->name
                 : guests_why_not() ? guests_why_not()
                                    : "nothing");
    if (boot_facts.show_virtualization) {
        boot_facts.show_virtualization(&quoting.sink);
        output_quote_end(out, &quoting.quote);
    }
    return E_OK;
}

/* --- log ------------------------------------------------------------------------------------- */

static int show_log(const struct command *command, struct output *out, const struct arguments *args)
{
    struct quoting_sink quoting = quote_into(out);
    uint64_t lines = 0;

    if (args->count == 2) {
        int error = command_number(command, out, args->word[1], "number of lines", &lines);
        if (error)
            return error;
        if (lines == 0 || lines > UINT32_MAX)
            return command_refuse(command, out, E_RANGE,
                                  "%s lines? give a number from 1, or none for the whole log",
                                  args->word[1]);
    }
    log_show(&quoting.sink, (unsigned)lines);
    output_quote_end(out, &quoting.quote);
    return E_OK;
}

/* --- version --------------------------------------------------------------------------------- */

static const struct column version_columns[] = {
    {"program", COLUMN_TEXT, 0},
    {"compiler", COLUMN_TEXT, 0},
    {"boot loader", COLUMN_TEXT, 0},
    {"command line", COLUMN_TEXT, 0},
    {"ticks since entry", COLUMN_NUMBER, 0},
    {"a tick is an instruction", COLUMN_FLAG, 0},
};
static const struct record version_record = RECORD("version", version_columns);

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

static int version(const struct command *command, struct output *out, const struct arguments *args)
{
    const char *loader = boot_facts.loader;
    uint64_t ticks = rdtsc() - boot_facts.entry_tsc;

    (void)command;
    (void)args;
    output_facts(out, &version_record,
                 (struct value[]){as_text("Quire"), as_text(COMPILER),
                                  loader[0] ? as_text(loader) : as_nothing(),
                                  as_text(boot_facts.cmdline), as_number(ticks),
                                  as_number(tsc_counts_instructions())});
    return E_OK;
}

/* --- check ----------------------------------------------------------------------------------- */

static const struct column check_columns[] = {
    {"check", COLUMN_TEXT, 34},
    {"holds", COLUMN_FLAG, 5},
    {"what is wrong", COLUMN_TEXT, 0},
};
static const struct record check_record = RECORD("check", check_columns);

#define WHY_TEXT 160

struct check_pass {
    struct output *out;
    unsigned checks, broken;
};

static void show_check(struct check_pass *pass, const char *what, bool holds, const char *why)
{
    pass->checks++;
    pass->broken += !holds;
    output_row(
        pass->out, &check_record,
        (struct value[]){as_text(what), as_number(holds), holds ? as_nothing() : as_text(why)});
}

static void keep_first(void *ctx, const struct audit_finding *finding)
{
    char *why = ctx;

    if (why[0] == '\0')
        audit_line(why, finding);
}

/* By every rule of the auditor; `audit` has them one by one. False: stopped by a key. */
static bool check_tables(struct check_pass *pass)
{
    char why[AUDIT_LINE] = "";
    struct audit_totals totals;
    unsigned tables;
    int error = machine_audit(true, keep_first, why, &totals, &tables);

    if (error == E_STOPPED && why[0] == '\0')
        return false;
    if (error != E_OK && why[0] == '\0')
        format_buffer(why, sizeof(why), "not judged: %s", error_text(error));
    show_check(pass, "page tables and frame records", error == E_OK, why);
    return true;
}

/* One that has just ended gives back in turns of its own: what it still has then is no fault. */
static void check_guest(struct check_pass *pass, struct guest *guest)
{
    char what[WHY_TEXT], why[WHY_TEXT];
    uint64_t held = buddy_owner_frames(guest_owner(guest));
    bool gives_back = guest_holds(guest);

    if (!guest_ended(guest))
        return;
    format_buffer(what, sizeof(what), "g%u %s: %s every frame", guest->number, guest->name,
                  gives_back ? "is giving back" : "gave back");
    format_buffer(why, sizeof(why), "%lu are still its own", held);
    show_check(pass, what, held == 0 || gives_back, why);
}

static int check(const struct command *command, struct output *out, const struct arguments *args)
{
    struct check_pass pass = {.out = out};
    char why[WHY_TEXT] = "";

    (void)args;
    int verified = buddy_verify_until(command_stopped, NULL, why, sizeof(why));
    if (verified > 0)
        return command_refuse(command, out, E_STATE,
                              "stopped by a key; nothing was found wrong so far");
    show_check(&pass, "frame database and free blocks", verified == E_OK, why);
    if (verified == E_OK && why[0] != '\0')
        output_note(out, "Frame database: %s.", why);
    why[0] = '\0';
    show_check(&pass, "small objects", slab_check_all(why, sizeof(why)) == E_OK, why);
    show_check(&pass, "host's address space", kernel_space_check(why, sizeof(why)) == E_OK, why);
    if (!check_tables(&pass))
        return command_refuse(command, out, E_STATE,
                              "stopped by a key; %u of %u checks found a broken invariant so far",
                              pass.broken, pass.checks);
    for (unsigned i = 1; i <= guest_count(); i++)
        check_guest(&pass, guest_by_number(i));
    if (pass.broken)
        return command_refuse(command, out, E_STATE, "%u of %u checks found a broken invariant",
                              pass.broken, pass.checks);
    output_note(out, "All %u hold.", pass.checks);
    return E_OK;
}

/* --- quit ------------------------------------------------------------------------------------ */

/* Ends every guest. Says whether everything that was taken for any has been given back. */
static bool end_guests(void)
{
    uint64_t leaked = 0;

    for (unsigned i = 1; i <= guest_count(); i++) {
        struct guest *guest = guest_by_number(i);

        if (!guest_ended(guest))
            guest_kill(guest);
        else if (guest_holds(guest))
            guest_finish(guest);
    }
    for (unsigned i = 1; i <= guest_count(); i++) {
        const struct guest *guest = guest_by_number(i);
        uint64_t held = buddy_owner_frames(guest_owner(guest));

        if (held != 0)
            log_line("g%u %s: %lu frames leaked", i, guest->name, held);
        leaked += held;
    }
    return slab_destroy_all() == 0 && leaked == 0;
}

static int quit(const struct command *command, struct output *out, const struct arguments *args)
{
    (void)command;
    (void)out;
    (void)args;
    bool fine = end_guests();

    log_pass_on(true);
    power_off(fine ? 0 : 1);
}

static const struct command system_commands[] = {
    {
        .name = "cpu",
        .usage = "",
        .summary = "what this CPU offers, and what of it is on",
        .details = "Its identity and features by CPUID, the control registers as they stand, and\n"
                   "what its capability MSRs say about running guests.\n",
        .example = "cpu",
        .run = cpu,
    },
    {
        .name = "log",
        .usage = "[LINES]",
        .summary = "the hypervisor's log, or its newest lines",
        .details = "The log is a ring of 32 KiB: the oldest lines make room for new ones.\n",
        .example = "log 20",
        .most = 1,
        .run = show_log,
    },
    {
        .name = "version",
        .usage = "",
        .summary = "what was booted, by what, and how long ago",
        .details = "The time is in ticks of the time-stamp counter since the entry point.\n",
        .example = "version",
        .run = version,
    },
    {
        .name = "check",
        .usage = "",
        .summary = "verify the invariants of the whole machine",
        .details = "The allocator's records against its counters; its small objects, none of\n"
                   "them written beside; the host's own tables (what is mapped where, guards\n"
                   "absent, lower half empty); all page tables against all records, as `audit`\n"
                   "does; nothing left of guests that have ended. A key at a terminal stops the\n"
                   "first of these.\n",
        .example = "check",
        .run = check,
    },
    {
        .name = "quit",
        .usage = "",
        .summary = "switch the machine off",
        .details = "Guests that run are killed first. What was not given back is named as a\n"
                   "leak.\n",
        .example = "quit",
        .run = quit,
    },
};

const struct command_family system_family = FAMILY("system", system_commands);
