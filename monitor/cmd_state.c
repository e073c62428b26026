/*
 * One guest: what is in its CPU's registers and what root that CPU goes by, why it has exited, what
 * it has printed, and the report of its stop.
 */
#include "lib/string.h"
#include "monitor/commands.h"
#include "vm/backtrace.h"
#include "vm/guest.h"
#include "vm/symbols.h"
#include "x86/control.h"

/* --- regs ------------------------------------------------------------------------------------ */

static const struct column gpr_columns[4][4] = {
    {{"rax", COLUMN_HEX, 18},
     {"rbx", COLUMN_HEX, 18},
     {"rcx", COLUMN_HEX, 18},
     {"rdx", COLUMN_HEX, 18}},
    {{"rsi", COLUMN_HEX, 18},
     {"rdi", COLUMN_HEX, 18},
     {"rbp", COLUMN_HEX, 18},
     {"rsp", COLUMN_HEX, 18}},
    {{"r8", COLUMN_HEX, 18},
     {"r9", COLUMN_HEX, 18},
     {"r10", COLUMN_HEX, 18},
     {"r11", COLUMN_HEX, 18}},
    {{"r12", COLUMN_HEX, 18},
     {"r13", COLUMN_HEX, 18},
     {"r14", COLUMN_HEX, 18},
     {"r15", COLUMN_HEX, 18}},
};
static const struct record gpr_records[4] = {
    RECORD("registers", gpr_columns[0]), RECORD("registers", gpr_columns[1]),
    RECORD("registers", gpr_columns[2]), RECORD("registers", gpr_columns[3])};
static const uint8_t gpr_order[4][4] = {{RAX, RBX, RCX, RDX},
                                        {RSI, RDI, RBP, RSP},
                                        {R8, R9, R10, R11},
                                        {R12, R13, R14, R15}};

static const struct column control_columns[] = {
    {"cr0", COLUMN_HEX, 18},
    {"cr2", COLUMN_HEX, 18},
    {"cr3", COLUMN_HEX, 18},
    {"cr4", COLUMN_HEX, 18},
};
static const struct record control_record = RECORD("registers", control_columns);

static const struct column flow_columns[] = {
    {"rip", COLUMN_HEX, 18},
    {"rflags", COLUMN_HEX, 18},
    {"efer", COLUMN_HEX, 18},
    {"dr7", COLUMN_HEX, 18},
};
static const struct record flow_record = RECORD("registers", flow_columns);

static const struct column segment_columns[] = {
    {"segment", COLUMN_TEXT, 7}, {"selector", COLUMN_HEX, 8}, {"base", COLUMN_HEX, 18},
    {"limit", COLUMN_HEX, 10},   {"access", COLUMN_HEX, 6},   {"usable", COLUMN_FLAG, 6},
};
static const struct record segment_record = RECORD("segment", segment_columns);

static const struct column mode_columns[] = {
    {"at", COLUMN_TEXT, 0},
    {"mode", COLUMN_TEXT, 0},
    {"flags", COLUMN_TEXT, 0},
    {"halted", COLUMN_FLAG, 0},
};
static const struct record mode_record = RECORD("mode", mode_columns);

/* SDM Vol. 3, 2.2 "Modes of operation"; access bits as in a descriptor: bit 13 is L, bit 14 D/B. */
static const char *mode_name(const struct vcpu_state *state)
{
    uint16_t code = state->segment[SEG_CS].access;

    if (!(state->cr0 & CR0_PE))
        return "real";
    if (state->rflags & RFLAGS_VM)
        return "virtual-8086";
    if (!(state->efer & EFER_LMA))
        return code & BIT(14) ? "protected, 32-bit" : "protected, 16-bit";
    return code & BIT(13) ? "long, 64-bit" : code & BIT(14) ? "long, 32-bit" : "long, 16-bit";
}

#define FLAGS_TEXT 64
static const char *flags_text(char buffer[FLAGS_TEXT], uint64_t flags)
{
    static const struct {
        unsigned bit;
        const char *name;
    } names[] = {
        {0, "CF"},  {2, "PF"},  {4, "AF"},  {6, "ZF"},  {7, "SF"},  {8, "TF"},  {9, "IF"},
        {10, "DF"}, {11, "OF"}, {14, "NT"}, {16, "RF"}, {17, "VM"}, {18, "AC"}, {21, "ID"},
    };
    size_t used = 0;

    buffer[0] = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
        if (flags & BIT(names[i].bit))
            used += format_buffer(buffer + used, FLAGS_TEXT - used, "%s%s", used ? " " : "",
                                  names[i].name);
    return used ? buffer : "none";
}

