/*
 * What frames contain when they change hands.
 *
 * The rule: memory that a guest or a ring-3 program will see is zeroed when it is taken, here and
 * nowhere else, so that nothing of whoever had it before is left, whether or not that was freed in
 * good order. What is filled as a whole anyway (a copy, a page table) is not zeroed first. Counted,
 * so that it can be seen to happen, and to happen once.
 *
 * The debugging aid: poison. A block that is freed is filled with a pattern; when it is taken, the
 * pattern must be whole, or somebody has written to memory that was not his any more.
 */
#ifndef QUIRE_MM_SCRUB_H
#define QUIRE_MM_SCRUB_H

#include <stdint.h>

#include "mm/addr.h"
#include "mm/frames/frame.h"

/* As buddy_alloc(), every byte of the block 0. The block must be reachable through direct(). */
int scrub_alloc(unsigned order, enum frame_purpose purpose, owner_t owner, hpa_t *out);

/* Zeroes a block that was taken by other means; `size` in bytes, a multiple of 4 KiB. */
void scrub_block(hpa_t block, uint64_t size);

/* Frames zeroed so far. */
uint64_t scrub_count(void);

#define POISON_WORD UINT64_C(0xf4eef4eef4eef4ee)

/* Poisons what is freed from now on and checks it when it is taken: panics with the address of a
 * word that was changed in between. Every frame of the buddy must be reachable through direct().
 * Slow: the buddy works under its lock alone. While one CPU runs. */
void poison_start(void);
void poison_stop(void);

/* At boot: only in a build with QUIRE_POISON (make POISON=1). */
#ifdef QUIRE_POISON
#define poison_at_boot() poison_start()
#else
#define poison_at_boot() ((void)0)
#endif

#endif
