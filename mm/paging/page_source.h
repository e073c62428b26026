/*
 * Frames from the buddy, for table_map_fresh() and table_copy(): blocks of the size of a leaf,
 * charged to an owner, filled with zeros or with what is copied.
 */
#ifndef QUIRE_MM_PAGE_SOURCE_H
#define QUIRE_MM_PAGE_SOURCE_H

#include "mm/frames/frame.h"
#include "mm/paging/table.h"

struct buddy_pages {
    struct page_source source;
    enum frame_purpose purpose;
    owner_t owner;
};

/* To give back what was mapped, free each block at the order of its leaf: 0, 9 or 18. */
void buddy_pages_init(struct buddy_pages *pages, enum frame_purpose purpose, owner_t owner);

#endif