static int regs(const struct command *command, struct output *out, const struct arguments *args)
{
    static const char *const segment_names[SEG_COUNT] = {
        [SEG_ES] = "es", [SEG_CS] = "cs", [SEG_SS] = "ss",     [SEG_DS] = "ds",
        [SEG_FS] = "fs", [SEG_GS] = "gs", [SEG_LDTR] = "ldtr", [SEG_TR] = "tr",
    };
    char flags[FLAGS_TEXT], symbol[SYMBOL_TEXT];
    struct vcpu_state state;
    struct guest *guest;
    int error = command_guest(command, out, args->word[1], &guest);

    if (!error)
        error = command_state(command, out, guest, &state);
    if (error)
        return error;
    symbol_text(symbol, guest, linear_rip(&state));
    output_facts(
        out, &mode_record,
        (struct value[]){symbol[0] ? as_text(symbol) : as_nothing(), as_text(mode_name(&state)),
                         as_text(flags_text(flags, state.rflags)), as_number(state.halted)});
    output_row(out, &flow_record,
               (struct value[]){as_number(state.rip), as_number(state.rflags),
                                as_number(state.efer), as_number(state.dr7)});
    for (unsigned i = 0; i < ARRAY_SIZE(gpr_order); i++)
        output_row(out, &gpr_records[i],
                   (struct value[]){as_number(state.gpr[gpr_order[i][0]]),
                                    as_number(state.gpr[gpr_order[i][1]]),
                                    as_number(state.gpr[gpr_order[i][2]]),
                                    as_number(state.gpr[gpr_order[i][3]])});
    output_row(out, &control_record,
               (struct value[]){as_number(state.cr0), as_number(state.cr2), as_number(state.cr3),
                                as_number(state.cr4)});
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        const struct segment *segment = &state.segment[i];
        output_row(out, &segment_record,
                   (struct value[]){as_text(segment_names[i]), as_number(segment->selector),
                                    as_number(segment->base), as_number(segment->limit),
                                    as_number(segment->access), as_number(!segment->unusable)});
    }
    output_row(out, &segment_record,
               (struct value[]){as_text("gdtr"), as_nothing(), as_number(state.gdt_base),
                                as_number(state.gdt_limit), as_nothing(), as_nothing()});
    output_row(out, &segment_record,
               (struct value[]){as_text("idtr"), as_nothing(), as_number(state.idt_base),
                                as_number(state.idt_limit), as_nothing(), as_nothing()});
    return E_OK;
}

/* --- exits ----------------------------------------------------------------------------------- */

static const struct column exit_columns[] = {
    {"exit", COLUMN_TEXT, 16},
    {"count", COLUMN_NUMBER, 10},
};
static const struct record exit_record = RECORD("exit", exit_columns);

static const struct column exit_total_columns[] = {
    {"exits", COLUMN_NUMBER, 0},
    {"first touches of lazy memory", COLUMN_NUMBER, 0},
    {"lazy frames given", COLUMN_NUMBER, 0},
    {"pages given back by the guest", COLUMN_NUMBER, 0},
    {"pages asked for by it", COLUMN_NUMBER, 0},
    {"first writes to shared or watched pages", COLUMN_NUMBER, 0},
    {"pages copied for them", COLUMN_NUMBER, 0},
    {"faults reported", COLUMN_NUMBER, 0},
    {"faults gone when looked at", COLUMN_NUMBER, 0},
    {"accesses to ports of no device", COLUMN_NUMBER, 0},
    {"the last of them", COLUMN_HEX, 0},
    {"most frames held", COLUMN_FRAMES, 0},
    {"ticks inside", COLUMN_NUMBER, 0},
    {"ticks beyond its slices", COLUMN_NUMBER, 0},
    {"turns sat out for them", COLUMN_NUMBER, 0},
    {"bytes of output dropped", COLUMN_NUMBER, 0},
};
static const struct record exit_total_record = RECORD("exit total", exit_total_columns);

