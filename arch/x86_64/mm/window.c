/* See window.h. First fit over a short sorted array. */
#include "arch/x86_64/mm/window.h"

#include "lib/error.h"

#define LARGE_PAGE (2 * MiB)

static bool overlap(const struct window_slot *slot, hpa_t out, uint64_t last)
{
    return slot->out.v <= last && out.v <= slot->out.v + (slot->size - 1);
}

static bool covers(const struct window_slot *slot, hpa_t out, uint64_t last)
{
    return slot->out.v <= out.v && last <= slot->out.v + (slot->size - 1);
}

/* The lowest address from `free` on that leaves a page absent before it and sits in its large page
 * as `out` does. */
static uint64_t place(uint64_t free, hpa_t out, uint64_t size)
{
    uint64_t at = free + PAGE_SIZE;

    if (size >= LARGE_PAGE)
        at += (out.v - at) & (LARGE_PAGE - 1);
    return at;
}

int window_take(struct window *window, hpa_t out, uint64_t size, enum mem_type type, uint64_t *at,
                bool *fresh)
{
    uint64_t last = out.v + (size - 1);
    uint64_t free = window->base;
    unsigned i;

    if (size == 0)
        return E_INVAL;
    if (!is_aligned(out.v | size, PAGE_SIZE))
        return E_ALIGN;
    if (last < out.v)
        return E_RANGE;
    if (size > window->size)
        return E_NOMEM;
    for (i = 0; i < window->count; i++) {
        struct window_slot *slot = &window->slot[i];

        if (!overlap(slot, out, last))
            continue;
        if (slot->type != type || !covers(slot, out, last))
            return E_EXIST;
        slot->users++;
        *at = slot->at + (out.v - slot->out.v);
        *fresh = false;
        return E_OK;
    }
    if (window->count == WINDOW_SLOTS)
        return E_FULL;

    for (i = 0; i < window->count; i++) {
        if (place(free, out, size) + size <= window->slot[i].at - PAGE_SIZE)
            break;
        free = window->slot[i].at + window->slot[i].size;
    }
    *at = place(free, out, size);
    if (*at + size > window->base + window->size)
        return E_NOMEM;
    for (unsigned j = window->count; j > i; j--)
        window->slot[j] = window->slot[j - 1];
    window->count++;
    window->slot[i] = (struct window_slot){*at, size, out, type, 1};
    *fresh = true;
    return E_OK;
}

int window_drop(struct window *window, uint64_t at, struct window_slot *slot, bool *gone)
{
    for (unsigned i = 0; i < window->count; i++) {
        struct window_slot *found = &window->slot[i];

        if (at < found->at || at - found->at >= found->size)
            continue;
        *slot = *found;
        *gone = --found->users == 0;
        if (*gone) {
            window->count--;
            for (unsigned j = i; j < window->count; j++)
                window->slot[j] = window->slot[j + 1];
        }
        return E_OK;
    }
    return E_NOENT;
}
