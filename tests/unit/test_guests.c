/*
 * Guests from module to end, with a CPU that the test plays: making, running, every kind of
 * exit, ending, and that each end gives back every frame and says in the log what the documents
 * promise.
 */
#include "vm/guest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "guests/abi.h"
#include "lib/bits.h"
#include "lib/error.h"
#include "mm/frames/buddy.h"
#include "tests/unit/fake_machine.h"
#include "tests/unit/random.h"
#include "vm/exits.h"
#include "vm/guest_audit.h"
#include "vm/device.h"
#include "vm/quota.h"
#include "vm/report.h"
#include "vm/slots.h"

#define MEMORY (64 * MiB)

/* A boot sector; what is in it does not matter, the CPU is ours. */
static uint8_t sector[512];
static uint64_t frames_before;

static int set_up(void **state)
{
    (void)state;
    machine_start(MEMORY);
    guests_init(&machine_backend, NULL);
    memset(sector, 0, sizeof(sector));
    sector[510] = 0x55;
    sector[511] = 0xaa;
    frames_before = machine_free_frames();
    return 0;
}

/* Every test ends its guests: whatever is still held is their structures. */
static int tear_down(void **state)
{
    struct buddy_stats stats;
    char why[160];

    (void)state;
    for (unsigned i = 1; i <= guest_count(); i++)
        assert_int_equal(buddy_owner_frames((owner_t)(OWNER_FIRST_GUEST + i)), 0);
    buddy_stats(&stats);
    assert_int_equal(stats.free_frames + stats.by_purpose[PURPOSE_HEAP], frames_before);
    if (buddy_verify(why, sizeof(why)) != E_OK)
        fail_msg("%s", why);
    machine_stop();
    return 0;
}

static struct guest *make(const char *cmdline)
{
    const struct guest_image image = {.bytes = sector, .size = sizeof(sector), .cmdline = cmdline};
    struct guest *guest;

    if (guest_create(&image, &guest) != E_OK)
        fail_msg("%s: %s", cmdline, guest != NULL ? guest->reason : "no guest");
    return guest;
}

static void expect_log(const char *line)
{
    if (strstr(machine_log(), line) == NULL)
        fail_msg("the log does not say \"%s\"; it says:\n%s", line, machine_log());
}

/* --- a CPU that makes one exit, then runs on --- */

static struct vm_exit next_exit;
static bool exit_due;

static void one_exit(struct fake_vcpu *vcpu, struct vm_exit *exit)
{
    (void)vcpu;
    if (exit_due)
        *exit = next_exit;
    else
        exit->kind = VM_EXIT_SLICE;
    exit_due = false;
}

/* Lets the guest make this exit and run to the end of its slice. */
static void make_exit(struct guest *guest, struct vm_exit exit)
{
    assert_int_equal(guest->state, GUEST_RUNNING);
    if (exit.name == NULL)
        exit.name = "test";
    next_exit = exit;
    exit_due = true;
    machine_cpu = one_exit;
    guests_round();
    assert_false(exit_due);
}

static void make_hypercall(struct guest *guest, uint32_t number, uint64_t b, uint64_t c, uint64_t d)
{
    uint64_t *gpr = guest->vcpu->gpr;

    gpr[RAX] = number;
    gpr[RBX] = b;
    gpr[RCX] = c;
    gpr[RDX] = d;
    make_exit(guest, (struct vm_exit){.kind = VM_EXIT_HYPERCALL, .length = 3});
}

static void out(struct guest *guest, uint16_t port, unsigned width, uint32_t value)
{
    guest->vcpu->gpr[RAX] = value;
    make_exit(guest, (struct vm_exit){.kind = VM_EXIT_PORT,
                                      .length = 1,
                                      .port = {.port = port, .width = width}});
}

static uint64_t in(struct guest *guest, uint16_t port, unsigned width)
{
    make_exit(guest, (struct vm_exit){.kind = VM_EXIT_PORT,
                                      .length = 1,
                                      .port = {.port = port, .width = width, .in = true}});
    return guest->vcpu->gpr[RAX];
}

static struct vm_exit memory_exit(uint64_t at, unsigned access, unsigned allowed)
{
    return (struct vm_exit){.kind = VM_EXIT_MEMORY,
                            .memory = {.gpa = gpa(at), .access = access, .allowed = allowed}};
}

static void finish(struct guest *guest)
{
    if (!guest_ended(guest))
        assert_int_equal(guest_kill(guest), E_OK);
}

/* --- life --- */

static void born_and_killed(void **state)
{
    struct guest *guest = make("first mem=4M");
    char line[64];

    (void)state;
    assert_int_equal(guest->state, GUEST_RUNNING);
    assert_int_equal(guest->number, 1);
    assert_ptr_equal(guest_by_number(1), guest);
    assert_null(guest_by_number(0));
    assert_null(guest_by_number(2));
    assert_string_equal(guest->kind, "flat 16-bit");
    assert_int_equal(fake_of(guest)->state.rip, 0x7c00);
    assert_true(buddy_owner_frames(guest_owner(guest)) > 0);
    assert_int_equal(guests_round(), 1);
    assert_int_equal(guest_pause(guest), E_OK);
    assert_int_equal(guests_round(), 0);
    assert_int_equal(guest_pause(guest), E_STATE);
    assert_int_equal(guest_start(guest), E_OK);
    assert_int_equal(guest_start(guest), E_STATE);
    assert_int_equal(guest_kill(guest), E_OK);
    assert_int_equal(guest_kill(guest), E_STATE);
    assert_int_equal(guest_pause(guest), E_STATE);
    snprintf(line, sizeof(line), "quire: g%u first: killed\n", guest->number);
    expect_log(line);
    assert_true(guest_ended(guest));
    assert_false(guest_ok(guest));
    assert_int_equal(guests_round(), 0);
}

static void made_anew(void **state)
{
    struct guest *guest = make("again mem=4M");

    (void)state;
    for (unsigned life = 0; life < 3; life++) {
        out(guest, QUIRE_PORT_RESULT, 4, life == 1 ? 7 : 0);
        assert_int_equal(guest->state, life == 1 ? GUEST_FAILED : GUEST_PASSED);
        assert_int_equal(guest->exits[VM_EXIT_PORT], 1);
        assert_int_equal(guest_start(guest), E_OK);
        assert_int_equal(guest->exits[VM_EXIT_PORT], 0);
        assert_int_equal(guest->verdict, 0);
    }
    finish(guest);
}

static void born_paused(void **state)
{
    struct guest *guest = make("later paused mem=2M");

    (void)state;
    assert_int_equal(guest->state, GUEST_PAUSED);
    assert_int_equal(guests_round(), 0);
    assert_int_equal(guest->vcpu->entries, 0);
    assert_int_equal(guest_start(guest), E_OK);
    assert_int_equal(guests_round(), 1);
    finish(guest);
}

/* Its TSC is 0 when it first gets the CPU, and stands still while it is paused. */
static void a_pause_is_not_seen(void **state)
{
    struct guest *guest = make("clock mem=1M");
    uint64_t before;

    (void)state;
    assert_int_equal(guest_now(guest), 0);
    machine_pass(1000000000);
    assert_int_equal(guest_now(guest), 0);
    assert_int_equal(guests_round(), 1);
    assert_in_range(guest_now(guest), 1000, 2000000);
    assert_int_equal(guest_clock_at(guest, 5), 5 + fake_of(guest)->clock);
    before = guest_now(guest);
    assert_int_equal(guest_pause(guest), E_OK);
    machine_pass(1000000000);
    assert_in_range(guest_now(guest), before, before + 2000);
    assert_int_equal(guest_now(guest), guest_now(guest));
    assert_int_equal(guest_start(guest), E_OK);
    assert_int_equal(guests_round(), 1);
    assert_in_range(guest_now(guest), before, before + 2000000);
    assert_int_equal(guest_clock_at(guest, 5), 5 + fake_of(guest)->clock);
    finish(guest);
    /* A new life has a new clock. */
    assert_int_equal(guest_start(guest), E_OK);
    assert_int_equal(guest_now(guest), 0);
    finish(guest);
}

static void slices_are_fair(void **state)
{
    struct guest *a = make("a mem=1M"), *b = make("b mem=1M");

    (void)state;
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(guests_round(), 2);
    assert_int_equal(a->vcpu->entries, 10);
    assert_int_equal(b->vcpu->entries, 10);
    finish(a);
    assert_int_equal(guests_round(), 1);
    finish(b);
}

/* Each exit costs clock ticks: a guest that only exits still gives way. */
static void endless_exits(struct fake_vcpu *vcpu, struct vm_exit *exit)
{
    (void)vcpu;
    exit->kind = VM_EXIT_HANDLED;
}

static void exits_use_up_the_slice(void **state)
{
    struct guest *guest = make("busy mem=1M");

    (void)state;
    machine_cpu = endless_exits;
    assert_int_equal(guests_round(), 1);
    assert_in_range(guest->vcpu->entries, 100, 2000);
    finish(guest);
}

