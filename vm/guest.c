/* See vm/guest.h. Making, starting, pausing and ending guests. */
#include "vm/guest.h"

#include "lib/bits.h"
#include "lib/error.h"
#include "lib/log.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "vm/device.h"
#include "vm/dirty.h"
#include "vm/disk.h"
#include "vm/guest_audit.h"
#include "vm/guest_load.h"
#include "vm/interrupts.h"
#include "vm/lapic.h"
#include "vm/quota.h"
#include "vm/saved.h"
#include "vm/sched.h"
#include "vm/slots.h"
#include "vm/snapshot.h"

static struct {
    const struct vm_backend *backend;
    const char *why_not;
    struct guest *guest[GUEST_LIMIT]; /* gN is guest[N - 1] */
    unsigned count;
} all;

void guests_init(const struct vm_backend *backend, const char *why_not)
{
    all.backend = backend;
    all.why_not = why_not;
    all.count = 0;
    devices_init();
}

const struct vm_backend *guests_backend(void)
{
    return all.backend;
}

const char *guests_why_not(void)
{
    return all.why_not;
}

unsigned guest_count(void)
{
    return all.count;
}

struct guest *guest_by_number(unsigned number)
{
    return number >= 1 && number <= all.count ? all.guest[number - 1] : NULL;
}

const char *guest_state_name(enum guest_state state)
{
    static const char *const names[] = {
        [GUEST_READY] = "ready",     [GUEST_RUNNING] = "running", [GUEST_PAUSED] = "paused",
        [GUEST_HALTED] = "halted",   [GUEST_PASSED] = "passed",   [GUEST_FAILED] = "failed",
        [GUEST_STOPPED] = "stopped", [GUEST_KILLED] = "killed",   [GUEST_REFUSED] = "refused",
    };
    return (unsigned)state < ARRAY_SIZE(names) ? names[state] : "?";
}

const char *guest_state_verb(enum guest_state state)
{
    static const char *const verbs[] = {
        [GUEST_READY] = "has not been started", [GUEST_RUNNING] = "is running",
        [GUEST_PAUSED] = "is paused",           [GUEST_HALTED] = "is halted",
        [GUEST_PASSED] = "has passed",          [GUEST_FAILED] = "has failed",
        [GUEST_STOPPED] = "was stopped",        [GUEST_KILLED] = "was killed",
        [GUEST_REFUSED] = "was refused",
    };
    return (unsigned)state < ARRAY_SIZE(verbs) ? verbs[state] : "?";
}

bool guest_ended(const struct guest *guest)
{
    return guest->state >= GUEST_PASSED;
}

bool guest_ok(const struct guest *guest)
{
    return guest_ended(guest) && guest->state == guest->expected;
}

void guest_note_frames(struct guest *guest)
{
    uint64_t frames = buddy_owner_frames(guest_owner(guest));

    if (frames > guest->frames_peak)
        guest->frames_peak = frames;
}

uint64_t guest_frames_peak(struct guest *guest)
{
    guest_note_frames(guest);
    return guest->frames_peak;
}

static enum guest_state state_expected(enum guest_expect expect)
{
    switch (expect) {
    case EXPECT_STOPPED:
        return GUEST_STOPPED;
    case EXPECT_FAILED:
        return GUEST_FAILED;
    case EXPECT_REFUSED:
        return GUEST_REFUSED;
    case EXPECT_PASS:
        break;
    }
    return GUEST_PASSED;
}

static int refuse(struct guest *guest, int error, const char *reason)
{
    if (reason != NULL)
        format_buffer(guest->reason, sizeof(guest->reason), "%s", reason);
    guest->state = GUEST_REFUSED;
    return error;
}

/* Its reason is there already. */
static int refuse_unless(struct guest *guest, int error)
{
    return error == E_OK ? E_OK : refuse(guest, error, NULL);
}

static void log_end(const struct guest *guest)
{
    switch (guest->state) {
    case GUEST_PASSED:
    case GUEST_KILLED:
        log_guest("g%u %s: %s", guest->number, guest->name, guest_state_name(guest->state));
        break;
    case GUEST_FAILED:
        log_guest("g%u %s: failed (%u): %s", guest->number, guest->name, guest->verdict,
                  guest->reason);
        break;
    default:
        log_guest("g%u %s: %s: %s", guest->number, guest->name, guest_state_name(guest->state),
                  guest->reason);
    }
}

/* An audit cannot be put off, and ends after so long: some 30,000 pages of 4 KiB, scattered. */
#define AUDIT_TICKS (16 * SLICE_TICKS)

