/* See mm/frames/slab.h. */
#include "mm/frames/slab_internal.h"

#include "lib/error.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"

#define WANTED 8 /* objects that a block should hold, so that little of it is lost */
#define ORDER_LIMIT 4

static void bound_objects(struct slab_cache *cache)
{
    uint64_t room = (PAGE_SIZE << cache->order) - cache->first;
    /* The last object's own red zone follows it, too. */
    uint64_t need = cache->size + RED_SIZE;
    uint64_t n = room < need ? 0 : (room - need) / cache->stride + 1;
    cache->objects = (uint32_t)(n < SLAB_OBJECTS ? n : SLAB_OBJECTS);
}

int slab_init(struct slab_cache *cache, const char *name, size_t size, size_t align)
{
    align = align == 0 ? 8 : align;
    if (size == 0 || size > SLAB_SIZE_LIMIT || !is_power_of_two(align) || align > PAGE_SIZE)
        return E_INVAL;
    *cache =
        (struct slab_cache){.name = name, .lock = LOCK_INIT_AT(LOCK_SLAB), .size = (uint32_t)size};
    cache->stride = (uint32_t)align_up(size + RED_SIZE, align);
    cache->first = (uint32_t)align_up(sizeof(struct slab) + RED_SIZE, align);
    list_init(&cache->partial);
    list_init(&cache->full);
    for (bound_objects(cache); cache->objects < WANTED && cache->order < ORDER_LIMIT;
         bound_objects(cache))
        cache->order++;
    return cache->objects > 0 ? E_OK : E_INVAL;
}

static void paint(const struct slab_cache *cache, const struct slab *slab)
{
    if (!SLAB_DEBUG)
        return;
    memset(object_at(cache, slab, 0) - RED_SIZE, RED_BYTE, RED_SIZE);
    for (unsigned i = 0; i < cache->objects; i++) {
        memset(object_at(cache, slab, i), FREE_BYTE, cache->size);
        memset(object_at(cache, slab, i) + cache->size, RED_BYTE, gap(cache, i));
    }
}

/* ---- Blocks ---- */

static struct slab *grow(struct slab_cache *cache)
{
    hpa_t block;
    if (buddy_alloc(cache->order, PURPOSE_HEAP, OWNER_HOST, &block) != E_OK)
        return NULL;
    struct slab *slab = direct(block);
    *slab = (struct slab){.cache = cache, .free = all_free(cache)};
    paint(cache, slab);
    list_append(&cache->partial, &slab->link);
    cache->blocks++;
    return slab;
}

void slab_shrink(struct slab_cache *cache, struct slab *slab)
{
    list_remove(&slab->link);
    slab->cache = NULL;
    cache->blocks--;
    invariant(buddy_free(direct_hpa(slab), cache->order, OWNER_HOST) == E_OK);
}

/* The block of this cache that an address lies in: asked of the frame records, so that no address
 * is followed that is not a block's. */
static struct slab *slab_of(const struct slab_cache *cache, const void *object)
{
    struct frame_info info;
    hpa_t head;
    if (frame_query(direct_hpa(object), &info, &head) != E_OK || info.purpose != PURPOSE_HEAP ||
        (info.state != FRAME_USED && info.state != FRAME_TAIL) || info.order != cache->order)
        return NULL;
    struct slab *slab = direct(head);
    return slab->cache == cache ? slab : NULL;
}

/* ---- Objects ---- */

void *slab_alloc(struct slab_cache *cache)
{
    lock_take(&cache->lock);
    struct slab *slab = list_empty(&cache->partial)
                            ? grow(cache)
                            : container_of(cache->partial.next, struct slab, link);
    if (slab == NULL) {
        lock_drop(&cache->lock);
        return NULL;
    }
    unsigned i = lowest_bit(slab->free);
    const uint8_t *damage = poison_damage(cache, slab, i);
    if (damage != NULL)
        panic("slab %s: %#lx was written to after its object was freed", cache->name,
              (uintptr_t)damage);
    slab->free &= slab->free - 1;
    if (slab->free == 0) {
        list_remove(&slab->link);
        list_append(&cache->full, &slab->link);
    }
    cache->in_use++;
    if (cache->in_use > cache->most_in_use)
        cache->most_in_use = cache->in_use;
    lock_drop(&cache->lock);
    return memset(object_at(cache, slab, i), 0, cache->size);
}

static int free_object(struct slab_cache *cache, void *object)
{
    struct slab *slab = slab_of(cache, object);
    if (slab == NULL)
        return E_INVAL;
    uint64_t offset = (uint64_t)((uint8_t *)object - (uint8_t *)slab) - cache->first;
    unsigned i = (unsigned)(offset / cache->stride);
    if (offset % cache->stride != 0 || offset / cache->stride >= cache->objects)
        return E_INVAL;
    if ((slab->free >> i & 1) != 0)
        return E_DOUBLE_FREE;

    bool damaged = red_damage(cache, slab, i) != NULL;
    if (SLAB_DEBUG)
        memset(object, FREE_BYTE, cache->size);
    if (slab->free == 0) {
        list_remove(&slab->link);
        list_append(&cache->partial, &slab->link);
    }
    slab->free |= BIT(i);
    cache->in_use--;
    if (slab->free == all_free(cache) && !damaged)
        slab_shrink(cache, slab);
    return damaged ? E_STATE : E_OK;
}

int slab_free(struct slab_cache *cache, void *object)
{
    lock_take(&cache->lock);
    int error = free_object(cache, object);
    if (error == E_INVAL || error == E_DOUBLE_FREE)
        cache->refused++;
    lock_drop(&cache->lock);
    return error;
}
