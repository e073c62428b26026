/* See vm/exits.h. Dispatch, the ways a guest ends, and the report that a stopped guest leaves. */
#include "vm/exits.h"

#include "arch/x86_64/control.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/string.h"
#include "vm/ports.h"

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

void print_registers(struct sink *to, const struct vcpu_state *state)
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

/* E_STATE: another event is on its way already. The instruction faults again once that one was
 * delivered and returned from. */
static void inject_exception(struct guest *guest, uint8_t vector, bool has_code)
{
    (void)guests_backend()->inject(guest->vcpu, (struct vm_event){
                                                    .kind = VM_EVENT_EXCEPTION,
                                                    .vector = vector,
                                                    .has_code = has_code,
                                                });
}

void inject_gp(struct guest *guest)
{
    inject_exception(guest, VECTOR_GP, true);
}

void inject_ud(struct guest *guest)
{
    inject_exception(guest, VECTOR_UD, false);
}

void skip_instruction(struct guest *guest, const struct vm_exit *exit)
{
    (void)guests_backend()->skip(guest->vcpu, exit);
}

static void exit_halt(struct guest *guest, const struct vm_exit *exit)
{
    if (guests_backend()->skip(guest->vcpu, exit))
        return; /* the debug trap after it wakes it at once */
    guests_backend()->set_halted(guest->vcpu, true);
    guest->halted = true;
    guest->state = GUEST_HALTED;
    log_line("g%u %s: halted (HLT at 0x%lx; no device of its own can wake it)", guest->number,
             guest->name, exit->rip);
}

static void exit_exception(struct guest *guest, const struct vm_exit *exit)
{
    guest_stop(guest, exit, "exception %u (code 0x%x, address 0x%lx) at RIP 0x%lx",
               exit->exception.vector, exit->exception.has_code ? exit->exception.code : 0,
               exit->exception.address, exit->rip);
}

static void exit_unknown(struct guest *guest, const struct vm_exit *exit)
{
    guest_stop(guest, exit, "exit that nothing handles: %s (0x%lx) at RIP 0x%lx",
               exit->name != NULL ? exit->name : "?", exit->raw, exit->rip);
}

bool exit_dispatch(struct guest *guest, const struct vm_exit *exit)
{
    if ((unsigned)exit->kind < VM_EXIT_COUNT)
        guest->exits[exit->kind]++;
    switch (exit->kind) {
    case VM_EXIT_SLICE:
        return false;
    case VM_EXIT_INTERRUPT:
    case VM_EXIT_HANDLED:
        return true;
    case VM_EXIT_MEMORY:
        exit_memory(guest, exit);
        break;
    case VM_EXIT_MISCONFIG:
        exit_misconfig(guest, exit);
        break;
    case VM_EXIT_PORT:
        exit_port(guest, exit);
        break;
    case VM_EXIT_MSR:
        exit_msr(guest, exit);
        break;
    case VM_EXIT_CPUID:
        exit_cpuid(guest, exit);
        break;
    case VM_EXIT_HALT:
        exit_halt(guest, exit);
        break;
    case VM_EXIT_HYPERCALL:
        return exit_hypercall(guest, exit);
    case VM_EXIT_EXCEPTION:
        exit_exception(guest, exit);
        break;
    case VM_EXIT_SHUTDOWN:
        guest_stop(guest, exit, "triple fault at RIP 0x%lx", exit->rip);
        break;
    case VM_EXIT_BAD_STATE:
        guest_stop(guest, exit, "the CPU refused to enter the guest: %s (0x%x)",
                   exit->name != NULL ? exit->name : "?", exit->bad.error);
        break;
    case VM_EXIT_UNKNOWN:
    case VM_EXIT_COUNT:
        exit_unknown(guest, exit);
        break;
    }
    return guest->state == GUEST_RUNNING;
}
