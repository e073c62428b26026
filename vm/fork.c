/* See vm/fork.h. */
#include "vm/fork.h"

#include "lib/error.h"
#include "lib/log.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "mm/paging/typed.h"
#include "vm/cow.h"
#include "vm/disk.h"
#include "vm/quota.h"
#include "vm/shared.h"
#include "vm/slots.h"

static void copy_identity(struct guest *to, const struct guest *from)
{
    memcpy(to->name, from->name, sizeof(to->name));
    memcpy(to->cmdline, from->cmdline, sizeof(to->cmdline));
    to->kind = from->kind;
    to->options = from->options;
    to->image = from->image;
    to->expected = from->expected;
    to->memory = from->memory;
    memcpy(to->slot, from->slot, sizeof(to->slot));
    to->slots = from->slots;
    guest_cpus_count(to, from->cpus);
}

static int copy_memory(struct guest *to, struct guest *from)
{
    int error = guest_table_init(to, &to->table);

    if (error != E_OK)
        return error;
    to->has_table = true;
    shared_hold(to->slot, to->slots);
    guest_note_frames(from);
    error = disk_clone(to, &to->disk, &from->disk);
    return error != E_OK ? error : pages_clone(&to->table, &from->table);
}

static int copy_all(struct guest *to, struct guest *from)
{
    const struct vm_backend *backend = guests_backend();
    struct guest_life life;
    int error;

    buddy_set_quota(guest_owner(to), quota_of_fork(from));
    error = copy_memory(to, from);
    if (error != E_OK)
        return error;
    error = guest_cpus_create(to);
    if (error != E_OK)
        return error;
    life_save(from, &life);
    life_restore(to, &life);
    for (unsigned i = 0; error == E_OK && i < from->cpus; i++)
        error = backend->vcpu_copy(to->cpu[i].vcpu, from->cpu[i].vcpu);
    return error;
}

int guest_fork(struct guest *guest, struct guest **out)
{
    struct guest *fork;
    int error;

    *out = NULL;
    if (guest->vcpu == NULL || guest->held_end != GUEST_READY)
        return E_STATE;
    fork = guest_register();
    if (fork == NULL)
        return guest_count() == GUEST_LIMIT ? E_FULL : E_NOMEM;
    *out = fork;
    copy_identity(fork, guest);
    error = copy_all(fork, guest);
    if (error != E_OK) {
        fork->state = GUEST_REFUSED;
        format_buffer(fork->reason, sizeof(fork->reason), "no fork of g%u: %s", guest->number,
                      error_text(error));
        guest_finish(fork);
        return error;
    }
    fork->state = guest->state;
    guest_note_frames(fork);
    log_line("g%u %s: a fork of g%u, %lu table frames", fork->number, fork->name, guest->number,
             fork->table.table_frames);
    return E_OK;
}