static void verdicts(void **state)
{
    struct guest *guest = make("good mem=1M");

    (void)state;
    out(guest, QUIRE_PORT_RESULT, 4, 0);
    expect_log("good: passed\n");
    assert_true(guest_ok(guest));
    guest = make("bad mem=1M");
    out(guest, QUIRE_PORT_RESULT, 4, 42);
    expect_log("bad: failed (42): ");
    assert_false(guest_ok(guest));
    guest = make("good mem=1M");
    make_hypercall(guest, QUIRE_HC_PASS, 0, 0, 0);
    assert_int_equal(guest->state, GUEST_PASSED);
    guest = make("bad mem=1M expect=failed");
    make_hypercall(guest, QUIRE_HC_FAIL, 3, 0, 0);
    expect_log("bad: failed (3): ");
    assert_true(guest_ok(guest));
}

static void refused(void **state)
{
    struct guest_image image = {.bytes = sector, .size = 100, .cmdline = "short mem=1M"};
    struct guest *guest;

    (void)state;
    assert_int_equal(guest_create(&image, &guest), E_FORMAT);
    assert_int_equal(guest->state, GUEST_REFUSED);
    expect_log("short: refused: not an image that can be started");
    image.cmdline = "odd bogus";
    assert_int_equal(guest_create(&image, &guest), E_INVAL);
    expect_log("odd: refused: 'bogus' is no option");
    image.size = sizeof(sector);
    image.cmdline = "huge mem=2G";
    assert_int_equal(guest_create(&image, &guest), E_NOMEM);
    expect_log("huge: refused: not enough free memory");
    static const char *const beyond[] = {
        "beyond mem=2T lazy",
        "beyond mem=1M rom=0x10000000000+4K",
        "beyond mem=1M hole=0xfffffff000+8K",
        "beyond mem=1M ram=0x20000000000+4K",
    };
    for (unsigned i = 0; i < ARRAY_SIZE(beyond); i++) {
        machine_forget_log();
        image.cmdline = beyond[i];
        assert_int_equal(guest_create(&image, &guest), E_RANGE);
        expect_log("this CPU's physical addresses have 40 bits, they end at 1T");
    }
    image.cmdline = "greedy mem=16M quota=8M expect=refused";
    assert_int_equal(guest_create(&image, &guest), E_QUOTA);
    expect_log("greedy: refused: mem=16M is more than quota=8M allows");
    assert_true(guest_ok(guest));
    /* Rounded up to pages. */
    assert_int_equal(quota_frames(guest, 200 * KiB + 1), quota_frames(guest, 204 * KiB));
    image.cmdline = "starved lazy mem=1M quota=40K";
    assert_int_equal(guest_create(&image, &guest), E_QUOTA);
    expect_log("starved: refused: quota=40K has no room for its table: itself and its vCPU take ");
    image.cmdline = "holed mem=1M hole=0x7000+4K";
    assert_int_equal(guest_create(&image, &guest), E_RANGE);
    expect_log("holed: refused: the flat image at 0x7c00");
    machine_vcpu_error = E_HARDWARE;
    image.cmdline = "cpuless mem=1M";
    assert_int_equal(guest_create(&image, &guest), E_HARDWARE);
    expect_log("cpuless: refused: no virtual CPU");
    machine_vcpu_error = E_FULL; /* QEMU has 16 ASIDs */
    assert_int_equal(guest_create(&image, &guest), E_FULL);
    expect_log("cpuless: refused: no virtual CPU: it needs 1 tag of the TLB, and this "
               "CPU has too few left: end a guest, or give fewer `cpus=`");
    machine_vcpu_error = E_OK;
    /* What was only out of luck can be started later. */
    assert_int_equal(guest_start(guest), E_OK);
    finish(guest);
}

static void without_backend(void **state)
{
    struct guest_image image = {.bytes = sector, .size = sizeof(sector), .cmdline = "a"};
    struct guest *guest;

    (void)state;
    guests_init(NULL, "this CPU has no VMX");
    assert_int_equal(guest_create(&image, &guest), E_UNSUPPORTED);
    assert_null(guest);
    assert_int_equal(guests_create(&image, 1), 0);
    assert_string_equal(guests_why_not(), "this CPU has no VMX");
}

static void modules_in_groups(void **state)
{
    static uint8_t payload[16];
    struct guest_image list[] = {
        {.bytes = sector, .size = sizeof(sector), .cmdline = "one mem=1M"},
        {.bytes = payload, .size = sizeof(payload), .cmdline = "user:program"},
        {.bytes = sector, .size = sizeof(sector), .cmdline = "two mem=1M mods=1"},
        {.bytes = payload, .size = sizeof(payload), .cmdline = "initrd"},
        {.bytes = sector, .size = sizeof(sector), .cmdline = "three mem=1M mods=2"},
        {.bytes = payload, .size = sizeof(payload), .cmdline = "left over"},
    };
    unsigned first = guest_count();

    (void)state;
    guests_create(list, ARRAY_SIZE(list));
    /* `three` wants more modules than follow; the one that does is then its own guest, and no
     * image. */
    assert_int_equal(guest_count() - first, 4);
    assert_string_equal(guest_by_number(first + 1)->name, "one");
    assert_string_equal(guest_by_number(first + 2)->name, "two");
    expect_log("two: refused: mods=: a flat guest takes no modules");
    expect_log("three: refused: mods=2, but only 1 modules follow");
    assert_string_equal(guest_by_number(first + 4)->name, "left");
    finish(guest_by_number(first + 1));
}

static void list_of_guests_fills_up(void **state)
{
    const struct guest_image image = {.bytes = sector, .size = 10, .cmdline = "x"};
    struct guest *guest;

    (void)state;
    for (unsigned i = 0; i < GUEST_LIMIT; i++) {
        assert_int_equal(guest_create(&image, &guest), E_FORMAT);
        assert_non_null(guest);
    }
    assert_int_equal(guest_create(&image, &guest), E_FULL);
    assert_null(guest);
}

/* --- exits --- */

static void halting(void **state)
{
    struct guest *guest = make("sleepy mem=1M");

    (void)state;
    make_exit(guest, (struct vm_exit){.kind = VM_EXIT_HALT, .length = 1});
    assert_int_equal(guest->state, GUEST_HALTED);
    assert_int_equal(fake_of(guest)->state.rip, 0x7c01);
    assert_true(fake_of(guest)->halted);
    expect_log("sleepy: halted");
    assert_int_equal(guests_round(), 0);
    assert_int_equal(guest_start(guest), E_STATE);
    assert_int_equal(guest_pause(guest), E_OK);
    assert_int_equal(guest_start(guest), E_OK);
    assert_int_equal(guest->state, GUEST_HALTED); /* still asleep */
    finish(guest);
}

static void stopping_exits(void **state)
{
    static const struct {
        struct vm_exit exit;
        const char *reason;
    } cases[] = {
        {{.kind = VM_EXIT_SHUTDOWN},
         "triple fault at RIP 0x7c00; IDT at 0x0, limit 0x3ff, CR2 0x0"},
        {{.kind = VM_EXIT_BAD_STATE, .name = "invalid guest state", .bad = {33}},
         "the CPU refused to enter the guest: invalid guest state (0x21)"},
        {{.kind = VM_EXIT_UNKNOWN, .name = "SIPI", .raw = 4}, "exit that nothing handles: SIPI"},
        {{.kind = VM_EXIT_EXCEPTION, .exception = {.vector = 18}}, "exception 18"},
        {{.kind = VM_EXIT_COUNT, .name = "nonsense"}, "exit that nothing handles: nonsense"},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct guest *guest = make("wild mem=1M expect=stopped");
        char line[256];

        make_exit(guest, cases[i].exit);
        assert_int_equal(guest->state, GUEST_STOPPED);
        assert_true(guest_ok(guest));
        snprintf(line, sizeof(line), "quire: g%u wild: stopped: %s", guest->number,
                 cases[i].reason);
        expect_log(line);
        assert_non_null(strstr(guest->report, "RIP    0x7c00"));
        assert_non_null(strstr(guest->report, "raw state of the fake CPU"));
    }
}

static bool logged(const char *text)
{
    return strstr(machine_log(), text) != NULL;
}

/* So many lines of a report go into the log; all of them stay with the guest. */
static void short_reports(void **state)
{
    (void)state;
    for (unsigned lines = 0; lines < 2; lines++) {
        char line[80];
        unsigned in_all = 0;

        report_set_logged(lines);
        struct guest *guest = make("brief mem=1M expect=stopped");
        make_exit(guest, (struct vm_exit){.kind = VM_EXIT_SHUTDOWN});
        report_set_logged(UINT64_MAX);
        for (const char *at = guest->report; (at = strchr(at, '\n')) != NULL; at++)
            in_all++;
        assert_non_null(strstr(guest->report, "RIP    0x7c00"));
        snprintf(line, sizeof(line), "g%u brief: | triple fault", guest->number);
        assert_int_equal(logged(line), lines == 1);
        snprintf(line, sizeof(line), "g%u brief: | exit: ", guest->number);
        assert_false(logged(line));
        snprintf(line, sizeof(line), "g%u brief: | %u lines more: `report g%u`\n", guest->number,
                 in_all - lines, guest->number);
        assert_true(logged(line));
    }
}

