/*
 * Trace points: what the mapper, the allocator, the flushes and the guests are doing, told
 * to whoever listens. Nobody does at first, and then a point costs one predictable branch.
 *
 * To listen is to set trace_hook and then the bits of trace_events; the hook is called on the CPU
 * and in the middle of whatever happens, perhaps with locks held, and must call nothing in mm/.
 * Both variables are weak: they exist once in whatever program has any part of mm/ in it.
 */
#ifndef QUIRE_MM_TRACE_H
#define QUIRE_MM_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "mm/frames/frame.h"

/* With what a, b and c of the point are. */
enum trace_event {
    TRACE_MAP,     /* input address, size, output address */
    TRACE_UNMAP,   /* input address, size */
    TRACE_PROTECT, /* input address, size, rights */
    TRACE_SPLIT,   /* input address, size, level */
    TRACE_MERGE,   /* input address, size */
    TRACE_HARVEST, /* input address, size, what it clears */
    TRACE_CLONE, /* input address, size, owner of the original; owner: of the table that was filled
                  */
    TRACE_COPY,  /* likewise */
    TRACE_DESTROY, /* root */
    TRACE_ALLOC,   /* physical address of the first, order, purpose; from bit 8, how many if many */
    TRACE_FREE,    /* physical address of the first, order, how many */
    TRACE_SHARE,   /* physical address, bytes; one holder more */
    TRACE_RELEASE, /* physical address, order, whether it was the last holder */
    TRACE_FLUSH,   /* first input address, bytes, ranges; all 0: the whole context */
    TRACE_EXIT,    /* RIP, address of a memory fault, enum vm_exit_kind */
    TRACE_INTERRUPT, /* vector, -, where it came from; handed to a guest */
    TRACE_EVENTS
};

struct trace_point {
    enum trace_event event;
    owner_t owner; /* whose table, block or exit */
    int result;    /* an error value */
    uint64_t a, b, c;
    const void *caller; /* of the function that was traced */
};

__attribute__((weak)) uint32_t trace_events; /* bit n: events of kind n */
__attribute__((weak)) void (*trace_hook)(const struct trace_point *point);

/* Is anybody interested? For points whose record takes work to make. */
static inline __attribute__((always_inline)) bool trace_wanted(enum trace_event event)
{
    return __builtin_expect((trace_events & (UINT32_C(1) << event)) != 0, 0);
}

/* To be called by the function that is traced itself, for the caller is its caller. Returns
 * `result`, so that it may stand around a call. */
static inline __attribute__((always_inline)) int trace(enum trace_event event, owner_t owner,
                                                       uint64_t a, uint64_t b, uint64_t c,
                                                       int result)
{
    if (trace_wanted(event)) {
        struct trace_point point = {event, owner, result, a, b, c, __builtin_return_address(0)};
        trace_hook(&point);
    }
    return result;
}

#endif
