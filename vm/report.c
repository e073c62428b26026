/* See vm/report.h. */
#include "vm/report.h"

#include "lib/error.h"
#include "lib/log.h"
#include "lib/registers.h"
#include "lib/string.h"
#include "vm/backtrace.h"
#include "vm/symbols.h"

static void end_with(struct guest *guest, enum guest_state state, const char *reason, va_list args)
{
    vformat_buffer(guest->reason, sizeof(guest->reason), reason, args);
    guest->state = state;
}

void guest_end(struct guest *guest, enum guest_state state, const char *reason, ...)
{
    va_list args;

    va_start(args, reason);
    end_with(guest, state, reason, args);
    va_end(args);
}

void guest_hold(struct guest *guest, const char *reason, ...)
{
    va_list args;

    va_start(args, reason);
    end_with(guest, GUEST_PAUSED, reason, args);
    va_end(args);
    guest_clock_stop(guest);
    log_guest("g%u %s: paused: %s", guest->number, guest->name, guest->reason);
}

void guest_stop(struct guest *guest, const struct vm_exit *exit, const char *reason, ...)
{
    struct report report;
    va_list args;

    va_start(args, reason);
    end_with(guest, GUEST_STOPPED, reason, args);
    va_end(args);
    report_begin(&report, guest);
    format(&report.sink, "%s\n", guest->reason);
    report_state(&report, exit);
    report_log(&report);
}

/* Keeps what fits; the report is always terminated. */
static void report_write(struct sink *sink, const char *bytes, size_t n)
{
    struct report *report = (struct report *)sink;
    size_t room = GUEST_REPORT - 1 - report->length;

    if (n > room)
        n = room;
    memcpy(report->guest->report + report->length, bytes, n);
    report->length += n;
    report->guest->report[report->length] = '\0';
}

void report_begin(struct report *report, struct guest *guest)
{
    *report = (struct report){.sink = {report_write}, .guest = guest};
    guest->report[0] = '\0';
}

static void print_segments(struct sink *to, const struct vcpu_state *state)
{
    static const char names[SEG_COUNT][5] = {"ES", "CS", "SS", "DS", "FS", "GS", "LDTR", "TR"};

    for (unsigned i = 0; i < SEG_COUNT; i++) {
        const struct segment *segment = &state->segment[i];
        if (segment->unusable)
            format(to, "%-6s 0x%-6x unusable\n", names[i], segment->selector);
        else
            format(to, "%-6s 0x%-6x base 0x%-16lx  limit 0x%-8x  access 0x%x\n", names[i],
                   segment->selector, segment->base, segment->limit, segment->access);
    }
    format(to, "%-15s base 0x%-16lx  limit 0x%x\n", "GDTR", state->gdt_base, state->gdt_limit);
    format(to, "%-15s base 0x%-16lx  limit 0x%x\n", "IDTR", state->idt_base, state->idt_limit);
}

static void print_registers(struct sink *to, const struct vcpu_state *state)
{
    const struct register_value list[] = {
        {"RIP", state->rip},      {"RFLAGS", state->rflags}, {"RSP", state->gpr[RSP]},
        {"RAX", state->gpr[RAX]}, {"RBX", state->gpr[RBX]},  {"RCX", state->gpr[RCX]},
        {"RDX", state->gpr[RDX]}, {"RSI", state->gpr[RSI]},  {"RDI", state->gpr[RDI]},
        {"RBP", state->gpr[RBP]}, {"R8", state->gpr[R8]},    {"R9", state->gpr[R9]},
        {"R10", state->gpr[R10]}, {"R11", state->gpr[R11]},  {"R12", state->gpr[R12]},
        {"R13", state->gpr[R13]}, {"R14", state->gpr[R14]},  {"R15", state->gpr[R15]},
        {"CR0", state->cr0},      {"CR2", state->cr2},       {"CR3", state->cr3},
        {"CR4", state->cr4},      {"EFER", state->efer},
    };

    show_registers(to, "", list, ARRAY_SIZE(list));
    print_segments(to, state);
    format(to, "%s\n", state->halted ? "halted" : "not halted");
}

#define REPORT_FRAMES 16 /* the report has room for little more; `bt` shows them all */

static void print_backtrace(struct sink *to, const struct guest *guest,
                            const struct vcpu_state *state)
{
    static struct backtrace trace; /* large for a stack of 16 KiB; one report, one at a time */
    char symbol[SYMBOL_TEXT], end[BACKTRACE_END];

    backtrace_take(guest->vcpu, state, &trace);
    format(to, "backtrace by frame pointers:\n");
    for (unsigned i = 0; i < trace.count && i < REPORT_FRAMES; i++) {
        (i ? symbol_text_of_return : symbol_text)(symbol, guest, trace.frame[i].at);
        format(to, "  #%-2u 0x%lx%s%s\n", i, trace.frame[i].at, symbol[0] ? "  " : "", symbol);
    }
    if (trace.count > REPORT_FRAMES)
        format(to, "  and %u frames more\n", trace.count - REPORT_FRAMES);
    else
        format(to, "  %s\n", backtrace_end_text(end, &trace));
}

void report_state(struct report *report, const struct vm_exit *exit)
{
    struct guest *guest = report->guest;
    struct vcpu_state state;

    if (guest->cpus > 1)
        format(&report->sink, "CPU %u of its %u\n", guest->now, guest->cpus);
    format(&report->sink, "exit: %s (0x%lx), %s 0x%lx, RIP 0x%lx, %u bytes\n",
           exit->name != NULL ? exit->name : "?", exit->raw, guests_backend()->detail,
           exit->qualification, exit->rip, exit->length);
    if (guests_backend()->get_state(guest->vcpu, &state) == E_OK) {
        print_backtrace(&report->sink, guest, &state);
        print_registers(&report->sink, &state);
    }
    if (guests_backend()->dump != NULL)
        guests_backend()->dump(guest->vcpu, &report->sink);
}

static uint64_t lines_logged = UINT64_MAX;

void report_set_logged(uint64_t lines)
{
    lines_logged = lines;
}

void report_log(const struct report *report)
{
    struct guest *guest = report->guest;
    const char *line = guest->report;
    unsigned left_out = 0;

    guest_flush_output(guest);
    for (uint64_t n = 0; *line != '\0'; n++) {
        const char *end = strchr(line, '\n');
        size_t length = end != NULL ? (size_t)(end - line) : strlen(line);

        if (n < lines_logged)
            log_guest("g%u %s: | %.*s", guest->number, guest->name, (int)length, line);
        else
            left_out++;
        line += length + (end != NULL);
    }
    if (left_out != 0)
        log_guest("g%u %s: | %u lines more: `report g%u`", guest->number, guest->name, left_out,
                  guest->number);
}
