/*
 * `cpus`: the machine's CPUs, what each does, and flushes on several of them tried. `top`: which
 * guest is on which of them, and how much of it each has.
 */
#include "arch/x86_64/cpus.h"
#include "arch/x86_64/oracle/trial.h"
#include "lib/string.h"
#include "monitor/commands.h"
#include "vm/guest.h"
#include "vm/sched.h"

#define DEFAULT_CHANGES 100
#define CHANGES_LIMIT UINT64_C(10000000)

static const struct column processor_columns[] = {
    {"cpu", COLUMN_NUMBER, 3},         {"APIC id", COLUMN_NUMBER, 7},
    {"state", COLUMN_TEXT, 7},         {"does", COLUMN_TEXT, 18},
    {"NMIs", COLUMN_NUMBER, 6},        {"wakes", COLUMN_NUMBER, 6},
    {"flushes", COLUMN_NUMBER, 7},     {"asked", COLUMN_NUMBER, 7},
    {"answered", COLUMN_NUMBER, 8},    {"late", COLUMN_NUMBER, 5},
    {"missed", COLUMN_NUMBER, 6},      {"INVLPG", COLUMN_NUMBER, 7},
    {"all global", COLUMN_NUMBER, 10},
};
static const struct record processor_record =
    RECORD_NARROW("processor", processor_columns, "all global,INVLPG,wakes,missed,late");

static const struct column trial_columns[] = {
    {"tables of", COLUMN_TEXT, 9},   {"users", COLUMN_NUMBER, 5}, {"changes", COLUMN_NUMBER, 8},
    {"reads", COLUMN_NUMBER, 9},     {"loads", COLUMN_NUMBER, 7}, {"answers", COLUMN_NUMBER, 8},
    {"disturbed", COLUMN_NUMBER, 9}, {"stale", COLUMN_NUMBER, 5}, {"ticks", COLUMN_NUMBER, 7},
};
static const struct record trial_record = RECORD_NARROW("trial", trial_columns, "loads");

#define DOING_TEXT 48

static const char *doing_text(char buffer[DOING_TEXT], const struct cpu_info *info)
{
    const struct guest_cpu *turn = guests_turn(info->number);

    if (!turn)
        return info->doing;
    char number[GUEST_CPU_TEXT];

    format_buffer(buffer, DOING_TEXT, "%s %s%s", guest_cpu_text(number, turn), turn->guest->name,
                  info->number == 0 ? ", console" : "");
    return buffer;
}

static void show_cpu(struct output *out, const struct cpu_info *info)
{
    bool online = info->status == CPU_ONLINE;
    const struct shootdown_counters *flushes = &info->flushes;
    struct value nothing = as_nothing();
    char doing[DOING_TEXT];

    output_row(out, &processor_record,
               (struct value[]){online ? as_number(info->number) : nothing,
                                as_number(info->apic_id), as_text(cpu_status_name(info->status)),
                                online ? as_text(doing_text(doing, info)) : nothing,
                                online ? as_number(info->nmis) : nothing,
                                online ? as_number(info->wakes) : nothing,
                                online ? as_number(flushes->sent) : nothing,
                                online ? as_number(flushes->asked) : nothing,
                                online ? as_number(flushes->answered) : nothing,
                                online ? as_number(flushes->late) : nothing,
                                online ? as_number(flushes->missed) : nothing,
                                online ? as_number(info->tlb.invlpg) : nothing,
                                online ? as_number(info->tlb.all_global) : nothing});
}

static int show_cpus(struct output *out)
{
    struct cpu_info info;

    for (unsigned i = 0; cpus_info(i, &info); i++)
        show_cpu(out, &info);
    for (unsigned i = 0; cpus_info(i, &info); i++)
        if (info.status != CPU_ONLINE)
            output_note(out, "The CPU with APIC id %u is left out: %s.", info.apic_id, info.why);
    return E_OK;
}

static int try_flushes(const struct command *command, struct output *out, uint64_t changes)
{
    struct trial_counts counts[TRIAL_SPACES];
    uint64_t stale = 0, disturbed = 0;
    int error = trial_run(guests_backend(), changes, counts);

    if (error == E_STATE)
        return command_refuse(command, out, error,
                              "one CPU is online, and a trial of flushes wants two or more");
    for (unsigned i = 0; i < TRIAL_SPACES; i++) {
        const struct trial_counts *c = &counts[i];

        output_row(out, &trial_record,
                   (struct value[]){as_text(trial_space_name((enum trial_space)i)),
                                    as_number(c->users), as_number(c->changes), as_number(c->reads),
                                    as_number(c->loads), as_number(c->asked),
                                    as_number(c->disturbed), as_number(c->stale),
                                    as_number(c->ticks)});
        stale += c->stale;
        disturbed += c->disturbed;
    }
    if (stale || disturbed)
        return command_refuse(command, out, E_HARDWARE,
                              "%lu reads used a translation after its flush, %lu CPUs were "
                              "disturbed that had not loaded the table",
                              stale, disturbed);
    if (error != E_OK)
        return command_refuse(command, out, error, "ended early: %s", error_text(error));
    output_note(out, "No CPU used a translation after its flush.");
    return E_OK;
}

