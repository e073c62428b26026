/*
 * The console, from the bytes that come in to the lines that go out, over real page tables and a
 * real buddy allocator in an arena that plays physical memory. What only a CPU can answer (guests
 * that run, control registers, the serial port) is played by the fakes below.
 */
#include "monitor/monitor.h"
#include "monitor/terminal.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/cpu_state.h"
#include "arch/x86_64/guest/read_linear.h"
#include "arch/x86_64/mm/ept.h"
#include "arch/x86_64/mm/host_entry.h"
#include "arch/x86_64/mm/kernel.h"
#include "arch/x86_64/mm/kernel_space.h"
#include "arch/x86_64/mm/physical.h"
#include "arch/x86_64/mm/tlb.h"
#include "arch/x86_64/mtrr.h"
#include "arch/x86_64/cpus.h"
#include "arch/x86_64/oracle/oracle.h"
#include "arch/x86_64/oracle/trial.h"
#include "arch/x86_64/power.h"
#include "arch/x86_64/symbols.h"
#include "arch/x86_64/uart.h"
#include "arch/x86_64/user_last.h"
#include "arch/x86_64/svm/svm.h"
#include "arch/x86_64/vmx/vmx.h"
#include "arch/x86_64/vmx/vmx_caps.h"
#include "lib/error.h"
#include "lib/log.h"
#include "mm/frames/buddy.h"
#include "mm/frames/slab.h"
#include "mm/paging/table.h"
#include "arch/x86_64/speculation.h"
#include "monitor/commands.h"
#include "monitor/line_editor.h"
#include "monitor/registry.h"
#include "tests/unit/buddy_env.h"
#include "vm/dirty.h"
#include "vm/device.h"
#include "vm/guest.h"
#include "vm/keyboard.h"
#include "vm/quota.h"
#include "vm/screen.h"
#include "x86/control.h"

/* --- The machine ----------------------------------------------------------------------------- */

#define RAM (64 * MiB)

static uint8_t *arena;
static struct memblock memory;
static struct cpu_state registers = {.cr0 = 0x80010033,
                                     .cr3 = 0x1000,
                                     .cr4 = CR4_PAE | CR4_PGE | CR4_VMXE,
                                     .efer = EFER_NXE | EFER_LMA | EFER_LME};
struct vmx_caps vmx_caps;
static const char *space_broken; /* what kernel_space_check() finds, or NULL */

struct cpu_features cpu_features = {.vendor = "GenuineIntel",
                                    .brand = "Test CPU",
                                    .family = 6,
                                    .maxphyaddr = 40,
                                    .linear_bits = 48,
                                    .nx = true,
                                    .pge = true,
                                    .vmx = true};

static const struct table_caps caps = {.maxphyaddr = 40,
                                       .leaf_top = 3,
                                       .nx = true,
                                       .accessed_dirty = true,
                                       .execute_only = true,
                                       .global = true,
                                       .mem_types = 0x71};

bool tsc_counts_instructions(void)
{
    return true;
}

static unsigned current_cpu = 3;

unsigned cpu_number(void)
{
    return current_cpu;
}

static struct tlb_counters tlb_counters;

struct tlb_counters tlb_counters_total(void)
{
    return tlb_counters;
}

/* The machine's CPUs: three run, one does not. */
static unsigned online = 3;

unsigned cpus_online(void)
{
    return online;
}

const char *cpu_status_name(enum cpu_status status)
{
    return status == CPU_ONLINE ? "online" : "silent";
}

bool cpus_info(unsigned index, struct cpu_info *out)
{
    *out = (struct cpu_info){.status = index < online ? CPU_ONLINE : CPU_SILENT,
                             .number = index,
                             .apic_id = 2 * index,
                             .doing = index ? "idle" : "console",
                             .why = "no answer",
                             .nmis = 10 + index,
                             .flushes = {.sent = 20 + index, .answered = 30 + index}};
    return index < 4;
}

const char *const cpu_stack_names[STACK_COUNT] = {[STACK_MAIN] = "main", [STACK_NMI] = "NMI"};

static unsigned stops;        /* guests_stop_others() without guests_go_on() */
static unsigned stopped_then; /* when a CPU was asked where it is */
static bool second_has_turn;

/* CPU 1 is in a guest, and the last one deaf. */
int cpus_place(unsigned number, struct cpu_place *out)
{
    stopped_then = stops;
    *out =
        (struct cpu_place){.in_guest = number == 1,
                           .chain = {.call = {{.at = 0xffffffff80200010, .stack = STACK_MAIN},
                                              {0xffffffff80200020, 0xffffe00000003fd0, STACK_MAIN}},
                                     .count = 2,
                                     .end = CHAIN_BASE}};
    return number + 1 < online || number == 0 ? E_OK : E_HARDWARE;
}

/* What a trial of flushes comes to. */
static struct {
    int error;
    uint64_t stale, disturbed, changes;
} trial_says;

const char *trial_space_name(enum trial_space space)
{
    return space == TRIAL_GUEST ? "guest" : "kernel";
}

int trial_run(const struct vm_backend *with, uint64_t changes,
              struct trial_counts counts[TRIAL_SPACES])
{
    (void)with;
    memset(counts, 0, sizeof(*counts) * TRIAL_SPACES);
    trial_says.changes = changes;
    counts[TRIAL_GUEST] = (struct trial_counts){
        .changes = changes, .stale = trial_says.stale, .disturbed = trial_says.disturbed};
    return trial_says.error;
}

/* Every caller is at the same place. */
const char *symbol_of(uint64_t address, uint64_t *offset)
{
    (void)address;
    *offset = 0x10;
    return "somebody";
}

static struct mtrrs mtrrs;

const struct mtrrs *mtrrs_of_this_cpu(void)
{
    return &mtrrs;
}

void cpu_state_read(struct cpu_state *out)
{
    *out = registers;
}

int kernel_space_check(char *why, size_t why_size)
{
    if (!space_broken)
        return E_OK;
    format_buffer(why, why_size, "%s", space_broken);
    return E_STATE;
}

/* What the CPU is said to do: `wrong` of its pairs differ, or it ends with an error. */
static struct {
    unsigned wrong;
    int error;
    uint64_t pairs, seed;
} oracle_says;

const char *oracle_space_name(enum oracle_space space)
{
    return space == ORACLE_GUEST ? "guest" : "host";
}

int oracle_run(const struct vm_backend *with, uint64_t seed, uint64_t pairs,
               const struct oracle_listener *listener, struct oracle_counts counts[ORACLE_SPACES])
{
    struct oracle_disagreement d = {ORACLE_GUEST, 0x1000,         RIGHT_X,        0x7, 1,
                                    "guest",      "goes through", "EPT violation"};

    memset(counts, 0, sizeof(*counts) * ORACLE_SPACES);
    assert_ptr_equal(with, guests_backend());
    oracle_says.pairs = pairs;
    oracle_says.seed = seed;
    counts[ORACLE_GUEST].pairs = pairs;
    counts[ORACLE_GUEST].disagreements = oracle_says.wrong;
    listener->progress(listener, pairs);
    for (unsigned i = 0; i < oracle_says.wrong; i++)
        listener->report(listener, &d);
    return oracle_says.error ? oracle_says.error : oracle_says.wrong ? E_HARDWARE : E_OK;
}

/* The direct map of this machine shows the image's text writable: that rule is left out. */
unsigned kernel_space_describe(struct audit_table *out, struct audit_guard guard[SPACE_GUARDS])
{
    *out = (struct audit_table){.table = &kernel_table, .name = "host", .others = AUDIT_UNKNOWN};
    guard[0] = (struct audit_guard){
        .table = &kernel_table,
        .table_name = "host",
        .name = "a stack's guard page",
        .first = STACKS_BASE,
        .count = 1,
    };
    return 1;
}

uint64_t physical_force(hpa_t to, const void *from, uint64_t size)
{
    memcpy(direct(to), from, size);
    return size;
}

void cpu_ways(struct cpu_way out[CPU_WAYS])
{
    out[0] = (struct cpu_way){"VMX", "guests", cpu_features.vmx, true};
    out[1] = (struct cpu_way){"SVM", "guests", false, false};
}

static void show_virtualization(struct sink *to)
{
    format(to, "VMCS revision %u\nEPT: 2M 1G\n", 7u);
}

bool symbol_address(const char *name, uint64_t *out)
{
    *out = IMAGE_BASE + 2 * MiB;
    return strcmp(name, "kernel_text") == 0;
}

const char *symbol_name(unsigned index)
{
    return index == 0 ? "kernel_text" : NULL;
}

static jmp_buf powered_off;
static bool may_power_off;

_Noreturn void power_off(int status)
{
    assert_true(may_power_off);
    longjmp(powered_off, status + 1);
}

/* --- The serial line ------------------------------------------------------------------------- */

static char screen[1 << 20];
static size_t screen_length;

/* Done once, in the middle of a command that shows how far it is. */
static void (*interfere)(void);

/* The rest is dropped: a test that wants to read it all clears it often enough. */
static void screen_write(struct sink *sink, const char *bytes, size_t n)
{
    void (*now)(void) = memchr(bytes, '%', n) ? interfere : NULL;

    (void)sink;
    if (now) {
        interfere = NULL;
        now();
    }
    if (n > sizeof(screen) - 1 - screen_length)
        n = sizeof(screen) - 1 - screen_length;
    memcpy(screen + screen_length, bytes, n);
    screen_length += n;
    screen[screen_length] = 0;
}

struct sink uart_sink = {screen_write};
struct sink uart_queue_sink = {screen_write};

const struct speculation_plan *speculation_plan(void)
{
    static const struct speculation_plan plan = {
        .state = {[ISSUE_MDS] = SPECULATION_DEFENDED, [ISSUE_L1TF] = SPECULATION_OPEN}};
    return &plan;
}

/* The serial line has no room, until somebody has asked for the fourth time. */
static bool line_busy;

bool uart_has_room(void)
{
    static unsigned asked;

    return !line_busy || ++asked % 4 == 0;
}

bool uart_attend(void)
{
    return false;
}

bool uart_is_queued(void)
{
    return false;
}

static void screen_clear(void)
{
    screen_length = 0;
    screen[0] = 0;
}

static const char *typed;        /* what uart_getc() gives, terminated ... */
static unsigned silent_polls;    /* ... after this many polls that give nothing */
static unsigned (*typist)(void); /* or whoever gives each byte, above 255 for none */

void cpu_idle(void)
{
}

int uart_getc(void)
{
    if (typist) {
        unsigned byte = typist();
        return byte > 255 ? -1 : (int)byte;
    }
    if (silent_polls) {
        silent_polls--;
        return -1;
    }
    return *typed ? (unsigned char)*typed++ : -1;
}

/* --- Guests ---------------------------------------------------------------------------------- */

#define GUESTS 5

static struct guest guest[GUESTS + 1];
static unsigned guests_made = GUESTS;
static unsigned rounds, rounds_left;
static struct vcpu vcpu[GUESTS + 1];
#define PAT_AT_RESET UINT64_C(0x0007040600070406)

static struct vcpu_state cpu_of_guest;
static struct vm_root root_in_cpu;
static const char *why_no_guests;

static int get_state(struct vcpu *from, struct vcpu_state *out)
{
    if (from == &vcpu[2])
        return E_HARDWARE;
    *out = cpu_of_guest;
    return E_OK;
}

static int read_root(struct vcpu *from, struct vm_root *out)
{
    if (from == &vcpu[2])
        return E_STATE;
    *out = root_in_cpu;
    return E_OK;
}

static bool read_linear(struct vcpu *of, const struct vcpu_state *state, uint64_t at, void *to,
                        unsigned size)
{
    return guest_read_linear(&guest[of - vcpu].table, state, at, to, size);
}

static const struct table_caps *backend_caps(void)
{
    return &caps;
}

static const struct table_env *backend_env(void)
{
    return &buddy_env;
}

static uint64_t backend_ticks(void)
{
    static uint64_t now;

    return now += 1000;
}

static const struct vm_backend backend = {.name = "VMX",
                                          .ticks = backend_ticks,
                                          .kind = &ept_kind,
                                          .get_state = get_state,
                                          .read_root = read_root,
                                          .read_linear = read_linear,
                                          .table_caps = backend_caps,
                                          .table_env = backend_env};

const struct vm_backend *guests_backend(void)
{
    return why_no_guests ? NULL : &backend;
}

const char *guests_why_not(void)
{
    return why_no_guests;
}

unsigned guest_count(void)
{
    return guests_made;
}

struct guest *guest_by_number(unsigned number)
{
    return number && number <= guests_made ? &guest[number] : NULL;
}

bool guest_ended(const struct guest *of)
{
    return of->state >= GUEST_PASSED;
}

bool guest_ok(const struct guest *of)
{
    return guest_ended(of) && of->state == of->expected;
}

const char *guest_state_name(enum guest_state state)
{
    static const char *const names[] = {"ready",  "running", "paused", "halted", "passed",
                                        "failed", "stopped", "killed", "refused"};
    return names[state];
}

const char *guest_state_verb(enum guest_state state)
{
    static char text[24];

    snprintf(text, sizeof(text), "%s %s", state < GUEST_PASSED ? "is" : "has",
             guest_state_name(state));
    return text;
}

const char *slot_kind_name(enum slot_kind kind)
{
    return kind == SLOT_RAM ? "RAM" : "lazy RAM";
}

