/* See vm/snapshot.h. */
#include "vm/snapshot.h"

#include "lib/error.h"
#include "lib/log.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "mm/paging/typed.h"
#include "vm/cow.h"
#include "vm/dirty.h"
#include "vm/disk.h"
#include "vm/interrupts.h"
#include "vm/shared.h"
#include "vm/slots.h"

uint64_t guest_snapshot_frames(const struct guest *guest)
{
    const struct guest_snapshot *snapshot = guest->snapshot;

    if (snapshot == NULL)
        return 0;
    uint64_t frames =
        snapshot->frames + snapshot->table.table_frames + snapshot->disk.table.table_frames;
    for (unsigned i = 0; i < guest->cpus; i++)
        frames += snapshot->vcpu[i]->frames;
    return frames;
}

/* ---- Taking one ------------------------------------------------------------------------------ */

static struct guest_snapshot *take_structure(owner_t owner, int *error)
{
    uint64_t frames = (sizeof(struct guest_snapshot) + PAGE_SIZE - 1) / PAGE_SIZE;
    struct guest_snapshot *snapshot;
    hpa_t at;

    *error = buddy_alloc_frames(frames, PURPOSE_HEAP, owner, &at);
    if (*error != E_OK)
        return NULL;
    snapshot = direct(at);
    memset(snapshot, 0, sizeof(*snapshot));
    snapshot->frames = frames;
    return snapshot;
}

static void give_structure(struct guest_snapshot *snapshot, owner_t owner)
{
    hpa_t at = direct_hpa(snapshot);

    for (uint64_t left = snapshot->frames; left > 0; left--, at = hpa_add(at, PAGE_SIZE))
        invariant(buddy_free(at, 0, owner) == E_OK);
}

/* What can fail, in such an order that each step is undone by the next function's part for it. */
static int fill(struct guest *guest, struct guest_snapshot *snapshot)
{
    const struct vm_backend *backend = guests_backend();
    int error = guest_table_init(guest, &snapshot->table);

    if (error != E_OK)
        return error;
    error = vcpus_create(guest, &snapshot->table, snapshot->vcpu);
    for (unsigned i = 0; error == E_OK && i < guest->cpus; i++)
        error = backend->vcpu_copy(snapshot->vcpu[i], guest->cpu[i].vcpu);
    if (error == E_OK)
        error = dirty_start(guest, DIRTY_SNAPSHOT);
    guest_note_frames(guest);
    if (error == E_OK)
        error = disk_clone(guest, &snapshot->disk, &guest->disk);
    if (error == E_OK)
        error = pages_clone(&snapshot->table, &guest->table);
    return error;
}

static void empty(struct guest *guest, struct guest_snapshot *snapshot)
{
    dirty_stop(guest, DIRTY_SNAPSHOT);
    vcpus_destroy(snapshot->vcpu);
    disk_forget(&snapshot->disk);
    if (snapshot->table.table_frames != 0)
        invariant(table_destroy(&snapshot->table) == E_OK);
    give_structure(snapshot, guest_owner(guest));
}

int guest_snapshot(struct guest *guest)
{
    struct guest_snapshot *snapshot;
    int error;

    if (guest->vcpu == NULL || guest->held_end != GUEST_READY)
        return E_STATE;
    guest_snapshot_drop(guest);
    snapshot = take_structure(guest_owner(guest), &error);
    if (snapshot == NULL)
        return error;
    error = fill(guest, snapshot);
    if (error != E_OK) {
        empty(guest, snapshot);
        return error;
    }
    life_save(guest, &snapshot->life);
    memcpy(snapshot->slot, guest->slot, sizeof(snapshot->slot));
    snapshot->slots = guest->slots;
    shared_hold(snapshot->slot, snapshot->slots);
    guest->slots_changed = guest->disk.changed = false;
    guest->snapshot = snapshot;
    guest_note_frames(guest);
    return E_OK;
}

/* The frames first: what the guest alone holds then gets its rights back as tracking ends. */
void guest_snapshot_drop(struct guest *guest)
{
    struct guest_snapshot *snapshot = guest->snapshot;

    if (snapshot == NULL)
        return;
    const struct table_kind *kind = guest->table.kind;
    guest_note_frames(guest);
    guest->snapshot = NULL;
    pages_release_all(&snapshot->table, kind->input_first, kind->input_last);
    shared_drop(snapshot->slot, snapshot->slots);
    empty(guest, snapshot);
}

/* ---- Going back ------------------------------------------------------------------------------ */

/* What got its frame since has read as zeroes before, and does again. What was given back since
 * (vm/balloon.h) is shared with the snapshot again. */
