/* Whether a cache of small objects is right, what leaked of it, and its end. See mm/frames/slab.h.
 */
#include "mm/frames/slab_internal.h"

#include "lib/error.h"
#include "lib/format.h"
#include "lib/log.h"

#define broken(...) (format_buffer(why, why_size, __VA_ARGS__), E_STATE)

static int check_slab(const struct slab_cache *cache, const struct slab *slab, bool full, char *why,
                      size_t why_size)
{
    uint64_t at = (uintptr_t)slab;
    if (slab->cache != cache || (slab->free & ~all_free(cache)) != 0 || (slab->free == 0) != full)
        return broken("slab %s: the header of block %#lx makes no sense", cache->name, at);
    for (unsigned i = 0; i < cache->objects; i++) {
        const uint8_t *damage = red_damage(cache, slab, i);
        if (damage == NULL && (slab->free >> i & 1) != 0)
            damage = poison_damage(cache, slab, i);
        if (damage != NULL)
            return broken("slab %s: %#lx, outside of any object in use, was written to",
                          cache->name, (uintptr_t)damage);
    }
    return E_OK;
}

static int check_list(const struct slab_cache *cache, const struct list *head, uint64_t *blocks,
                      uint64_t *in_use, char *why, size_t why_size)
{
    list_each (link, head) {
        const struct slab *slab = container_of(link, struct slab, link);
        if (++*blocks > cache->blocks)
            return broken("slab %s: more blocks than counted", cache->name);
        int error = check_slab(cache, slab, head == &cache->full, why, why_size);
        if (error != E_OK)
            return error;
        for (uint64_t used = all_free(cache) & ~slab->free; used != 0; used &= used - 1)
            ++*in_use;
    }
    return E_OK;
}

int slab_check(struct slab_cache *cache, char *why, size_t why_size)
{
    uint64_t blocks = 0, in_use = 0;
    lock_take(&cache->lock);
    int error = check_list(cache, &cache->partial, &blocks, &in_use, why, why_size);
    if (error == E_OK)
        error = check_list(cache, &cache->full, &blocks, &in_use, why, why_size);
    if (error == E_OK && (blocks != cache->blocks || in_use != cache->in_use))
        error = broken("slab %s: %lu blocks and %lu objects, counted as %lu and %lu", cache->name,
                       blocks, in_use, cache->blocks, cache->in_use);
    lock_drop(&cache->lock);
    return error;
}

/* The first object in use. */
static const void *first_leak(const struct slab_cache *cache)
{
    const struct list *link =
        !list_empty(&cache->full) ? cache->full.next : (const struct list *)cache->partial.next;
    for (; link != &cache->partial && link != &cache->full; link = link->next) {
        const struct slab *slab = container_of(link, const struct slab, link);
        uint64_t used = all_free(cache) & ~slab->free;
        if (used != 0)
            return object_at(cache, slab, lowest_bit(used));
    }
    return NULL;
}

uint64_t slab_destroy(struct slab_cache *cache)
{
    lock_take(&cache->lock);
    uint64_t leaked = cache->in_use;
    if (leaked > 0)
        log_line("slab %s: %lu objects leaked, the first at %#lx", cache->name, leaked,
                 (uintptr_t)first_leak(cache));
    while (leaked == 0 && !list_empty(&cache->partial))
        slab_shrink(cache, container_of(cache->partial.next, struct slab, link));
    lock_drop(&cache->lock);
    return leaked;
}

/* ---- All of them ---- */

static struct list registered = LIST_INIT(registered);

void slab_register(struct slab_cache *cache)
{
    list_append(&registered, &cache->known);
}

int slab_check_all(char *why, size_t why_size)
{
    list_each (link, &registered) {
        int error = slab_check(container_of(link, struct slab_cache, known), why, why_size);
        if (error != E_OK)
            return error;
    }
    return E_OK;
}

uint64_t slab_destroy_all(void)
{
    uint64_t leaked = 0;
    for (struct list *link = registered.next, *next; link != &registered; link = next) {
        uint64_t of_this = slab_destroy(container_of(link, struct slab_cache, known));
        next = link->next;
        if (of_this == 0)
            list_remove(link);
        leaked += of_this;
    }
    return leaked;
}