bool slot_fills(const struct slot *slot, unsigned access)
{
    return slot_kind_is_lazy(slot->kind) && !(access & ~(unsigned)slot->rights);
}

const struct slot *guest_slot_at(const struct guest *of, gpa_t at)
{
    for (unsigned i = 0; i < of->slots; i++)
        if (at.v >= of->slot[i].base.v && at.v - of->slot[i].base.v < of->slot[i].size)
            return &of->slot[i];
    return NULL;
}

int guest_start(struct guest *of)
{
    if (of->state == GUEST_RUNNING)
        return E_STATE;
    if (of->state == GUEST_REFUSED)
        return E_FORMAT;
    of->state = GUEST_RUNNING;
    return E_OK;
}

int guest_pause(struct guest *of)
{
    if (of->state != GUEST_RUNNING)
        return E_STATE;
    of->state = GUEST_PAUSED;
    return E_OK;
}

int guest_kill(struct guest *of)
{
    assert_int_equal(stops, 1); /* all stand still for the command */
    if (guest_ended(of))
        return E_STATE;
    of->state = GUEST_KILLED;
    return E_OK;
}

size_t guest_input(struct guest *of, const char *bytes, size_t n)
{
    size_t taken = 0;

    for (; taken < n && of->devices.serial.input_count < 4; taken++)
        of->devices.serial.input[of->devices.serial.input_count++] = (uint8_t)bytes[taken];
    return taken;
}

/* Three devices, of which one has nothing to show, and one answers in a window alone. */
static void show_lines(const struct guest *of, struct sink *to)
{
    format(to, "first of g%u\nsecond\n", of->number);
}

static const struct device silent_device = {.name = "silent"};
static const struct device telling_device = {
    .name = "telling",
    .port_count = 1,
    .show = show_lines,
};
static const struct window window = {.base = 0xfec00000, .size = PAGE_SIZE};
static const struct device window_device = {
    .name = "window",
    .windows = &window,
    .window_count = 1,
    .show = show_lines,
};

const struct device *device_by_index(unsigned index)
{
    static const struct device *const devices[] = {&silent_device, &telling_device, &window_device};

    return index < ARRAY_SIZE(devices) ? devices[index] : NULL;
}

static char typed_keys[KEYBOARD_TEXT + 1];

bool keyboard_has_key(char c)
{
    return (c >= ' ' && c <= '~') || (c >= 1 && c <= 27);
}

size_t keyboard_type(struct guest *of, const char *text, size_t n)
{
    memcpy(typed_keys, text, n);
    typed_keys[n] = 0;
    of->devices.keyboard.keyboard.text_count += (unsigned)n;
    return n;
}

static int screen_error;
static struct screen screen_shown;

int screen_read(struct guest *of, struct screen *out)
{
    (void)of;
    *out = screen_shown;
    return screen_error;
}

static uint64_t read_to; /* how far the terminal has said that it was */

void guest_output_read(struct guest *of, uint64_t position)
{
    (void)of;
    read_to = position;
}

bool guest_holds(const struct guest *of)
{
    (void)of;
    return false;
}

void guest_finish(struct guest *of)
{
    (void)of;
}

static bool (*between)(void);

void guests_set_between(bool (*wanted)(void))
{
    between = wanted;
}

static uint64_t shown_after; /* what guests_show_unfinished() was told last */

void guests_show_unfinished(uint64_t ticks)
{
    shown_after = ticks;
}

void guests_stop_others(void)
{
    stops++;
}

void guests_go_on(void)
{
    stops--;
}

void guests_leave(void)
{
}

void guests_enter(void)
{
}

unsigned guests_cpus(void)
{
    return 2;
}

struct guest_cpu *guests_turn(unsigned cpu)
{
    guest[2].cpu[0].guest = &guest[2];
    return cpu == 0 || (cpu == 1 && second_has_turn) ? &guest[2].cpu[0] : NULL;
}

unsigned sched_queue_of(const struct guest_cpu *cpu)
{
    return cpu->guest->number % 2;
}

uint64_t guests_first_entry(void)
{
    return 0;
}

uint64_t guests_console_wait(void)
{
    return 0;
}

unsigned guests_round(void)
{
    assert_int_equal(stops, 0);
    rounds++;
    if (rounds_left)
        rounds_left--;
    if (rounds_left == 0 && guest[2].state == GUEST_RUNNING)
        guest[2].state = GUEST_PASSED;
    return rounds_left;
}

uint64_t guest_read(struct guest *of, gpa_t from, void *to, uint64_t size)
{
    struct mapping mapping;

    assert_true(size <= 8);
    if (table_translate(&of->table, from.v, &mapping) != E_OK)
        return 0;
    memcpy(to, direct(hpa(mapping.out.v + (from.v - mapping.in))), size);
    return size;
}

/* --- Setting up ------------------------------------------------------------------------------ */

static void map_in(struct table *table, uint64_t in, uint64_t out, uint64_t size, unsigned rights)
{
    struct flush_batch batch;

    flush_begin(&batch, table);
    assert_int_equal(
        table_map(table, in, hpa(out), size, attrs_of(rights, MEM_WB), MAP_DEFAULT, &batch), E_OK);
    flush_commit(&batch);
}

static uint64_t *entry_of(struct table *table, uint64_t in)
{
    struct walk walk;

    table_walk(table, in, &walk);
    return direct(walk.step[walk.count - 1].address);
}

/* g3 is paused, with 4 MiB of RAM behind it at 32 MiB: two large pages but for 0xa0000..0x100000.
 */
#define G3_FRAMES (32 * MiB)

static void make_guests(void)
{
    static const char long_name[] = "hello";

    memset(guest, 0, sizeof(guest));
    for (unsigned i = 1; i <= GUESTS; i++) {
        guest[i].number = i;
        guest[i].cpus = 1;
        guest[i].cpu[0].guest = &guest[i];
        snprintf(guest[i].name, sizeof(guest[i].name), "%s%u", long_name, i);
        guest[i].expected = GUEST_PASSED;
        guest[i].memory = 16 * MiB;
        guest[i].kind = "Multiboot ELF32";
    }
    guest[1].state = GUEST_PASSED;
    strcpy(guest[1].reason, "verdict: pass");
    guest[2].state = GUEST_RUNNING;
    guest[2].vcpu = guest[2].cpu[0].vcpu = &vcpu[2];
    guest[3].state = GUEST_PAUSED;
    guest[3].vcpu = guest[3].cpu[0].vcpu = &vcpu[3];
    guest[3].slots = 2;
    guest[3].slot[0] = (struct slot){gpa(0), 0xa0000, SLOT_RAM, RIGHT_RWX, 0xa0000, NULL};
    guest[3].slot[1] =
        (struct slot){gpa(0x100000), 4 * MiB - 0x100000, SLOT_RAM_LAZY, RIGHT_RWX, 0, NULL};
    guest[4].state = guest[4].expected = GUEST_STOPPED;
    strcpy(guest[4].reason, "wrote to ROM at gpa 0x300000");
    strcpy(guest[4].report, "EPT violation\nrip 0x1000\033[2J\n");
    guest[5].state = GUEST_REFUSED;
    strcpy(guest[5].reason, "no Multiboot header in its first 8 KiB");
}

/* What commands of the test before have kept, they give back before its memory becomes another's.
 */
static void forget_kept(void)
{
    struct output out;

    guests_made = GUESTS;
    output_init(&out, &uart_sink);
    monitor_execute(&out, "trace off; map host forget");
    monitor_execute(&out,
                    "map g1 forget; map g2 forget; map g3 forget; map g4 forget; map g5 forget");
}

static int set_up(void **state)
{
    static void *metadata;
    uint64_t metadata_size = buddy_metadata_size(RAM);

    (void)state;
    if (arena)
        forget_kept();
    if (!arena) {
        arena = aligned_alloc(2 * MiB, RAM);
        metadata = aligned_alloc(PAGE_SIZE, align_up(metadata_size, PAGE_SIZE));
    }
    direct_base = (uint64_t)(uintptr_t)arena;
    assert_int_equal(buddy_init(metadata, metadata_size, RAM), E_OK);
    assert_int_equal(buddy_add(hpa(1 * MiB), RAM - 1 * MiB), E_OK);
    memblock_init(&memory);
    boot_facts = (struct boot_facts){.cmdline = "reserve=1M",
                                     .loader = "GRUB 2.06",
                                     .memory = &memory,
                                     .show_virtualization = show_virtualization,
                                     .second_level = &ept_kind};
    memblock_add(&memory, 0, 0x9fc00, MEMKIND_USABLE);
    memblock_add(&memory, 0x9fc00, 0x400, MEMKIND_RESERVED);
    memblock_add(&memory, 1 * MiB, RAM - 1 * MiB, MEMKIND_USABLE);

    make_guests();
    assert_int_equal(
        table_init(&kernel_table, &kernel_kind, &caps, &buddy_env, PURPOSE_HOST_TABLE, OWNER_HOST),
        E_OK);
    map_in(&kernel_table, DIRECT_BASE, 0, RAM, RIGHT_RW | RIGHT_G);
    map_in(&kernel_table, IMAGE_BASE + 2 * MiB, 2 * MiB, 0x3000, RIGHT_RX | RIGHT_G);
    struct table *ept = &guest[3].table;
    assert_int_equal(
        table_init(ept, &ept_kind, &caps, &buddy_env, PURPOSE_EPT_TABLE, guest_owner(&guest[3])),
        E_OK);
    guest[3].has_table = true;
    owner_t g3 = guest_owner(&guest[3]);
    assert_int_equal(buddy_alloc_at(hpa(G3_FRAMES), 7, PURPOSE_GUEST_RAM, g3), E_OK);
    assert_int_equal(buddy_alloc_at(hpa(G3_FRAMES + 0x80000), 5, PURPOSE_GUEST_RAM, g3), E_OK);
    assert_int_equal(buddy_alloc_at(hpa(G3_FRAMES + 2 * MiB), 9, PURPOSE_GUEST_RAM, g3), E_OK);
    map_in(ept, 0, G3_FRAMES, 0xa0000, RIGHT_RWX);
    map_in(ept, 2 * MiB, G3_FRAMES + 2 * MiB, 2 * MiB, RIGHT_RWX);
    root_in_cpu = (struct vm_root){.raw = ept_eptp(ept),
                                   .frame = ept->root,
                                   .type = MEM_WB,
                                   .levels = 4,
                                   .accessed_dirty = true};
    memset(&cpu_of_guest, 0, sizeof(cpu_of_guest));
    cpu_of_guest.pat = PAT_AT_RESET;

    why_no_guests = space_broken = NULL;
    guests_made = GUESTS;
    rounds = rounds_left = silent_polls = 0;
    typist = NULL;
    typed = "";
    may_power_off = false;
    screen_clear();
    return 0;
}

/* --- One command at a time ------------------------------------------------------------------- */

static struct output screen_output;

static int run(const char *line)
{
    screen_clear();
    output_init(&screen_output, &uart_sink);
    return monitor_execute(&screen_output, line);
}

static void check_run(int expected, const char *line, const char *said, unsigned at_line)
{
    int error = run(line);

    if (error == expected && strstr(screen, said))
        return;
    print_error("line %u: `%s` answered %s:\n%s\ninstead of %s with:\n%s\n", at_line, line,
                error_name(error), screen, error_name(expected), said);
    fail();
}

#define answers(line, said) check_run(E_OK, line, said, __LINE__)
#define refuses(error, line, said) check_run(error, line, said, __LINE__)

static void test_help(void **state)
{
    (void)state;
    answers("help",
            "  mem       the memory map, what is free, and who has the rest                 -\n");
    answers("help", "  walk      every step from an address to its frame                           "
                    " host VA | gN gpa|gva X\n");
    answers("help walk", "example: walk g1 gpa 0x101000\n");
    refuses(E_NOENT, "help wlak", "did you mean `walk`");
}

/* On the console of a machine with two CPUs; between two questions a guest has had a tenth. */
static void test_top_and_cpus(void **state)
{
    (void)state;
    guest[3].options.pinned = true;
    guest[3].options.pin = 1;
    answers("top", "g2     hello2      running ");
    guest[2].cpu[0].ticks += 100;
    answers("top", "2 CPUs; shares are of one of them, since");
    assert_non_null(strstr(screen, "g2     hello2      running     0  no           10"));
    assert_non_null(strstr(screen, "g3     hello3      paused      1  yes           0"));
    answers("guests", "g3 hello3 is pinned to CPU 1");
    guest[3].state = GUEST_REFUSED;
    run("guests");
    assert_null(strstr(screen, "is pinned"));
    assert_int_equal(stops, 0);
}

/* The reference of the console, as the tests find it from the root of the sources. */
static char reference[131072];

static void read_reference(void)
{
    FILE *file = fopen("docs/MONITOR.md", "r");

    assert_non_null(file);
    size_t n = fread(reference, 1, sizeof(reference) - 1, file);
    assert_true(n < sizeof(reference) - 1);
    reference[n] = 0;
    fclose(file);
}

/* Each command of the list has its page and its place in the reference, and its example is a
 * command with legal arguments. */
