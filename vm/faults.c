/*
 * Memory faults of a guest: an access that its second-level table does not let through.
 *
 * First touch of lazy memory gets a frame. An access that the table allows by now (another CPU
 * filled the page, or the CPU held an old translation) is just resumed. One that the guest has
 * announced by QUIRE_HC_EXPECT_FAULT is reported and resumed where the guest asked. With
 * `stray=lost` a read or a write where nothing is, and a write to ROM, goes to vm/windows.h.
 * Everything else stops the guest, with a report that says what was tried, what is there, and every
 * step of the walk.
 */
#include "guests/abi.h"
#include "lib/error.h"
#include "lib/log.h"
#include "mm/frames/buddy.h"
#include "mm/paging/typed.h"
#include "vm/cow.h"
#include "vm/device.h"
#include "vm/exits.h"
#include "vm/quota.h"
#include "vm/report.h"
#include "vm/slots.h"
#include "vm/touch.h"
#include "vm/windows.h"
#include "x86/control.h"

/* A CPU that keeps refusing what the table allows would hold the guest forever. */
#define SPURIOUS_LIMIT 16

/* Faults that a guest has announced are reported up to this many, and counted after that: the log
 * is the host's, and a report takes some 140,000 instructions. */
#define LOGGED_LIMIT 32

#define FAULT_TEXT 128

static const char *access_verb(unsigned access)
{
    if (access & RIGHT_W)
        return "write to";
    if (access & RIGHT_X)
        return "instruction fetch from";
    return "read of";
}

/* What a guest with `pc` has at an address that others have not; NULL for nothing. */
static const char *pc_part_at(gpa_t at)
{
    const struct device *device;

    if (at.v >= GUEST_LOW_RAM_END && at.v < GUEST_HIGH_RAM)
        return at.v < GUEST_LOW_RAM_END + GUEST_VIDEO_SIZE ? "video memory" : "BIOS";
    return window_at(at, &device) != NULL ? device->name : NULL;
}

/* What a kernel that means it may be told: its option. */
static const char *advice(const struct guest *guest, const struct vm_exit *exit)
{
    if (!guest->options.pc || exit->memory.walk ||
        !window_is_nobodys(guest, exit->memory.gpa, exit->memory.access))
        return "";
    return "; a PC loses that: `stray=lost`";
}

/* "no memory (hole 0xa0000..0xfffff)" or "ROM at 0x300000+64K". */
static void describe_target(const struct guest *guest, const struct vm_exit *exit,
                            char text[FAULT_TEXT])
{
    const struct slot *slot = guest_slot_at(guest, exit->memory.gpa);
    uint64_t first = 0, last = guest->table.kind->input_last;
    char size[SIZE_TEXT], rights[RIGHTS_TEXT];

    if (slot != NULL) {
        bool changed = slot->rights != slot_kind_rights(slot->kind);

        rights_text(rights, slot->rights);
        format_buffer(text, FAULT_TEXT, "%s at 0x%lx+%s%s%s%s", slot_kind_name(slot->kind),
                      slot->base.v, size_text(size, slot->size), changed ? ", now " : "",
                      changed ? rights : "", advice(guest, exit));
        return;
    }
    for (unsigned i = 0; i < guest->slots; i++) {
        slot = &guest->slot[i];
        if (slot->base.v > exit->memory.gpa.v) {
            last = slot->base.v - 1;
            break;
        }
        first = slot->base.v + slot->size;
    }
    const char *part = guest->options.pc ? NULL : pc_part_at(exit->memory.gpa);
    if (part == NULL)
        format_buffer(text, FAULT_TEXT, "no memory (hole 0x%lx..0x%lx%s)", first, last,
                      advice(guest, exit));
    else
        format_buffer(text, FAULT_TEXT,
                      "no memory (hole 0x%lx..0x%lx; a PC has its %s there: `pc`)", first, last,
                      part);
}

static void print_entry(struct sink *to, const struct walk_step *step)
{
    char rights[RIGHTS_TEXT];

    format(to, "  %-4s[%3u] at 0x%lx: 0x%lx ", level_name(step->level), step->index,
           step->address.v, step->raw);
    switch (step->class) {
    case ENTRY_ABSENT:
        format(to, "not present\n");
        break;
    case ENTRY_TABLE:
        format(to, "table %s\n", rights_text(rights, step->attrs.rights));
        break;
    case ENTRY_LEAF:
        format(to, "leaf %s %s%s%s\n", rights_text(rights, step->attrs.rights),
               mem_type_name((enum mem_type)step->attrs.type), step->accessed ? " A" : "",
               step->dirty ? " D" : "");
        break;
    case ENTRY_BAD:
        format(to, "illegal: %s\n", rule_text(step->rule));
        break;
    }
}

