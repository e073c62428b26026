/* What slab.c and slab_check.c share: where objects lie in a block, red zones and poison. */
#ifndef QUIRE_MM_SLAB_INTERNAL_H
#define QUIRE_MM_SLAB_INTERNAL_H

#include "mm/frames/slab.h"

#include "lib/bits.h"

#define RED_BYTE 0xbb
#define FREE_BYTE 0xf4
#define RED_SIZE (SLAB_DEBUG ? 16u : 0u)

/* At the start of each block. */
struct slab {
    struct list link; /* in the cache's list */
    const struct slab_cache *cache;
    uint64_t free; /* by object: a bit that is set is free */
};

static inline uint64_t all_free(const struct slab_cache *cache)
{
    return ~UINT64_C(0) >> (SLAB_OBJECTS - cache->objects);
}

static inline uint8_t *object_at(const struct slab_cache *cache, const struct slab *slab,
                                 unsigned i)
{
    return (uint8_t *)slab + cache->first + i * cache->stride;
}

/* ---- Red zones and poison: nothing where RED_SIZE is 0 ---- */

/* The first byte of [from, from + n) that is not `byte`; NULL for none. */
static inline const uint8_t *differs(const uint8_t *from, uint64_t n, uint8_t byte)
{
    for (; n > 0; n--, from++)
        if (*from != byte)
            return from;
    return NULL;
}

/* What lies between an object's end and the next one's start is all red. */
static inline uint64_t gap(const struct slab_cache *cache, unsigned i)
{
    return i + 1 < cache->objects ? cache->stride - cache->size : RED_SIZE;
}

/* The byte before or behind an object that was changed. */
static inline const uint8_t *red_damage(const struct slab_cache *cache, const struct slab *slab,
                                        unsigned i)
{
    const uint8_t *object = object_at(cache, slab, i);
    const uint8_t *at = differs(object - RED_SIZE, RED_SIZE, RED_BYTE);
    if (!SLAB_DEBUG)
        return NULL;
    return at != NULL ? at : differs(object + cache->size, gap(cache, i), RED_BYTE);
}

static inline const uint8_t *poison_damage(const struct slab_cache *cache, const struct slab *slab,
                                           unsigned i)
{
    return SLAB_DEBUG ? differs(object_at(cache, slab, i), cache->size, FREE_BYTE) : NULL;
}

/* Takes an empty block out of its cache and gives it back. */
void slab_shrink(struct slab_cache *cache, struct slab *slab);

#endif
