/*
 * The buddy allocator: every frame of RAM, in blocks of 4 KiB (order 0) to 1 GiB (order 18).
 *
 * One allocator, one instance for the machine: host tables, user tables, EPTs, guest RAM and the
 * hypervisor's own objects all come from here, and each block knows its owner and its purpose
 * (mm/frames/frame.h). A misuse is refused with an error value and counted, never acted on.
 *
 * Every call may be made on any CPU at any time, but not from an NMI handler. Metadata: 8 bytes of
 * record and 0.15 of bitmaps a frame. Blocks come from the top of memory down, so that what only
 * low memory can serve (buddy_alloc_within) finds it free for longest.
 *
 * Offered as a library, and not used by this hypervisor: buddy_alloc_at() and buddy_is_free().
 */
#ifndef QUIRE_MM_BUDDY_H
#define QUIRE_MM_BUDDY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/error.h"
#include "mm/addr.h"
#include "mm/frames/frame.h"

#define BUDDY_MAX_ORDER 18
#define BUDDY_ORDERS (BUDDY_MAX_ORDER + 1)

/*
 * The bytes of metadata (records, bitmaps, summaries) that a machine whose highest RAM address is
 * `ram_end` (exclusive, at most 2^52) needs; 0 for an ram_end out of range. They must be 4 KiB
 * aligned and reachable through direct() or any other pointer before buddy_init(); their content
 * may be anything.
 */
uint64_t buddy_metadata_size(uint64_t ram_end);

/* Starts an allocator that manages nothing yet. `metadata` as above. The cost does not depend on
 * ram_end: a few upper summary words are written, everything else when it is first used. E_RANGE
 * (ram_end 0 or above 2^52), E_ALIGN, E_NOMEM (metadata_size too small). */
int buddy_init(void *metadata, uint64_t metadata_size, uint64_t ram_end);

/*
 * Several CPUs. `index` gives the number of the CPU that it runs on, below BUDDY_CPUS; `fence`
 * returns when every other CPU has executed a full memory barrier since it was called (an IPI does;
 * in a hosted program, membarrier(2)). To be set while one CPU runs, before a second one allocates,
 * as locks_needed (lib/lock.h) is; E_INVAL unless both or neither are given. Without them there is
 * one CPU, number 0.
 */
#define BUDDY_CPUS 64
int buddy_set_cpus(unsigned (*index)(void), void (*fence)(void));

/* Hands frames [base, base + size) to the allocator, free. Both multiples of 4 KiB (E_ALIGN), not
 * empty (E_INVAL), within ram_end (E_RANGE), none handed over or recorded before (E_EXIST). Used at
 * boot and for memory that arrives later. */
int buddy_add(hpa_t base, uint64_t size);

/* Records frames that are in use already (the image, early allocations, firmware) so that every
 * frame of RAM has an owner. They can be freed later with buddy_free() at order 0 if `purpose` and
 * `owner` say so and `state` is FRAME_USED; FRAME_RESERVED ones never, and a large reserved range
 * costs one record a block, not one a frame. Errors as buddy_add(); E_INVAL for another state.
 * Quotas do not apply. */
int buddy_record(hpa_t base, uint64_t size, enum frame_state state, enum frame_purpose purpose,
                 owner_t owner);

/* Takes one block of 2^order frames, aligned to its size; its content is arbitrary. E_NOMEM,
 * E_QUOTA (the owner's quota, or the host's reserve), E_INVAL (no such order, purpose or owner). */
int buddy_alloc(unsigned order, enum frame_purpose purpose, owner_t owner, hpa_t *out);

/* The same within [first, last] (inclusive bounds of the whole block), for DMA below 4 GiB and
 * real-mode code below 1 MiB. E_NOMEM when no such block is free. */
int buddy_alloc_within(unsigned order, uint64_t first, uint64_t last, enum frame_purpose purpose,
                       owner_t owner, hpa_t *out);