static void print_walk(struct sink *to, const struct walk *walk)
{
    for (unsigned i = 0; i < walk->count; i++)
        print_entry(to, &walk->step[i]);
    if (walk->error == E_OK)
        format(to, "  leads to frame 0x%lx\n", walk->mapping.out.v);
    else
        format(to, "  ends: %s\n", error_text(walk->error));
}

/* Every reference of the walk that the CPU made, and its verdict. */
static void print_explanation(struct sink *to, struct guest *guest, const struct vm_exit *exit)
{
    if (guests_backend()->explain == NULL)
        return;
    format(to, "how the CPU came to it:\n");
    guests_backend()->explain(guest->vcpu, exit, to);
}

/* What was tried, what is there, and the walk. */
static void print_fault(struct sink *to, struct guest *guest, const struct vm_exit *exit)
{
    char target[FAULT_TEXT], rights[RIGHTS_TEXT];
    struct walk walk;

    gpa_walk(&guest->table, exit->memory.gpa, &walk);
    describe_target(guest, exit, target);
    format(to, "%s GPA 0x%lx", access_verb(exit->memory.access), exit->memory.gpa.v);
    if (exit->memory.gva_valid)
        format(to, " (GVA 0x%lx%s)", exit->memory.gva.v,
               exit->memory.walk ? ", while the CPU read the guest's own page tables for it" : "");
    format(to, " at RIP 0x%lx\n", exit->rip);
    format(to, "target: %s\n", target);
    format(to, "tried %s, ", rights_text(rights, exit->memory.access));
    format(to, "allowed %s, %s 0x%lx\n", rights_text(rights, exit->memory.allowed),
           guests_backend()->detail, exit->qualification);
    format(to, "walk of GPA 0x%lx in the guest's %s table:\n", exit->memory.gpa.v,
           guest->table.kind->name);
    print_walk(to, &walk);
}

static void write_reason(struct guest *guest, const struct vm_exit *exit)
{
    char target[FAULT_TEXT];

    describe_target(guest, exit, target);
    guest_end(guest, GUEST_STOPPED, "%s GPA 0x%lx: %s, at RIP 0x%lx",
              access_verb(exit->memory.access), exit->memory.gpa.v, target, exit->rip);
}

static uint32_t fault_bits(unsigned access)
{
    return (access & RIGHT_R ? QUIRE_FAULT_READ : 0u) |
           (access & RIGHT_W ? QUIRE_FAULT_WRITE : 0u) | (access & RIGHT_X ? QUIRE_FAULT_EXEC : 0u);
}

static bool is_expected(struct guest *guest, gpa_t at)
{
    const struct expected_fault *expected = &guest_at(guest)->is.expect_fault;

    return expected->size != 0 && at.v >= expected->base && at.v - expected->base < expected->size;
}

/* One-shot: the expectation is used up, whatever comes of it. */
static bool resume_expected(struct guest *guest, const struct vm_exit *exit)
{
    struct vcpu_state state;

    guest_at(guest)->is.expect_fault.size = 0;
    if (guests_backend()->get_state(guest->vcpu, &state) != E_OK)
        return false;
    state.rip = guest_at(guest)->is.expect_fault.resume;
    state.rflags &= ~RFLAGS_RF; /* it was the instruction's that is given up */
    state.gpr[RAX] = fault_bits(exit->memory.access);
    return guests_backend()->set_state(guest->vcpu, &state) == E_OK;
}

static void log_expected(const struct report *report)
{
    struct guest *guest = report->guest;

    report_log(report);
    log_guest("g%u %s: this fault was announced; the guest goes on at 0x%lx", guest->number,
              guest->name, guest_at(guest)->is.expect_fault.resume);
    if (guest->faults_refused == LOGGED_LIMIT)
        log_guest("g%u %s: further announced faults are counted, not reported", guest->number,
                  guest->name);
}

/* The registers go into the kept report always, into the log only where the guest stops. */
static void refuse(struct guest *guest, const struct vm_exit *exit)
{
    bool goes_on = is_expected(guest, exit->memory.gpa) && resume_expected(guest, exit);
    struct report report;

    if (++guest->faults_refused > LOGGED_LIMIT && goes_on)
        return;
    report_begin(&report, guest);
    print_fault(&report.sink, guest, exit);
    if (goes_on) {
        log_expected(&report);
        report_state(&report, exit);
        return;
    }
    print_explanation(&report.sink, guest, exit);
    report_state(&report, exit);
    report_log(&report);
    write_reason(guest, exit);
}