static void test_every_command_is_described(void **state)
{
    char list[16384], name[32], line[256], example[128], usage[224];
    unsigned commands = 0;

    (void)state;
    arguments_set_symbols(symbol_address);
    read_reference();
    assert_int_equal(run("help"), E_OK);
    strcpy(list, screen);
    char *row = strchr(list, '\n') + 1;
    for (; sscanf(row, "  %31[a-z]", name) == 1; row = strchr(row, '\n') + 1) {
        commands++;
        snprintf(line, sizeof(line), "help %s", name);
        answers(line, "example: ");
        const char *colon = strstr(screen, ": "); /* one in a usage has no blank behind it */
        assert_non_null(colon);
        snprintf(usage, sizeof(usage), "%.*s", (int)(colon - screen), screen);
        snprintf(line, sizeof(line), "\n### `%s`\n", usage);
        if (!strstr(reference, line))
            fail_msg("docs/MONITOR.md has no heading `%s`", usage);
        assert_int_equal(sscanf(strstr(screen, "example: "), "example: %127[^\n]", example), 1);
        assert_memory_equal(example, name, strlen(name));
        if (strcmp(name, "quit") == 0)
            continue;
        /* Guests may be in the wrong state for it, and then it says so; but never a wrong usage. */
        int error = run(example);
        assert_true(error == E_OK || error == E_STATE || error == E_HARDWARE);
    }
    assert_true(commands >= 19);
}

/* On a terminal of 80 columns. */
static void test_no_line_of_help_is_folded(void **state)
{
    const char *name;
    char line[64];

    (void)state;
    answers("columns 80", "");
    for (unsigned i = 0; (name = command_name(i)); i++) {
        snprintf(line, sizeof(line), "help %s", name);
        assert_int_equal(run(line), E_OK);
        const char *row = strstr(screen, "\n  ");
        for (const char *text = find_command(name)->details; *text; text = strchr(text, '\n') + 1) {
            size_t n = strcspn(text, "\n");

            assert_non_null(row);
            if (strncmp(row, "\n  ", 3) != 0 || strncmp(row + 3, text, n) != 0 ||
                row[3 + n] != '\n')
                fail_msg("`help %s` folds \"%.*s\":\n%s", name, (int)n, text, screen);
            row += 3 + n;
        }
    }
}

static void test_fuzz_until(void **state)
{
    (void)state;
    refuses(E_STATE, "fuzz g3 input=0x1000:4 rounds=2 seed=3 ticks=9 until=0x7fffffffffff", "");
    refuses(E_STATE, "fuzz g3 input=0x1000:4 until=0xffff800000000000", "");
    refuses(E_RANGE, "fuzz g3 input=0x1000:4 until=0x800000000000",
            "until=0x800000000000: no instruction is there");
    refuses(E_RANGE, "fuzz g3 input=0x1000:4 until=0xffff7fffffffffff", "no instruction is there");
    refuses(E_FORMAT, "fuzz g3 input=0x1000:4 until=", "is no address");
    refuses(E_RANGE, "fuzz g3 input=0x1000:4 ticks=0", "ticks=0: it is from 1 to 256T");
    refuses(E_RANGE, "fuzz g3 input=0x1000:4 ticks=0x1000000000001", "it is from 1 to 256T");
    refuses(E_STATE, "fuzz g3 input=0x1000:4 ticks=256T", "");
    refuses(E_RANGE, "fuzz g3 input=0x1000:4 rounds=0",
            "rounds=0: give a number from 1, or none for 10000");
    refuses(E_INVAL, "fuzz g3 input=0x1000:4 till=3", "is nothing to fuzz with");
}

static void test_nonsense(void **state)
{
    (void)state;
    refuses(E_NOENT, "mep", "\"mep\" is no command; did you mean `mem`? `help` lists them all");
    refuses(E_NOENT, "wakl g1", "did you mean `walk`");
    refuses(E_NOENT, "gu", "did you mean `guests`");
    refuses(E_NOENT, "GUESTS", "\"GUESTS\" is no command; did you mean `guests`");
    refuses(E_NOENT, "xyzzy", "\"xyzzy\" is no command; `help` lists them all");
    refuses(E_NOENT, "0123456789012345678901234567890123456789x", "is no command");
    refuses(E_NOENT, "\"\"", "is no command");
    refuses(E_INVAL, "map", "map: arguments are missing; usage: map host|user|gN [gva");
    refuses(E_INVAL, "walk g3", "an argument is missing");
    refuses(E_INVAL, "mem all", "too many arguments; usage: mem;");
    refuses(E_FORMAT, "mem \"", "a quote (\") without its end");
    assert_int_equal(run(""), E_OK);
    assert_string_equal(screen, "");
    assert_int_equal(run(" ; ;"), E_OK);
    assert_string_equal(screen, "");
}

/* Other tools' words for it: run where ours is the same, named otherwise. */
static void test_words_of_others(void **state)
{
    (void)state;
    arguments_set_symbols(symbol_address);
    answers("?", "here it is `help`\n");
    answers("? walk", "here it is `help walk`\nwalk host VA");
    answers("info mem", "here it is `map host`\n");
    answers("vmmap", "here it is `map host`\n");
    refuses(E_STATE, "vmmap g1", "here it is `map g1 gva`\n");
    answers("i r g3", "here it is `regs g3`\n");
    refuses(E_NOENT, "info registers",
            "\"info\" is no command here: `regs gN` shows the registers");
    answers("x/8gx kernel_text", "here it is `dump hva kernel_text 64`\n");
    answers("x /2xb g3 0x1000", "here it is `dump g3 gva 0x1000 2`\n");
    answers("xp/4wx 0x200000", "here it is `dump hpa 0x200000 16`\n");
    refuses(E_INVAL, "x/8gx", "dump: an argument is missing");
    refuses(E_INVAL, "x", "dump: ");
    refuses(E_INVAL, "xp", "dump: ");
    refuses(E_INVAL, "x/8gx g3", "dump: an argument is missing");
    refuses(E_INVAL, "xp/4gx g3", "here it is `dump g3 gpa`\nerror: dump: ");
    refuses(E_NOENT, "x/0gx kernel_text", "a count of 0 shows nothing");
    refuses(E_NOENT, "x/s kernel_text", "shows bytes in hexadecimal and as characters");
    answers("x/c kernel_text", "here it is `dump hva kernel_text 1`\n");
    refuses(E_NOENT, "x/5i kernel_text", "there is no disassembler");
    refuses(E_NOENT, "x/5q kernel_text", "\"x/5q\" is no command");
    answers("p/x 1 + 2", "here it is `print 1 + 2`\nvalue: 0x3\n");
    answers("info symbol kernel_text", "here it is `print kernel_text`\n");
    answers("gva2gpa g3 0x1000", "here it is `walk g3 gva 0x1000`\n");
    refuses(E_NOENT, "gva2gpa 0x1000", "`walk gN gva X` goes from");
    refuses(E_NOENT, "exit", "\"exit\" is no command here: `quit` switches the machine off");
    refuses(E_NOENT, "where", "`bt gN` follows the frame pointers of a guest");
    answers("where g3", "here it is `bt g3`\n");
    refuses(E_NOENT, "si", "there are no single steps");
    refuses(E_NOENT, "info chardev", "`help` lists what can be asked");
    answers("search kernel_text 64 \"a b\"", "here it is `find hva kernel_text 64 \"a b\"`\n");
    answers("info version --json", "{\"kind\":\"end\",\"command\":\"version\",\"code\":\"E_OK\"}");
    assert_null(strstr(screen, "here it is"));
}

static void test_print(void **state)
{
    (void)state;
    arguments_set_symbols(symbol_address);
    answers("print 1+2*3", "value: 0x7\ndecimal: 7\n");
    answers("print (1 + 2) * 16K", "value: 0xc000\ndecimal: 49152\nsize: 48K\n");
    answers("print kernel_text", "symbol: somebody+0x10\n");
    answers("print 0x10 --json", "{\"value\":\"0x10\",\"decimal\":16,\"size\":null,");
    refuses(E_FORMAT, "print nowhere", "\"nowhere\" is no number: no symbol of the hypervisor has");
    refuses(E_NOENT, "print nowhere+1", "\"nowhere\" is no symbol of the hypervisor");
    refuses(E_FORMAT, "print fe", "a hexadecimal number starts with 0x: 0xfe");
}

static void test_trace_of_a_guest_that_has_not_run(void **state)
{
    (void)state;
    memset(guest[3].exits, 0, sizeof(guest[3].exits));
    answers("trace on exit; trace show g3",
            "g3 hello3 has not run since it was made (paused): `start g3` lets it run.\n");
    guest[3].exits[VM_EXIT_PORT] = 1;
    answers("trace show g3", "No event of these is in the ring.\n");
    guest[3].exits[VM_EXIT_PORT] = 0;
    guest[3].ticks = 5;
    answers("trace show g3; trace off", "No event of these is in the ring.\n");
    refuses(E_RANGE, "trace show 0", "0 events? give a number from 1, or none for the newest 20");
}

static void test_commands_of_a_line(void **state)
{
    (void)state;
    refuses(E_NOENT, "version; mep; guests", "no command");
    assert_non_null(strstr(screen, "program: Quire\n"));
    assert_non_null(strstr(screen, "  g1     hello1"));
}

static void test_mem(void **state)
{
    struct buddy_stats stats;
    char expected[64], size[SIZE_TEXT];
    hpa_t held;

    (void)state;
    buddy_stats(&stats);
    answers("mem", "                 0x0             0x9fbff        639K  usable\n");
    assert_non_null(strstr(screen, "        1K  reserved\n"));
    snprintf(expected, sizeof(expected), "\nfree frames: %lu (%s)\n", stats.free_frames,
             size_text(size, stats.free_frames << PAGE_SHIFT));
    assert_non_null(strstr(screen, expected));
    assert_non_null(strstr(screen, "total frames: 16128 (63M)\n"));
    assert_non_null(strstr(screen, "  guest memory             672       2688K  "));

    assert_int_equal(buddy_alloc(9, PURPOSE_GUEST_RAM, OWNER_FIRST_GUEST + 3, &held), E_OK);
    buddy_set_quota(OWNER_FIRST_GUEST + 3, quota_frames(&guest[2], 16 * MiB));
    answers("mem", "  guest memory            1184       4736K  ");
    assert_non_null(strstr(screen, "  g3 hello3"));
    assert_non_null(strstr(screen, "         16M\n"));
    assert_int_equal(buddy_free(held, 9, OWNER_FIRST_GUEST + 3), E_OK);
}

static void test_map(void **state)
{
    (void)state;
    answers(
        "map g3",
        "               first                last     size  page            to  rights  type  "
        "what\n"
        "                 0x0             0x9ffff     640K    4K     0x2000000  rwx--   WB    RAM\n"
        "            0x200000            0x3fffff       2M    2M     0x2200000  rwx--   WB    lazy "
        "RAM\n");
    assert_non_null(strstr(screen, "  page    runs       pages      mapped\n"
                                   "    4K       1         160        640K\n"
                                   "    2M       1           1          2M\n"));
    assert_non_null(strstr(screen, "mapped: 2688K\nruns: 2\n"));
    assert_non_null(strstr(screen, "table frames: 4 (16K)\n"));

    answers("map host", "  0xffff800000000000  0xffff800003ffffff      64M    2M           0x0  "
                        "rw--g   WB    direct map\n");
    assert_non_null(strstr(screen, "     0x200000  r-x-g   WB    image\n"));

    refuses(E_INVAL, "map host page=3M",
            "page=3M: no page of such a table has this size: "
            "there are 4K, 2M, 1G");
    refuses(E_INVAL, "map g3 page=0", "there are 4K, 2M, 1G");
    refuses(E_INVAL, "map host what=nosuch",
            "what=nosuch: nothing is called so: there are direct map, MMIO, stack, image, fixmap, "
            "outside every window\n");
    refuses(E_INVAL, "map g3 what=stack", "nothing is called so: there are RAM, lazy RAM, ");
    answers("map g3 what=RAM page=4K", "runs: 1\n");
    answers("map host \"what=outside every window\"", "runs: 0\n");

    refuses(E_STATE, "map g1", "g1 hello1 has no table (passed); `start g1 paused` makes it anew");
    refuses(E_STATE, "map g5", "was refused and never had a table: no Multiboot header");
    refuses(E_NOENT, "map g6", "there is no g6: the guests are g1 to g5");
    refuses(E_FORMAT, "map gx", "is no guest");
    guests_made = 0;
    why_no_guests = "this CPU has no VMX";
    refuses(E_NOENT, "map g1", "there are no guests: this CPU has no VMX");
}

static void test_a_map_is_forgotten(void **state)
{
    (void)state;
    answers("map g3 save; map g3 forget", "the map of 2 runs that was kept is forgotten\n");
    refuses(E_NOENT, "map g3 forget", "no map of it has been saved");
}

/* What was taken away for a row of the answer does not come back. */
static void test_no_percentage_is_shown_twice(void **state)
{
    struct output out;

    (void)state;
    run("");
    output_init(&out, &uart_sink);
    output_progress(&out, "find", 3, 100);
    output_progress_end(&out);
    output_progress(&out, "find", 3, 100);
    output_progress(&out, "find", 8, 100);
    output_progress_end(&out);
    output_progress_end(&out);
    assert_string_equal(screen, "\rfind: 1%\r\033[K\rfind: 4%\r\033[K");
    output_end(&out, "find", E_OK);
    output_progress(&out, "find", 8, 100);
    assert_non_null(strstr(screen, "4%\r\033[K\rfind: 4%"));
}

