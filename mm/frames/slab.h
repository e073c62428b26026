/*
 * Small objects of one size, packed into blocks of the buddy: a cache for each kind of structure.
 *
 *    +--------+------+-----------+------+-----------+------+----
 *    | header | red  | object 0  | red  | object 1  | red  | ...      one block of 2^order frames
 *    +--------+------+-----------+------+-----------+------+----
 *
 * The header says which objects are free; since a block is aligned to its size, an object's address
 * leads to its header. A free of what is no object of this cache, or is free already, is refused
 * and counted. In debug builds there are red zones around each object, and a free object holds
 * poison; both are checked whenever an object is freed or taken, and by slab_check(). A block whose
 * last object is freed goes back to the buddy (but for one that was damaged, which stays as
 * evidence), so that who gives back all objects leaves memory as it was. The frames are the host's,
 * PURPOSE_HEAP.
 */
#ifndef QUIRE_MM_SLAB_H
#define QUIRE_MM_SLAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/list.h"
#include "lib/lock.h"

/* Red zones and poison: in hosted tests, and by QUIRE_POISON (make POISON=1). */
#if defined(QUIRE_HOSTED) || defined(QUIRE_POISON)
#define SLAB_DEBUG 1
#else
#define SLAB_DEBUG 0
#endif

#define SLAB_OBJECTS 64      /* the most in one block: a word says which are free */
#define SLAB_SIZE_LIMIT 8192 /* of an object, in bytes */

struct slab_cache {
    const char *name;
    struct lock lock;
    uint32_t size, stride,
        first;        /* of an object; from one to the next; offset of the first, in bytes */
    uint32_t objects; /* in a block */
    uint32_t order;   /* of a block */
    struct list partial, full; /* blocks with free objects, and without */
    struct list known;         /* once slab_register() has been called */
    uint64_t blocks, in_use, most_in_use;
    uint64_t refused; /* frees */
};

/* Starts a cache for objects of `size` bytes (1 .. SLAB_SIZE_LIMIT) at multiples of `align` (a
 * power of two up to 4096; 0 for 8). `name` must stay. Takes no memory yet. E_INVAL. */
int slab_init(struct slab_cache *cache, const char *name, size_t size, size_t align);

/* One object, all zeros; NULL when the buddy has no block for the host. */
void *slab_alloc(struct slab_cache *cache);

/* Gives an object back. E_INVAL: the address of no object of this cache; E_DOUBLE_FREE: free
 * already; E_STATE: somebody wrote outside of the object (debug builds; the object is freed all the
 * same). */
int slab_free(struct slab_cache *cache, void *object);

/* Verifies the cache: counts, links and, in debug builds, every red zone and all poison. E_STATE
 * with the first thing wrong in `why`. */
int slab_check(struct slab_cache *cache, char *why, size_t why_size);

/* Gives every block back. Objects that are still in use are leaks: nothing is given back then,
 * their number is returned, and the log names the cache and the first of them. */
uint64_t slab_destroy(struct slab_cache *cache);

/* Has a cache looked at with all others from now on. Once for each, while one CPU runs. */
void slab_register(struct slab_cache *cache);

/* slab_check() of each registered cache, until one is found to be wrong. */
int slab_check_all(char *why, size_t why_size);

/* The end of the machine: slab_destroy() of each registered cache, those that are clean being
 * registered no longer. Returns how many objects leaked. */
uint64_t slab_destroy_all(void);

#endif
