/* See mm/frames/regions.h. */
#include "mm/frames/regions.h"

#include "lib/bits.h"
#include "lib/string.h"

#define NONE 0
#define ANY_LEVEL UINT32_MAX /* above all levels */

enum { LEFT, RIGHT };

/* ---- The treap ---- */

static uint32_t priority(uint32_t node)
{
    uint64_t hash = node * UINT64_C(0x9e3779b97f4a7c15);
    hash = (hash ^ hash >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
    return node == NONE ? 0 : (uint32_t)(hash >> 32);
}

/* Recomputes `lowest`. True when it changed. */
static bool refresh(struct region_node *nodes, uint32_t n)
{
    uint32_t lowest = nodes[n].level, before = nodes[n].lowest;
    for (unsigned side = LEFT; side <= RIGHT; side++)
        if (nodes[nodes[n].child[side]].lowest < lowest)
            lowest = nodes[nodes[n].child[side]].lowest;
    nodes[n].lowest = lowest;
    return lowest != before;
}

static void refresh_up(struct region_node *nodes, uint32_t n)
{
    while (n != NONE && refresh(nodes, n))
        n = nodes[n].parent;
}

/* Puts `now` in the place of `before`, below `parent`. */
static void replace(struct memregions *list, uint32_t parent, uint32_t before, uint32_t now)
{
    struct region_node *nodes = list->nodes;
    if (parent == NONE)
        list->root = now;
    else
        nodes[parent].child[nodes[parent].child[RIGHT] == before] = now;
    if (now != NONE)
        nodes[now].parent = parent;
}

/*       p            n
 *      / \          / \
 *     n   c   ->   a   p        and the mirror image
 *    / \              / \
 *   a   b            b   c
 */
static void rotate_up(struct memregions *list, uint32_t n)
{
    struct region_node *nodes = list->nodes;
    uint32_t p = nodes[n].parent;
    unsigned side = nodes[p].child[RIGHT] == n;
    uint32_t b = nodes[n].child[!side];
    replace(list, nodes[p].parent, p, n);
    nodes[p].child[side] = b;
    if (b != NONE)
        nodes[b].parent = p;
    nodes[n].child[!side] = p;
    nodes[p].parent = n;
    refresh(nodes, p);
    refresh(nodes, n);
}

static uint32_t outermost(const struct region_node *nodes, uint32_t n, unsigned side)
{
    while (nodes[n].child[side] != NONE)
        n = nodes[n].child[side];
    return n;
}

/* The neighbour on a side. */
static uint32_t step(const struct region_node *nodes, uint32_t n, unsigned side)
{
    if (nodes[n].child[side] != NONE)
        return outermost(nodes, nodes[n].child[side], !side);
    while (nodes[n].parent != NONE && nodes[nodes[n].parent].child[side] == n)
        n = nodes[n].parent;
    return nodes[n].parent;
}

/* A node behind `n`; there is one left. */
static uint32_t insert_after(struct memregions *list, uint32_t n, uint64_t start)
{
    struct region_node *nodes = list->nodes;
    uint32_t new = list->free != NONE ? list->free : (uint32_t)list->used;
    if (list->free != NONE)
        list->free = nodes[new].parent;
    list->used++;
    list->count += nodes[n].level != 0;

    uint32_t right = nodes[n].child[RIGHT];
    uint32_t parent = right == NONE ? n : outermost(nodes, right, LEFT);
    nodes[new] = (struct region_node){start, nodes[n].level, nodes[n].level, parent, {NONE, NONE}};
    nodes[parent].child[right == NONE ? RIGHT : LEFT] = new;
    refresh_up(nodes, parent);
    while (nodes[new].parent != NONE && priority(new) > priority(nodes[new].parent))
        rotate_up(list, new);
    return new;
}

static void erase(struct memregions *list, uint32_t n)
{
    struct region_node *nodes = list->nodes;
    uint32_t *child = nodes[n].child;
    while (child[LEFT] != NONE || child[RIGHT] != NONE)
        rotate_up(list, child[priority(child[RIGHT]) > priority(child[LEFT])]);
    uint32_t parent = nodes[n].parent;
    replace(list, parent, n, NONE);
    refresh_up(nodes, parent);
    list->used--;
    list->count -= nodes[n].level != 0;
    nodes[n].parent = list->free;
    list->free = n;
}

/* ---- Finding ---- */

static uint64_t last_of(const struct region_node *nodes, uint32_t n)
{
    uint32_t next = step(nodes, n, RIGHT);
    return next == NONE ? UINT64_MAX : nodes[next].start - 1;
}

static bool contains(const struct region_node *nodes, uint32_t n, uint64_t address)
{
    return n != NONE && nodes[n].start <= address && address <= last_of(nodes, n);
}

/* The node of the segment that an address lies in. */
static uint32_t find(const struct memregions *list, uint64_t address)
{
    const struct region_node *nodes = list->nodes;
    uint32_t found = list->recent;
    if (contains(nodes, found, address))
        return found;
    found = step(nodes, list->recent, address > nodes[list->recent].start);
    if (contains(nodes, found, address))
        return found;
    for (uint32_t n = list->root; n != NONE;) {
        bool right = nodes[n].start <= address;
        found = right ? n : found;
        n = nodes[n].child[right];
    }
    return found;
}

/* The first node from `n` on, inclusive, whose level is below `bound`. */
static uint32_t next_below(const struct region_node *nodes, uint32_t n, uint32_t bound)
{
    while (n != NONE && nodes[n].level >= bound) {
        uint32_t below = nodes[n].child[RIGHT];
        if (nodes[below].lowest >= bound) { /* none of these: up */
            while (nodes[n].parent != NONE && nodes[nodes[n].parent].child[RIGHT] == n)
                n = nodes[n].parent;
            n = nodes[n].parent;
            continue;
        }
        for (n = below; nodes[nodes[n].child[LEFT]].lowest < bound;)
            n = nodes[n].child[LEFT];
    }
    return n;
}

/* ---- Changing ---- */

/* Joins a segment with neighbours that are alike; the node that is left. */
static uint32_t join(struct memregions *list, uint32_t n)
{
    struct region_node *nodes = list->nodes;
    uint32_t before = step(nodes, n, LEFT), after = step(nodes, n, RIGHT);
    if (after != NONE && nodes[after].level == nodes[n].level)
        erase(list, after);
    if (before == NONE || nodes[before].level != nodes[n].level)
        return n;
    erase(list, n);
    return before;
}

/* Gives what is below `bound` in [first, last] this level. */
static int change(struct memregions *list, uint64_t first, uint64_t last, uint32_t level,
                  uint32_t bound)
{
    struct region_node *nodes = list->nodes;
    uint32_t from = find(list, first), upto = find(list, last);
    /* A segment is split where it changes on one side of an edge alone. */
    bool splits_from =
        nodes[from].start != first && nodes[from].level < bound && nodes[from].level != level;
    bool splits_upto =
        last_of(nodes, upto) != last && nodes[upto].level < bound && nodes[upto].level != level;
    if (list->used + splits_from + splits_upto > list->capacity)
        return E_FULL;

    if (splits_upto)
        insert_after(list, upto, last + 1);
    if (splits_from)
        from = insert_after(list, from, first);
    if (nodes[from].start < first)
        from = step(nodes, from, RIGHT);
    for (uint32_t n = next_below(nodes, from, bound); n != NONE && nodes[n].start <= last;
         n = next_below(nodes, step(nodes, n, RIGHT), bound)) {
        list->count += (size_t)(level != 0) - (size_t)(nodes[n].level != 0);
        nodes[n].level = level;
        refresh_up(nodes, n);
        n = join(list, n);
        list->recent = n;
    }
    return E_OK;
}

int regions_set(struct memregions *list, uint64_t first, uint64_t last, uint32_t flags)
{
    return change(list, first, last, flags + 1, ANY_LEVEL);
}

int regions_clear(struct memregions *list, uint64_t first, uint64_t last)
{
    return change(list, first, last, 0, ANY_LEVEL);
}

int regions_raise(struct memregions *list, uint64_t first, uint64_t last, uint32_t flags)
{
    return change(list, first, last, flags + 1, flags + 1);
}

void regions_init(struct memregions *list, struct region_node *nodes, size_t capacity)
{
    nodes[NONE] = (struct region_node){.lowest = ANY_LEVEL};
    nodes[1] = (struct region_node){0};
    *list = (struct memregions){
        .nodes = nodes, .capacity = capacity, .used = 2, .root = 1, .recent = 1};
}

void regions_move(struct memregions *list, struct region_node *nodes, size_t capacity)
{
    memcpy(nodes, list->nodes, list->capacity * sizeof(*nodes));
    list->nodes = nodes;
    list->capacity = capacity;
}

/* ---- Reading ---- */

struct memsegment regions_segment(const struct memregions *list, uint64_t address)
{
    uint32_t n = find(list, address);
    const struct region_node *node = &list->nodes[n];
    return (struct memsegment){node->start, last_of(list->nodes, n), node->level == 0,
                               node->level - 1};
}

bool regions_from(const struct memregions *list, uint64_t from, struct memregion *region)
{
    struct memsegment segment = regions_segment(list, from);
    if (segment.gap && segment.last == UINT64_MAX)
        return false;
    if (segment.gap)
        segment = regions_segment(list, segment.last + 1);
    if (segment.first == 0 && segment.last == UINT64_MAX) {
        segment.first = from & BIT(63);
        segment.last = segment.first + (BIT(63) - 1);
    }
    *region = (struct memregion){segment.first, segment.last - segment.first + 1, segment.flags};
    return true;
}

bool regions_next(const struct memregions *list, struct memregion *region)
{
    uint64_t end = region->base + region->size;
    return end != 0 && regions_from(list, end, region);
}