static void test_map_user(void **state)
{
    struct table table;

    (void)state;
    refuses(E_NOENT, "map user", "no ring-3 program has run");
    assert_int_equal(
        table_init(&table, &user_kind, &caps, &buddy_env, PURPOSE_USER_TABLE, OWNER_FIRST_USER),
        E_OK);
    map_in(&table, 0x400000, 4 * MiB, 0x3000, RIGHT_RX | RIGHT_U);
    user_last_keep("hello", &table);
    table_destroy(&table);
    answers("map user", "program hello as it ended");
    assert_non_null(strstr(screen, "0x402fff      12K    4K      0x400000  r-xu-   WB    -\n"));
    refuses(E_INVAL, "map user what=RAM", "a ring-3 program has neither");
    refuses(E_INVAL, "map user page=1K", "no page of such a table has this size");

    /* More runs than are kept: said so. */
    assert_int_equal(
        table_init(&table, &user_kind, &caps, &buddy_env, PURPOSE_USER_TABLE, OWNER_FIRST_USER),
        E_OK);
    for (uint64_t i = 0; i < SNAPSHOT_RUNS + 3; i++)
        map_in(&table, 0x400000 + i * 0x2000, 4 * MiB, 0x1000, RIGHT_RX | RIGHT_U);
    user_last_keep("many", &table);
    table_destroy(&table);
    answers("map user", "... and 3 runs more, which were not kept");
}

/* What is left of a guest that has ended is its map. */
static void test_ended_guest(void **state)
{
    (void)state;
    snapshot_take(&guest[3].last_map, &guest[3].table);
    assert_int_equal(table_destroy(&guest[3].table), E_OK);
    guest[3].has_table = false;
    guest[3].vcpu = guest[3].cpu[0].vcpu = NULL;
    guest[3].state = GUEST_PASSED;
    answers("map g3", "g3 hello3 as it ended (passed); its table has been given back\n");
    assert_non_null(
        strstr(screen, "0x3fffff       2M    2M     0x2200000  rwx--   WB    lazy RAM"));
    assert_non_null(strstr(screen, "table frames: 4 (16K)\n"));
    answers("walk g3 gpa 0x201234", "verdict: was mapped\ngpa: 0x201234\nhpa: 0x2201234\n"
                                    "page: 2M\nrights: rwx--\ntype: WB\nslot: lazy RAM\n");
    answers("walk g3 gpa 0xa0000", "verdict: was not mapped\ngpa: 0xa0000\nslot: outside every");
    refuses(E_STATE, "walk g3 gva 0x1000", "has no table (passed)");

    guest[3].last_map.runs = SNAPSHOT_RUNS + 1;
    guest[3].last_map.run[SNAPSHOT_RUNS - 1].last = 0x5000000;
    refuses(E_NOENT, "walk g3 gpa 0x5001000", "this part was not kept");
}

static void test_walk(void **state)
{
    char expected[256];
    struct walk walk;
    (void)state;

    table_walk(&guest[3].table, 0x201000, &walk);
    assert_int_equal(walk.count, 3);
    answers("walk g3 gpa 0x201000", "verdict: mapped\ngpa: 0x201000\nhpa: 0x2201000\npage: 2M\n"
                                    "rights: rwx--\ntype: WB\naccessed: no\ndirty: no\n"
                                    "slot: lazy RAM\n");
    snprintf(expected, sizeof(expected),
             "  PD         1  %#12lx  %#18lx  leaf       0x2200000  rwx--   WB    no   no\n",
             walk.step[2].address.v, walk.step[2].raw);
    assert_non_null(strstr(screen, expected));
    snprintf(expected, sizeof(expected),
             "  PML4       0  %#12lx  %#18lx  table   %#12lx  rwx--   -     no   -\n",
             guest[3].table.root.v, walk.step[0].raw,
             align_down(walk.step[1].address.v, PAGE_SIZE));
    assert_non_null(strstr(screen, expected));

    answers("walk g3 gpa 1M", "verdict: not mapped\ngpa: 0x100000\ndecided at: PT entry 256\n"
                              "rule: not present\n");
    assert_non_null(strstr(screen, "slot: lazy RAM\n"));
    answers("walk g3 gpa 0xa0000", "slot: outside every slot\n");

    *entry_of(&guest[3].table, 0x5000) = 0x2005000 | EPT_W;
    answers("walk g3 gpa 0x5008", "verdict: illegal entry\ngpa: 0x5008\ndecided at: PT entry 5\n"
                                  "rule: writable but not readable\nmanual: SDM Vol. 3, 29.3.3.1");
    assert_non_null(strstr(screen, "  bad "));

    answers("walk host 0xffff_8000_0000_1234", "verdict: mapped\nhva: 0xffff800000001234\n"
                                               "hpa: 0x1234\npage: 2M\nrights: rw--g\n");
    answers("walk host 0xffffd00000000000", "verdict: not mapped\n");
    assert_null(strstr(screen, "slot:"));
    refuses(E_RANGE, "walk host 0x1000",
            "0x1000 is no address of the kernel table: those are "
            "0xffff800000000000 to 0xffffffffffffffff");
    refuses(E_FORMAT, "walk host ffff800000001234", "starts with 0x: 0xffff800000001234");
    refuses(E_INVAL, "walk host 0xffff800000000000 1", "one address follows host");
    refuses(E_RANGE, "walk g3 gpa 0xffffffffffffffff", "is no address of the EPT table");
    refuses(E_INVAL, "walk g3 gpa", "which gpa?");
    refuses(E_INVAL, "walk g3 hpa 1", "a guest has gpa (physical) and gva (virtual)");
    refuses(E_STATE, "walk g1 gpa 0", "start g1 paused");
}

static void put_guest_entry(uint64_t table, unsigned index, uint64_t entry)
{
    memcpy(arena + G3_FRAMES + table + index * 8, &entry, 8);
}

static void test_walk_guest_virtual(void **state)
{
    (void)state;
    answers("walk g3 gva 0x1234", "no paging of g3 hello3, CR3 0x0\nverdict: not translated\n"
                                  "gva: 0x1234\ngpa: 0x1234\nEPT of g3 hello3\n");
    assert_non_null(strstr(screen, "hpa: 0x2001234\n"));
    refuses(E_RANGE, "walk g3 gva 0x100000000", "it has 32 bits");

    cpu_of_guest.cr0 = CR0_PE | CR0_PG;
    cpu_of_guest.cr3 = 0x1000;
    cpu_of_guest.cr4 = CR4_PAE;
    cpu_of_guest.efer = EFER_LME | EFER_LMA;
    put_guest_entry(0x1000, 256, 0x2000 | PTE_P | PTE_RW);
    put_guest_entry(0x2000, 0, 0x3000 | PTE_P | PTE_RW);
    put_guest_entry(0x3000, 0, 0x200000 | PTE_P | PTE_RW | PTE_PS | PTE_A);
    put_guest_entry(0x3000, 1, 0x300000 | PTE_P); /* a table where there is no memory */
    put_guest_entry(0x3000, 2, 0x800000 | PTE_P | PTE_PS | BIT(13));
    answers("walk g3 gva 0xffff800000000123", "4-level paging of g3 hello3, CR3 0x1000\n");
    assert_non_null(strstr(screen, "gva: 0xffff800000000123\ngpa: 0x200123\npage: 2M\n"
                                   "rights: rwx--\ntype: WB\naccessed: yes\n"));
    /* Its memory types are those of its own PAT, for the steps and for the whole. */
    cpu_of_guest.pat = UINT64_C(0x0007040600070401);
    answers("walk g3 gva 0xffff800000000123", "rights: rwx--\ntype: WC\naccessed: yes\n");
    assert_non_null(strstr(screen, "leaf        0x200000  rwx--   WC    yes  no\n"));
    cpu_of_guest.pat = UINT64_C(0x0006040600070407);
    answers("walk g3 gva 0xffff800000000123", "rights: rwx--\ntype: UC-\naccessed: yes\n");
    cpu_of_guest.pat = PAT_AT_RESET;
    assert_non_null(strstr(screen, "hpa: 0x2200123\n"));
    answers("walk g3 gva 0xffff800000400000", "verdict: illegal entry\n");
    assert_non_null(
        strstr(screen, "rule: a large page whose address is no multiple of its size\n"));
    assert_null(strstr(screen, "EPT of"));
    /* 0x300000 lies in the large page of 2 MiB, so an empty one is read there. */
    answers("walk g3 gva 0xffff800000200000", "verdict: not mapped\n");
    put_guest_entry(0x3000, 1, 0x900000 | PTE_P);
    answers("walk g3 gva 0xffff800000200000", "verdict: no answer\n");
    assert_non_null(strstr(screen, "rule: the next table lies where the guest has no memory\n"));
    refuses(E_RANGE, "walk g3 gva 0x800000000000", "canonical");

    cpu_of_guest.cr4 = CR4_PAE | CR4_LA57;
    refuses(E_UNSUPPORTED, "walk g3 gva 0", "5-level paging of a guest is not walked");
    guest[2].has_table = true;
    refuses(E_HARDWARE, "walk g2 gva 0", "cannot be read");
}

/* --- The guest's own words -------------------------------------------------------------------- */

static const char guest_map[] = "ffff800000000000 T entry\n"
                                "ffff800000000100 T start_kernel\n"
                                "ffff800000001000 B stack\n"
                                "ffff800000002000 B _end\n";

/* g3 has a System.map, and the first 2 MiB of its upper half. */
static void give_symbols(void)
{
    static const struct guest_image map = {.bytes = (const uint8_t *)guest_map,
                                           .size = sizeof(guest_map) - 1,
                                           .cmdline = "System.map"};

    guest[3].image = (struct guest_image){.modules = &map, .module_count = 1};
    guest[3].options.mods = 1;
    cpu_of_guest.cr0 = CR0_PE | CR0_PG;
    cpu_of_guest.cr3 = 0x1000;
    cpu_of_guest.cr4 = CR4_PAE;
    cpu_of_guest.efer = EFER_LME | EFER_LMA;
    cpu_of_guest.segment[SEG_CS].access = 0xa09b;
    cpu_of_guest.rip = 0xffff800000000123;
    put_guest_entry(0x1000, 256, 0x2000 | PTE_P | PTE_RW);
    put_guest_entry(0x2000, 0, 0x3000 | PTE_P | PTE_RW);
    put_guest_entry(0x3000, 0, 0x200000 | PTE_P | PTE_RW | PTE_PS | PTE_A);
}

static void test_symbols_of_a_guest(void **state)
{
    (void)state;
    arguments_set_symbols(symbol_address);
    refuses(E_FORMAT, "walk g3 gva start_kernel", "g3 hello3 has no symbols: no symbol table in");
    give_symbols();
    answers("walk g3 gva start_kernel", "gva: 0xffff800000000100\n");
    assert_non_null(strstr(screen, "symbol: start_kernel\n"));
    answers("walk g3 gva start_kernel+2*8", "symbol: start_kernel+0x10\n");
    answers("explain g3 gva stack w", "symbol: stack\n");
    answers("dump g3 gva start_kernel 8", "0xffff800000000100");
    answers("peek g3 gva (stack) 8", "0x0");
    answers("print g3 stack + 8", "value: 0xffff800000001008\n");
    assert_non_null(strstr(screen, "symbol: stack+0x8\n"));
    answers("print g3 0x1000", "No symbol of g3 hello3 is there.\n");
    answers("regs g3", "at: start_kernel+0x23\nmode: long, 64-bit\n");
    /* The hypervisor's are none of the guest's, and the guest's none of the hypervisor's. */
    refuses(E_FORMAT, "walk g3 gva kernel_text", "no symbol of g3 hello3 has this name");
    refuses(E_NOENT, "print g3 kernel_text+1", "\"kernel_text\" is no symbol of g3 hello3");
    refuses(E_FORMAT, "print stack", "no symbol of the hypervisor has this name");
    refuses(E_FORMAT, "print g3 fe", "a hexadecimal number starts with 0x: 0xfe");
    refuses(E_NOENT, "print g9 1", "there is no g9");
    answers("walk g3 gpa 0x100 --json", "\"slot\":\"RAM\",\"symbol\":null");
}

static void put_frame(uint64_t at, uint64_t next, uint64_t back)
{
    put_guest_entry(0x200000 + at, 0, next);
    put_guest_entry(0x200000 + at, 1, back);
}

static void test_backtrace(void **state)
{
    (void)state;
    answers("bt g3", "frames: 1\nended: the chain of frame pointers ends with 0\n"
                     "g3 hello3 has no symbols");
    give_symbols();
    cpu_of_guest.gpr[RBP] = 0xffff800000001100;
    put_frame(0x1100, 0xffff800000001200, 0xffff800000000100);
    put_frame(0x1200, 0xffff800000001000, 0xffff800000000010);
    answers("bt g3", "      0  0xffff800000000123                   -  start_kernel+0x23\n"
                     "      1  0xffff800000000100  0xffff800000001100  entry+0x100\n"
                     "      2  0xffff800000000010  0xffff800000001200  entry+0x10\n"
                     "frames: 3\n"
                     "ended: 0xffff800000001000 does not lie above the frame before it");
    answers("bt g3 --json", "{\"frame\":1,\"rip\":\"0xffff800000000100\",");
    cpu_of_guest.gpr[RBP] = 0xffff800000200000;
    answers("bt g3", "ended: no memory at 0xffff800000200000: RBP is no frame pointer there\n");
    refuses(E_STATE, "bt g1", "no virtual CPU (passed)\n");
    refuses(E_HARDWARE, "bt g2", "cannot be read");
}

