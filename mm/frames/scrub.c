/* See mm/frames/scrub.h. */
#include "mm/frames/scrub.h"

#include "lib/bits.h"
#include "lib/error.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"

#define FRAME_WORDS (PAGE_SIZE / sizeof(uint64_t))

static uint64_t scrubbed;

int scrub_alloc(unsigned order, enum frame_purpose purpose, owner_t owner, hpa_t *out)
{
    int error = buddy_alloc(order, purpose, owner, out);

    if (error == E_OK)
        scrub_block(*out, PAGE_SIZE << order);
    return error;
}

void scrub_block(hpa_t block, uint64_t size)
{
    memset(direct(block), 0, size);
    __atomic_fetch_add(&scrubbed, size >> PAGE_SHIFT, __ATOMIC_RELAXED);
}

uint64_t scrub_count(void)
{
    return __atomic_load_n(&scrubbed, __ATOMIC_RELAXED);
}

static void poison_block(hpa_t block, uint64_t size)
{
    uint64_t *word = direct(block);

    for (uint64_t i = 0; i < size / sizeof(*word); i++)
        word[i] = POISON_WORD;
}

/* A frame that was never freed holds anything; one that is poison for the most part was freed. */
static void check_frame(hpa_t frame)
{
    const uint64_t *word = direct(frame);
    unsigned whole = 0, changed = 0;

    for (unsigned i = 0; i < FRAME_WORDS; i++) {
        if (word[i] == POISON_WORD)
            whole++;
        else
            changed = i;
    }
    if (whole > FRAME_WORDS / 2 && whole < FRAME_WORDS)
        panic("frame %#lx was written to after it was freed: %#lx at offset %#x", frame.v,
              word[changed], (unsigned)(changed * sizeof(*word)));
}

static void check_block(hpa_t block, uint64_t size)
{
    for (uint64_t at = 0; at < size; at += PAGE_SIZE)
        check_frame(hpa(block.v + at));
}

void poison_start(void)
{
    static const struct buddy_watch watch = {.freed = poison_block, .taken = check_block};
    buddy_set_watch(&watch);
}

void poison_stop(void)
{
    buddy_set_watch(NULL);
}
