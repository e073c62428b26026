/* Flush batches as shipped, except that a test sees each data block that they give back. */
#include "mm/frames/buddy.h"

int world_buddy_free(hpa_t head, unsigned order, owner_t owner);
#define buddy_free world_buddy_free

#include "mm/paging/flush.c"