static void lazy_memory_is_filled(void **state)
{
    struct guest *guest = make("lazy lazy mem=4M");
    uint64_t before = buddy_owner_frames(guest_owner(guest));

    (void)state;
    make_exit(guest, memory_exit(2 * MiB + 0x123, RIGHT_W, 0));
    assert_int_equal(guest->state, GUEST_RUNNING);
    assert_int_equal(guest->faults_filled, 1);
    assert_true(buddy_owner_frames(guest_owner(guest)) > before);
    /* The same again: the table allows it by now. */
    make_exit(guest, memory_exit(2 * MiB + 0x123, RIGHT_W, 0));
    assert_int_equal(guest->faults_spurious, 1);
    assert_int_equal(guest->faults_filled, 1);
    assert_int_equal(guest->state, GUEST_RUNNING);
    finish(guest);
}

static void cpu_that_will_not_see(void **state)
{
    struct guest *guest = make("stuck mem=4M");

    (void)state;
    for (unsigned i = 0; i < 16; i++)
        make_exit(guest, memory_exit(MiB, RIGHT_R, 0));
    assert_int_equal(guest->state, GUEST_RUNNING);
    make_exit(guest, memory_exit(MiB, RIGHT_R, 0));
    assert_int_equal(guest->state, GUEST_STOPPED);
    expect_log("the CPU keeps refusing a read of GPA 0x100000 that the table allows");
}

/* Its time may be over before an audit is. */
static void audit_cut_short(void **state)
{
    struct guest *guest = make("long mem=1M");

    (void)state;
    guest_audit(guest, 0);
    expect_log("not judged to the end: its time was over after 0 table frames");
    assert_int_equal(guest_kill(guest), E_OK);
    guest_finish(guest);
}

static void no_frame_for_lazy_memory(void **state)
{
    struct guest *guest = make("poor lazy mem=4M quota=128K");
    uint64_t at = 2 * MiB;

    (void)state;
    while (guest->state == GUEST_RUNNING && at < 3 * MiB) {
        make_exit(guest, memory_exit(at, RIGHT_W, 0));
        at += PAGE_SIZE;
    }
    assert_int_equal(guest->state, GUEST_PAUSED);
    assert_non_null(strstr(guest->reason, "no frame for GPA 0x"));
    assert_non_null(strstr(guest->reason, "its quota is 128K"));
    /* All that it costs is within: its structure and its vCPU's too. */
    assert_non_null(strstr(guest->reason, "it holds 128K"));
    assert_int_equal(buddy_owner_frames(guest_owner(guest)) * PAGE_SIZE + VCPU_MOST +
                         align_up(sizeof(struct guest), PAGE_SIZE),
                     128 * KiB);
    /* It goes on at the same access once there is room. */
    buddy_set_quota(guest_owner(guest), UINT64_MAX);
    assert_int_equal(guest_start(guest), E_OK);
    make_exit(guest, memory_exit(at - PAGE_SIZE, RIGHT_W, 0));
    assert_int_equal(guest->state, GUEST_RUNNING);
    assert_int_equal(guest->reason[0], '\0');
    assert_int_equal(guest_kill(guest), E_OK);
}

static void faults_that_stop(void **state)
{
    static const struct {
        uint64_t at;
        unsigned access, allowed;
        const char *reason;
    } cases[] = {
        {0xb8000, RIGHT_W, 0,
         "write to GPA 0xb8000: no memory (hole 0xa0000..0xfffff; a PC has its video memory there: "
         "`pc`)"},
        {4 * MiB, RIGHT_R, 0, "read of GPA 0x400000: no memory (hole 0x400000..0xffffffffffff)"},
        {0x200010, RIGHT_W, RIGHT_RX, "write to GPA 0x200010: ROM at 0x200000+64K"},
        {0x300000, RIGHT_X, RIGHT_RW,
         "instruction fetch from GPA 0x300000: no-execute RAM at 0x300000+4K"},
        {0x301000, RIGHT_R, RIGHT_X, "read of GPA 0x301000: execute-only at 0x301000+4K"},
        {0xfee00000, RIGHT_R, 0,
         "read of GPA 0xfee00000: no memory (hole 0x400000..0xffffffffffff; a PC has its local "
         "APIC "
         "there: `pc`)"},
        {0xfffff, RIGHT_R, 0,
         "read of GPA 0xfffff: no memory (hole 0xa0000..0xfffff; a PC has its BIOS"},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct guest *guest = make("rogue mem=4M rom=2M+64K nox=3M+4K xo=0x301000+4K");
        char text[256];

        make_exit(guest, memory_exit(cases[i].at, cases[i].access, cases[i].allowed));
        assert_int_equal(guest->state, GUEST_STOPPED);
        snprintf(text, sizeof(text), "rogue: stopped: %s", cases[i].reason);
        expect_log(text);
        /* The report: the walk, step by step, and the registers. */
        assert_non_null(strstr(guest->report, "walk of GPA"));
        assert_non_null(strstr(guest->report, "PML4[  0]"));
        assert_non_null(strstr(guest->report, "RIP"));
        assert_int_equal(guest->faults_refused, 1);
    }
}

/* A PC would lose the one, and nobody executes where nothing is, nor has page tables there. */
static void a_pc_is_told_of_its_option(void **state)
{
    struct vm_exit walk = memory_exit(0x600000, RIGHT_R, 0);
    struct guest *guest = make("reader mem=4M pc");

    (void)state;
    make_exit(guest, memory_exit(0x600000, RIGHT_R, 0));
    assert_non_null(strstr(guest->reason, "0xfebfffff; a PC loses that: `stray=lost`), at RIP"));
    guest = make("runner mem=4M pc");
    make_exit(guest, memory_exit(0x600000, RIGHT_X, 0));
    assert_non_null(strstr(guest->reason, "0xfebfffff), at RIP"));
    guest = make("walker mem=4M pc");
    walk.memory.walk = true;
    make_exit(guest, walk);
    assert_non_null(strstr(guest->reason, "0xfebfffff), at RIP"));
}

static void fault_expected(void **state)
{
    struct guest *guest = make("careful mem=4M");
    struct fake_vcpu *vcpu = fake_of(guest);

    (void)state;
    make_hypercall(guest, QUIRE_HC_EXPECT_FAULT, 0xb8000, 0x1000, 0x7d00);
    assert_int_equal(vcpu->vcpu.gpr[RAX], QUIRE_E_OK);
    make_exit(guest, memory_exit(0xb8ffe, RIGHT_W, 0));
    assert_int_equal(guest->state, GUEST_RUNNING);
    assert_int_equal(vcpu->state.rip, 0x7d00);
    assert_int_equal(vcpu->vcpu.gpr[RAX], QUIRE_FAULT_WRITE);
    assert_int_equal(guest->faults_refused, 1);
    expect_log("write to GPA 0xb8ffe");
    expect_log("announced; the guest goes on at 0x7d00");
    /* One-shot. */
    make_exit(guest, memory_exit(0xb8ffe, RIGHT_W, 0));
    assert_int_equal(guest->state, GUEST_STOPPED);

    guest = make("careless mem=4M");
    make_hypercall(guest, QUIRE_HC_EXPECT_FAULT, 0xb8000, 0x1000, 0x7d00);
    make_exit(guest, memory_exit(0xb9000, RIGHT_W, 0)); /* just behind what was announced */
    assert_int_equal(guest->state, GUEST_STOPPED);

    guest = make("undecided mem=4M");
    make_hypercall(guest, QUIRE_HC_EXPECT_FAULT, 0xb8000, 0x1000, 0x7d00);
    make_hypercall(guest, QUIRE_HC_EXPECT_FAULT, 0, 0, 0);
    make_exit(guest, memory_exit(0xb8000, RIGHT_X, 0));
    assert_int_equal(guest->state, GUEST_STOPPED);
}

/* A guest that announces fault after fault fills no log, and has no report written for each. */
static void faults_expected_without_end(void **state)
{
    struct guest *guest = make("noisy mem=4M");
    size_t length = 0;

    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        if (i == 40)
            length = strlen(machine_log());
        make_hypercall(guest, QUIRE_HC_EXPECT_FAULT, 0xb8000, 0x1000, 0x7d00);
        make_exit(guest, memory_exit(0xb8000 + i, RIGHT_W, 0));
    }
    assert_int_equal(strlen(machine_log()), length);
    assert_int_equal(guest->faults_refused, 200);
    assert_int_equal(guest->state, GUEST_RUNNING);
    assert_non_null(strstr(guest->report, "GPA 0xb801f")); /* of the 32nd, the last one logged */
    make_exit(guest, memory_exit(0xb8fff, RIGHT_W, 0));    /* not announced */
    assert_int_equal(guest->state, GUEST_STOPPED);
    assert_non_null(strstr(guest->report, "GPA 0xb8fff"));
    finish(guest);
}

static void misconfigured(void **state)
{
    struct guest *guest = make("broken mem=4M");
    struct walk walk;

    (void)state;
    /* Spoil the leaf of page 0 as no caller of the mapper can: write without read. */
    table_walk(&guest->table, 0, &walk);
    *(uint64_t *)direct(walk.step[walk.count - 1].address) &= ~UINT64_C(1);
    make_exit(guest, (struct vm_exit){.kind = VM_EXIT_MISCONFIG, .memory = {.gpa = gpa(0)}});
    assert_int_equal(guest->state, GUEST_STOPPED);
    assert_non_null(strstr(guest->reason, "illegal entry in the table for GPA 0x0"));
    assert_non_null(strstr(guest->reason, rule_text(RULE_WRITE_ONLY)));
    assert_non_null(strstr(guest->report, "illegal:"));
}

