/* See vm/report.h. */
#include "vm/report.h"

#include "lib/error.h"
#include "lib/log.h"
#include "lib/string.h"

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

static void print_registers(struct sink *to, const struct vcpu_state *state)
{
    static const char gpr_names[GPR_COUNT][4] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP",
                                                 "RSI", "RDI", "R8",  "R9",  "R10", "R11",
                                                 "R12", "R13", "R14", "R15"};
    static const char segment_names[SEG_COUNT][5] = {"ES", "CS", "SS",   "DS",
                                                     "FS", "GS", "LDTR", "TR"};

    for (unsigned i = 0; i < GPR_COUNT; i++)
        format(to, "%-4s%016lx%s", gpr_names[i], state->gpr[i], i % 4 == 3 ? "\n" : "  ");
    format(to, "RIP %016lx  RFLAGS %08lx  %s\n", state->rip, state->rflags,
           state->halted ? "halted" : "active");
    format(to, "CR0 %08lx  CR2 %016lx  CR3 %016lx  CR4 %08lx  EFER %04lx\n", state->cr0, state->cr2,
           state->cr3, state->cr4, state->efer);
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        const struct segment *segment = &state->segment[i];
        if (segment->unusable)
            format(to, "%-4s %04x unusable\n", segment_names[i], segment->selector);
        else
            format(to, "%-4s %04x base %016lx limit %08x access %04x\n", segment_names[i],
                   segment->selector, segment->base, segment->limit, segment->access);
    }
    format(to, "GDT  %016lx limit %04x  IDT %016lx limit %04x\n", state->gdt_base, state->gdt_limit,
           state->idt_base, state->idt_limit);
}

void report_state(struct report *report, const struct vm_exit *exit)
{
    struct guest *guest = report->guest;
    struct vcpu_state state;

    format(&report->sink, "exit: %s (0x%lx), qualification 0x%lx, RIP 0x%lx, %u bytes\n",
           exit->name != NULL ? exit->name : "?", exit->raw, exit->qualification, exit->rip,
           exit->length);
    if (guests_backend()->get_state(guest->vcpu, &state) == E_OK)
        print_registers(&report->sink, &state);
    if (guests_backend()->dump != NULL)
        guests_backend()->dump(guest->vcpu, &report->sink);
}

void report_log(const struct report *report)
{
    const struct guest *guest = report->guest;
    const char *line = guest->report;

    while (*line != '\0') {
        const char *end = strchr(line, '\n');
        size_t length = end != NULL ? (size_t)(end - line) : strlen(line);

        log_line("g%u %s: | %.*s", guest->number, guest->name, (int)length, line);
        line += length + (end != NULL);
    }
}