static void test_backtrace_of_a_cpu(void **state)
{
    (void)state;
    answers("bt cpu0", "     0  0xffffffff80200010                   -  main   somebody+0x10\n"
                       "     1  0xffffffff80200020  0xffffe00000003fd0  main   somebody+0x11\n"
                       "cpu: 0\nin guest: no\ncalls: 2\nended: the stack begins here\n");
    assert_int_equal(stopped_then, 0); /* asked for as it is */
    second_has_turn = true;
    answers("bt cpu1", "cpu: 1\nguest: g2 hello2\nin guest: yes\n");
    answers("bt cpu1 --json", "{\"cpu\":1,\"guest\":\"g2 hello2\",\"in_guest\":true,");
    second_has_turn = false;
    refuses(E_HARDWARE, "bt cpu2", "CPU 2 does not answer: it has taken no NMI");
    refuses(E_NOENT, "bt cpu3", "there is no CPU 3: this machine has CPUs 0 to 2");
    refuses(E_FORMAT, "bt cpu", "\"cpu\" is no CPU: one of the machine's is cpu and its number");
    refuses(E_FORMAT, "bt cpu1x", "is no CPU");
    refuses(E_INVAL, "bt cpu0 cpu1", "too many arguments");
    online = 1;
    refuses(E_NOENT, "bt cpu1", "there is no CPU 1: this machine has CPU 0 alone");
    online = 3;
}

static void test_guests(void **state)
{
    (void)state;
    answers("guests", "  g3     hello3      paused    passed       16M      676         0  "
                      "Multiboot ELF32  -\n");
    assert_non_null(strstr(screen, "wrote to ROM at gpa 0x300000\n"));
    assert_non_null(strstr(screen, "3 of 5 ended, 2 as expected\n"));
    guests_made = 0;
    answers("guests", "There are no guests.\n");
    why_no_guests = "this CPU has no VMX";
    answers("guests", "There are no guests: this CPU has no VMX.\n");
}

static void test_start_and_stop(void **state)
{
    (void)state;
    answers("pause g2", "g2 hello2: paused\n");
    assert_int_equal(guest[2].state, GUEST_PAUSED);
    refuses(E_STATE, "pause g2", "g2 hello2 is paused: only a guest that runs can be paused");
    answers("resume g2", "g2 hello2: running\n");
    refuses(E_STATE, "resume g2", "only a paused guest can be resumed\n");
    refuses(E_STATE, "resume g1", "`start` runs an ended one again\n");
    refuses(E_STATE, "start g2", "g2 hello2 is running already; `kill g2` ends it");
    answers("start g1 paused", "g1 hello1: paused\n");
    assert_int_equal(guest[1].state, GUEST_PAUSED);
    assert_int_equal(rounds, 0);
    refuses(E_INVAL, "start g1 now", "only `paused` may follow");
    answers("kill g1", "g1 hello1: killed\n");
    refuses(E_STATE, "kill g1", "has ended already (killed)");
    refuses(E_FORMAT, "start g5", "cannot be started: no Multiboot header");
}

static void test_registers(void **state)
{
    (void)state;
    cpu_of_guest.gpr[RBX] = 0x2badb002;
    cpu_of_guest.gpr[R15] = UINT64_MAX;
    cpu_of_guest.rip = 0x100000;
    cpu_of_guest.rflags = RFLAGS_FIXED | RFLAGS_ZF | RFLAGS_IF;
    cpu_of_guest.segment[SEG_CS] =
        (struct segment){.selector = 8, .limit = UINT32_MAX, .access = 0xc09b};
    answers("regs g3", "mode: real\nflags: ZF IF\nhalted: no\n");
    assert_non_null(strstr(screen, "0x2badb002"));
    assert_non_null(strstr(screen, "0xffffffffffffffff\n"));
    assert_non_null(
        strstr(screen, "  cs            0x8                 0x0  0xffffffff  0xc09b  yes\n"));
    cpu_of_guest.cr0 = CR0_PE;
    answers("regs g3", "mode: protected, 32-bit\n");
    cpu_of_guest.efer = EFER_LMA;
    cpu_of_guest.segment[SEG_CS].access = 0xa09b;
    answers("regs g3", "mode: long, 64-bit\n");
    cpu_of_guest.rflags = RFLAGS_FIXED;
    answers("regs g3", "flags: none\n");
    refuses(E_STATE, "regs g4", "`report` has its registers as they were");
    refuses(E_STATE, "regs g1", "no virtual CPU (passed)\n");
    refuses(E_HARDWARE, "regs g2", "cannot be read");
}

static void test_slots(void **state)
{
    (void)state;
    run("slot g3");
    assert_non_null(
        strstr(screen, "      0x100000      0x3fffff      3M  lazy RAM        rwx--       0B"));
    assert_non_null(strstr(screen, "2 of 32 slots"));
    refuses(E_STATE, "slot g1", "g1 hello1 has no memory (passed)");
    refuses(E_INVAL, "slot g3 move", "\"move\" is nothing to do with a slot");
    refuses(E_INVAL, "slot g3 add ram 4M", "a kind, an address and a size are wanted");
    refuses(E_INVAL, "slot g3 add disk 4M 4K", "\"disk\" is no kind of slot");
    refuses(E_EXIST, "slot g3 add ram 0x80000 4M", "overlaps RAM at 0x0+0xa0000");
    refuses(E_NOMEM, "slot g3 add rom 4M 4M", "no frames for it");
    refuses(E_ALIGN, "slot g3 add ram 4M 5", "multiples of 4K");
    refuses(E_RANGE, "slot g3 add ram 4M 4",
            "addresses of a guest on this CPU end at 0x10000000000");
    refuses(E_FULL, "slot g3 add ram 4M 12", "has 2 slots, and can have no more than 32");
    refuses(E_UNSUPPORTED, "slot g3 add xo 4M 15", "can only be executed");
    refuses(E_NOENT, "slot g3 add device 4M 3", "no device has its window at 0x400000+0x3");
    refuses(E_PERM, "slot g3 add hole 4M 7", "the window of a device is added and removed as a");
    refuses(E_RANGE, "slot g3 add hole 4M 4", "end at 0x10000000000");
    answers("slot g3 add hole 4M 2M", "g3 hello3: nothing is at 0x400000+2M any more\n");
    refuses(E_INVAL, "slot g3 add share=ring@1G", "write share=NAME:SIZE@ADDRESS");
    refuses(E_INVAL, "slot g3 add share=ring:4K:x@1G", "shared memory as r or as rw");
    refuses(E_INVAL, "slot g3 add share=ring:32K:r@1G",
            "share=ring: it has 256K, not 32K: who named it first has said so");
    refuses(E_FULL, "slot g3 add share=ring:32K@1G", "16 memories with names already");
    refuses(E_EXIST, "slot g3 add share=ring:4K@0x80000", "overlaps RAM at 0x0+0xa0000");
    refuses(E_NOMEM, "slot g3 add share=ring:4K@1G", "no frames for it");
    refuses(E_INVAL, "slot g3 remove", "an address is wanted");
    refuses(E_RANGE, "slot g3 add ram 4M 0", "a slot of 0 bytes at 0x400000? its size is 4K or");
    refuses(E_NOENT, "slot g3 remove 0x1000",
            "0x1000 lies in the slot at 0x0+0xa0000, RAM, of g3 hello3: of a part the size is");
    refuses(E_NOENT, "slot g3 remove 0x1000000", "no slot of g3 hello3 has 0x1000000");
    refuses(E_NOENT, "slot g3 remove 0x1000 3", "does not lie in one slot of g3 hello3");
    refuses(E_PERM, "slot g3 remove 0x1000 7", "the window of a device");
    answers("slot g3 remove 0x100000", "g3 hello3: nothing is at 0x100000+3M any more\n");
    answers("slot g3 remove 0x200000 4K", "g3 hello3: nothing is at 0x200000+4K any more\n");
    refuses(E_INVAL, "slot g3 protect 0x100000", "rights are wanted");
    refuses(E_INVAL, "slot g3 protect 0x100000 wr", "rights are wanted");
    refuses(E_UNSUPPORTED, "slot g3 protect 0x100000 w", "cannot express these rights");
    run("slot g3 protect 0 rx 4K");
    assert_non_null(strstr(screen, "  0x0       0x9ffff    640K  RAM "));
}

static void test_heat(void **state)
{
    (void)state;
    guest[3].state = GUEST_PAUSED;
    refuses(E_STATE, "heat g3", "g3 hello3 is paused: only a guest that runs reaches anything");
    guest[3].state = GUEST_RUNNING;
    refuses(E_RANGE, "heat g3 samples=17", "samples=17: there can be 1 to 16");
    refuses(E_RANGE, "heat g3 samples=0", "samples=0: there can be 1 to 16");
    refuses(E_RANGE, "heat g3 ticks=0", "ticks=0: it is from 1 to 256T (0x1000000000000)");
    refuses(E_RANGE, "heat g3 ticks=257T", "ticks=257T: it is from 1 to 256T");
    refuses(E_UNSUPPORTED, "heat g3 samples=3", "does not note");
    refuses(E_INVAL, "heat g3 often", "\"often\" is nothing to sample with");
    run("heat g3 samples=2 ticks=5000");
    assert_non_null(strstr(screen, "      0x5000        0x5fff         1      4K        1\n"));
    assert_non_null(strstr(screen, "samples: 2\n"));
    assert_non_null(strstr(screen, "in any sample: 1 (4K)\n"));
}

static void test_merge(void **state)
{
    (void)state;
    answers("merge", "pages looked at: 5\nshared with an equal one: 3 (12K)\n"
                     "frames that came free: 2 (8K)\n");
}

static void test_exits(void **state)
{
    (void)state;
    guest[3].exits[VM_EXIT_CPUID] = 7;
    guest[3].exits[VM_EXIT_MEMORY] = 1024;
    guest[3].faults_filled = 64;
    guest[3].frames_filled = 1024;
    guest[3].devices.unclaimed = 2;
    guest[3].devices.last_unclaimed = 0x80;
    answers("exits g3", "  memory fault            1024\n  CPUID                      7\n"
                        "exits: 1031\nfirst touches of lazy memory: 64\n"
                        "lazy frames given: 1024\n");
    assert_non_null(strstr(screen, "the last of them: 0x80\n"));
    answers("exits g1", "exits: 0\n");
    assert_null(strstr(screen, "the last of them"));
    assert_null(strstr(screen, "given back"));
    guest[1].pages_given = 12;
    guest[1].pages_taken = 5;
    answers("exits g1", "exits: 0\nfirst touches of lazy memory: 0\nlazy frames given: 0\n"
                        "pages given back by the guest: 12\npages asked for by it: 5\n");
}

static void test_report_and_output(void **state)
{
    (void)state;
    /* What a guest wrote cannot steer the terminal. */
    answers("report g4", "g4 hello4: stopped: wrote to ROM at gpa 0x300000\n"
                         "  EPT violation\n  rip 0x1000\\x1b[2J\n");
    answers("report g1", "There is no report");
    answers("output g1", "g1 hello1 printed 0 bytes\n");

    strcpy(guest[1].output, "one\r\ntwo\tx\377");
    guest[1].output_total = strlen(guest[1].output);
    answers("output g1", "g1 hello1 printed 11 bytes:\n  one\n  two    x\\xff\n");

    memset(guest[1].output, 'b', GUEST_OUTPUT);
    memcpy(guest[1].output, "end\n", 4);
    memcpy(guest[1].output + 4, "first", 5);
    guest[1].output_total = GUEST_OUTPUT + 4;
    answers("output g1", "g1 hello1 printed 4100 bytes; the last 4096:\n  firstbbb");
    assert_string_equal(screen + screen_length - 7, "bbbend\n");
}

static void test_root(void **state)
{
    (void)state;
    answers("root g3", "memory type: WB\nlevels: 4\naccessed and dirty: yes\n");
    assert_non_null(strstr(screen, "The CPU translates by the table of g3 hello3.\n"));
    root_in_cpu.frame.v += PAGE_SIZE;
    root_in_cpu.accessed_dirty = false;
    refuses(E_ILLEGAL, "root g3", "2 of them differ");
    refuses(E_STATE, "root g1", "`start g1 paused` makes one");
    guest[2].has_table = true;
    refuses(E_STATE, "root g2", "cannot be read back");
}

static void test_check(void **state)
{
    hpa_t leaked;
    (void)state;

    answers("check", "All 7 hold.\n");
    root_in_cpu.frame.v += PAGE_SIZE;
    refuses(E_STATE, "check", "1 of 7 checks found a broken invariant");
    assert_non_null(strstr(screen, "g3 hello3: frame 0x"));
    assert_non_null(strstr(screen, "its root register leads to 0x"));
    root_in_cpu.frame.v -= PAGE_SIZE;
    space_broken = "the page at 0x1000 is writable and executable";
    refuses(E_STATE, "check", "the page at 0x1000 is writable and executable\n");
    space_broken = NULL;
    assert_int_equal(buddy_alloc(0, PURPOSE_HEAP, OWNER_FIRST_GUEST + 1, &leaked), E_OK);
    refuses(E_STATE, "check", "1 are still its own\n");
    assert_int_equal(buddy_free(leaked, 0, OWNER_FIRST_GUEST + 1), E_OK);
    struct slab_cache cache;
    assert_int_equal(slab_init(&cache, "tokens", 24, 0), E_OK);
    slab_register(&cache);
    uint8_t *token = slab_alloc(&cache);
    token[24] ^= 1;
    refuses(E_STATE, "check", "small objects                       no     slab tokens: ");
    token[24] ^= 1;
    assert_int_equal(slab_free(&cache, token), E_OK);
    assert_int_equal(slab_destroy_all(), 0);
    kernel_table.open_batches = 1;
    refuses(E_STATE, "check", "1 batches begun and not committed (rule: each flush batch");
    kernel_table.open_batches = 0;
}