/* --- hypercalls --- */

static void hypercalls(void **state)
{
    struct guest *guest = make("caller lazy mem=4M rom=2M+4K nox=0x201000+4K xo=0x202000+4K");
    uint64_t *gpr = guest->vcpu->gpr;
    static const struct {
        uint64_t at;
        uint32_t backing;
    } backing[] = {
        {0x7c00, QUIRE_BACKING_RAM},      {MiB, QUIRE_BACKING_LAZY_ABSENT},
        {0xa0000, QUIRE_BACKING_NONE},    {2 * MiB, QUIRE_BACKING_ROM},
        {0x201000, QUIRE_BACKING_NOEXEC}, {0x202000, QUIRE_BACKING_EXEC_ONLY},
        {4 * MiB, QUIRE_BACKING_NONE},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(backing); i++) {
        make_hypercall(guest, QUIRE_HC_BACKING, backing[i].at, 0, 0);
        assert_int_equal(gpr[RAX], backing[i].backing);
    }
    guest_write(guest, gpa(0x7e00), "said by hypercall\n", 18);
    assert_int_equal(slots_place(guest, gpa(0x7e00), "said by hypercall\n", 18), E_OK);
    make_hypercall(guest, QUIRE_HC_PUTS, 0x7e00, 18, 0);
    assert_int_equal(gpr[RAX], QUIRE_E_OK);
    expect_log(" caller] said by hypercall\n");
    static const char spaces[8192]; /* so much is there, and too much for one call */
    assert_int_equal(slots_place(guest, gpa(0x8000), spaces, sizeof(spaces)), E_OK);
    make_hypercall(guest, QUIRE_HC_PUTS, 0x8000, 4096, 0);
    assert_int_equal(gpr[RAX], QUIRE_E_OK);
    make_hypercall(guest, QUIRE_HC_PUTS, 0x8000, 4097, 0);
    assert_int_equal(gpr[RAX], QUIRE_E_INVAL);
    make_hypercall(guest, QUIRE_HC_PUTS, 0x9fff0, 0x20, 0);
    assert_int_equal(gpr[RAX], QUIRE_E_INVAL);
    make_hypercall(guest, QUIRE_HC_PUTS, 0x202000, 1, 0); /* it may execute there, not read */
    assert_int_equal(gpr[RAX], QUIRE_E_INVAL);
    make_hypercall(guest, 0x12345678, 0, 0, 0);
    assert_int_equal(gpr[RAX], QUIRE_E_UNKNOWN);
    gpr[RSI] = 1;
    make_hypercall(guest, QUIRE_HC_EXPECT_FAULT, 0, 1, 0);
    assert_int_equal(gpr[RAX], QUIRE_E_INVAL);
    gpr[RSI] = 0;
    /* Outside 64-bit mode the upper halves count for nothing. */
    make_hypercall(guest, QUIRE_HC_BACKING, 0xffffffff00007c00, 0, 0);
    assert_int_equal(gpr[RAX], QUIRE_BACKING_RAM);
    fake_of(guest)->state.efer = BIT(10);
    fake_of(guest)->state.segment[SEG_CS].access |= BIT(13); /* L */
    make_hypercall(guest, QUIRE_HC_BACKING, 0xffffffff00007c00, 0, 0);
    assert_int_equal(gpr[RAX], QUIRE_BACKING_NONE);
    /* What is announced ends with the addresses, and does not begin anew. */
    make_hypercall(guest, QUIRE_HC_EXPECT_FAULT, UINT64_MAX - 0xfff, 0x1001, 0);
    assert_int_equal(gpr[RAX], QUIRE_E_INVAL);
    make_hypercall(guest, QUIRE_HC_EXPECT_FAULT, UINT64_MAX - 0xfff, 0x1000, 0);
    assert_int_equal(gpr[RAX], QUIRE_E_OK);
    /* From ring 3 it is no instruction at all. */
    fake_of(guest)->state.segment[SEG_SS].access |= 3 << 5;
    make_hypercall(guest, QUIRE_HC_PASS, 0, 0, 0);
    assert_int_equal(guest->state, GUEST_RUNNING);
    assert_int_equal(fake_of(guest)->events, 1);
    assert_int_equal(fake_of(guest)->event.vector, 6);
    finish(guest);
}

/* Gives up the slice: other guests run before it does again. */
static void yielding(void **state)
{
    struct guest *guest = make("polite mem=1M");

    (void)state;
    guest->vcpu->gpr[RAX] = QUIRE_HC_YIELD;
    next_exit = (struct vm_exit){.kind = VM_EXIT_HYPERCALL, .length = 3};
    exit_due = true;
    machine_cpu = one_exit;
    assert_int_equal(guests_round(), 1);
    assert_int_equal(guest->vcpu->entries, 1);
    finish(guest);
}

/* --- MSRs, CPUID --- */

static void msr(struct guest *guest, uint32_t index, bool write, uint64_t value)
{
    guest->vcpu->gpr[RAX] = value & UINT32_MAX;
    guest->vcpu->gpr[RDX] = value >> 32;
    make_exit(guest, (struct vm_exit){.kind = VM_EXIT_MSR,
                                      .length = 2,
                                      .msr = {.index = index, .write = write}});
}

static void msrs(void **state)
{
    struct guest *guest = make("msr mem=1M");
    struct fake_vcpu *vcpu = fake_of(guest);
    uint64_t *gpr = vcpu->vcpu.gpr, rip = vcpu->state.rip;

    (void)state;
    msr(guest, 0x1b, false, UINT64_MAX); /* APIC_BASE: its place, boot CPU, off */
    assert_int_equal(gpr[RAX], 0xfee00100);
    assert_int_equal(gpr[RDX], 0);
    assert_int_equal(vcpu->state.rip, rip + 2);
    msr(guest, 0x1b, true, 0xfee00100);
    assert_int_equal(vcpu->events, 0);
    msr(guest, 0x1b, true, 0xfee00900); /* to switch it on: #GP, and the instruction not done */
    assert_int_equal(vcpu->events, 1);
    assert_int_equal(vcpu->event.vector, 13);
    assert_true(vcpu->event.has_code && vcpu->event.code == 0);
    assert_int_equal(vcpu->state.rip, rip + 4);
    msr(guest, 0x3a, false, 0); /* FEATURE_CONTROL: there is no VMX */
    msr(guest, 0x277 + 0x10000, false, 0);
    msr(guest, 0x480, false, 0);
    assert_int_equal(vcpu->events, 4);
    msr(guest, 0x8b, true, 5);
    msr(guest, 0x8b, false, 77);
    assert_int_equal(gpr[RAX], 0);
    msr(guest, 0x10, false, 0);
    assert_int_not_equal(gpr[RAX], 0);
    assert_int_equal(vcpu->events, 4);
    msr(guest, 0x17, true, 0); /* can only be read, whatever is written */
    msr(guest, 0x34, true, 0);
    msr(guest, 0x79, false, 0); /* can only be written */
    assert_int_equal(vcpu->events, 7);
    gpr[RAX] = 0xfee00100 | UINT64_C(0xdead) << 32; /* EDX:EAX, whatever is above them */
    gpr[RDX] = UINT64_C(0xbeef) << 32;
    make_exit(guest, (struct vm_exit){
                         .kind = VM_EXIT_MSR, .length = 2, .msr = {.index = 0x1b, .write = true}});
    assert_int_equal(vcpu->events, 7);
    make_exit(guest, (struct vm_exit){.kind = VM_EXIT_MSR, .length = 2, .msr = {.index = 0x1a0}});
    assert_int_equal(gpr[RAX], BIT(0) | BIT(11) | BIT(12));
    assert_int_equal(gpr[RDX], 0);
    finish(guest);
}

static void made_by(const char *name, uint32_t leaf, uint32_t out[4])
{
    memset(out, 0, 16);
    if (leaf == 0)
        memcpy(&out[1], name, 4);
}

static void made_by_amd(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    (void)subleaf;
    made_by("Auth", leaf, out);
}

static void made_by_intel(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    (void)subleaf;
    made_by("Genu", leaf, out);
}

/* AMD's CPUs have them whatever CPUID tells, and no other has. */
static void msrs_of_amd(void **state)
{
    struct guest *guest = make("msr mem=1M");
    struct fake_vcpu *vcpu = fake_of(guest);

    (void)state;
    machine_cpuid = made_by_intel;
    msr(guest, 0xc0010000, false, 0);
    msr(guest, 0xc0010015, false, 0);
    assert_int_equal(vcpu->events, 2);
    machine_cpuid = made_by_amd;
    for (uint32_t index = 0xc0010000; index < 0xc0010008; index++) { /* counters that stand still */
        msr(guest, index, true, 0x430076);
        msr(guest, index, false, 77);
        assert_int_equal(vcpu->vcpu.gpr[RAX], 0);
    }
    msr(guest, 0xc0010015, false, 0); /* HWCR: the TSC counts at P0 */
    assert_int_equal(vcpu->vcpu.gpr[RAX], BIT(24));
    msr(guest, 0xc0010055, false, 77); /* Linux reads it on family 0Fh */
    assert_int_equal(vcpu->vcpu.gpr[RAX], 0);
    assert_int_equal(vcpu->events, 2);
    msr(guest, 0xc0010008, false, 0);
    msr(guest, 0xc0010014, true, 0);
    assert_int_equal(vcpu->events, 4);
    finish(guest);
}

