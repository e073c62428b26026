/*
 * Protect: other attributes for what a range maps; A and D are kept, whatever hardware does
 * meanwhile. Part of the template (mm/paging/template.h).
 */
#ifndef QUIRE_MM_PAGING_PROTECT_H
#define QUIRE_MM_PAGING_PROTECT_H

#include "mm/paging/copies.h"
#include "mm/paging/map.h"

/* Replaces a live leaf's bits. */
static inline void rewrite_leaf(const struct table *t, uint64_t *slot, uint64_t old, uint64_t bits)
{
    if (!t->caps.accessed_dirty || (old & ACCESSED_DIRTY) == ACCESSED_DIRTY) {
        pte_write(slot, bits | (old & ACCESSED_DIRTY)); /* hardware has nothing to add */
        return;
    }
    while (!pte_exchange_if(slot, &old, bits | (old & ACCESSED_DIRTY)))
        continue;
}

/* Does a change of attributes leave behind translations that allow too much, or cache wrongly? */
static inline bool change_needs_flush(struct attrs before, struct attrs after)
{
    return !KIND.rights_grow_freely || before.type != after.type || (before.rights & ~after.rights);
}

/* The leaf in the cursor's slot. Returns whether an invalidation is owed. */
static inline bool protect_leaf(struct table_cursor *c, uint64_t old, struct attrs attrs,
                                uint64_t bits)
{
    struct attrs before = KIND.decode(old, c->level, &c->table->caps);

    if (attrs_equal(before, attrs))
        return false;
    rewrite_leaf(c->table, slot_of(c), old, leaf_address(old, c->level) | bits);
    return change_needs_flush(before, attrs);
}

/* Changes leaves as if `first` became `wanted`, for as long as they differ from `first` in nothing
 * but `varying`, and hardware has nothing to add. Returns how many. */
static inline unsigned change_alike(uint64_t *slot, unsigned count, uint64_t first,
                                    uint64_t varying, uint64_t wanted)
{
    unsigned n;

    for (n = 0; n < count; n++) {
        uint64_t difference = pte_peek(&slot[n]) ^ first;

        if (difference & ~varying)
            break;
        pte_write(&slot[n], difference ^ wanted);
    }
    return n;
}

/* Are all slots of the cursor's node leaves, and the node this table's own to replace? Nodes right
 * below a pinned root are other roots' as well. */
static inline bool can_copy(const struct table_cursor *c)
{
    const struct table *t = c->table;

    if (c->level == KIND.levels || !t->env->frame_records ||
        (t->root_pinned && c->level == KIND.levels - 1u) || count_of(t, c->node[c->level]) != SLOTS)
        return false;
    for (unsigned i = 0; c->level > 1 && i < SLOTS; i++)
        if (!is_leaf(pte_read(&slots_of(c, c->level)[i]), c->level))
            return false;
    return true;
}

/* Changes all leaves of the cursor's node at once. False, with nothing changed, where there is no
 * frame for its copy. */
static inline bool copy_node(struct table_cursor *c, uint64_t keep, uint64_t bits,
                             struct copies *copies)
{
    uint64_t *above = &slots_of(c, c->level + 1)[index_of(c->at, c->level + 1)];
    uint64_t node = copies_replace(copies, above, c->node[c->level], keep, bits);

    c->node[c->level] = node ? node : c->node[c->level];
    return node != 0;
}

/* Leaves from the cursor's on, in its node: one, or many alike. Returns the last address dealt
 * with. */
static SHARED uint64_t protect_leaves(struct table_cursor *c, uint64_t old, struct attrs attrs,
                                      uint64_t bits, struct copies *copies,
                                      struct flush_batch *batch)
{
    const struct table *t = c->table;
    uint64_t page = ENTRY_ADDRESS & ~(size_of(c->level) - 1);
    struct attrs before = KIND.decode(old, c->level, &t->caps);
    unsigned slots = slots_to(c, c->last), done = 1;
    bool marks = t->caps.accessed_dirty && (old & ACCESSED_DIRTY) != ACCESSED_DIRTY;
    bool owed;

    if (attrs_equal(before, attrs))
        return slot_last(c);
    if (!marks) {
        uint64_t varying = t->caps.accessed_dirty ? page : page | ACCESSED_DIRTY;
        uint64_t wanted = (old & (page | ACCESSED_DIRTY)) | bits;

        done = change_alike(slot_of(c), slots, old, varying, wanted);
        owed = change_needs_flush(before, attrs);
    } else if (slots == SLOTS && can_copy(c) && copy_node(c, page | ACCESSED_DIRTY, bits, copies)) {
        return node_last(c);
    } else {
        owed = protect_leaf(c, old, attrs, bits);
    }
    if (owed)
        flush_add(batch, align_down(c->at, size_of(c->level)), slots_last(c, done), c->level);
    return slots_last(c, done);
}

static inline void protect_range(struct table_cursor *c, struct attrs attrs, const uint64_t *bits,
                                 struct flush_batch *batch)
{
    struct copies copies;
    uint64_t entry, done;

    copies_start(&copies, c->table);
    for (bool more = true; more && find_leaf(c, &entry); more = advance(c, done))
        done = protect_leaves(c, entry, attrs, bits[c->level] & ~ACCESSED_DIRTY, &copies, batch);
    copies_end(&copies);
}

static int OP(protect)(struct table *t, uint64_t in, uint64_t size, struct attrs attrs,
                       struct flush_batch *batch)
{
    uint64_t bits[MAX_LEVELS + 1];
    int error = check_range(in, size);
    struct table_cursor c;

    if (error)
        return error;
    lock_take(&t->lock);
    cursor_start(&c, t, in, in + size - 1);
    if (!encode_attrs(t, attrs, 1, fitting_leaf(size, t->caps.leaf_top), bits))
        error = E_ILLEGAL;
    if (!error)
        error = split_ends(&c, &attrs, batch);
    if (!error)
        protect_range(&c, attrs, bits, batch);
    lock_drop(&t->lock);
    return error;
}

#endif