static int cpus_command(const struct command *command, struct output *out,
                        const struct arguments *args)
{
    uint64_t changes = DEFAULT_CHANGES;

    if (args->count == 1)
        return show_cpus(out);
    if (strcmp(args->word[1], "trial") != 0)
        return command_refuse(command, out, E_INVAL,
                              "\"%.20s\": it is `cpus`, or `cpus trial [CHANGES]`", args->word[1]);
    if (args->count > 2) {
        int error = command_number(command, out, args->word[2], "number of changes", &changes);
        if (error != E_OK)
            return error;
    }
    if (changes == 0 || changes > CHANGES_LIMIT)
        return command_refuse(command, out, E_RANGE, "%s changes? 1 to %lu, or none for %u",
                              args->word[2], CHANGES_LIMIT, DEFAULT_CHANGES);
    return try_flushes(command, out, changes);
}

/* ---- top ------------------------------------------------------------------------------------ */

static const struct column share_columns[] = {
    {"guest", COLUMN_TEXT, 5},    {"name", COLUMN_TEXT, 10},     {"state", COLUMN_TEXT, 8},
    {"cpu", COLUMN_NUMBER, 3},    {"pinned", COLUMN_FLAG, 6},    {"percent", COLUMN_NUMBER, 7},
    {"ticks", COLUMN_NUMBER, 12}, {"sat out", COLUMN_NUMBER, 7}, {"moves", COLUMN_NUMBER, 5},
};
static const struct record share_record = RECORD_NARROW("share", share_columns, "sat out,moves");

/* When `top` was asked last, and the ticks that each vCPU had had then; at first, when the first
 * of them began. */
static struct {
    uint64_t at, had[GUEST_LIMIT + 1][GUEST_VCPUS];
} sample;

/* So many hundredths of one CPU's time since then. The counts of a new life begin anew. */
static uint64_t percent_of(const struct guest_cpu *cpu, uint64_t passed)
{
    uint64_t had = sample.had[cpu->guest->number][cpu->index];
    uint64_t ticks = cpu->ticks >= had ? cpu->ticks - had : cpu->ticks;

    return passed ? ticks * 100 / passed : 0;
}

static void show_share(struct output *out, const struct guest_cpu *cpu, uint64_t passed)
{
    const struct guest *guest = cpu->guest;
    char number[GUEST_CPU_TEXT];

    output_row(out, &share_record,
               (struct value[]){as_text(guest_cpu_text(number, cpu)), as_text(guest->name),
                                as_text(cpu->is.waits && !guest_ended(guest)
                                            ? "waiting"
                                            : guest_state_name(guest->state)),
                                as_number(sched_queue_of(cpu)), as_number(guest->options.pinned),
                                as_number(percent_of(cpu, passed)), as_number(cpu->ticks),
                                as_number(cpu->share.sat_out), as_number(cpu->moves)});
    sample.had[guest->number][cpu->index] = cpu->ticks;
}

static int top(const struct command *command, struct output *out, const struct arguments *args)
{
    (void)args;
    if (guest_count() == 0 || !guests_backend())
        return command_refuse(command, out, E_NOENT, "there are no guests%s%s",
                              guests_why_not() ? ": " : "",
                              guests_why_not() ? guests_why_not() : "");
    uint64_t now = guests_backend()->ticks();
    uint64_t passed = now - (sample.at ? sample.at : guests_first_entry());
    for (unsigned i = 1; i <= guest_count(); i++) {
        const struct guest *guest = guest_by_number(i);

        for (unsigned cpu = 0; cpu < guest->cpus; cpu++)
            show_share(out, &guest->cpu[cpu], passed);
    }
    output_note(out,
                "%u CPU%s; shares are of one of them, since `top` was asked last, or the first "
                "guest began",
                guests_cpus(), guests_cpus() == 1 ? "" : "s");
    output_note(out, "a key waited for guests at most %lu ticks", guests_console_wait());
    sample.at = now;
    return E_OK;
}

static const struct command cpus_commands[] = {
    {
        .name = "cpus",
        .usage = "[trial [CHANGES]]",
        .words = "trial",
        .summary = "the CPUs, what each does, and the flushes that it took part in",
        .details = "Of each CPU: flushes in which it had others take part and how many CPUs it\n"
                   "asked; those of others that it answered, how many of these late (at the end\n"
                   "of a read of a table), and how often it learnt of one when it loaded a\n"
                   "table. `trial` has other CPUs read a page whose place is changed 100 times,\n"
                   "in the kernel's table, in a program's and in a guest that runs on another\n"
                   "CPU, and all of them map and unmap at once; no read may come to where the\n"
                   "page no longer leads.\n",
        .example = "cpus",
        .most = 2,
        .run = cpus_command,
    },
    {
        .name = "top",
        .usage = "",
        .summary = "which guest is on which CPU, and how much of its time each has had",
        .details = "`cpu` is the CPU whose queue a guest is in, `pinned` those that stay there\n"
                   "(`pin=N`), `percent` its share of one CPU's time since `top` was asked last,\n"
                   "all that was done for it included, and `ticks` what it has had in its life.\n"
                   "A guest with several CPUs has a line for each, gN.V; `waiting` is one that\n"
                   "has not been started. A guest sits a turn out for what went beyond its\n"
                   "slices; it moves when a CPU that has nobody to run takes it. How long a key\n"
                   "had to wait until a slice was over is told as well.\n",
        .example = "top",
        .run = top,
    },
};

const struct command_family cpus_family = FAMILY("CPUs", cpus_commands);