/* A device is no place for code, nor for tables. */
static void lost_in_a_device(void **state)
{
    struct guest *guest = make("lost pc mem=2M");
    struct vm_exit exit = memory_exit(0xfec00010, RIGHT_R, 0);

    (void)state;
    exit.memory.walk = true;
    make_exit(guest, exit);
    assert_int_equal(guest->state, GUEST_STOPPED);
    assert_non_null(strstr(guest->reason, "page tables in a device (I/O APIC at GPA 0xfec00010)"));
    guest = make("astray pc mem=2M");
    make_exit(guest, memory_exit(0xfed00000, RIGHT_X, 0));
    assert_int_equal(guest->state, GUEST_STOPPED);
    assert_non_null(strstr(guest->reason, "code in a device (HPET at GPA 0xfed00000)"));
}

static void all_features(uint32_t leaf, uint32_t subleaf, uint32_t result[4])
{
    memset(result, 0xff, 16);
    if (leaf == 0) {
        result[0] = 0x20;
        memcpy(&result[1], "Genu", 4);
    } else if (leaf == 0x80000000) {
        result[0] = 0x80000020;
    } else if (leaf == 0x80000008) {
        result[0] = 0x3934; /* 57 linear, 52 physical */
    } else if (leaf == 0xd && subleaf >= 2) {
        result[0] = 64; /* bytes of the component, and their offset */
        result[1] = 576 + 64 * (subleaf - 2);
    }
}

static void cpuid(struct guest *guest, uint32_t leaf, uint32_t subleaf)
{
    guest->vcpu->gpr[RAX] = leaf | UINT64_C(0xdead) << 32;
    guest->vcpu->gpr[RCX] = subleaf;
    make_exit(guest, (struct vm_exit){.kind = VM_EXIT_CPUID, .length = 2});
}

static void cpuid_policy(void **state)
{
    struct guest *guest = make("cpuid mem=1M");
    uint64_t *gpr = guest->vcpu->gpr;
    char text[13] = "";
    uint32_t word;

    (void)state;
    machine_cpuid = all_features;
    cpuid(guest, 0, 0);
    assert_int_equal(gpr[RAX], 0x16);
    assert_memory_equal(&gpr[RBX], "Genu", 4);
    cpuid(guest, 1, 0);
    assert_int_equal(gpr[RBX], 0x0001ff00); /* one CPU, APIC ID 0 */
    assert_true(gpr[RCX] & BIT(31));        /* a hypervisor is present */
    assert_int_equal(
        gpr[RCX] & (BIT(3) | BIT(5) | BIT(6) | BIT(21) | BIT(24) | BIT(26) | BIT(27) | BIT(28)),
        0); /* MONITOR VMX SMX x2APIC deadline XSAVE OSXSAVE AVX */
    assert_int_equal(gpr[RDX] & (BIT(7) | BIT(9) | BIT(12) | BIT(14) | BIT(28)), 0);
    assert_true(gpr[RDX] & BIT(6));
    cpuid(guest, 4, 0);
    assert_int_equal(gpr[RAX] >> 14, 0);
    cpuid(guest, 7, 0);
    assert_int_equal(gpr[RBX] & (BIT(5) | BIT(10) | BIT(14) | BIT(16)), 0);
    assert_true(gpr[RBX] & BIT(7));
    assert_int_equal(gpr[RAX], 0);
    cpuid(guest, 7, 1);
    assert_int_equal(gpr[RAX] | gpr[RBX] | gpr[RCX] | gpr[RDX], 0);
    cpuid(guest, 0xd, 0);
    assert_int_equal(gpr[RAX] | gpr[RBX] | gpr[RCX] | gpr[RDX], 0);
    cpuid(guest, 0xb, 0);
    assert_int_equal(gpr[RAX] | gpr[RBX] | gpr[RCX] | gpr[RDX], 0);
    cpuid(guest, 0x40000000, 0);
    assert_int_equal(gpr[RAX], 0x40000001);
    for (unsigned i = 0; i < 3; i++) {
        word = (uint32_t)gpr[i == 0 ? RBX : i == 1 ? RCX : RDX];
        memcpy(text + 4 * i, &word, 4);
    }
    assert_string_equal(text, QUIRE_CPUID_TEXT);
    cpuid(guest, 0x40000001, 0);
    assert_int_equal(gpr[RAX], QUIRE_ABI_VERSION);
    assert_int_equal(gpr[RBX], guest->number);
    cpuid(guest, 0x80000000, 0);
    assert_int_equal(gpr[RAX], 0x80000008);
    cpuid(guest, 0x80000001, 0);
    assert_int_equal(gpr[RCX] & BIT(2), 0); /* SVM */
    assert_int_equal(gpr[RDX] & BIT(27), 0);
    assert_true(gpr[RDX] & BIT(29));
    assert_int_equal(gpr[RDX] & BIT(11), 0); /* SYSCALL is one of 64-bit mode's instructions */
    fake_of(guest)->state.efer |= BIT(10);
    fake_of(guest)->state.segment[SEG_CS].access |= BIT(13);
    cpuid(guest, 0x80000001, 0);
    assert_true(gpr[RDX] & BIT(11));
    cpuid(guest, 0x80000008, 0);
    assert_int_equal(gpr[RAX], 48 << 8 | 48); /* no wider than a 4-level EPT maps */
    /* Beyond the last leaf: as the highest basic one. */
    cpuid(guest, 0x80000009, 0);
    assert_int_equal(gpr[RAX], UINT32_MAX);
    cpuid(guest, 0x17, 0);
    assert_int_equal(gpr[RAX], UINT32_MAX);
    finish(guest);
}

/* XSAVE and all that hangs on it come and go with the components that the backend switches. */
static void cpuid_xsave(void **state)
{
    static const struct {
        uint64_t mask;
        bool xsave, avx, avx512;
        uint32_t size;
    } cases[] = {
        {0, false, false, false, 0},
        {0x3, true, false, false, 576},
        {0x7, true, true, false, 640},
        {0x27, true, true, false, 832}, /* a part of AVX-512 is none of it */
        {0xe7, true, true, true, 960},
    };
    struct guest *guest = make("xsave mem=1M");
    uint64_t *gpr = guest->vcpu->gpr;

    (void)state;
    machine_cpuid = all_features;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        machine_xcr0_mask = cases[i].mask;
        cpuid(guest, 1, 0);
        assert_int_equal(gpr[RCX] >> 26 & 1, cases[i].xsave);
        assert_int_equal(gpr[RCX] >> 27 & 1, 0); /* CR4.OSXSAVE is clear */
        assert_int_equal(gpr[RCX] >> 28 & 1, cases[i].avx);
        assert_int_equal(gpr[RCX] >> 12 & 1, cases[i].avx);
        fake_of(guest)->state.cr4 |= BIT(18);
        cpuid(guest, 1, 0);
        assert_int_equal(gpr[RCX] >> 27 & 1, cases[i].xsave);
        fake_of(guest)->state.cr4 &= ~BIT(18);
        cpuid(guest, 7, 0);
        assert_int_equal(gpr[RBX] >> 5 & 1, cases[i].avx);
        assert_int_equal(gpr[RBX] >> 16 & 1, cases[i].avx512);
        assert_int_equal(gpr[RCX] >> 9 & 1, cases[i].avx);
        assert_int_equal(gpr[RCX] >> 11 & 1, cases[i].avx512);
        cpuid(guest, 0xd, 0);
        assert_int_equal(gpr[RAX], cases[i].mask);
        assert_int_equal(gpr[RCX], cases[i].size);
        cpuid(guest, 0xd, 1);
        assert_int_equal(gpr[RAX], cases[i].xsave ? 7 : 0); /* never XSAVES */
        assert_int_equal(gpr[RCX] | gpr[RDX], 0);
        /* What is enabled now, in the standard format and in the compacted one, where each of the
         * test's components begins at a multiple of 64. */
        for (uint64_t enabled = 1; enabled <= cases[i].mask; enabled++) {
            uint64_t high = enabled & ~UINT64_C(3);
            unsigned last = high ? 63 - (unsigned)__builtin_clzll(high) : 1;

            if (enabled & ~cases[i].mask)
                continue;
            fake_of(guest)->state.xcr0 = enabled;
            cpuid(guest, 0xd, 0);
            assert_int_equal(gpr[RBX], 576 + 64 * (last - 1));
            assert_true(gpr[RBX] <= gpr[RCX]);
            cpuid(guest, 0xd, 1);
            assert_int_equal(gpr[RBX], 576 + 64 * __builtin_popcountll(high));
        }
        cpuid(guest, 0xd, 9); /* PKRU, which no case has */
        assert_int_equal(gpr[RAX] | gpr[RBX] | gpr[RCX] | gpr[RDX], 0);
    }
    finish(guest);
}

