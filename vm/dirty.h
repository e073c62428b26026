/*
 * Which pages a guest has written since somebody asked last.
 *
 *   by log         the CPU writes the address of each page that becomes dirty into a list
 *   by marks       the CPU sets D in the leaf; a harvest collects and clears it
 *   by protection  the right to write is taken away; the first write to a page exits
 *
 * The best that the CPU has is taken, and all give the same answer. What is written on the guest's
 * behalf (emulated instructions, devices, calls, loaders) counts. Pages are of 4 KiB: a large leaf
 * loses the right to write, and is split where it is written first; when nobody asks any more, what
 * can be joined is.
 *
 * Several may ask, each in its own time: who starts later, or asks more seldom, misses nothing.
 */
#ifndef QUIRE_VM_DIRTY_H
#define QUIRE_VM_DIRTY_H

#include "vm/guest.h"

const char *dirty_way_name(enum dirty_way way);

/* Begins to track for this asker; its set is empty. E_STATE: it does already, or the guest has
 * ended. E_NOMEM, E_QUOTA: nothing has changed. */
int dirty_start(struct guest *guest, enum dirty_asker asker);
/* The set is gone; with the last asker tracking ends. Nothing where it did not ask. */
void dirty_stop(struct guest *guest, enum dirty_asker asker);
/* Of a guest that ends. */
void dirty_end(struct guest *guest);

static inline bool dirty_asked(const struct guest *guest, enum dirty_asker asker)
{
    return (guest->dirty.askers >> asker & 1) != 0;
}

/* Brings the sets of all askers up to date, dirty.set[asker]; its asker empties it. The guest is
 * out of its CPU. */
void dirty_collect(struct guest *guest);

/* The guest is about to have memory at [base, base + size). E_NOMEM, E_QUOTA: it is not tracked. */
int dirty_cover(struct guest *guest, gpa_t base, uint64_t size);

/* What the CPU has logged goes into the sets: its list is full. */
void dirty_drain(struct guest *guest);

/* The hypervisor writes to the guest's memory, by another way than the guest's table. */
void dirty_wrote(struct guest *guest, gpa_t at, uint64_t size);

/* ---- For vm/cow.c ---------------------------------------------------------------------------- */

/* What may be done to memory of `rights` that is mapped by leaves of `level` now, so that the first
 * write is noticed. */
unsigned dirty_rights(const struct guest *guest, unsigned rights, unsigned level);

/* A write to the page exited, and it becomes writable; so do the others of [page, page + size) */
void dirty_opens(struct guest *guest, gpa_t page, uint64_t size);

/* Frames that tracking holds, charged to the guest; a vCPU's own log is counted there. */
static inline uint64_t dirty_frames(const struct guest *guest)
{
    uint64_t frames = guest->dirty.open.frames;

    for (unsigned i = 0; i < DIRTY_ASKERS; i++)
        frames += guest->dirty.set[i].frames;
    return frames;
}

#endif
