/* See textbook_buddy.h. */
#include "tests/bench/textbook_buddy.h"

static void push(struct textbook_buddy *buddy, uint32_t block, unsigned order)
{
    uint32_t head = buddy->first[order];
    buddy->frame[block] = (struct textbook_frame){head, TEXTBOOK_NONE, (int8_t)order};
    if (head != TEXTBOOK_NONE)
        buddy->frame[head].previous = block;
    buddy->first[order] = block;
}

static void unlink_block(struct textbook_buddy *buddy, uint32_t block, unsigned order)
{
    struct textbook_frame *frame = &buddy->frame[block];
    frame->free_order = -1;
    if (frame->previous != TEXTBOOK_NONE)
        buddy->frame[frame->previous].next = frame->next;
    else
        buddy->first[order] = frame->next;
    if (frame->next != TEXTBOOK_NONE)
        buddy->frame[frame->next].previous = frame->previous;
}

void textbook_start(struct textbook_buddy *buddy, struct textbook_frame *frame, uint32_t frames)
{
    *buddy = (struct textbook_buddy){.lock = LOCK_INIT, .frame = frame, .frames = frames};
    for (unsigned order = 0; order < TEXTBOOK_ORDERS; order++)
        buddy->first[order] = TEXTBOOK_NONE;
    for (uint32_t i = 0; i < frames; i++)
        frame[i].free_order = -1;
    for (uint32_t block = 0; block < frames; block += 1u << (TEXTBOOK_ORDERS - 1))
        push(buddy, block, TEXTBOOK_ORDERS - 1);
}

uint32_t textbook_alloc(struct textbook_buddy *buddy, unsigned order)
{
    lock_take(&buddy->lock);
    unsigned from = order;
    while (from < TEXTBOOK_ORDERS && buddy->first[from] == TEXTBOOK_NONE)
        from++;
    uint32_t block = TEXTBOOK_NONE;
    if (from < TEXTBOOK_ORDERS) {
        block = buddy->first[from];
        unlink_block(buddy, block, from);
        while (from > order) {
            from--;
            push(buddy, block + (1u << from), from);
        }
    }
    lock_drop(&buddy->lock);
    return block;
}

void textbook_free(struct textbook_buddy *buddy, uint32_t block, unsigned order)
{
    lock_take(&buddy->lock);
    for (; order < TEXTBOOK_ORDERS - 1; order++) {
        uint32_t other = block ^ (1u << order);
        if (buddy->frame[other].free_order != (int8_t)order)
            break;
        unlink_block(buddy, other, order);
        block &= ~(1u << order);
    }
    push(buddy, block, order);
    lock_drop(&buddy->lock);
}
