/*
 * A guest as it was at one moment: its memory, its CPU, its devices. To take one costs what the
 * table's size costs: the frames are shared, and copied when the guest writes (vm/cow.h). To go
 * back costs what was written since (vm/dirty.h); where its slots have been changed meanwhile, what
 * to take the snapshot did. One snapshot a guest; it goes when the guest does.
 *
 * A guest with a snapshot that would end is held instead, so that it can go back. Memory that is
 * shared by name is not put back: it is others' as well (vm/shared.h).
 */
#ifndef QUIRE_VM_SNAPSHOT_H
#define QUIRE_VM_SNAPSHOT_H

#include "vm/guest.h"

/* The first crash that fuzzing from the snapshot has come to (vm/fuzz.h). */
#define FUZZ_INPUT 1024
struct fuzz_crash {
    bool found;
    struct vm_until until;
    gpa_t at;
    unsigned size;
    uint64_t round, rip;
    char reason[160];
    uint8_t input[FUZZ_INPUT];
};

struct guest_snapshot {
    struct table table;             /* what was where: the frames, read-only */
    struct vcpu *vcpu[GUEST_VCPUS]; /* never run */
    struct guest_life life;
    struct slot slot[GUEST_SLOTS];
    unsigned slots;
    struct guest_disk disk;
    uint64_t frames;   /* of this structure */
    uint64_t resets;   /* so far ... */
    uint64_t put_back; /* ... and the pages of the last one */
    struct fuzz_crash crash;
};

/* Replaces the snapshot that there is. E_STATE: the guest has ended. E_NOMEM, E_QUOTA, E_FULL: it
 * has none now. */
int guest_snapshot(struct guest *guest);
/* Back to it. E_NOENT: there is none. E_NOMEM, E_QUOTA: pages that a fork holds as well could not
 * all be copied, or there were no nodes for slots that come back; the guest is neither here nor
 * there, is paused, and may be sent back again. */
int guest_back(struct guest *guest);
void guest_snapshot_drop(struct guest *guest);

/* The guest's state is one of the ended ones, and it has a snapshot: it is paused. */
void guest_hold_ended(struct guest *guest);

/* Frames that it holds under the guest's number. */
uint64_t guest_snapshot_frames(const struct guest *guest);

#endif