const char *vm_exit_text(enum vm_exit_kind kind)
{
    static const char *const names[VM_EXIT_COUNT] = {
        [VM_EXIT_SLICE] = "slice over",
        [VM_EXIT_INTERRUPT] = "interrupt",
        [VM_EXIT_WINDOW] = "interrupt window",
        [VM_EXIT_MEMORY] = "memory fault",
        [VM_EXIT_MISCONFIG] = "misconfiguration",
        [VM_EXIT_PORT] = "port",
        [VM_EXIT_MSR] = "MSR",
        [VM_EXIT_CPUID] = "CPUID",
        [VM_EXIT_HALT] = "HLT",
        [VM_EXIT_HYPERCALL] = "hypercall",
        [VM_EXIT_EXCEPTION] = "exception",
        [VM_EXIT_SHUTDOWN] = "shutdown",
        [VM_EXIT_MACHINE_CHECK] = "machine check",
        [VM_EXIT_BAD_STATE] = "bad state",
        [VM_EXIT_LOG_FULL] = "dirty log full",
        [VM_EXIT_HANDLED] = "handled below",
        [VM_EXIT_UNTIL] = "until",
        [VM_EXIT_NO_BREAKPOINT] = "no debug register",
        [VM_EXIT_UNKNOWN] = "unknown",
    };

    return kind < VM_EXIT_COUNT ? names[kind] : "?";
}

/* Of all its vCPUs. */
static struct share shares_of(const struct guest *guest)
{
    struct share sum = {0};

    for (unsigned i = 0; i < guest->cpus; i++) {
        sum.overran += guest->cpu[i].share.overran;
        sum.sat_out += guest->cpu[i].share.sat_out;
    }
    return sum;
}

static int exits(const struct command *command, struct output *out, const struct arguments *args)
{
    struct guest *guest;
    int error = command_guest(command, out, args->word[1], &guest);

    if (error)
        return error;
    for (unsigned i = 0; i < VM_EXIT_COUNT; i++)
        if (guest->exits[i])
            output_row(out, &exit_record,
                       (struct value[]){as_text(vm_exit_text((enum vm_exit_kind)i)),
                                        as_number(guest->exits[i])});
    output_facts(
        out, &exit_total_record,
        (struct value[]){as_number(vm_exit_total(guest)), as_number(guest->faults_filled),
                         as_number(guest->frames_filled),
                         guest->pages_given ? as_number(guest->pages_given) : as_nothing(),
                         guest->pages_taken ? as_number(guest->pages_taken) : as_nothing(),
                         as_number(guest->faults_opened), as_number(guest->pages_copied),
                         as_number(guest->faults_refused), as_number(guest->faults_spurious),
                         as_number(guest->devices.unclaimed),
                         guest->devices.unclaimed ? as_number(guest->devices.last_unclaimed)
                                                  : as_nothing(),
                         as_number(guest_frames_peak(guest)), as_number(guest->ticks),
                         as_number(shares_of(guest).overran), as_number(shares_of(guest).sat_out),
                         as_number(guest->output_dropped)});
    return E_OK;
}

/* --- report, output -------------------------------------------------------------------------- */

static int report(const struct command *command, struct output *out, const struct arguments *args)
{
    struct quote quote = {false};
    struct guest *guest;
    int error = command_guest(command, out, args->word[1], &guest);

    if (error)
        return error;
    output_title(out, "g%u %s: %s%s%s", guest->number, guest->name, guest_state_name(guest->state),
                 guest->reason[0] ? ": " : "", guest->reason);
    if (!guest->report[0]) {
        output_note(out, "There is no report: one is written when a guest is stopped for what it "
                         "did, or its image is of no format.");
        return E_OK;
    }
    output_quote(out, &quote, guest->report, strnlen(guest->report, sizeof(guest->report)));
    output_quote_end(out, &quote);
    return E_OK;
}

static int show_printed(const struct command *command, struct output *out,
                        const struct arguments *args)
{
    struct quote quote = {false};
    struct guest *guest;
    int error = command_guest(command, out, args->word[1], &guest);

    if (error)
        return error;
    uint64_t total = guest->output_total;
    uint64_t kept = total < GUEST_OUTPUT ? total : GUEST_OUTPUT;
    size_t first = (size_t)((total - kept) % GUEST_OUTPUT);
    size_t until_end = GUEST_OUTPUT - first;

    if (until_end > kept)
        until_end = (size_t)kept;
    if (kept < total)
        output_title(out, "g%u %s printed %lu bytes; the last %lu:", guest->number, guest->name,
                     total, kept);
    else
        output_title(out, "g%u %s printed %lu bytes%s", guest->number, guest->name, total,
                     total ? ":" : "");
    output_quote(out, &quote, guest->output + first, until_end);
    output_quote(out, &quote, guest->output, (size_t)kept - until_end);
    output_quote_end(out, &quote);
    return E_OK;
}