static void test_audit(void **state)
{
    uint64_t *entry = entry_of(&guest[3].table, 0x5000), was = *entry;
    hpa_t leaked;
    (void)state;

    answers("audit", "All 20 rules hold.\n");
    assert_non_null(strstr(screen, "\ntables: 2\n"));
    assert_non_null(strstr(screen, "memory shown to guests: 672 (2688K)\n"));
    *entry |= BITS(5, 3); /* memory type 7 */
    refuses(E_STATE, "audit", "1 findings; 16 of 17 rules hold\n");
    assert_non_null(strstr(screen, "  g3 hello3 "));
    assert_non_null(strstr(screen, "PT entry 5 holds 0x"));
    assert_non_null(strstr(screen, ": a reserved memory type\n"));
    assert_non_null(strstr(screen, "left out of the counts"));
    *entry = was;
    assert_int_equal(buddy_alloc(0, PURPOSE_EPT_TABLE, OWNER_FIRST_GUEST + 5, &leaked), E_OK);
    refuses(E_STATE, "audit", "1 findings; 19 of 20 rules hold\n");
    assert_int_equal(buddy_free(leaked, 0, OWNER_FIRST_GUEST + 5), E_OK);
    answers("audit selftest", "were named: rule, table and address, and nothing else.\n");
    assert_null(strstr(screen, "said instead"));
    answers("audit", "All 20 rules hold.\n");
    refuses(E_FORMAT, "audit g1", "it takes `selftest`, or nothing");
}

static unsigned polls_of(const char *line)
{
    silent_polls = UINT32_MAX;
    answers(line, "hold.\n");
    return UINT32_MAX - silent_polls;
}

/* At a terminal a key ends it: at a node, or among the records, where it is asked for last. */
static void test_audit_stopped_by_a_key(void **state)
{
    const char *checked = "stopped by a key; 0 of 3 checks found a broken invariant so far";
    (void)state;

    typed = "";
    monitor_terminal()->pager.rows = 24;
    unsigned check_polls = polls_of("check"), audit_polls = polls_of("audit"), frames;
    char said[80];
    assert_int_equal(sscanf(strstr(screen, "\ntable frames: "), "\ntable frames: %u", &frames), 1);
    for (unsigned i = 0; i < audit_polls; i++) {
        silent_polls = i;
        typed = "x";
        refuses(E_STATE, "audit", "error: audit: stopped by a key after ");
        assert_null(strstr(screen, "rules hold"));
        assert_string_equal(typed, "");
    }
    /* The last was among the records, behind all nodes. */
    snprintf(said, sizeof(said), "after %u table frames; 0 findings so far", frames);
    assert_non_null(strstr(screen, said));
    silent_polls = check_polls - 1;
    typed = "x";
    refuses(E_STATE, "check", checked);
    monitor_terminal()->pager.rows = 0;
    typed = "x";
    answers("audit", "All 20 rules hold.\n");
}

static void test_oracle(void **state)
{
    (void)state;
    memset(&oracle_says, 0, sizeof(oracle_says));
    answers("oracle", "The CPU agrees with all 10000 predictions (seed 1).\n");
    assert_non_null(strstr(screen, "\roracle: 33%\r\033[K"));
    answers("oracle 2K 0x77", "The CPU agrees with all 2048 predictions (seed 119).\n");
    assert_int_equal(oracle_says.pairs, 2048);
    assert_int_equal(oracle_says.seed, 0x77);
    oracle_says.wrong = 25;
    refuses(E_HARDWARE, "oracle 100", "the CPU disagrees with 25 of 100 predictions (seed 1)\n");
    unsigned shown = 0;
    for (const char *at = screen; (at = strstr(at, "  execute  guest ")) != NULL; at++)
        shown++;
    assert_int_equal(shown, 20);
    oracle_says.wrong = 0;
    oracle_says.error = E_NOMEM;
    refuses(E_NOMEM, "oracle 100", "ended after 100 pairs: ");
    oracle_says.error = E_OK;
    refuses(E_RANGE, "oracle 0", "0 pairs? 1 to 10000000");
    refuses(E_RANGE, "oracle 1G", "1G pairs?");
    refuses(E_FORMAT, "oracle delphi", "is no number of pairs");
    refuses(E_FORMAT, "oracle 1 x", "is no seed");
    why_no_guests = "no VMX";
    answers("oracle", "No guests can run here, so no table of theirs was tried.\n");
}

static void test_cpus(void **state)
{
    (void)state;
    answers(
        "cpus",
        "    1        2  online   idle                    11       0       21        0        31 ");
    assert_non_null(strstr(screen, "    -        6  silent   -"));
    assert_non_null(strstr(screen, "The CPU with APIC id 6 is left out: no answer.\n"));
    answers("cpus trial", "No CPU used a translation after its flush.\n");
    assert_int_equal(trial_says.changes, 100);
    answers("cpus trial 5", "No CPU used a translation after its flush.\n");
    assert_int_equal(trial_says.changes, 5);
    trial_says.error = E_HARDWARE;
    trial_says.stale = 7;
    refuses(E_HARDWARE, "cpus trial", "7 reads used a translation after its flush, 0 CPUs were");
    trial_says.stale = 0;
    trial_says.disturbed = 2;
    refuses(E_HARDWARE, "cpus trial", "2 CPUs were");
    trial_says.disturbed = 0;
    trial_says.error = E_NOMEM;
    refuses(E_NOMEM, "cpus trial", "ended early: ");
    trial_says.error = E_STATE;
    refuses(E_STATE, "cpus trial", "one CPU is online");
    trial_says.error = E_OK;
    refuses(E_RANGE, "cpus trial 0", "0 changes? 1 to 10000000");
    refuses(E_FORMAT, "cpus trial x", "is no number of changes");
    refuses(E_INVAL, "cpus all", "it is `cpus`, or `cpus trial [CHANGES]`");
}

static void test_system(void **state)
{
    (void)state;
    answers("cpu", "vendor: GenuineIntel\nbrand: Test CPU\nfamily: 6\n");
    assert_non_null(strstr(screen, "MTRRs: none\n"));
    mtrrs = (struct mtrrs){.there = true, .maxphyaddr = 40, .cap = 1, .def_type = MEM_WB};
    answers("cpu", "MTRRs: off\n");
    mtrrs.def_type |= BIT(11);
    mtrrs.base[0] = 3 * GiB | MEM_UC;
    mtrrs.mask[0] = BITS(39, 30) | BIT(11);
    run("cpu");
    assert_non_null(strstr(screen, "  0xc0000000    0xffffffff  UC\n"));
    assert_non_null(strstr(screen, "  PGE           yes      yes  global pages\n"));
    assert_non_null(strstr(screen, "  SMEP          no       no "));
    assert_non_null(strstr(screen, "  INVPCID       no       -  "));
    assert_non_null(strstr(screen, "guests run by: VMX\n  VMCS revision 7\n  EPT: 2M 1G\n"));
    answers("version", "boot loader: GRUB 2.06\n");
    log_line("one of a kind");
    answers("log 1", "  quire: one of a kind\n");
    answers("log", "  quire: one of a kind\n");
    refuses(E_RANGE, "log 0", "0 lines? give a number from 1");
    refuses(E_FORMAT, "log all", "is no number of lines");
}

/* --- The console as a whole ------------------------------------------------------------------ */

/* The test's guests keep what they hold when they are killed: with them, something leaks. */
static bool guests_hold_memory(void)
{
    return guests_made >= 3 && buddy_owner_frames(guest_owner(&guest[3])) != 0;
}

/* Types the keys, which must end in quit, and returns when the machine has gone off. */
static void serve(const char *keys)
{
    typed = keys;
    may_power_off = true;
    int status = setjmp(powered_off);
    if (status == 0) {
        stops = 0;
        monitor_init();
        monitor_run();
    }
    stops = 0; /* `quit` does not come back */
    assert_int_equal(status - 1, guests_hold_memory());
    assert_int_equal(strstr(screen, " frames leaked\n") != NULL, guests_hold_memory());
    for (unsigned i = 1; i <= guests_made; i++)
        assert_true(guest_ended(&guest[i]));
    log_attach(NULL);
}

/* What is left when the machine is switched off is named. */
static void test_quit_names_leaks(void **state)
{
    struct slab_cache cache;
    char text[64];
    (void)state;

    snprintf(text, sizeof(text), "g3 hello3: %lu frames leaked\n",
             buddy_owner_frames(guest_owner(&guest[3])));
    serve("quit\r");
    assert_non_null(strstr(screen, text));

    guests_made = 0;
    screen_clear();
    serve("quit\r");

    assert_int_equal(slab_init(&cache, "tokens", 24, 0), E_OK);
    slab_register(&cache);
    void *token = slab_alloc(&cache);
    typed = "quit\r";
    int status = setjmp(powered_off);
    if (status == 0) {
        stops = 0;
        monitor_init();
        monitor_run();
    }
    log_attach(NULL);
    assert_int_equal(status, 2);
    assert_non_null(strstr(screen, "quire: slab tokens: 1 objects leaked, the first at 0x"));
    assert_int_equal(slab_free(&cache, token), E_OK);
    assert_int_equal(slab_destroy_all(), 0);
}

static void test_guests_run_before_the_prompt(void **state)
{
    (void)state;
    rounds_left = silent_polls = 10;
    serve("quit\r");
    assert_int_equal(rounds, 10);
    assert_non_null(strstr(screen, "quire: g3 hello3: paused; `start g3` lets it run\n"
                                   "quire: g5 hello5: refused, expected: passed; no Multiboot "
                                   "header in its first 8 KiB\n"
                                   "quire: guests: 3 of 5 as expected\n"
                                   "quire> quit\n"));
}

/* What is said to help does help. */
static void test_a_halted_guest_begins_anew(void **state)
{
    (void)state;
    guest[3].state = GUEST_HALTED;
    silent_polls = 10;
    serve("quit\r");
    assert_non_null(strstr(screen, "g3 hello3: halted; `kill g3; start g3` begins anew\n"));
    guest[3].state = GUEST_HALTED;
    refuses(E_STATE, "start g3",
            "start: g3 hello3 is halted, and nothing can wake it; `kill g3; start g3` begins anew");
    answers("kill g3; start g3", "g3 hello3: running");
}

static void test_text_without_a_newline_waits_for_guests_that_run(void **state)
{
    (void)state;
    rounds_left = 5;
    silent_polls = 3;
    shown_after = 0;
    serve("quit\r");
    assert_int_equal(shown_after, 4000000);
    silent_polls = 10;
    serve("quit\r");
    assert_int_equal(shown_after, 0);
}

static void test_a_key_stops_waiting(void **state)
{
    (void)state;
    rounds_left = 1000;
    silent_polls = 5;
    serve("guests\rpause g2\rquit\r");
    assert_memory_equal(screen, "quire> guests\n", 14);
    assert_non_null(strstr(screen, "g2 hello2: paused\nquire> "));
    /* They had not ended, so nothing was summed up. */
    assert_null(strstr(screen, "quire: guests:"));
    assert_true(rounds < 1000);
}

static unsigned slow_typist(void)
{
    static const char keys[] = "me\rquit\r";
    static unsigned next;

    /* Two letters, then a long pause in which the last guest ends, then the rest. */
    if (next < 2 || rounds > 30)
        return (unsigned char)keys[next++];
    return 256;
}

static void test_summary_goes_around_the_line(void **state)
{
    (void)state;
    guest[3].state = GUEST_KILLED;
    rounds_left = 20;
    typist = slow_typist;
    serve("");
    assert_non_null(strstr(screen, "quire> me\r\033[Kquire: guests: 3 of 5 as expected\n"
                                   "quire> me\n"
                                   "error: \"me\" is no command; did you mean `mem`?"));
    /* Once. */
    assert_null(strstr(strstr(screen, "as expected") + 1, "as expected"));
}

/* Types one line, lets the guests have ten rounds, types the next. */
static unsigned patient_typist(void)
{
    static const char *const lines[] = {"pause g2\r", "kill g2\r", "kill g3\r", "quit\r"};
    static unsigned line, next;

    if (!lines[line][next]) {
        if (rounds < 10 * (line + 1))
            return 256;
        line++;
        next = 0;
    }
    return (unsigned char)lines[line][next++];
}

/* As long as somebody holds a guest, there is nothing to sum up. */
static void test_no_summary_while_a_guest_is_paused(void **state)
{
    (void)state;
    typist = patient_typist;
    serve("");
    assert_true(rounds >= 30);
    assert_non_null(strstr(screen, "quire> kill g3\ng3 hello3: killed\n"
                                   "quire> \r\033[Kquire: audit: 2 tables, "));
    assert_non_null(strstr(screen, "all rules hold\n"
                                   "quire> \r\033[Kquire: g2 hello2: killed, expected: passed\n"));
    assert_non_null(strstr(screen, "quire> \r\033[Kquire: guests: 2 of 5 as expected\n"));
    assert_ptr_equal(strstr(screen, "quire: guests:"), strstr(screen, "quire: guests: 2 of 5"));
}

