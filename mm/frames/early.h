/*
 * The early allocator: frames before the buddy exists, straight from memblock, each accounted.
 *
 * It reserves what it gives out under the purpose asked for, so that the hand-over to the buddy is
 * exact: frames of RAM = frames handed over free + frames recorded in use, checked frame by frame.
 *
 * A request is served from the highest place that fits. What an earlier search has passed over as
 * too small is not looked at again: the cost of a request does not depend on how many regions there
 * are, or on how many requests there were, but for memblock's O(log n) to note it.
 */
#ifndef QUIRE_MM_EARLY_H
#define QUIRE_MM_EARLY_H

#include "mm/frames/buddy.h"
#include "mm/frames/frame.h"
#include "mm/frames/memblock.h"

#define EARLY_ORDERS 52

struct early {
    struct memblock *memblock;
    uint64_t first, last; /* allocations stay within these addresses, inclusive */
    uint64_t frames;      /* taken so far */
    uint64_t by_purpose[PURPOSE_COUNT];
    /* By order: each free run of 2^order frames or more lies at or below this address. */
    uint64_t top[EARLY_ORDERS];
    bool closed; /* after the hand-over: every call answers E_STATE */
};

/* Starts with nothing taken. Allocations come from the top of [first, last], inclusive. While it is
 * open, reservations are lifted by early_free() alone. */
void early_init(struct early *early, struct memblock *mb, uint64_t first, uint64_t last);

/* From now on allocations may come from up to `last`, inclusive. */
void early_extend(struct early *early, uint64_t last);

/* `size` bytes (rounded up to frames), aligned to `align` (power of two, at least 4 KiB).
 * Contents arbitrary. E_NOMEM, E_STATE, E_INVAL; E_FULL when memblock cannot note it. Nothing is
 * taken on an error. */
int early_alloc(struct early *early, uint64_t size, uint64_t align, enum frame_purpose purpose,
                hpa_t *out);

/* Takes back what early_alloc() gave out, or whole frames of it. E_STATE; E_INVAL: not that much
 * taken for this purpose; E_PERM: not all of it is reserved for this purpose; E_FULL when memblock
 * cannot note it. Nothing changes on an error. */
int early_free(struct early *early, hpa_t base, uint64_t size, enum frame_purpose purpose);

/* Gives all free frames to the buddy and records every reserved frame of RAM there with its purpose
 * (state FRAME_USED and OWNER_HOST for what the hypervisor holds: tables, frame database, stacks,
 * per-CPU, boot; FRAME_RESERVED for firmware and image), closes the early allocator. `*handed` and
 * `*recorded` receive frame counts. buddy_init() must have been called. An error of the buddy's
 * ends it half-way, closed: the machine cannot go on. E_STATE: closed already. */
int early_hand_over(struct early *early, uint64_t *handed, uint64_t *recorded);

/*
 * Is each usable frame either free in the buddy or recorded as what memblock reserved it for, none
 * both, and does the buddy know no frame that is not RAM? Every frame is judged, in the runs that
 * buddy_visit() reports, so that the time depends on the runs. To be called before the buddy gives
 * anything out. E_OK, or E_STATE with the first offender in *frame.
 */
int early_verify_hand_over(const struct early *early, hpa_t *frame);

#endif