/* Takes `count` contiguous frames, 1 .. 2^18 (not a power of two: rounded up, the tail given back).
 * They are recorded as order-0 blocks, each freed on its own. */
int buddy_alloc_frames(uint64_t count, enum frame_purpose purpose, owner_t owner, hpa_t *out);

/* Takes `n` single frames, all or none, wherever they are free: the counterpart of
 * buddy_free_frames(), many times as fast as one call a frame. Neighbours are listed side by side,
 * and the list mostly rises. Errors as buddy_alloc(). */
int buddy_alloc_many(hpa_t *frames, unsigned n, enum frame_purpose purpose, owner_t owner);

/* Takes the block at exactly this address. E_EXIST when any frame of it is not free (or no RAM),
 * E_ALIGN, E_RANGE. */
int buddy_alloc_at(hpa_t at, unsigned order, enum frame_purpose purpose, owner_t owner);

/*
 * Gives a block back. `owner` and `order` must be those it was taken with.
 * E_RANGE (not RAM), E_ALIGN, E_DOUBLE_FREE (free already), E_STATE (reserved, or dying: to be
 * moved back to FRAME_USED first), E_PERM (foreign owner), E_SHARED (has several holders), E_ORDER
 * (other order, or not a block's first frame); the first of these that applies. A refused free
 * changes nothing and counts in buddy_stats.
 */
int buddy_free(hpa_t head, unsigned order, owner_t owner);

/* Gives back `n` blocks of order 0, each on its own terms as by buddy_free(), several times as
 * fast, most of all where neighbours follow each other. All that can be freed are; the first error
 * is returned. */
int buddy_free_frames(const hpa_t *frames, unsigned n, owner_t owner);

/*
 * Sharing: one more holder of a block; one fewer, freeing it with the last. `owner` is the block's
 * own, whom it stays charged to, whoever the holders are. While there are several, the payload
 * counts them (what it held before is lost); when one is left it is 0 and the block can be freed as
 * any other.
 * `*last` (may be NULL) says whether this was the last. Errors as buddy_free().
 */
int buddy_share(hpa_t head, owner_t owner);

int buddy_release(hpa_t head, unsigned order, owner_t owner, bool *last);

/* One more holder for each of the blocks in [at, at + frames), all of them in use, whosever they
 * are: from now on they are `to`'s, who has no quota (E_INVAL), and are charged to him. Larger ones
 * than `order` are divided first. For many at a time: records that say the same cost a look and a
 * store each. E_RANGE, E_ALIGN, E_DOUBLE_FREE, E_STATE, E_ORDER (it begins within a block) as
 * buddy_free(): then it stopped there. */
int buddy_share_run(hpa_t at, uint64_t frames, unsigned order, owner_t to);

/* A block in use becomes 2^(order - into) blocks of order `into`, each with its owner, its purpose,
 * and as many holders. Errors as buddy_free(), but for E_SHARED. */
int buddy_divide(hpa_t head, unsigned order, unsigned into, owner_t owner);

/* A block in use, whoever holds it, belongs to `to` from now on, and is charged to it. E_QUOTA, and
 * nothing has changed; E_INVAL (no such owner); else as buddy_release(). */
int buddy_transfer(hpa_t head, unsigned order, owner_t owner, owner_t to);

/* Returns everything that per-CPU caches hold to the buddy. */
void buddy_drain(void);

/* For debugging: told of each block that is freed, before it can be taken again, and of each that
 * is taken, before its taker has it, with the buddy's lock held; no call here may be made from
 * there. NULL: nobody is, as at the start. To be set while one CPU runs. Watched, the buddy works
 * under its lock alone. */
struct buddy_watch {
    void (*freed)(hpa_t block, uint64_t size);
    void (*taken)(hpa_t block, uint64_t size);
};
void buddy_set_watch(const struct buddy_watch *watch);

