/* See user.h. */
#include "arch/x86_64/user.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/lapic.h"
#include "arch/x86_64/mm/host_root.h"
#include "arch/x86_64/mm/kernel.h"
#include "arch/x86_64/mm/layout.h"
#include "arch/x86_64/mm/table_envs.h"
#include "arch/x86_64/percpu.h"
#include "arch/x86_64/trap.h"
#include "arch/x86_64/user_entry.h"
#include "arch/x86_64/user_last.h"
#include "arch/x86_64/user_space.h"
#include "guests/user_abi.h"
#include "lib/list.h"
#include "lib/log.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"

/* Bus clocks between two looks at the budget, in units of the timer (16 bus clocks). */
#define TIMER_COUNT (UINT32_C(1) << 18)

#define USER_LINE 160
#define MODULE_PREFIX "user:"

_Static_assert(QUIRE_USER_VECTOR == 0x80 && VECTOR_TIMER == 0xf0, "numbers of user_entry.asm");
_Static_assert(SELECTOR_USER_DATA == 0x1b && SELECTOR_USER_CODE == 0x23, "likewise");

/* Text that is collected to whole lines for the log, with a word in front of each. */
struct line_sink {
    struct sink sink;
    void (*emit)(const struct line_sink *lines);
    const char *name;
    unsigned length;
    char line[USER_LINE + 1];
};

/* One program in flight, on the stack of user_run() and in this CPU's struct percpu. */
struct user_run {
    struct user_space space;
    struct user_result *result;
    const char *name;
    uint64_t started; /* TSC */
    bool timed;       /* the local APIC's timer runs */
    struct line_sink output;
};

/* user_entry.asm */
void user_gate_system_call(void);
void user_gate_timer(void);
void user_gate_spurious(void);
void user_trap(struct trap_frame *frame);

/* ---- Lines for the log --------------------------------------------------------------------- */

static void line_end(struct line_sink *lines)
{
    lines->line[lines->length] = '\0';
    lines->emit(lines);
    lines->length = 0;
}

static void lines_write(struct sink *sink, const char *bytes, size_t n)
{
    struct line_sink *lines = container_of(sink, struct line_sink, sink);

    for (size_t i = 0; i < n; i++) {
        if (bytes[i] != '\n')
            lines->line[lines->length++] = bytes[i];
        if (bytes[i] == '\n' || lines->length == USER_LINE)
            line_end(lines);
    }
}

static void lines_flush(struct line_sink *lines)
{
    if (lines->length != 0)
        line_end(lines);
}

static void emit_output(const struct line_sink *lines)
{
    log_plain("[user %s] %s", lines->name, lines->line);
}

static void emit_report(const struct line_sink *lines)
{
    log_line("user %s: | %s", lines->name, lines->line);
}

static struct line_sink line_sink(void (*emit)(const struct line_sink *), const char *name)
{
    return (struct line_sink){.sink = {lines_write}, .emit = emit, .name = name};
}

/* ---- The end of a program ------------------------------------------------------------------ */

static struct table *table_for(struct user_run *run, uint64_t address)
{
    return address >= UPPER_FIRST ? &kernel_table : &run->space.table;
}

/* Registers and, where there is one, the walk of the address, as far as tables reach it. */
static void report(struct user_run *run, const struct trap_frame *frame, const uint64_t *address)
{
    struct line_sink lines = line_sink(emit_report, run->name);

    lines_flush(&run->output);
    format(&lines.sink, "%s\n", run->result->reason);
    trap_show_registers(&lines.sink, frame);
    if (address != NULL)
        trap_show_walk_in(&lines.sink, table_for(run, *address), *address);
    lines_flush(&lines);
}

static void describe_page_fault(char reason[USER_REASON], uint64_t error, uint64_t address)
{
    const char *access = error & PF_FETCH   ? "fetch from"
                         : error & PF_WRITE ? "write to"
                                            : "read of";
    const char *why = error & PF_RESERVED      ? "an entry with a reserved bit set"
                      : !(error & PF_PRESENT)  ? "nothing is mapped there"
                      : address >= UPPER_FIRST ? "that is the hypervisor's"
                                               : "the page forbids it";

    format_buffer(reason, USER_REASON, "page fault, %s %#lx: %s", access, address, why);
}