/* --- ports --- */

static void text_out(struct guest *guest, const char *text, uint16_t port)
{
    while (*text != '\0')
        out(guest, port, 1, (uint8_t)*text++);
}

static void output(void **state)
{
    struct guest *guest = make("talker mem=1M");
    char line[64];

    (void)state;
    text_out(guest, "by serial\r\n", 0x3f8);
    text_out(guest, "by debug port\n", QUIRE_PORT_DEBUG);
    text_out(guest, "\033[2J\ttab\n\n", QUIRE_PORT_DEBUG);
    text_out(guest, "no newline", QUIRE_PORT_DEBUG);
    snprintf(line, sizeof(line), "[g%u talker] by serial\n", guest->number);
    expect_log(line);
    expect_log("] by debug port\n");
    expect_log("] .[2J tab\n"); /* nothing that a terminal would obey */
    assert_null(strstr(machine_log(), "no newline"));
    finish(guest);
    expect_log("] no newline\n");
    assert_memory_equal(guest->output, "by serial\r\nby debug port\n\033[2J\ttab\n\nno newline",
                        guest->output_total);
}

/* A prompt is shown though its line goes on, and whole once it has ended. */
static void unfinished_output(void **state)
{
    struct guest *guest = make("asker mem=1M");

    (void)state;
    text_out(guest, "name? ", QUIRE_PORT_DEBUG);
    guests_show_unfinished(UINT64_MAX);
    assert_null(strstr(machine_log(), "name?"));
    guests_show_unfinished(0);
    expect_log("asker] name? \r");
    machine_forget_log();
    guests_show_unfinished(0);
    assert_null(strstr(machine_log(), "name?"));
    text_out(guest, "bob", QUIRE_PORT_DEBUG);
    guests_show_unfinished(0);
    expect_log("asker] name? bob\r");
    text_out(guest, "\n", QUIRE_PORT_DEBUG);
    expect_log("asker] name? bob\n");
    finish(guest);
}

static void long_output(void **state)
{
    struct guest *guest = make("endless mem=1M");

    (void)state;
    for (unsigned i = 0; i < 10000; i++)
        guest_putc(guest, 'x');
    assert_int_equal(guest->output_total, 10000);
    assert_true(guest->line_length <= sizeof(guest->line));
    finish(guest);
}

static void serial_port(void **state)
{
    struct guest *guest = make("serial mem=1M");
    char many[300];

    (void)state;
    assert_int_equal(in(guest, 0x3fd, 1) & 0xff, 0x60); /* ready to transmit, nothing received */
    assert_int_equal(guest_input(guest, "hi", 2), 2);
    assert_int_equal(in(guest, 0x3fd, 1) & 0xff, 0x61);
    assert_int_equal(in(guest, 0x3f8, 1) & 0xff, 'h');
    assert_int_equal(in(guest, 0x3f8, 1) & 0xff, 'i');
    assert_int_equal(in(guest, 0x3fd, 1) & 0xff, 0x60);
    /* More than the receiver holds: the sender is told. */
    memset(many, 'm', sizeof(many));
    assert_int_equal(guest_input(guest, many, sizeof(many)), SERIAL_INPUT);
    assert_int_equal(guest_input(guest, many, 1), 0);
    out(guest, 0x3fa, 1, 0x07); /* FIFOs on and cleared */
    assert_int_equal(in(guest, 0x3fd, 1) & 0xff, 0x60);
    assert_int_equal(in(guest, 0x3fa, 1) & 0xff, 0xc1);
    /* The divisor hides data and interrupt enable. */
    out(guest, 0x3fb, 1, 0x83);
    out(guest, 0x3f8, 1, 0x01);
    out(guest, 0x3f9, 1, 0x00);
    assert_int_equal(in(guest, 0x3f8, 1) & 0xff, 0x01);
    out(guest, 0x3fb, 1, 0x03);
    assert_int_equal(guest->output_total, 0);
    /* "Transmitter empty" is pending once it is enabled, and acknowledged by reading. */
    out(guest, 0x3f9, 1, 0x02);
    assert_int_equal(in(guest, 0x3fa, 1) & 0xff, 0xc2);
    assert_int_equal(in(guest, 0x3fa, 1) & 0xff, 0xc1);
    out(guest, 0x3f9, 1, 0x01);
    guest_input(guest, "x", 1);
    assert_int_equal(in(guest, 0x3fa, 1) & 0xff, 0xc4);
    in(guest, 0x3f8, 1);
    /* Loop-back: what is sent arrives, and nobody else sees it. */
    out(guest, 0x3fc, 1, 0x1b);
    assert_int_equal(in(guest, 0x3fe, 1) & 0xf0, 0xb0); /* DTR, RTS and OUT2 come back */
    out(guest, 0x3f8, 1, 'L');
    assert_int_equal(in(guest, 0x3f8, 1) & 0xff, 'L');
    assert_int_equal(guest->output_total, 0);
    out(guest, 0x3ff, 1, 0x5a);
    assert_int_equal(in(guest, 0x3ff, 1) & 0xff, 0x5a);
    finish(guest);
}

static void widths(void **state)
{
    struct guest *guest = make("wide mem=1M");

    (void)state;
    /* IN merges into RAX by its width. */
    guest->vcpu->gpr[RAX] = UINT64_C(0x1122334455667788);
    assert_int_equal(in(guest, 0x3fd, 1), UINT64_C(0x1122334455667760));
    assert_int_equal(in(guest, 0x1234, 2), UINT64_C(0x112233445566ffff));
    assert_int_equal(in(guest, 0x1234, 4), UINT64_C(0xffffffff));
    /* A word at a byte device is two bytes. */
    out(guest, 0xe8, 2, 'B' << 8 | 'A');
    assert_int_equal(guest->output_total, 1);
    assert_int_equal(guest->output[0], 'B');
    /* The last port has no neighbour to spill into. */
    assert_int_equal(in(guest, 0xffff, 1) & 0xff, 0xff);
    assert_int_equal(in(guest, 0xffff, 2) & 0xffff, 0xffff);
    assert_true(guest->devices.unclaimed > 0);
    assert_string_equal(port_name(0x3f8), "serial");
    assert_null(port_name(0x1234));
    finish(guest);
}

/* Everything that a PC's boot code does to the chipset before it looks at anything else. */
static void harmless_devices(void **state)
{
    struct guest *guest = make("pc mem=32M");
    uint64_t first, second;

    (void)state;
    out(guest, 0x20, 1, 0x11);
    out(guest, 0x21, 1, 0x20);
    out(guest, 0x21, 1, 0x04);
    out(guest, 0x21, 1, 0x01);
    out(guest, 0x21, 1, 0xfb);
    assert_int_equal(in(guest, 0x21, 1) & 0xff, 0xfb);
    assert_int_equal(in(guest, 0xa1, 1) & 0xff, 0xff);
    assert_int_equal(in(guest, 0x20, 1) & 0xff, 0);
    /* CMOS: memory sizes, a valid clock. */
    out(guest, 0x70, 1, 0x80 | 0x34);
    assert_int_equal(in(guest, 0x71, 1) & 0xff, 0x00);
    out(guest, 0x70, 1, 0x35);
    assert_int_equal(in(guest, 0x71, 1) & 0xff, 0x01);
    out(guest, 0x70, 1, 0x0d);
    assert_int_equal(in(guest, 0x71, 1) & 0xff, 0x80);
    /* PIT: a count goes down, and a wait for its output ends. */
    out(guest, 0x43, 1, 0x34);
    out(guest, 0x40, 1, 0xff);
    out(guest, 0x40, 1, 0xff);
    out(guest, 0x43, 1, 0x00);
    first = in(guest, 0x40, 1) & 0xff;
    first |= (in(guest, 0x40, 1) & 0xff) << 8;
    out(guest, 0x43, 1, 0x00);
    second = in(guest, 0x40, 1) & 0xff;
    second |= (in(guest, 0x40, 1) & 0xff) << 8;
    assert_true(second < first);
    out(guest, 0x61, 1, 0x01);
    out(guest, 0x43, 1, 0xb0);
    out(guest, 0x42, 1, 0x10);
    out(guest, 0x42, 1, 0x00);
    for (unsigned i = 0; !(in(guest, 0x61, 1) & 0x20); i++)
        assert_true(i < 1000);
    /* Keyboard: ready for commands, self-test passes, A20 open. */
    assert_int_equal(in(guest, 0x64, 1) & 0x03, 0);
    out(guest, 0x64, 1, 0xaa);
    assert_int_equal(in(guest, 0x64, 1) & 0x01, 1);
    assert_int_equal(in(guest, 0x60, 1) & 0xff, 0x55);
    assert_int_equal(in(guest, 0x64, 1) & 0x01, 0);
    out(guest, 0x64, 1, 0xd0);
    assert_int_equal(in(guest, 0x60, 1) & 0x02, 0x02);
    assert_int_equal(in(guest, 0x92, 1) & 0x02, 0x02);
    /* No PCI device; the delay port takes anything; the host's exits are out of reach. */
    out(guest, 0xcf8, 4, 0x80000800);
    assert_int_equal(in(guest, 0xcfc, 4), UINT32_MAX);
    out(guest, 0x80, 1, 1);
    out(guest, 0x8a00, 2, 0x8a00);
    out(guest, 0xf4, 4, 0);
    assert_int_equal(guest->state, GUEST_RUNNING);
    finish(guest);
}

