/*
 * A guest's physical address space: its slots, and the frames behind them.
 *
 *     0        640K      1M                                mem=
 *     | RAM    | (PC)    | RAM        | ROM | RAM          |
 *     +--------+---------+------------+-----+--------------+----> guest-physical
 *
 * Slots are laid out from the guest's options. All but lazy memory is backed when the guest is
 * made, in the largest blocks that the buddy has and the table can map as one leaf; lazy memory
 * gets zeroed frames at each first touch: one of 4 KiB, those around it (`around=`), or a page of
 * 2 MiB (`pages=`). A PC's video memory and ROM are lazy always, so that they cost only the guests
 * that look there. Which frame is behind which address is written down in one place alone, the
 * guest's own table: giving the memory back starts from there.
 */
#ifndef QUIRE_VM_SLOTS_H
#define QUIRE_VM_SLOTS_H

#include <stdint.h>

#include "vm/guest.h"

#define GUEST_LOW_RAM_END UINT64_C(0xA0000) /* where a PC's first RAM ends ... */
#define GUEST_VIDEO_SIZE UINT64_C(0x20000)  /* behind it, with `pc`; then ROM */
#define GUEST_HIGH_RAM UINT64_C(0x100000)   /* ... and the rest begins */

/* Of a block that a leaf of level 2 maps; that of one level more has as many bits again. */
#define ORDER_2M 9

static inline uint64_t slot_last(const struct slot *slot)
{
    return slot->base.v + slot->size - 1;
}

static inline struct slot *slot_at(struct guest *guest, gpa_t at)
{
    return (struct slot *)guest_slot_at(guest, at);
}

static inline uint64_t min_bytes(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The first leaf of [first, last] of a second-level table. False: there is none. */
bool first_leaf(struct table *table, uint64_t first, uint64_t last, struct mapping *leaf);

/* Adds a slot with its kind's rights, keeping the list sorted. E_ALIGN, E_RANGE (size 0, or beyond
 * what the guest's table can map), E_EXIST where it overlaps another, E_FULL. */
int slot_add(struct guest *guest, gpa_t base, uint64_t size, enum slot_kind kind);
/* The rights that memory of this kind has for the guest unless they are changed. */
uint8_t slot_kind_rights(enum slot_kind kind);
/* Takes slot number `index` out of the list, and does nothing to the memory. */
void slot_forget(struct guest *guest, unsigned index);

/* Where a guest's physical addresses end: every one that it is told of has to be one that its CPU
 * has, and CPUID tells it the width. */
uint64_t guest_addresses_end(void);

/* A set for all pages of the guest's memory, charged to `owner`. E_NOMEM, E_QUOTA: it is ended. */
int slots_cover(const struct guest *guest, struct page_set *set, owner_t owner);

/* Lays out the slots that guest->options ask for. On an error guest->reason says why. */
int slots_layout(struct guest *guest);

/* Adds the windows of a PC's devices, in place of what memory there is. As slot_add(). */
int slots_windows(struct guest *guest);

/* Backs every slot that is not lazy, zeroed. On an error (E_NOMEM, E_QUOTA) what was backed so far
 * stays, for slots_release_by(). */
int slots_back(struct guest *guest);
/* Likewise one of them. */
int slot_back(struct guest *guest, struct slot *slot);
/* Likewise a part of [at, at + left) of one, all of which has no frames: *size bytes from `at` on.
 */
int slot_back_some(struct guest *guest, struct slot *slot, gpa_t at, uint64_t left, uint64_t *size);

/* A zeroed block of 2^order frames, the owner's, mapped at `at` of a second-level table. E_NOMEM,
 * E_QUOTA: nothing is there. */
int block_map(struct table *table, gpa_t at, unsigned order, unsigned rights, owner_t owner);

/* Counts anew what of each slot has frames. */
void slots_recount(struct guest *guest);

/* Gives memory at `at` that has none its frame, and what is around it its own as the options say
 * and there is room for: what the guest did not touch never makes this fail. E_NOENT where no slot
 * that fills (vm/guest.h) covers it, E_EXIST when it has one, E_NOMEM, E_QUOTA. */
int slots_fill(struct guest *guest, gpa_t at);
/* The same, where the slot at `at` is known. */
int slot_fill(struct guest *guest, struct slot *slot, gpa_t at);

/* Gives back the right to write where nothing stands against it any more: to whole leaves of the
 * guest's own. */
void slots_restore_rights(struct guest *guest);

/* Unmaps from guest->release_from on and gives every frame back, after the flush, until the clock
 * is at `deadline`. True: the table is empty, and stays. */
bool slots_release_by(struct guest *guest, uint64_t deadline);

/*
 * For loaders: copies `size` bytes (zeroes where `from` is NULL) into the guest's memory, whatever
 * the guest itself may do there, filling lazy memory where needed. E_RANGE, with nothing written at
 * or behind it, at the first page that no slot backs.
 */
int slots_place(struct guest *guest, gpa_t at, const void *from, uint64_t size);

#endif