/* trap_user_hook: an exception of ring 3. */
static bool stop_on_exception(struct trap_frame *frame)
{
    struct user_run *run = this_cpu()->user;
    uint64_t cr2 = read_cr2();
    const char *name = trap_name(frame->vector);

    if (run == NULL)
        return false;
    if (frame->vector == VECTOR_PF)
        describe_page_fault(run->result->reason, frame->error, cr2);
    else
        format_buffer(run->result->reason, USER_REASON, "%s at %#lx, error code %#lx",
                      name != NULL ? name : "reserved exception", frame->rip, frame->error);
    report(run, frame, frame->vector == VECTOR_PF ? &cr2 : NULL);
    user_leave_from(frame);
    return true;
}

/* ---- System calls and the timer ------------------------------------------------------------ */

static int64_t call_write(struct user_run *run, uint64_t from, uint64_t size)
{
    char bytes[256];

    if (size > QUIRE_USER_WRITE_MAX)
        return QUIRE_USER_E_RANGE;
    /* Twice over the same bytes: nothing is printed unless all of them may be read. Nothing can
     * change the program's table in between, for it runs on this CPU and it is we who run. */
    for (unsigned pass = 0; pass < 2; pass++) {
        for (uint64_t done = 0; done < size;) {
            uint64_t part = size - done < sizeof(bytes) ? size - done : sizeof(bytes);

            if (user_space_read(&run->space, from + done, bytes, part) != part)
                return QUIRE_USER_E_FAULT;
            if (pass == 1)
                run->output.sink.write(&run->output.sink, bytes, part);
            done += part;
        }
    }
    return (int64_t)size;
}

static void system_call(struct user_run *run, struct trap_frame *frame)
{
    run->result->calls++;
    switch (frame->rax) {
    case QUIRE_USER_EXIT:
        run->result->exited = true;
        run->result->code = (int64_t)frame->rdi;
        user_leave_from(frame);
        return;
    case QUIRE_USER_WRITE:
        frame->rax = (uint64_t)call_write(run, frame->rdi, frame->rsi);
        return;
    default:
        frame->rax = (uint64_t)QUIRE_USER_E_UNKNOWN;
        return;
    }
}

static void timer_tick(struct user_run *run, struct trap_frame *frame)
{
    if (rdtsc() - run->started < USER_BUDGET) {
        lapic_timer_start(TIMER_COUNT);
        return;
    }
    format_buffer(run->result->reason, USER_REASON, "ran longer than its budget of %lu ticks",
                  USER_BUDGET);
    report(run, frame, NULL);
    user_leave_from(frame);
}

/* From user_entry.asm, with IF = 0. */
void user_trap(struct trap_frame *frame)
{
    struct user_run *run = this_cpu()->user;

    if (frame->vector == VECTOR_TIMER) {
        lapic_end_of_interrupt();
        if (trap_from_user(frame))
            timer_tick(run, frame);
        return;
    }
    system_call(run, frame);
}

/* ---- Running one --------------------------------------------------------------------------- */

/* Gates, hook and timer. Without a local APIC a program runs with IF = 0 and without a budget. */
static bool prepare(void)
{
    trap_user_hook = stop_on_exception;
    trap_set_gate(QUIRE_USER_VECTOR, user_gate_system_call, true);
    trap_set_gate(VECTOR_TIMER, user_gate_timer, false);
    trap_set_gate(VECTOR_SPURIOUS, user_gate_spurious, false);
    int error = lapic_enable();
    if (error != E_OK)
        log_line("user programs: no timer (%s), so one that does not end keeps this CPU",
                 error_text(error));
    return error == E_OK;
}

/* A timer interrupt that came while ring 0 ran is still pending; later it would look like a
 * device's to whoever runs next. It is taken now, in ring 0: user_trap() does nothing but end it.
 */
static void user_drain(void)
{
    lapic_timer_stop();
    if (lapic_pending(VECTOR_TIMER))
        __asm__ volatile("sti\n\tnop\n\tcli" : : : "memory");
}

