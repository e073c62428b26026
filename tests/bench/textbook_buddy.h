/*
 * The buddy of the textbooks, to measure by: a doubly linked list of free blocks for each order, a
 * record a frame that holds the links and whether a free block starts there, one ticket lock around
 * each call. No owners, no quotas, no checks of what is given back, nothing for each CPU.
 *
 * The records are outside of the frames, as they are for who manages memory that he does not map.
 */
#ifndef QUIRE_TESTS_BENCH_TEXTBOOK_BUDDY_H
#define QUIRE_TESTS_BENCH_TEXTBOOK_BUDDY_H

#include <stdint.h>

#include "lib/lock.h"

#define TEXTBOOK_ORDERS 19
#define TEXTBOOK_NONE UINT32_MAX

struct textbook_frame {
    uint32_t next, previous; /* free blocks of this order, by frame number */
    int8_t free_order;       /* of the free block that starts here; -1 for none */
};

struct textbook_buddy {
    struct lock lock;
    uint32_t first[TEXTBOOK_ORDERS];
    struct textbook_frame *frame;
    uint32_t frames;
};

/* Starts with frames [0, frames) free, a multiple of the largest block. `frame` is as large. */
void textbook_start(struct textbook_buddy *buddy, struct textbook_frame *frame, uint32_t frames);

/* The first frame of a block; TEXTBOOK_NONE when there is none. */
uint32_t textbook_alloc(struct textbook_buddy *buddy, unsigned order);
void textbook_free(struct textbook_buddy *buddy, uint32_t block, unsigned order);

#endif