/* --- root ------------------------------------------------------------------------------------ */

static const struct column root_columns[] = {
    {"raw", COLUMN_HEX, 0},
    {"root", COLUMN_HEX, 0},
    {"memory type", COLUMN_TEXT, 0},
    {"levels", COLUMN_NUMBER, 0},
    {"accessed and dirty", COLUMN_FLAG, 0},
};
static const struct record root_record = RECORD("root", root_columns);

static const struct column agree_columns[] = {
    {"field", COLUMN_TEXT, 18},
    {"CPU has", COLUMN_HEX, 12},
    {"table says", COLUMN_HEX, 12},
    {"agree", COLUMN_FLAG, 5},
};
static const struct record agree_record = RECORD("comparison", agree_columns);

static int show_root(const struct command *command, struct output *out,
                     const struct arguments *args)
{
    struct vm_root root;
    struct guest *guest;
    int error = command_guest(command, out, args->word[1], &guest);

    if (error)
        return error;
    if (!guest->vcpu || !guest->has_table)
        return command_refuse(
            command, out, E_STATE, "g%u %s has no virtual CPU (%s); `start g%u paused` makes one",
            guest->number, guest->name, guest_state_name(guest->state), guest->number);
    error = guests_backend()->read_root(guest->vcpu, &root);
    if (error)
        return command_refuse(command, out, error, "the root of g%u %s cannot be read back: %s",
                              guest->number, guest->name, error_text(error));
    output_facts(out, &root_record,
                 (struct value[]){as_number(root.raw), as_number(root.frame.v),
                                  as_text(mem_type_name(root.type)), as_number(root.levels),
                                  as_number(root.accessed_dirty)});

    const struct table *table = &guest->table;
    const struct {
        const char *field;
        uint64_t cpu, table;
    } fields[] = {
        {"root", root.frame.v, table->root.v},
        {"memory type", root.type, MEM_WB},
        {"levels", root.levels, table->kind->levels},
        {"accessed and dirty", root.accessed_dirty, table->caps.accessed_dirty},
    };
    unsigned differences = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(fields); i++) {
        bool agree = fields[i].cpu == fields[i].table;
        differences += !agree;
        output_row(out, &agree_record,
                   (struct value[]){as_text(fields[i].field), as_number(fields[i].cpu),
                                    as_number(fields[i].table), as_number(agree)});
    }
    if (differences)
        return command_refuse(command, out, E_ILLEGAL,
                              "%u of them differ: the CPU would translate by another table",
                              differences);
    output_note(out, "The CPU translates by the table of g%u %s.", guest->number, guest->name);
    return E_OK;
}

static const struct command state_commands[] = {
    {
        .name = "regs",
        .of_cpu = true,
        .usage = "gN",
        .summary = "the registers of a guest's virtual CPU",
        .details = "As they stand between two instructions of the guest; `at` is the guest's\n"
                   "symbol at RIP. Of an ended guest `report` has them as they were.\n",
        .example = "regs g2",
        .least = 1,
        .most = 1,
        .run = regs,
    },
    {
        .name = "exits",
        .usage = "gN",
        .summary = "why a guest came back to the hypervisor, and how often",
        .details = "Counts since the guest was started last.\n",
        .example = "exits g4",
        .least = 1,
        .most = 1,
        .run = exits,
    },
    {
        .name = "report",
        .usage = "gN",
        .summary = "the full report of a guest that was stopped",
        .details = "What it did, who called it, its registers and the CPU's raw state at that\n"
                   "moment.\n",
        .example = "report g5",
        .least = 1,
        .most = 1,
        .run = report,
    },
    {
        .name = "output",
        .usage = "gN",
        .summary = "what a guest has printed",
        .details = "The last 4096 bytes. What is not printable appears as \\xNN.\n",
        .example = "output g1",
        .least = 1,
        .most = 1,
        .run = show_printed,
    },
    {
        .name = "root",
        .usage = "gN",
        .summary = "the root that the CPU uses for a guest, against the guest's table",
        .details = "What the CPU has as the root is read back from where it has it, decoded, and\n"
                   "each part compared with what the hypervisor's own record of the table says.\n",
        .example = "root g1",
        .least = 1,
        .most = 1,
        .run = show_root,
    },
};

const struct command_family state_family = FAMILY("state of a guest", state_commands);
