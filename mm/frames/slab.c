/* See mm/frames/slab.h. */
#include "mm/frames/slab.h"

#include "lib/bits.h"
#include "lib/error.h"
#include "lib/format.h"
#include "lib/log.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"

#define RED_BYTE 0xbb
#define FREE_BYTE 0xf4
#define RED_SIZE (SLAB_DEBUG ? 16u : 0u)
#define WANTED 8 /* objects that a block should hold, so that little of it is lost */
#define ORDER_LIMIT 4

/* At the start of each block. */
struct slab {
    struct list link; /* in the cache's list */
    const struct slab_cache *cache;
    uint64_t free; /* by object: a bit that is set is free */
};

static uint64_t all_free(const struct slab_cache *cache)
{
    return ~UINT64_C(0) >> (SLAB_OBJECTS - cache->objects);
}

static uint8_t *object_at(const struct slab_cache *cache, const struct slab *slab, unsigned i)
{
    return (uint8_t *)slab + cache->first + i * cache->stride;
}

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
    *cache = (struct slab_cache){.name = name, .lock = LOCK_INIT, .size = (uint32_t)size};
    cache->stride = (uint32_t)align_up(size + RED_SIZE, align);
    cache->first = (uint32_t)align_up(sizeof(struct slab) + RED_SIZE, align);
    list_init(&cache->partial);
    list_init(&cache->full);
    for (bound_objects(cache); cache->objects < WANTED && cache->order < ORDER_LIMIT;
         bound_objects(cache))
        cache->order++;
    return cache->objects > 0 ? E_OK : E_INVAL;
}

/* ---- Red zones and poison: nothing where RED_SIZE is 0 ---- */

/* The first byte of [from, from + n) that is not `byte`; NULL for none. */
static const uint8_t *differs(const uint8_t *from, uint64_t n, uint8_t byte)
{
    for (; n > 0; n--, from++)
        if (*from != byte)
            return from;
    return NULL;
}

/* What lies between an object's end and the next one's start is all red. */
static uint64_t gap(const struct slab_cache *cache, unsigned i)
{
    return i + 1 < cache->objects ? cache->stride - cache->size : RED_SIZE;
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

/* The byte before or behind an object that was changed. */
static const uint8_t *red_damage(const struct slab_cache *cache, const struct slab *slab,
                                 unsigned i)
{
    const uint8_t *object = object_at(cache, slab, i);
    const uint8_t *at = differs(object - RED_SIZE, RED_SIZE, RED_BYTE);
    if (!SLAB_DEBUG)
        return NULL;
    return at != NULL ? at : differs(object + cache->size, gap(cache, i), RED_BYTE);
}

static const uint8_t *poison_damage(const struct slab_cache *cache, const struct slab *slab,
                                    unsigned i)
{
    return SLAB_DEBUG ? differs(object_at(cache, slab, i), cache->size, FREE_BYTE) : NULL;
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

static void shrink(struct slab_cache *cache, struct slab *slab)
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
        shrink(cache, slab);
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

/* ---- Checks ---- */

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
        shrink(cache, container_of(cache->partial.next, struct slab, link));
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