static void test_no_guests(void **state)
{
    (void)state;
    guests_made = 0;
    why_no_guests = "this CPU has no VMX";
    serve("quit\r");
    assert_non_null(strstr(screen, "quire> quit\n"));
    screen_clear();
    silent_polls = 1;
    serve("quit\r");
    assert_non_null(strstr(screen, "quire: guests: none: this CPU has no VMX\nquire> quit\n"));
}

static void test_console_events(void **state)
{
    char keys[3 * LINE_SIZE];

    (void)state;
    memset(keys, 'x', 2 * LINE_SIZE);
    strcpy(keys + 2 * LINE_SIZE, "\r\004mem\003quit\r");
    serve(keys);
    assert_non_null(strstr(screen, "error: a line longer than 255 characters: nothing was run"));
    assert_non_null(strstr(screen, "`quit` switches the machine off"));
    assert_non_null(strstr(screen, "quire> mem^C\nquire> quit\n"));
    assert_null(strstr(screen, "total frames"));
}

static void test_workbench(void **state)
{
    struct buddy_stats before, after;
    static hpa_t taken[16];
    unsigned n = 0;

    (void)state;
    buddy_stats(&before);
    answers("stress 40M", "written and read back: ");
    assert_non_null(strstr(screen, "\rstress: 100%"));
    assert_non_null(strstr(screen, "\r\033[K  order  block    blocks        size\n"));
    assert_non_null(strstr(screen, "pages that read back otherwise: 0\n"));
    assert_non_null(strstr(screen, "The allocator is as it was before"));
    assert_int_equal(run("stress 2M 0x2545f4914f6cdd1d --json"), E_OK);
    assert_null(strstr(screen, "%"));
    answers("bench 2", "  EPT: unmap 4K, page by page            512");
    assert_non_null(strstr(screen, "a tick is an instruction: yes\n"));
    why_no_guests = "this CPU has no VMX";
    answers("bench 1", "  user: translate ");
    assert_null(strstr(screen, "EPT"));
    why_no_guests = NULL;
    buddy_stats(&after);
    assert_int_equal(before.free_frames, after.free_frames);
    assert_memory_equal(before.by_purpose, after.by_purpose, sizeof(before.by_purpose));
    refuses(E_RANGE, "stress 4095", "from 4K to 64G");
    refuses(E_RANGE, "bench 100", "from 1 to 99");

    /* With next to nothing free both say so, and still give everything back. */
    while (n < ARRAY_SIZE(taken) &&
           buddy_alloc(10, PURPOSE_TEST, OWNER_FIRST_USER, &taken[n]) == E_OK)
        n++;
    for (unsigned order = 10; order--;)
        for (hpa_t block; buddy_alloc(order, PURPOSE_TEST, OWNER_FIRST_USER, &block) == E_OK;)
            ;
    buddy_stats(&before);
    assert_int_equal(before.free_frames, 0);
    refuses(E_NOMEM, "stress 1M", "too little memory is free");
    refuses(E_NOMEM, "bench 1", "an operation failed");
    buddy_stats(&after);
    assert_int_equal(after.free_frames, 0);
    assert_int_equal(buddy_free(taken[0], 10, OWNER_FIRST_USER), E_OK);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(buddy_alloc(8, PURPOSE_TEST, OWNER_FIRST_USER, &taken[i]), E_OK);
    refuses(E_NOMEM, "bench 1", "an operation failed");
    buddy_stats(&after);
    assert_int_equal(after.free_frames, 256);
}

/* The first block that `stress` holds, of at least order 1. */
static int find_stressed(void *ctx, hpa_t base, uint64_t size, const struct frame_info *info)
{
    (void)size;
    if (info->state != FRAME_USED || info->purpose != PURPOSE_TEST || info->owner != OWNER_HOST)
        return 0;
    *(hpa_t *)ctx = base;
    return 1;
}

static hpa_t stressed_block(void)
{
    hpa_t block = hpa(0);

    assert_int_equal(buddy_visit(find_stressed, &block), 1);
    return block;
}

static void change_a_word(void)
{
    ((uint64_t *)direct(stressed_block()))[77] ^= BIT(13);
}

static hpa_t leaked;

static void leak_a_frame(void)
{
    assert_int_equal(buddy_alloc(0, PURPOSE_TEST, OWNER_FIRST_USER, &leaked), E_OK);
}

static void change_a_record(void)
{
    frame_set_payload(leaked, frame_payload(leaked) ^ 1);
}

/* As an allocator would do that gives a block to two: its second holder gives it back. */
static void free_a_block(void)
{
    struct frame_info info;
    hpa_t block = stressed_block();

    assert_int_equal(frame_query(block, &info, NULL), E_OK);
    assert_int_equal(buddy_free(block, info.order, OWNER_HOST), E_OK);
}

/* An allocator, or a memory, that does not keep its word is found out. */
static void test_stress_finds(void **state)
{
    (void)state;
    interfere = change_a_word;
    refuses(E_STATE, "stress 20M", "1 pages held what was not written there");
    interfere = leak_a_frame;
    refuses(E_STATE, "stress 20M", "the allocator is not as it was");
    interfere = change_a_record;
    refuses(E_STATE, "stress 20M", "the allocator is not as it was");
    assert_int_equal(buddy_free(leaked, 0, OWNER_FIRST_USER), E_OK);
    interfere = free_a_block;
    assert_int_not_equal(run("stress 20M"), E_OK);
    assert_non_null(strstr(screen, "error: stress: "));
    assert_null(interfere);
    answers("stress 20M", "as it was before, bit for bit");
}

/* A terminal that says what it is, completion, and the stop of a long answer. */
static void test_terminal(void **state)
{
    (void)state;
    serve("\033[?62;22c\033[8;10;80thel\t\rqversi\t\rcolour off\rpaging off\rmep\rquit\r");
    assert_non_null(strstr(screen, "quire> help"));
    assert_non_null(strstr(screen, "-- more: space, return, or q --"));
    assert_non_null(strstr(screen, "program: Quire\n"));
    assert_non_null(strstr(screen, "colour is off\n"));
    assert_null(strstr(screen, "\033[1;31merror: \"mep\""));
    assert_non_null(strstr(screen, "\nerror: \"mep\" is no command"));

    /* In an address symbols are completed, behind an operator as well; a filter goes on behind its
     * '='. */
    set_up(state);
    serve("walk host ker\t\rexplain host 0x40+ker\t x\rmap host pa\t4K\rtrace sh\tcpu=3\rquit\r");
    assert_non_null(strstr(screen, "quire> walk host kernel_text \n"));
    assert_non_null(strstr(screen, "quire> explain host 0x40+kernel_text  x\n"));
    assert_non_null(strstr(screen, "quire> map host page=4K\n"));
    assert_non_null(strstr(screen, "quire> trace show cpu=3\n"));
}

/* Keys that come one at a time, with rounds of the guests in between. */
static const char *slow_keys;
static unsigned next_round;

static unsigned one_at_a_time(void)
{
    if (rounds < next_round)
        return 256;
    next_round = rounds + 3;
    return (unsigned char)*slow_keys++;
}

static void test_attach(void **state)
{
    (void)state;
    strcpy(guest[2].output, "old\nlogin: ");
    guest[2].output_total = 11;
    guest[2].expected = GUEST_PASSED;
    rounds_left = 100000;
    typist = one_at_a_time;
    next_round = 0;
    slow_keys = "attach g2\rabcde\035version\rattach g1\rattach g9\rkill g2\rquit\r";
    serve("");
    assert_non_null(strstr(screen, "attached to g2 hello2 (running); Ctrl-] comes back\nlogin: "));
    assert_int_equal(guest[2].devices.serial.input_count, 4);
    assert_memory_equal(guest[2].devices.serial.input, "abcd", 4);
    assert_non_null(strstr(screen, "\a")); /* the fifth found no room */
    assert_non_null(strstr(screen, "login: \a\ng2 hello2: detached\nquire> version\n"));
    assert_non_null(strstr(screen, "error: attach: g1 hello1 has passed: nobody is at its serial"));
    refuses(E_UNSUPPORTED, "attach g3 --json", "a program is not attached");

    /* One that ends lets go by itself. */
    set_up(state);
    rounds_left = 38;
    typist = one_at_a_time;
    next_round = 0;
    slow_keys = "attach g2\r.....\025version\rquit\r";
    guest[2].output_total = 0;
    guest[2].vcpu = guest[2].cpu[0].vcpu = &vcpu[2];
    serve("");
    assert_non_null(strstr(screen, "g2 hello2: it has ended, and so detached\n"));
}

/* Whatever an attached guest prints, the terminal gets only text and what moves the cursor back. */
static void test_attached_guests_do_not_steer(void **state)
{
    (void)state;
    rounds_left = 100000;
    typist = one_at_a_time;
    next_round = 0;
    strcpy(guest[2].output, "a\x1b[2J\x9b"
                            "31mb\x7f"
                            "c\xff~ d\x0e");
    guest[2].output_total = strlen(guest[2].output);
    slow_keys = "attach g2\r\035quit\r";
    serve("");
    assert_non_null(strstr(screen, "\na\\x1b[2J\\x9b31mb\\x7fc\\xff~ d\\x0e"));
    assert_null(strchr(screen, '\x9b'));
    assert_null(strchr(screen, '\x7f'));
    assert_null(strstr(screen, "\x1b[2J"));
}

/* What is printed faster than the line takes waits for it; what the ring has lost is said. */
static void test_attach_to_a_fast_one(void **state)
{
    (void)state;
    rounds_left = 100000;
    typist = one_at_a_time;
    next_round = 0;
    line_busy = true;
    memset(guest[2].output, 'f', GUEST_OUTPUT);
    guest[2].output_total = 0;
    slow_keys = "attach g2\r";
    struct terminal *terminal = monitor_terminal();
    monitor_init();
    assert_ptr_equal(between, uart_attend);
    terminal_attach(terminal, &guest[2]);
    guest[2].output_total = 5;
    terminal_show(terminal);
    uint64_t first = read_to;
    assert_true(first < 5);
    for (unsigned i = 0; i < 25; i++)
        terminal_show(terminal);
    assert_int_equal(read_to, 5);
    assert_non_null(strstr(screen, "fffff"));
    line_busy = false;
    guest[2].output_total = 5 + GUEST_OUTPUT + 77;
    terminal_show(terminal);
    assert_non_null(strstr(screen, "fffff\n... 77 bytes of g2's output were dropped ...\nff"));
    assert_int_equal(read_to, guest[2].output_total);
    terminal_key(terminal, TERMINAL_LEAVE);
    assert_int_equal(read_to, UINT64_MAX);
    log_attach(NULL);
}

static void test_devices(void **state)
{
    (void)state;
    answers("devices g2", "  device      state\n  telling     first of g2\n"
                          "  telling     second\n");
    assert_null(strstr(screen, "window"));
    guest[2].options.pc = true;
    answers("devices g2", "  window      first of g2\n");
    guest[2].options.pc = false;
    unsigned slots = guest[2].slots;
    guest[2].slot[guest[2].slots++] =
        (struct slot){.base = gpa(0xfec00000), .size = PAGE_SIZE, .kind = SLOT_DEVICE};
    answers("devices g2", "  window      first of g2\n");
    guest[2].slots = slots;
    refuses(E_STATE, "devices g1", "g1 hello1 has passed, and its devices are gone with it");
    refuses(E_NOENT, "devices g9", "there is no g9");
}

static void put_cells(unsigned row, const char *text, uint8_t attribute)
{
    for (unsigned i = 0; text[i]; i++) {
        screen_shown.cell[row][i][0] = (uint8_t)text[i];
        screen_shown.cell[row][i][1] = attribute;
    }
}

static void test_screen(void **state)
{
    (void)state;
    memset(&screen_shown, 0, sizeof(screen_shown));
    screen_shown.columns = 20;
    screen_shown.rows = 3;
    screen_shown.cursor_row = 1;
    screen_shown.cursor_column = 4;
    screen_shown.cursor_shown = true;
    put_cells(0, "\xc9\xcd\xbb \x01\x1b[2J\x7f \xe1", 0x07);
    put_cells(2, "red", 0x4e);
    screen_error = E_OK;
    answers("screen g2", "g2 hello2: 20 by 3, cursor at row 1, column 4\n"
                         "+=+ o<[2J^ B\n\nred\n");
    answers("screen g1", "column 4, when it ended\n");
    answers("screen g2 --json", "{\"kind\":\"facts\",\"record\":\"screen\",\"values\":{"
                                "\"columns\":20,\"rows\":3,\"cursor_row\":1,"
                                "\"cursor_column\":4,\"cursor_shown\":true}}");
    answers("screen g2 --json", "\"values\":{\"row\":2,\"text\":\"red\"}}");
    screen_shown.cursor_shown = false;
    answers("screen g2 colour", ", no cursor\n");
    answers("screen g2 colour", "\033[93;41mred\033[30;40m   ");
    refuses(E_INVAL, "screen g2 color", "only `colour` may follow");
    screen_error = E_UNSUPPORTED;
    refuses(E_UNSUPPORTED, "screen g2", "g2 hello2 is in a graphics mode");
    screen_error = E_NOENT;
    refuses(E_NOENT, "screen g2", "guests with the option `pc` have one");
}