/* The last look at a guest, and the end of its CPU. Its memory goes by and by. */
static void begin_finish(struct guest *guest, uint64_t deadline)
{
    if (deadline != UINT64_MAX)
        deadline = all.backend->ticks() + AUDIT_TICKS;
    guest_flush_output(guest);
    log_end(guest);
    screen_keep(guest);
    dirty_end(guest);
    guest_snapshot_drop(guest);
    guest->held = buddy_owner_frames(guest_owner(guest));
    guest_audit(guest, deadline);
    guest_cpus_destroy(guest);
    if (guest->has_table)
        snapshot_take(&guest->last_map, &guest->table);
    guest->release_from = guest->table.kind != NULL ? guest->table.kind->input_first : 0;
    guest->finishing = true;
}

/* Its structure and its fate stay. */
static void end_finish(struct guest *guest)
{
    owner_t owner = guest_owner(guest);
    uint64_t left;

    if (guest->has_table)
        invariant(table_destroy(&guest->table) == E_OK);
    guest->has_table = guest->finishing = false;
    buddy_set_quota(owner, UINT64_MAX);
    left = buddy_owner_frames(owner);
    if (guest->held != 0)
        log_guest("g%u %s: gave back %lu frames of %lu", guest->number, guest->name,
                  (guest->held - left), guest->held);
    invariant(left == 0);
}

bool guest_holds(const struct guest *guest)
{
    return guest_ended(guest) && (guest->has_table || guest->finishing);
}

bool guest_finish_by(struct guest *guest, uint64_t deadline)
{
    if (!guest->finishing)
        begin_finish(guest, deadline);
    if (guest->has_table && !slots_release_by(guest, deadline))
        return false;
    if (!disk_forget_by(&guest->disk, deadline))
        return false;
    end_finish(guest);
    return true;
}

void guest_finish(struct guest *guest)
{
    (void)guest_finish_by(guest, UINT64_MAX);
}

/* Without a quota of its own, what ran out is what the host leaves to guests. */
static int refuse_backing(struct guest *guest, int error)
{
    char size[SIZE_TEXT], bound[SIZE_TEXT];

    if (error == E_QUOTA && guest->options.quota != 0) {
        format_buffer(guest->reason, sizeof(guest->reason), "mem=%s is more than quota=%s allows",
                      size_text(size, guest->memory), size_text(bound, guest->options.quota));
        return refuse(guest, error, NULL);
    }
    format_buffer(
        guest->reason, sizeof(guest->reason),
        "not enough free memory for mem=%s (it got %s; `lazy` takes only what it touches)",
        size_text(size, guest->memory),
        size_text(bound, buddy_owner_frames(guest_owner(guest)) * PAGE_SIZE));
    return refuse(guest, error, NULL);
}

int guest_table_init(const struct guest *guest, struct table *table)
{
    const struct vm_backend *backend = all.backend;
    struct table_caps caps = *backend->table_caps();
    unsigned most = guest->options.pages;

    if (guest->options.nx_huge) {
        caps.exec_small = true;
        if (caps.noexec_top > caps.leaf_top)
            caps.leaf_top = caps.noexec_top;
    }
    if (most != 0 && most < caps.leaf_top)
        caps.leaf_top = (uint8_t)most;
    return table_init(table, backend->kind, &caps, backend->table_env(), backend->kind->purpose,
                      guest_owner(guest));
}

static int build_memory(struct guest *guest)
{
    int error;

    buddy_set_quota(guest_owner(guest), quota_at_start(guest));
    error = guest_table_init(guest, &guest->table);
    if (error != E_OK) {
        quota_says_no_table(guest, error);
        return refuse(guest, error, NULL);
    }
    guest->has_table = true;
    error = slots_layout(guest);
    if (error != E_OK)
        return refuse(guest, error, NULL);
    error = slots_back(guest);
    return error == E_OK ? E_OK : refuse_backing(guest, error);
}

/* From options and image to a guest that could run. On an error everything is given back. */
static int build(struct guest *guest)
{
    struct vcpu_state state;
    int error;

    guest_clock_reset(guest);
    devices_reset(guest);
    if (saved_is(guest->image.bytes, guest->image.size))
        return refuse_unless(guest, guest_restore(guest));
    guest_choose_machine(guest);
    if (guest->cpus > 1 && !guest_has_apic(guest)) {
        format_buffer(guest->reason, sizeof(guest->reason),
                      "cpus=%u: the others are started by a PC's local APIC, which it has not; add "
                      "'pc'",
                      guest->cpus);
        return refuse(guest, E_INVAL, NULL);
    }
    error = build_memory(guest);
    if (error != E_OK)
        return error;
    error = guest_load_image(guest, &state);
    if (error != E_OK)
        return refuse(guest, error, NULL);
    error = guest_cpus_create(guest);
    if (error != E_OK) {
        guest_cpus_refused(guest, error);
        return refuse(guest, error, NULL);
    }
    error = all.backend->set_state(guest->vcpu, &state);
    if (error != E_OK)
        return refuse(guest, error, "its first state was not taken by the CPU");
    guest_note_frames(guest);
    return E_OK;
}