/* Quotas: the most frames that an owner may hold (UINT64_MAX: no limit, which is what each starts
 * with; fewer than it holds now: it gets no more until it has freed enough), and the number of
 * frames that are kept for OWNER_HOST: no other owner's request may leave fewer free. E_INVAL for
 * no such owner. */
int buddy_set_quota(owner_t owner, uint64_t frames);
void buddy_set_reserve(uint64_t frames);

/* The counts are exact for everything that has happened before the call; while other CPUs allocate,
 * each is right for some moment during it. total_frames = free_frames + the sum of by_purpose. */
struct buddy_stats {
    uint64_t total_frames; /* ever handed over by buddy_add() or recorded */
    uint64_t free_frames;  /* cached ones included */
    uint64_t cached_frames;
    uint64_t free_blocks[BUDDY_ORDERS]; /* cached ones not included */
    uint64_t by_purpose[PURPOSE_COUNT]; /* frames in use, reserved ones included */
    uint64_t reserved_frames;           /* recorded as FRAME_RESERVED */
    uint64_t allocations,
        frees;       /* of blocks: all that are in use were taken and not freed, or recorded */
    uint64_t failed; /* requests */
    uint64_t splits, merges; /* of blocks of 64 frames and more: below, they are bits of one word */
    uint64_t refused_double, refused_order, refused_owner, refused_range, refused_shared;
    uint64_t refused_state; /* reserved or dying */
};

void buddy_stats(struct buddy_stats *out);
uint64_t buddy_owner_frames(owner_t owner);
uint64_t buddy_quota(owner_t owner);

/* The block that covers the frame at this address, free, cached or in use: its first frame and its
 * record (of a free block: state FRAME_FREE and the order). False outside all RAM. */
bool buddy_block(hpa_t frame, hpa_t *first, uint64_t *record);

/* Is the frame at this address free (in the buddy or a cache)? False outside RAM. */
bool buddy_is_free(hpa_t frame);

/* What follows takes long on a large machine. It holds the lock for a bounded number of steps at a
 * time, and in between asks `poll` (may be NULL) whether to go on. A result other than 0 stops it
 * and is returned. `poll` may call any function here but buddy_verify(). */
typedef int (*buddy_poll_fn)(void *ctx);

/* Calls `fn` for each maximal run of frames with equal (state, purpose, owner), in address order,
 * over everything that was handed over or recorded. All frames of a block count as in their head's
 * state; `info` is that of the run's first block. Stops when fn returns non-zero, which it returns.
 * Reads only; fn may call any function here. When memory changes hands meanwhile, each block is
 * shown as it was at some moment of the visit, and no frame twice. */
typedef int (*buddy_visit_fn)(void *ctx, hpa_t base, uint64_t size, const struct frame_info *info);
int buddy_visit(buddy_visit_fn fn, void *ctx);
int buddy_visit_until(buddy_visit_fn fn, void *ctx, buddy_poll_fn poll, void *poll_ctx);

/*
 * Verifies every internal invariant: bitmaps against records against counters. E_OK, or E_STATE
 * with the first broken rule described in `why`. Reads every record of the parts of memory that
 * have been in use.
 *
 * What is wrong is wrong: each part is judged with the lock held and other CPUs kept out. Totals
 * are sums over all parts. They are judged only when nothing was taken or given back meanwhile;
 * else the answer is E_OK and `why` says that they were not. It is empty when all was judged.
 */
int buddy_verify(char *why, size_t why_size);
int buddy_verify_until(buddy_poll_fn poll, void *ctx, char *why, size_t why_size);

/* Every bit of the state, which blocks are free and what each record holds, as one number: the same
 * for the same state, whatever led there, and another one for any other, but for a chance of 1 in
 * 2^64. A block in a cache is not the same as a free one: buddy_drain() first, where that is not to
 * count. Reads as much as buddy_verify(). */
uint64_t buddy_fingerprint(void);

#endif