static bool keeps_faulting(struct guest *guest, const struct vm_exit *exit)
{
    struct guest_cpu *cpu = guest_at(guest);
    uint64_t generation = guest->table.generation;

    /* Where something was taken away since, another vCPU may have given it back each time. */
    if (cpu->spurious.gpa != exit->memory.gpa.v || cpu->spurious.rip != exit->rip ||
        cpu->spurious.generation != generation)
        cpu->spurious.count = 0;
    cpu->spurious.gpa = exit->memory.gpa.v;
    cpu->spurious.rip = exit->rip;
    cpu->spurious.generation = generation;
    return ++cpu->spurious.count > SPURIOUS_LIMIT;
}

/* There is no frame for it just now. The access is made again when the guest goes on. */
static void hold(struct guest *guest, const struct vm_exit *exit, int error)
{
    uint64_t held = quota_held(guest), quota = quota_bytes(guest);
    char has[SIZE_TEXT], most[SIZE_TEXT];

    if (quota != UINT64_MAX && held + PAGE_SIZE > quota)
        guest_hold(guest,
                   "no frame for GPA 0x%lx: it holds %s, its quota is %s; `quota g%u SIZE`, then "
                   "`resume g%u`",
                   exit->memory.gpa.v, size_text(has, held), size_text(most, quota), guest->number,
                   guest->number);
    else
        guest_hold(guest,
                   "no frame for GPA 0x%lx: the machine's memory is given away (%s); `resume g%u` "
                   "once there is room",
                   exit->memory.gpa.v, error_name(error), guest->number);
}

/* A first touch, or, where `leaf` is there, a first write or fetch. E_NOENT: the slot does not
 * allow it. */
static int make_reachable(struct guest *guest, struct slot *slot, const struct vm_exit *exit,
                          const struct mapping *leaf)
{
    int error;

    if (slot == NULL || (exit->memory.access & ~slot->rights) != 0)
        return E_NOENT;
    if (leaf != NULL && exit->memory.access & RIGHT_X) {
        error = page_execute(guest, exit->memory.gpa, leaf);
    } else if (leaf != NULL) {
        error = exit->memory.access & RIGHT_W ? page_open(guest, exit->memory.gpa, leaf) : E_NOENT;
        guest->faults_opened += error == E_OK;
    } else {
        error = touch_fill(guest, slot, exit->memory.gpa, exit->memory.access);
    }
    return error;
}

/* Of an instruction itself, not of its walk of page tables; and nobody has been told of it. */
static bool is_lost(struct guest *guest, const struct vm_exit *exit)
{
    return window_is_stray(guest, exit->memory.gpa, exit->memory.access) && !exit->memory.walk &&
           !is_expected(guest, exit->memory.gpa);
}

void exit_memory(struct guest *guest, const struct vm_exit *exit)
{
    struct slot *slot = slot_at(guest, exit->memory.gpa);
    struct mapping leaf;

    if (slot != NULL && slot->kind == SLOT_DEVICE) {
        exit_window(guest, exit);
        return;
    }
    bool is_there = gpa_translate(&guest->table, exit->memory.gpa, &leaf) == E_OK;
    if (is_there && (exit->memory.access & ~leaf.attrs.rights) == 0) {
        guest->faults_spurious++;
        if (keeps_faulting(guest, exit))
            guest_stop(guest, exit, "the CPU keeps refusing a %s GPA 0x%lx that the table allows",
                       access_verb(exit->memory.access), exit->memory.gpa.v);
        return;
    }
    int error = make_reachable(guest, slot, exit, is_there ? &leaf : NULL);
    if (error == E_NOENT && is_lost(guest, exit))
        exit_window(guest, exit);
    else if (error == E_NOENT)
        refuse(guest, exit);
    else if (error != E_OK)
        hold(guest, exit, error);
}

void exit_misconfig(struct guest *guest, const struct vm_exit *exit)
{
    enum rule rule = RULE_OK;
    struct report report;
    struct walk walk;

    gpa_walk(&guest->table, exit->memory.gpa, &walk);
    if (walk.count != 0)
        rule = walk.step[walk.count - 1].rule;
    guest_end(guest, GUEST_STOPPED, "illegal entry in the table for GPA 0x%lx: %s (%s)",
              exit->memory.gpa.v, rule_text(rule), rule_section(guest->table.kind->id, rule));
    report_begin(&report, guest);
    format(&report.sink, "%s\n", guest->reason);
    print_walk(&report.sink, &walk);
    print_explanation(&report.sink, guest, exit);
    report_state(&report, exit);
    report_log(&report);
}

void exit_refused(struct guest *guest, const struct vm_exit *exit)
{
    if (exit->kind == VM_EXIT_MISCONFIG)
        exit_misconfig(guest, exit);
    else
        exit_memory(guest, exit);
}