/*
 * CR0.TS makes every x87, SSE and AVX instruction fault, so that no register of a guest's or of
 * another program's can be read there. Everything that is changed here is as it was on return.
 */
static void enter_and_return(struct user_run *run)
{
    struct percpu *cpu = this_cpu();
    uint64_t rsp0 = cpu->tss.rsp[0];

    if (cpu->put_guest)
        cpu->put_guest();
    uint64_t cr0 = read_cr0();
    invariant(host_root_set(&run->space.table) == E_OK);
    write_cr0(cr0 | CR0_TS);
    cpu->user = run;
    run->started = rdtsc();
    if (run->timed)
        lapic_timer_start(TIMER_COUNT);
    user_enter(run->space.entry, run->space.stack_top, RFLAGS_FIXED | (run->timed ? RFLAGS_IF : 0));
    run->result->ticks = rdtsc() - run->started;
    if (run->timed)
        user_drain();
    cpu->user = NULL;
    write_cr0(cr0);
    tss_set_rsp0(rsp0);
    invariant(host_root_set(&kernel_table) == E_OK);
}

static void run_loaded(struct user_run *run)
{
    run->timed = prepare();
    run->output = line_sink(emit_output, run->name);
    run->result->frames = buddy_owner_frames(run->space.table.owner);
    enter_and_return(run);
    lines_flush(&run->output);
}

/* Judges the program's table before it is given back. */
static void audit_program(struct user_run *run)
{
    char name[USER_NAME + 8];
    struct audit_table table;

    format_buffer(name, sizeof(name), "user %s", run->name);
    user_space_describe(&run->space, &kernel_table, name, &table);
    audit_one(&table, NULL, NULL);
}

static int refuse(const char *name, struct user_result *result, int error, const char *why)
{
    format_buffer(result->reason, USER_REASON, "%s", why);
    log_line("user %s: refused: %s", name, why);
    return error;
}

static void conclude(const char *name, const struct user_result *result)
{
    if (result->exited)
        log_line("user %s: exited with %ld", name, result->code);
    else
        log_line("user %s: stopped: %s", name, result->reason);
    if (result->frames_kept == 0)
        log_line("user %s: all %lu frames came back", name, result->frames);
    else
        log_line("user %s: %lu of %lu frames did not come back", name, result->frames_kept,
                 result->frames);
}

int user_run(const uint8_t *image, uint64_t size, const char *name, struct user_result *result)
{
    struct user_run run = {.result = result, .name = name};
    struct percpu *cpu = this_cpu();
    const char *why;

    *result = (struct user_result){0};
    if (cpu->user != NULL)
        return refuse(name, result, E_STATE, "this CPU runs a program already");
    if (cpu->number >= OWNER_FIRST_GUEST - OWNER_FIRST_USER)
        return refuse(name, result, E_FULL, "this CPU has no owner number for programs");

    /* One program a CPU at a time: the CPU's number tells their owners and PCIDs apart. */
    owner_t owner = (owner_t)(OWNER_FIRST_USER + cpu->number);
    struct user_space_setup setup = {&kernel_table, &buddy_table_env, owner, owner};
    int error = user_space_load(&run.space, &setup, image, size, &why);

    if (error == E_OK) {
        run_loaded(&run);
        audit_program(&run);
        user_last_keep(name, &run.space.table);
        user_space_destroy(&run.space);
    }
    result->frames_kept = buddy_owner_frames(owner);
    if (error != E_OK)
        return refuse(name, result, error, why);
    conclude(name, result);
    return E_OK;
}

void user_run_module(const uint8_t *image, uint64_t size, const char *cmdline)
{
    struct user_result result;
    char name[USER_NAME];
    size_t length = 0;

    if (strncmp(cmdline, MODULE_PREFIX, sizeof(MODULE_PREFIX) - 1) == 0)
        cmdline += sizeof(MODULE_PREFIX) - 1;
    while (length < sizeof(name) - 1 && cmdline[length] != '\0' && cmdline[length] != ' ') {
        name[length] = cmdline[length];
        length++;
    }
    name[length] = '\0';
    user_run(image, size, length != 0 ? name : "unnamed", &result);
}
