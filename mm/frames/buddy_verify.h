/* What the two files that verify share; see buddy_verify.c. For these alone. */
#ifndef QUIRE_MM_BUDDY_VERIFY_H
#define QUIRE_MM_BUDDY_VERIFY_H

#include "mm/frames/buddy_internal.h"

#include "lib/format.h"

struct pass {
    buddy_poll_fn poll;
    void *poll_ctx;
    char *why;
    size_t why_size;
    uint64_t stamp; /* now_stamp() when the lock was held last */
    bool moved;     /* somebody was at work since the first part */
};

#define broken(...) (format_buffer(pass->why, pass->why_size, __VA_ARGS__), E_STATE)

/* What a pass counts. It belongs to the pass that is on its way. */
struct buddy_counted {
    uint64_t frames, free_frames, reserved;
    uint64_t cached_blocks; /* recorded as cached, less those that are in a cache */
    uint64_t cached_sum;    /* likewise, of a number for each block */
    uint64_t by_purpose[PURPOSE_COUNT];
    uint64_t by_owner[OWNER_LIMIT];
    uint64_t members[BUDDY_ORDERS];
};
extern struct buddy_counted buddy_counted;

/* Takes the lock and keeps other CPUs out. Ends that: what was found, or else what `poll` says. */
void buddy_begin_part(struct pass *pass);
int buddy_end_part(struct pass *pass, int error);

/* buddy_verify_live.c: masks and records against the sets, and what is in stock. */
int buddy_verify_chunks(struct pass *pass);
int buddy_verify_cpus(struct pass *pass);

#endif