static void test_type(void **state)
{
    (void)state;
    answers("type g2 ls -l\\n", "typed 6 characters on the keyboard of g2 hello2\n");
    assert_string_equal(typed_keys, "ls -l\n");
    answers("type g2 \"a  b\" \\\\\\e\\t\\b\\cc\\cZ", "typed 11 characters");
    assert_string_equal(typed_keys, "a  b \\\033\t\b\003\032");
    refuses(E_FORMAT, "type g2 a\\x", "behind a backslash there may be n");
    refuses(E_FORMAT, "type g2 a\\", "behind a backslash there may be n");
    refuses(E_FORMAT, "type g2 a\\c1", "behind a backslash there may be n");
    refuses(E_STATE, "type g1 x", "g1 hello1 has passed: nobody is at its keyboard");
    answers("type g2 a", "typed 1 character on");
    guest[2].devices.keyboard.keyboard.text_count = KEYBOARD_TEXT - 2;
    refuses(E_FULL, "type g2 abc", "3 characters: there is room for 2 until g2 hello2 has read");
    answers("type g2 ab", "typed 2 characters");
    refuses(E_INVAL, "type g2", "an argument is missing");
}

static void test_scripts(void **state)
{
    static const char script[] = "# nothing\r\n\n  version\nmep\nno\033 such\nguests";

    (void)state;
    typed = "quit\r";
    may_power_off = true;
    int status = setjmp(powered_off);
    if (status == 0) {
        monitor_init();
        for (unsigned i = 0; i < 8; i++)
            assert_int_equal(monitor_script("one", script, i ? 0 : sizeof(script) - 1), E_OK);
        assert_int_equal(monitor_script("too many", script, 1), E_FULL);
        monitor_run();
    }
    log_attach(NULL);
    assert_non_null(strstr(screen, "quire: script one\nquire> version\nprogram: Quire\n"));
    assert_non_null(strstr(screen, "quire> mep\nerror: \"mep\" is no command"));
    assert_non_null(strstr(screen, "quire> no? such\nerror: \"no?\" is no"));
    assert_non_null(strstr(screen, "quire> guests\n  guest"));
    assert_null(strstr(screen, "# nothing"));
}

/* --- Anything at all ------------------------------------------------------------------------- */

static uint64_t seed;

static unsigned random_below(unsigned bound)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(seed >> 33) % bound;
}

#define RANDOM_LINES 100000

/* Commands that ask, and those that change a guest: its state, its memory, what was typed to it. Of
 * both together nothing is missing but `quit`, which ends the test, and what takes its time. */
static const char *const asking_words[] = {
    "help",    "mem",    "layout", "walk",    "map",   "explain", "who",    "frames", "peek",
    "dump",    "find",   "guests", "regs",    "exits", "report",  "output", "root",   "trace",
    "audit",   "cpu",    "log",    "version", "check", "colour",  "wait",   "oracle", "print",
    "devices", "screen", "bt",     "digest",  "cpus",  "top",
};
static const char *const changing_words[] = {
    "start", "pause", "resume", "kill", "attach", "poke", "type",  "dirty", "snapshot",
    "reset", "fork",  "quota",  "fuzz", "slot",   "heat", "merge", "save",  "cost"};
static const char *const slow_words[] = {"quit", "stress", "bench", "paging", "columns"};

static struct {
    unsigned lines;
    void (*before_quit)(void);
    bool changing;
} random_typing;

/* Lines of noise, words in any order, and commands with any arguments. */
static void random_line(char line[1024])
{
    static const char *const arguments[] = {
        "host",
        "user",
        "g1",
        "g2",
        "g3",
        "g4",
        "g5",
        "g6",
        "cpu0",
        "cpu7",
        "gpa",
        "gva",
        "hpa",
        "hva",
        "0x1000",
        "1M",
        "0",
        "64",
        "r",
        "w",
        "x",
        "force",
        "save",
        "diff",
        "forget",
        "on",
        "off",
        "show",
        "counters",
        "cpu=3",
        "exit",
        "mapper",
        "page=4K",
        "from=1M",
        "rights=w",
        "what=RAM",
        "purpose=heap",
        "paused",
        "\"a b\"",
        ";",
        "--json",
        "\t",
        "\033[A",
        "\033[D",
        "\b",
        "\004",
        "\003",
        "\033[3~",
        "\035",
        "0x2005000",
        "\033[?62;22c",
        "needle",
        "kernel_text",

        "0xffff800000000000",
        "0xffffffffffffffff",
        "g3 gpa 0x5000",
        "g3 gpa 2M",
        "g3 gva 0xffff800000000000",
        "hpa 0x2005000",
        "hva kernel_text",
        "(1+kernel_text)*2-1",
        "100",
    };
    unsigned length = 0;

    if (random_below(4) == 0) {
        for (unsigned i = random_below(random_below(16) ? 40 : 400); i; i--) {
            char byte = (char)random_below(256);
            line[length++] = byte ? byte : ' ';
        }
    } else {
        for (unsigned i = 0, n = random_below(7); i < n; i++) {
            const char *word = arguments[random_below(ARRAY_SIZE(arguments))];
            if (i == 0 || random_below(8) == 0)
                word = random_typing.changing && random_below(4) == 0
                           ? changing_words[random_below(ARRAY_SIZE(changing_words))]
                           : asking_words[random_below(ARRAY_SIZE(asking_words))];
            length += (unsigned)sprintf(line + length, "%s ", word);
        }
    }
    strcpy(line + length, "\r");
}

static unsigned random_typist(void)
{
    static char line[1024];
    static unsigned next;

    if (!line[next]) {
        next = 0;
        if (random_typing.lines++ < RANDOM_LINES) {
            random_line(line);
        } else {
            if (random_typing.before_quit)
                random_typing.before_quit();
            strcpy(line, "\035\025\013quit\r");
        }
        screen_clear();
    }
    return (unsigned char)line[next++];
}

static void digest_frame(uint64_t *digest, hpa_t frame)
{
    const uint64_t *word = direct(frame);

    for (unsigned i = 0; i < 512; i++)
        *digest = (*digest ^ word[i]) * UINT64_C(0x100000001b3);
}

static enum node_verdict digest_node(void *ctx, const struct table_node *node)
{
    digest_frame(ctx, node->frame);
    *(uint64_t *)ctx += node->level;
    return NODE_ENTER;
}

/* Everything that g3 has: its memory, and its tables with their accessed and dirty bits. */
static uint64_t digest_of_g3(void)
{
    uint64_t digest = 1;

    for (uint64_t at = 0; at < 4 * MiB; at += PAGE_SIZE)
        if (at < 0xa0000 || at >= 2 * MiB)
            digest_frame(&digest, hpa(G3_FRAMES + at));
    table_visit_nodes(&guest[3].table, digest_node, &digest);
    return digest;
}

/* 4-level paging for g3, in which a table leads back to the first. */
static void give_tables(void)
{
    cpu_of_guest.cr0 = CR0_PE | CR0_PG;
    cpu_of_guest.cr3 = 0x1000;
    cpu_of_guest.cr4 = CR4_PAE;
    cpu_of_guest.efer = EFER_LMA | EFER_LME;
    put_guest_entry(0x1000, 256, 0x2000 | PTE_P | PTE_RW);
    put_guest_entry(0x2000, 0, 0x200000 | PTE_P | PTE_RW);
    put_guest_entry(0x200000, 0, 0x1000 | PTE_P | PTE_RW);
}

static void type_at_random(bool changing, void (*before_quit)(void))
{
    struct buddy_stats before, after;

    seed = changing ? 4 : 3;
    random_typing.lines = 0;
    random_typing.changing = changing;
    random_typing.before_quit = before_quit;
    typist = random_typist;
    buddy_stats(&before);
    serve("");
    assert_true(random_typing.lines > RANDOM_LINES);
    run("trace off");
    for (unsigned i = 1; i <= GUESTS; i++)
        dirty_stop(guest_by_number(i), DIRTY_CONSOLE);
    forget_kept();
    buddy_stats(&after);
    assert_int_equal(before.free_frames, after.free_frames);
    assert_int_equal(before.allocations - before.frees, after.allocations - after.frees);
}

static struct {
    struct guest guest[GUESTS + 1];
    struct vcpu_state cpu;
    uint64_t digest;
} asked; /* what the guests were before they were asked about */

/* To quit ends them. */
static void assert_guests_unchanged(void)
{
    assert_true(digest_of_g3() == asked.digest);
    assert_memory_equal(&asked.cpu, &cpu_of_guest, sizeof(asked.cpu));
    for (unsigned i = 1; i <= GUESTS; i++)
        assert_memory_equal(&asked.guest[i], &guest[i], sizeof(guest[i]));
}

/* Questions change no guest, whatever they are. */
static void test_random_questions(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 0xa0000; i++)
        arena[G3_FRAMES + i] = (uint8_t)(i * 2654435761u >> 24);
    give_tables();
    memcpy(asked.guest, guest, sizeof(asked.guest));
    asked.cpu = cpu_of_guest;
    asked.digest = digest_of_g3();
    rounds_left = UINT_MAX; /* g2 does not end by itself */
    type_at_random(false, assert_guests_unchanged);
}

static void test_random_lines(void **state)
{
    (void)state;
    give_tables();
    type_at_random(true, NULL);
}

/* The lists above go with the commands that there are. */
static void test_random_lines_know_all_commands(void **state)
{
    unsigned known = ARRAY_SIZE(asking_words) + ARRAY_SIZE(changing_words) + ARRAY_SIZE(slow_words);
    unsigned commands = 0;

    (void)state;
    assert_int_equal(run("help"), E_OK);
    for (const char *row = strchr(screen, '\n'); row && row[1] == ' '; row = strchr(row + 1, '\n'))
        commands++;
    assert_int_equal(commands, known);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_help, set_up),
        cmocka_unit_test_setup(test_every_command_is_described, set_up),
        cmocka_unit_test_setup(test_no_line_of_help_is_folded, set_up),
        cmocka_unit_test_setup(test_fuzz_until, set_up),
        cmocka_unit_test_setup(test_nonsense, set_up),
        cmocka_unit_test_setup(test_words_of_others, set_up),
        cmocka_unit_test_setup(test_print, set_up),
        cmocka_unit_test_setup(test_trace_of_a_guest_that_has_not_run, set_up),
        cmocka_unit_test_setup(test_commands_of_a_line, set_up),
        cmocka_unit_test_setup(test_mem, set_up),
        cmocka_unit_test_setup(test_map, set_up),
        cmocka_unit_test_setup(test_a_map_is_forgotten, set_up),
        cmocka_unit_test_setup(test_no_percentage_is_shown_twice, set_up),
        cmocka_unit_test_setup(test_map_user, set_up),
        cmocka_unit_test_setup(test_ended_guest, set_up),
        cmocka_unit_test_setup(test_walk, set_up),
        cmocka_unit_test_setup(test_walk_guest_virtual, set_up),
        cmocka_unit_test_setup(test_symbols_of_a_guest, set_up),
        cmocka_unit_test_setup(test_backtrace, set_up),
        cmocka_unit_test_setup(test_backtrace_of_a_cpu, set_up),
        cmocka_unit_test_setup(test_guests, set_up),
        cmocka_unit_test_setup(test_start_and_stop, set_up),
        cmocka_unit_test_setup(test_registers, set_up),
        cmocka_unit_test_setup(test_slots, set_up),
        cmocka_unit_test_setup(test_heat, set_up),
        cmocka_unit_test_setup(test_merge, set_up),
        cmocka_unit_test_setup(test_exits, set_up),
        cmocka_unit_test_setup(test_report_and_output, set_up),
        cmocka_unit_test_setup(test_root, set_up),
        cmocka_unit_test_setup(test_check, set_up),
        cmocka_unit_test_setup(test_audit, set_up),
        cmocka_unit_test_setup(test_audit_stopped_by_a_key, set_up),
        cmocka_unit_test_setup(test_oracle, set_up),
        cmocka_unit_test_setup(test_cpus, set_up),
        cmocka_unit_test_setup(test_system, set_up),
        cmocka_unit_test_setup(test_quit_names_leaks, set_up),
        cmocka_unit_test_setup(test_guests_run_before_the_prompt, set_up),
        cmocka_unit_test_setup(test_a_halted_guest_begins_anew, set_up),
        cmocka_unit_test_setup(test_text_without_a_newline_waits_for_guests_that_run, set_up),
        cmocka_unit_test_setup(test_a_key_stops_waiting, set_up),
        cmocka_unit_test_setup(test_top_and_cpus, set_up),
        cmocka_unit_test_setup(test_summary_goes_around_the_line, set_up),
        cmocka_unit_test_setup(test_no_summary_while_a_guest_is_paused, set_up),
        cmocka_unit_test_setup(test_no_guests, set_up),
        cmocka_unit_test_setup(test_console_events, set_up),
        cmocka_unit_test_setup(test_workbench, set_up),
        cmocka_unit_test_setup(test_stress_finds, set_up),
        cmocka_unit_test_setup(test_terminal, set_up),
        cmocka_unit_test_setup(test_attached_guests_do_not_steer, set_up),
        cmocka_unit_test_setup(test_attach, set_up),
        cmocka_unit_test_setup(test_attach_to_a_fast_one, set_up),
        cmocka_unit_test_setup(test_devices, set_up),
        cmocka_unit_test_setup(test_screen, set_up),
        cmocka_unit_test_setup(test_type, set_up),
        cmocka_unit_test_setup(test_scripts, set_up),
        cmocka_unit_test_setup(test_random_questions, set_up),
        cmocka_unit_test_setup(test_random_lines, set_up),
        cmocka_unit_test_setup(test_random_lines_know_all_commands, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