static int put_back(struct guest *guest, gpa_t page)
{
    struct mapping now, then;
    int error = gpa_translate(&guest->table, page, &now);
    bool known = gpa_translate(&guest->snapshot->table, page, &then) == E_OK;

    if (error != E_OK && !known)
        return E_OK;
    if (error != E_OK)
        return page_show(guest, page, hpa_add(then.out, page.v - then.in));
    hpa_t from = known ? hpa_add(then.out, page.v - then.in) : hpa(0);
    if (known && from.v == now.out.v + (page.v - now.in))
        return E_OK; /* still the same frame: it was noted, but not written */
    if (!leaf_is_own(guest, &now)) {
        error = page_own(guest, page);
        if (error == E_OK)
            error = gpa_translate(&guest->table, page, &now);
        if (error != E_OK)
            return error;
    }
    void *to = direct(hpa_add(now.out, page.v - now.in));
    if (known)
        memcpy(to, direct(from), PAGE_SIZE);
    else
        memset(to, 0, PAGE_SIZE);
    guest->snapshot->put_back++;
    return E_OK;
}

static int put_written_back(void *ctx, uint64_t page)
{
    struct guest *guest = ctx;
    int error = put_back(guest, gpa(page));

    if (error == E_OK && dirty_asked(guest, DIRTY_CONSOLE))
        dirty_wrote(guest, gpa(page), PAGE_SIZE); /* by others than this set, which is emptied */
    return error;
}

static int put_all_back(struct guest *guest)
{
    struct page_set *written = &guest->dirty.set[DIRTY_SNAPSHOT];

    dirty_collect(guest);
    guest->snapshot->put_back = 0;
    int error = page_set_visit(written, put_written_back, guest);
    if (error == E_OK)
        page_set_clear(written);
    return error;
}

/* All that the guest has now goes, and what the snapshot has is shared anew. The sets cover it
 * before. What was written since is in them. */
static int put_slots_back(struct guest *guest)
{
    struct guest_snapshot *snapshot = guest->snapshot;
    const struct table_kind *kind = guest->table.kind;
    int error = E_OK;

    for (unsigned i = 0; error == E_OK && i < snapshot->slots; i++)
        if (snapshot->slot[i].kind != SLOT_DEVICE)
            error = dirty_cover(guest, snapshot->slot[i].base, snapshot->slot[i].size);
    if (error != E_OK)
        return error;
    dirty_collect(guest);
    guest_note_frames(guest);
    pages_release_all(&guest->table, kind->input_first, kind->input_last);
    slots_recount(guest);
    error = pages_clone(&guest->table, &snapshot->table);
    if (error != E_OK)
        return error;
    shared_hold(snapshot->slot, snapshot->slots);
    shared_drop(guest->slot, guest->slots);
    memcpy(guest->slot, snapshot->slot, sizeof(guest->slot));
    guest->slots = snapshot->slots;
    guest->slots_changed = false;
    slots_recount(guest);
    return E_OK;
}

/* Whole, for what was written is a table of its own. */
static int put_disk_back(struct guest *guest)
{
    int error;

    if (!guest->disk.changed)
        return E_OK;
    guest_note_frames(guest);
    disk_forget(&guest->disk);
    error = disk_clone(guest, &guest->disk, &guest->snapshot->disk);
    guest->disk.changed = error != E_OK;
    return error;
}

int guest_back(struct guest *guest)
{
    struct guest_snapshot *snapshot = guest->snapshot;
    int error = E_OK;

    if (snapshot == NULL)
        return E_NOENT;
    if (guest->slots_changed)
        error = put_slots_back(guest);
    if (error == E_OK)
        error = put_all_back(guest);
    if (error == E_OK)
        error = put_disk_back(guest);
    for (unsigned i = 0; error == E_OK && i < guest->cpus; i++)
        error = guests_backend()->vcpu_copy(guest->cpu[i].vcpu, snapshot->vcpu[i]);
    if (error != E_OK) {
        guest->state = GUEST_PAUSED;
        guest_clock_stop(guest);
        return error;
    }
    bool runs = guest->state != GUEST_PAUSED || guest->held_end != GUEST_READY;
    life_restore(guest, &snapshot->life);
    snapshot->resets++;
    guest->held_end = GUEST_READY;
    guest->verdict = 0;
    guest->reason[0] = '\0';
    if (runs)
        guest->state = interrupts_can_wake(guest) ? GUEST_RUNNING : GUEST_HALTED;
    return E_OK;
}

void guest_hold_ended(struct guest *guest)
{
    guest_flush_output(guest);
    guest->held_end = guest->state;
    guest->state = GUEST_PAUSED;
    guest_clock_stop(guest);
    log_guest("g%u %s: %s%s%s; it has a snapshot: `reset g%u` goes back to it, `kill g%u` ends it",
              guest->number, guest->name, guest_state_name(guest->held_end),
              guest->reason[0] != '\0' ? ": " : "", guest->reason, guest->number, guest->number);
}
