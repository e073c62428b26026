/*
 * Pages that a guest may write only after something was done: copied, since other guests or a
 * snapshot hold the same frame; or noted, since somebody wants to know what it writes (vm/dirty.h).
 *
 * A frame with several holders belongs to OWNER_SHARED and is charged to no guest. Who writes gets
 * a copy, charged to him; who is left alone with it, the frame itself. A large page is shared
 * whole, and split at the first write. What is shared by name (vm/shared.h) is written in place.
 *
 * With `nx-huge` the right to execute comes likewise: no large page has it, and the first fetch
 * from one splits it. A page of 4 KiB that was never part of one has it at once.
 */
#ifndef QUIRE_VM_COW_H
#define QUIRE_VM_COW_H

#include "vm/guest.h"

/* Has the page that covers `at` backed by a frame that is the guest's alone, with its contents.
 * What the guest may do there stays as it is. E_NOENT: nothing is there. E_NOMEM, E_QUOTA: all is
 * as it was, but for large pages that may have been split. */
int page_own(struct guest *guest, gpa_t at);

/* The guest has tried to write to the page that covers `at`, which `leaf` covers in its table, and
 * its slot lets it: from now on it can. E_NOENT: its slot does not. Else as page_own(). */
int page_open(struct guest *guest, gpa_t at, const struct mapping *leaf);

/* The guest has tried to execute what `leaf` covers at `at`, and its slot lets it: what was a large
 * page there has pages of 4 KiB, all of which it may execute. E_NOMEM, E_QUOTA: as page_own(). */
int page_execute(struct guest *guest, gpa_t at, const struct mapping *leaf);

/* What the leaf is to have where its slot lets the guest do all of `rights`: with `nx-huge` it
 * keeps the right to execute, or its lack of it. */
static inline unsigned leaf_rights(const struct guest *guest, unsigned rights,
                                   const struct mapping *leaf)
{
    return guest->options.nx_huge ? rights & (leaf->attrs.rights | ~(unsigned)RIGHT_X) : rights;
}

/* The page of 4 KiB at `at` shows the frame of that at `other`, of the same guest or another, which
 * has the same contents and another frame; neither may write there any more. *freed: its old frame
 * came free. */
void page_merge(struct guest *guest, gpa_t at, struct guest *from, gpa_t other, bool *freed);

/* The page at `at`, of 4 KiB, where the guest has nothing, shows this frame, which a snapshot of it
 * has: one holder more. E_NOMEM, E_QUOTA: no frame for a node; nothing has changed. */
int page_show(struct guest *guest, gpa_t at, hpa_t frame);

/* `to`, a table that maps nothing, shows what `from` shows; neither may write there any more. Each
 * block behind it gets one more holder, and is OWNER_SHARED's. E_NOMEM, E_QUOTA: all is as it was.
 */
int pages_clone(struct table *to, struct table *from);

/* Unmaps what a table maps from *from to `last`, all of it or what was cut there, and gives back
 * what is behind it: the guest's own frames, and its hold of those that it shares. A few hundred
 * leaves at a call: true when nothing is left, else *from is where to go on. The vCPU is not
 * running, and does not until the flush is done.
 */
bool pages_release(struct table *table, uint64_t *from, uint64_t last);
/* Likewise all of [first, last] in one go. */
void pages_release_all(struct table *table, uint64_t first, uint64_t last);

/* Splits a large leaf into those of the next level. E_NOMEM, E_QUOTA: no frame for the node. */
int leaf_split(struct guest *guest, const struct mapping *leaf);

/* Has no leaf of the table reach across `at`, a page boundary, nor any block of frames behind its
 * leaves. E_NOMEM, E_QUOTA: leaves may have been split, and nothing else has changed. */
int pages_cut(struct guest *guest, gpa_t at);
/* Likewise at both ends of [first, last], whole pages. */
int pages_cut_ends(struct guest *guest, uint64_t first, uint64_t last);

/* May the guest write to all that is behind the leaf, one of its table, without a copy? It does
 * where everything is its own, or shared by name. */
bool leaf_is_own(const struct guest *guest, const struct mapping *leaf);

#endif
