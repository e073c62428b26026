/* See page_source.h. */
#include "mm/paging/page_source.h"

#include "lib/bits.h"
#include "lib/list.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "mm/frames/scrub.h"

static struct buddy_pages *pages_of(struct page_source *source)
{
    return container_of(source, struct buddy_pages, source);
}

static unsigned order_of(uint64_t size)
{
    return lowest_bit(size) - PAGE_SHIFT;
}

static int take_block(struct page_source *source, uint64_t size, hpa_t *out)
{
    const struct buddy_pages *pages = pages_of(source);
    return buddy_alloc(order_of(size), pages->purpose, pages->owner, out);
}

static void give_block(struct page_source *source, hpa_t block, uint64_t size)
{
    invariant(buddy_free(block, order_of(size), pages_of(source)->owner) == E_OK);
}

static void fill_block(struct page_source *source, hpa_t block, uint64_t size,
                       const struct mapping *from)
{
    (void)source;
    if (from)
        memcpy(direct(block), direct(from->out), size);
    else
        scrub_block(block, size);
}

void buddy_pages_init(struct buddy_pages *pages, enum frame_purpose purpose, owner_t owner)
{
    *pages = (struct buddy_pages){
        .source = {.take = take_block, .give = give_block, .fill = fill_block},
        .purpose = purpose,
        .owner = owner,
    };
}