static void resets(void **state)
{
    static const struct {
        uint16_t port;
        uint8_t value;
    } ways[] = {{0x64, 0xfe}, {0x92, 0x01}, {0xcf9, 0x06}};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(ways); i++) {
        struct guest *guest = make("reset mem=1M");

        out(guest, ways[i].port, 1, ways[i].value);
        assert_int_equal(guest->state, GUEST_STOPPED);
        expect_log("the guest asked for a reset of its machine");
    }
}

/* The bus splits what no device takes whole; behind the last port there is none. */
static void port_widths(void **state)
{
    static const struct {
        uint16_t port;
        uint8_t width;
    } pieces[] = {{0x510, 1}, {0x510, 2}, {0x511, 1}, {0x513, 1}, {0x50f, 2},
                  {0x50d, 4}, {0x50e, 4}, {0x511, 4}, {0x512, 2}, {0x513, 4},
                  {0xcf8, 2}, {0xcf9, 2}, {0xcf9, 4}, {0xcf7, 4}};
    struct guest *guest = make("widths mem=1M");

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(pieces); i++) {
        out(guest, pieces[i].port, pieces[i].width, UINT32_MAX);
        assert_int_equal(in(guest, pieces[i].port, pieces[i].width), UINT32_MAX);
        assert_int_equal(guest->state, GUEST_RUNNING);
    }
    /* Each byte to its own register. */
    out(guest, 0x3f9, 4, 0x05030201);
    assert_int_equal(in(guest, 0x3f9, 1) & 0xff, 0x01);
    assert_int_equal(in(guest, 0x3fb, 1) & 0xff, 0x03);
    assert_int_equal(in(guest, 0x3fc, 1) & 0xff, 0x05);
    assert_int_equal(in(guest, 0x3fb, 2) & 0xffff, 0x0503);
    out(guest, 0x3fe, 4, 0xffffa5ff);
    assert_int_equal(in(guest, 0x3ff, 1) & 0xff, 0xa5);
    assert_int_equal(in(guest, 0xe8, 4), 0xffffe9ff);
    /* Port 0xffff and none behind it. */
    out(guest, 0x21, 1, 0x12);
    assert_int_equal(in(guest, 0xffff, 4), UINT32_MAX);
    out(guest, 0x3fb, 1, 3);
    out(guest, 0xffff, 2, 0);
    /* A piece reaches the keyboard controller, as on a PC. */
    out(guest, 0x63, 2, 0xfe00);
    assert_int_equal(guest->state, GUEST_STOPPED);
}

/* --- string I/O --- */

static struct vm_exit string_exit(bool input, unsigned width, bool rep, unsigned address_bytes,
                                  uint16_t port, uint64_t base)
{
    machine_base = base;
    return (struct vm_exit){.kind = VM_EXIT_PORT,
                            .length = 2,
                            .port = {.port = port,
                                     .width = width,
                                     .in = input,
                                     .string = true,
                                     .rep = rep,
                                     .address_bytes = address_bytes}};
}

static void string_output(void **state)
{
    struct guest *guest = make("strings mem=1M");
    struct fake_vcpu *vcpu = fake_of(guest);
    uint64_t *gpr = vcpu->vcpu.gpr;

    (void)state;
    slots_place(guest, gpa(0x10000), "forwards\n", 9);
    gpr[RSI] = UINT64_C(0xaaaa00000000);
    gpr[RCX] = UINT64_C(0xbbbb00000009);
    make_exit(guest, string_exit(false, 1, true, 2, QUIRE_PORT_DEBUG, 0x10000));
    expect_log("] forwards\n");
    /* A 16-bit address size moves SI and CX alone. */
    assert_int_equal(gpr[RSI], UINT64_C(0xaaaa00000009));
    assert_int_equal(gpr[RCX], UINT64_C(0xbbbb00000000));
    assert_int_equal(vcpu->state.rip, 0x7c02);
    /* Backwards. */
    slots_place(guest, gpa(0x10000), "\nsdrawkcab", 10);
    vcpu->state.rflags |= BIT(10);
    gpr[RSI] = 9;
    gpr[RCX] = 10;
    make_exit(guest, string_exit(false, 1, true, 4, QUIRE_PORT_DEBUG, 0x10000));
    expect_log("] backwards\n");
    assert_int_equal(gpr[RSI], UINT32_MAX);
    vcpu->state.rflags &= ~BIT(10);
    /* Once, without REP: RCX is nobody's business. */
    slots_place(guest, gpa(0x10000), "1\n", 2);
    gpr[RCX] = 77;
    gpr[RSI] = 0;
    make_exit(guest, string_exit(false, 1, false, 4, QUIRE_PORT_DEBUG, 0x10000));
    assert_int_equal(gpr[RCX], 77);
    assert_int_equal(gpr[RSI], 1);
    /* Nothing to do. */
    gpr[RCX] = 0;
    make_exit(guest, string_exit(false, 1, true, 4, QUIRE_PORT_DEBUG, 0x10000));
    assert_int_equal(gpr[RSI], 1);
    finish(guest);
}

/* The offset wraps within its segment, and with it the address. */
static void string_wraps(void **state)
{
    struct guest *guest = make("wrap mem=1M");
    uint64_t *gpr = guest->vcpu->gpr;

    (void)state;
    slots_place(guest, gpa(0x1ffff), "w", 1);
    slots_place(guest, gpa(0x10000), "rap\n", 4);
    gpr[RSI] = 0xffff;
    gpr[RCX] = 5;
    make_exit(guest, string_exit(false, 1, true, 2, QUIRE_PORT_DEBUG, 0x10000));
    expect_log("] wrap\n");
    assert_int_equal(gpr[RSI], 4);
    finish(guest);
}

static void string_input(void **state)
{
    struct guest *guest = make("reader lazy mem=4M rom=2M+4K");
    uint64_t *gpr = guest->vcpu->gpr;
    char text[6] = "";

    (void)state;
    guest_input(guest, "hello", 5);
    gpr[RDI] = MiB;
    gpr[RCX] = 5;
    make_exit(guest, string_exit(true, 1, true, 8, 0x3f8, 0)); /* its frame arrives */
    assert_int_equal(gpr[RCX], 5);
    assert_int_equal(fake_of(guest)->retries, 1);
    make_exit(guest, string_exit(true, 1, true, 8, 0x3f8, 0));
    assert_int_equal(guest_read(guest, gpa(MiB), text, 5), 5);
    assert_string_equal(text, "hello");
    assert_int_equal(gpr[RDI], MiB + 5);
    /* What the guest may not write, INS does not write for it. */
    guest_input(guest, "x", 1);
    gpr[RDI] = 2 * MiB;
    make_exit(guest, string_exit(true, 1, false, 8, 0x3f8, 0));
    assert_int_equal(guest->state, GUEST_STOPPED);
    expect_log("reader: stopped: write to GPA 0x200000: ROM at 0x200000+4K, at RIP");
    expect_log("(GVA 0x200000) at RIP");
}

/* A long transfer ends with the guest's turn, and goes on in its next: the instruction is not
 * passed before all of it is done. */
static void string_in_bursts(void **state)
{
    struct guest *guest = make("long mem=1M");
    struct fake_vcpu *vcpu = fake_of(guest);
    uint64_t *gpr = vcpu->vcpu.gpr;
    unsigned exits = 0;

    (void)state;
    gpr[RSI] = 0;
    gpr[RCX] = 0x20000;
    while (vcpu->state.rip == 0x7c00) {
        make_exit(guest, string_exit(false, 1, true, 4, QUIRE_PORT_DEBUG, 0x10000));
        exits++;
        assert_true(exits < 100);
    }
    assert_true(exits > 1);
    assert_int_equal(guest->output_total, 0x20000);
    assert_int_equal(gpr[RCX], 0);
    finish(guest);
}

/* The operand is memory that the guest's own tables give it, and that is none. */
static void string_from_nowhere(void **state)
{
    struct guest *guest = make("lost mem=1M");

    (void)state;
    guest->vcpu->gpr[RSI] = 0xe;
    guest->vcpu->gpr[RCX] = 2;
    make_exit(guest, string_exit(false, 4, true, 4, QUIRE_PORT_DEBUG, 0x9fff0));
    assert_int_equal(guest->state, GUEST_STOPPED);
    expect_log("lost: stopped: read of GPA 0xa0000: no memory (hole 0xa0000..");
}

/* What the guest's own tables refuse is the guest's own page fault, after the elements before it.
 */