/* What a new life does not inherit from the last one; the ring of output goes on. */
static void forget_last_life(struct guest *guest)
{
    guest->state = GUEST_READY;
    guest->verdict = 0;
    guest->reason[0] = '\0';
    guest->report[0] = '\0';
    guest_cpus_reset(guest);
    guest->was_reset = guest->slots_changed = false;
    guest->has_bios = guest->has_disk = false;
    memset(guest->exits, 0, sizeof(guest->exits));
    guest->frames_filled = 0;
    guest->faults_filled = guest->faults_refused = guest->faults_spurious = 0;
    guest->faults_opened = guest->pages_copied = 0;
    guest->pages_given = guest->pages_taken = 0;
    guest->frames_peak = 0;
    guest->ticks = 0;
    guest->line_length = guest->line_shown = 0;
    guest->output_read = UINT64_MAX;
}

/* A guest that ran elsewhere than was asked for would be worse than one that does not run. */
static int check_pin(struct guest *guest)
{
    unsigned count = guests_cpus();

    if (!guest->options.pinned || guest->options.pin < count)
        return E_OK;
    format_buffer(guest->reason, sizeof(guest->reason), "pin=%u: the CPUs are 0 to %u here",
                  guest->options.pin, count - 1);
    return refuse(guest, E_RANGE, NULL);
}

static int make(struct guest *guest)
{
    char size[SIZE_TEXT], backed[SIZE_TEXT];
    uint64_t bytes = 0;
    int error;

    guest_cpus_count(guest, guest->options.cpus);
    forget_last_life(guest);
    error = check_pin(guest);
    if (error == E_OK)
        error = build(guest);
    if (error != E_OK) {
        guest_finish(guest);
        return error;
    }
    for (unsigned i = 0; i < guest->slots; i++)
        bytes += guest->slot[i].backed;
    log_guest("g%u %s: %s, memory to %s, %s backed by %lu frames, %lu table frames", guest->number,
              guest->name, guest->kind, size_text(size, guest->memory), size_text(backed, bytes),
              (bytes / PAGE_SIZE), guest->table.table_frames);
    return E_OK;
}

struct guest *guest_register(void)
{
    uint64_t frames = (sizeof(struct guest) + PAGE_SIZE - 1) / PAGE_SIZE;
    struct guest *guest;
    hpa_t at;

    if (all.count == GUEST_LIMIT ||
        buddy_alloc_frames(frames, PURPOSE_HEAP, OWNER_HOST, &at) != E_OK)
        return NULL;
    guest = direct(at);
    memset(guest, 0, sizeof(*guest));
    guest_cpus_count(guest, 1);
    all.guest[all.count++] = guest;
    guest->number = all.count;
    guest->touching = LOCK_INIT_AT(LOCK_TOUCH);
    guest->output_read = UINT64_MAX;
    return guest;
}

int guest_create(const struct guest_image *image, struct guest **out)
{
    struct guest *guest;
    int error;

    *out = NULL;
    if (all.backend == NULL)
        return E_UNSUPPORTED;
    guest = guest_register();
    if (guest == NULL)
        return all.count == GUEST_LIMIT ? E_FULL : E_NOMEM;
    *out = guest;
    guest->image = *image;
    error = options_parse(image->cmdline, &guest->options, guest->reason, sizeof(guest->reason));
    memcpy(guest->name, guest->options.name, sizeof(guest->name));
    memcpy(guest->cmdline, guest->options.cmdline, sizeof(guest->cmdline));
    guest->memory = guest->options.memory;
    guest->expected = state_expected(guest->options.expect);
    if (error != E_OK) {
        refuse(guest, error, NULL);
        guest_finish(guest);
        return error;
    }
    error = make(guest);
    if (error == E_OK && !guest->options.paused)
        return guest_start(guest);
    if (error == E_OK)
        guest->state = GUEST_PAUSED;
    return error;
}

int guest_start(struct guest *guest)
{
    int error;

    if (guest->state == GUEST_RUNNING || guest->state == GUEST_HALTED ||
        guest->held_end != GUEST_READY)
        return E_STATE;
    if (guest_ended(guest)) {
        if (guest_holds(guest))
            guest_finish(guest);
        error = options_parse(guest->image.cmdline, &guest->options, guest->reason,
                              sizeof(guest->reason));
        if (error != E_OK)
            return error;
        guest->restarts = 0;
        error = make(guest);
        if (error != E_OK)
            return error;
    }
    guest->reason[0] = '\0';
    guest->state = interrupts_can_wake(guest) ? GUEST_RUNNING : GUEST_HALTED;
    return E_OK;
}

int guest_pause(struct guest *guest)
{
    if (guest->state != GUEST_RUNNING && guest->state != GUEST_HALTED)
        return E_STATE;
    guest->state = GUEST_PAUSED;
    guest_clock_stop(guest);
    return E_OK;
}

int guest_kill(struct guest *guest)
{
    if (guest_ended(guest))
        return E_STATE;
    guest->state = GUEST_KILLED;
    guest->held_end = GUEST_READY;
    guest_finish(guest);
    return E_OK;
}
