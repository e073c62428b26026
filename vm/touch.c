/* See vm/touch.h. */
#include "vm/touch.h"

#include "lib/error.h"
#include "mm/trace.h"
#include "vm/sched.h"
#include "vm/slots.h"

int touch_fill(struct guest *guest, struct slot *slot, gpa_t at, unsigned access)
{
    uint64_t backed = slot->backed;
    int error = slot_fills(slot, access) ? slot_fill(guest, slot, at) : E_NOENT;

    guest->faults_filled += error == E_OK;
    guest->frames_filled += (slot->backed - backed) / PAGE_SIZE;
    return error;
}

/* Absent memory of a slot that fills, in a guest of whose pages nobody keeps a list: all that a
 * first touch changes is the guest's own. */
static bool first_touch(struct guest *guest, gpa_t at, unsigned access)
{
    struct slot *slot;

    if (guest->state != GUEST_RUNNING || guest->dirty.way != DIRTY_OFF)
        return false;
    slot = slot_at(guest, at);
    if (slot == NULL || touch_fill(guest, slot, at, access) != E_OK)
        return false;
    guest->exits[VM_EXIT_MEMORY]++;
    return true;
}

bool guest_touch(struct vcpu *vcpu, gpa_t at, unsigned access)
{
    struct guest *guest = vcpu->guest;
    bool done;

    if (trace_wanted(TRACE_EXIT) || !sched_share(vcpu))
        return false;
    lock_take(&guest->touching);
    done = first_touch(guest, at, access);
    lock_drop(&guest->touching);
    sched_unshare();
    return done;
}