static void string_page_faults(void **state)
{
    struct guest *guest = make("fault mem=1M");
    struct fake_vcpu *vcpu = fake_of(guest);
    uint64_t *gpr = vcpu->vcpu.gpr;

    (void)state;
    machine_unmapped = 0x20000;
    gpr[RSI] = 0xfffa;
    gpr[RCX] = 9;
    make_exit(guest, string_exit(false, 2, true, 8, QUIRE_PORT_DEBUG, 0x10000));
    assert_int_equal(guest->state, GUEST_RUNNING);
    assert_int_equal(gpr[RCX], 6);
    assert_int_equal(gpr[RSI], 0x10000);
    assert_int_equal(vcpu->state.rip, 0x7c00); /* to be done again */
    assert_int_equal(vcpu->events, 1);
    assert_int_equal(vcpu->event.vector, 14);
    assert_int_equal(vcpu->event.code, 0); /* a read, not present, supervisor */
    assert_int_equal(vcpu->state.cr2, 0x20000);

    /* The second half of an element counts, too: nothing of it is done. */
    gpr[RSI] = 0xffff;
    gpr[RCX] = 1;
    make_exit(guest, string_exit(false, 2, true, 8, QUIRE_PORT_DEBUG, 0x10000));
    assert_int_equal(vcpu->events, 2);
    assert_int_equal(gpr[RCX], 1);
    assert_int_equal(vcpu->state.cr2, 0x20000);

    /* A refused write leaves the byte in the device. */
    machine_read_only = 0x18000;
    vcpu->state.segment[SEG_SS].access |= 3 << 5;
    guest_input(guest, "k", 1);
    gpr[RDI] = 0x18000;
    make_exit(guest, string_exit(true, 1, false, 8, 0x3f8, 0));
    assert_int_equal(vcpu->events, 3);
    assert_int_equal(vcpu->event.code, 7); /* present, write, user */
    assert_int_equal(vcpu->state.cr2, 0x18000);
    assert_int_equal(in(guest, 0x3f8, 1) & 0xff, 'k');
    finish(guest);
}

/* With a trap due after each instruction the guest is resumed after each element; one that cannot
 * be done yet is tried again. */
static void string_by_steps(void **state)
{
    struct guest *guest = make("steps lazy mem=4M");
    struct fake_vcpu *vcpu = fake_of(guest);
    uint64_t *gpr = vcpu->vcpu.gpr;

    (void)state;
    vcpu->state.rflags |= BIT(8); /* TF */
    gpr[RDI] = MiB - 2;
    gpr[RCX] = 3;
    for (unsigned left = 3; left > 0; left--) {
        uint64_t rip = vcpu->state.rip;

        make_exit(guest, string_exit(true, 1, true, 8, QUIRE_PORT_DEBUG, 0x100001));
        if (gpr[RCX] == left) {                   /* its frame has arrived */
            assert_in_range(vcpu->retries, 1, 2); /* the operands lie in two pages */
            make_exit(guest, string_exit(true, 1, true, 8, QUIRE_PORT_DEBUG, 0x100001));
        }
        assert_int_equal(gpr[RCX], left - 1);
        assert_int_equal(vcpu->noted, QUIRE_PORT_DEBUG + 1);
        assert_int_equal(vcpu->state.rip, left == 1 ? rip + 2 : rip);
    }
    /* And HLT does not halt. */
    make_exit(guest, (struct vm_exit){.kind = VM_EXIT_HALT, .length = 1});
    assert_int_equal(guest->state, GUEST_RUNNING);
    assert_false(guest->cpu[0].is.halted);
    finish(guest);
}

/* --- a CPU that does anything --- */

static struct random chaos;

static uint64_t any_address(void)
{
    static const uint64_t edges[] = {
        0,         0x7c00,     0x9ffff,           0xa0000,    0xfffff,
        0x100000,  0x1fffff,   0x200000,          0x20ffff,   0x210000,
        0x3ffffff, 0xfee00000, UINT64_C(1) << 47, UINT64_MAX, 0xfffff000};
    uint64_t address = edges[random_below(&chaos, ARRAY_SIZE(edges))];

    return random_below(&chaos, 4) == 0 ? random_next(&chaos)
                                        : address + random_below(&chaos, 0x3000) - 0x1800;
}

static void any_exit(struct fake_vcpu *vcpu, struct vm_exit *exit)
{
    static const uint16_t ports[] = {0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3ff, 0xe9,  0x40,
                                     0x42,  0x43,  0x61,  0x60,  0x64,  0x70,  0x71,  0x20,  0x21,
                                     0xa1,  0x92,  0xcf8, 0xcf9, 0xcfc, 0x510, 0x50e, 0xffff};
    uint64_t *gpr = vcpu->vcpu.gpr;

    for (unsigned i = 0; i < GPR_COUNT; i++) {
        if (random_below(&chaos, 2) == 0)
            gpr[i] = any_address();
    }
    gpr[RCX] &= 0xffff;
    exit->kind = (enum vm_exit_kind)random_below(&chaos, VM_EXIT_COUNT + 1);
    exit->name = "anything";
    exit->length = (unsigned)random_below(&chaos, 16);
    switch (exit->kind) {
    case VM_EXIT_MEMORY:
    case VM_EXIT_MISCONFIG:
        exit->memory.gpa = gpa(any_address());
        exit->memory.gva_valid = random_below(&chaos, 2);
        exit->memory.access = 1u << random_below(&chaos, 3);
        break;
    case VM_EXIT_PORT:
        exit->port.port = random_below(&chaos, 8) == 0
                              ? (uint16_t)random_next(&chaos)
                              : ports[random_below(&chaos, ARRAY_SIZE(ports))];
        exit->port.width = (uint8_t)(1u << random_below(&chaos, 3));
        exit->port.in = random_below(&chaos, 2);
        exit->port.string = random_below(&chaos, 3) == 0;
        exit->port.rep = random_below(&chaos, 2);
        exit->port.address_bytes = (uint8_t)(2u << random_below(&chaos, 3));
        machine_base = any_address();
        exit->port.segment = SEG_DS;
        break;
    case VM_EXIT_MSR:
        exit->msr.index =
            (uint32_t)(random_below(&chaos, 2) ? random_below(&chaos, 0x800) : random_next(&chaos));
        exit->msr.write = random_below(&chaos, 2);
        break;
    case VM_EXIT_HYPERCALL:
        gpr[RAX] = QUIRE_HC_PASS + random_below(&chaos, 8);
        break;
    case VM_EXIT_CPUID:
        gpr[RAX] = random_below(&chaos, 3) * 0x40000000 + random_below(&chaos, 0x20);
        break;
    default:
        break;
    }
}

/* Whatever guests do, the host stands, keeps its books, and gets everything back. */
static void anything_goes(void **state)
{
    static const char *const options[] = {
        "lazy lazy mem=64M rom=2M+64K xo=0x210000+4K",
        "eager mem=4M nox=2M+64K hole=0x300000+4K",
        "tight lazy mem=64M quota=300K",
        "small mem=1M ram=0xb8000+32K",
    };
    struct guest *guest[ARRAY_SIZE(options)];
    unsigned lives = 0;

    (void)state;
    chaos = (struct random){99};
    machine_cpuid = all_features;
    machine_xcr0_mask = 7;
    machine_unmapped = UINT64_C(1) << 40;
    for (unsigned i = 0; i < ARRAY_SIZE(options); i++)
        guest[i] = make(options[i]);
    machine_cpu = any_exit;
    for (unsigned round = 0; round < 4000; round++) {
        guests_round();
        for (unsigned i = 0; i < ARRAY_SIZE(options); i++) {
            if (guest[i]->state == GUEST_HALTED || random_below(&chaos, 50) == 0)
                guest_kill(guest[i]);
            if (!guest_ended(guest[i]))
                continue;
            assert_int_equal(buddy_owner_frames(guest_owner(guest[i])), 0);
            assert_true(guest[i]->reason[0] != '\0' || guest[i]->state == GUEST_KILLED);
            assert_int_equal(guest_start(guest[i]), E_OK);
            lives++;
        }
        machine_forget_log();
    }
    assert_true(lives > 2000);
    for (unsigned i = 0; i < ARRAY_SIZE(options); i++)
        finish(guest[i]);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(born_and_killed),
        TEST(made_anew),
        TEST(born_paused),
        TEST(a_pause_is_not_seen),
        TEST(slices_are_fair),
        TEST(exits_use_up_the_slice),
        TEST(verdicts),
        TEST(refused),
        TEST(without_backend),
        TEST(modules_in_groups),
        TEST(list_of_guests_fills_up),
        TEST(halting),
        TEST(stopping_exits),
        TEST(short_reports),
        TEST(lazy_memory_is_filled),
        TEST(cpu_that_will_not_see),
        TEST(audit_cut_short),
        TEST(no_frame_for_lazy_memory),
        TEST(faults_that_stop),
        TEST(a_pc_is_told_of_its_option),
        TEST(fault_expected),
        TEST(faults_expected_without_end),
        TEST(misconfigured),
        TEST(hypercalls),
        TEST(yielding),
        TEST(lost_in_a_device),
        TEST(msrs),
        TEST(msrs_of_amd),
        TEST(cpuid_policy),
        TEST(cpuid_xsave),
        TEST(output),
        TEST(unfinished_output),
        TEST(long_output),
        TEST(serial_port),
        TEST(widths),
        TEST(harmless_devices),
        TEST(resets),
        TEST(port_widths),
        TEST(string_output),
        TEST(string_wraps),
        TEST(string_input),
        TEST(string_in_bursts),
        TEST(string_from_nowhere),
        TEST(string_page_faults),
        TEST(string_by_steps),
        TEST(anything_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
