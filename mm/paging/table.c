/*
 * The mapper's public functions: each goes on in the operation that the template made for the
 * table's kind (mm/paging/template.h), and tells who traces.
 */
#include "mm/paging/table.h"

#include "lib/panic.h"
#include "lib/string.h"
#include "mm/paging/nodes.h"
#include "mm/paging/ops.h"
#include "mm/paging/pte.h"
#include "mm/trace.h"

int table_init(struct table *table, const struct table_kind *kind, const struct table_caps *caps,
               const struct table_env *env, enum frame_purpose purpose, owner_t owner)
{
    hpa_t root;

    if (kind->read_only)
        return E_PERM;
    *table = (struct table){.kind = kind,
                            .ops = kind->ops,
                            .caps = *caps,
                            .env = env,
                            .lock = LOCK_INIT_AT(LOCK_TABLE),
                            .owner = owner,
                            .purpose = purpose};
    int error = env->take(env, table, &root);
    if (error)
        return error;
    memset(direct(root), 0, PAGE_SIZE);
    if (env->frame_records)
        frame_set_payload(root, 0);
    table->root = root;
    table->table_frames = 1;
    return E_OK;
}

int table_map(struct table *table, uint64_t in, hpa_t out, uint64_t size, struct attrs attrs,
              unsigned flags, struct flush_batch *batch)
{
    return trace(TRACE_MAP, table->owner, in, size, out.v,
                 table->ops->map(table, in, out, size, attrs, flags, batch));
}

int table_unmap(struct table *table, uint64_t in, uint64_t size, struct flush_batch *batch)
{
    return trace(TRACE_UNMAP, table->owner, in, size, 0, table->ops->unmap(table, in, size, batch));
}

int table_protect(struct table *table, uint64_t in, uint64_t size, struct attrs attrs,
                  struct flush_batch *batch)
{
    return trace(TRACE_PROTECT, table->owner, in, size, attrs.rights,
                 table->ops->protect(table, in, size, attrs, batch));
}

int table_split(struct table *table, uint64_t in, uint64_t size, unsigned level,
                struct flush_batch *batch)
{
    return trace(TRACE_SPLIT, table->owner, in, size, level,
                 table->ops->split(table, in, size, level, batch));
}

int table_merge(struct table *table, uint64_t in, uint64_t size, struct flush_batch *batch)
{
    return trace(TRACE_MERGE, table->owner, in, size, 0, table->ops->merge(table, in, size, batch));
}

static int note_first(void *ctx, const struct mapping *mapping)
{
    *(uint64_t *)ctx = mapping->in;
    return 1;
}

int table_merge_sweep(struct table *table, uint64_t *cursor, uint64_t end,
                      struct flush_batch *batch)
{
    const struct table_kind *kind = table->kind;
    uint64_t part = level_size(kind, table->caps.leaf_top);
    uint64_t found;

    if (table->ops->visit(table, *cursor, end, VISIT_PAGES, note_first, &found) != 1) {
        *cursor = kind->input_first;
        return E_NOENT;
    }
    uint64_t first = align_down(found, part), last = first + (part - 1);
    first = first < *cursor ? *cursor : first;
    last = last > end ? end : last;
    int error = table_merge(table, first, last - first + 1, batch);
    bool done = last == end;
    *cursor = done ? kind->input_first : last + 1;
    return error || !done ? error : E_NOENT;
}

int table_map_fresh(struct table *table, uint64_t in, uint64_t size, struct attrs attrs,
                    unsigned flags, struct page_source *source)
{
    return trace(TRACE_MAP, table->owner, in, size, 0,
                 table->ops->map_fresh(table, in, size, attrs, flags, source));
}

int table_clone(struct table *to, struct table *from, uint64_t in, uint64_t size, clone_fn fn,
                struct flush_batch *batch)
{
    return trace(TRACE_CLONE, to->owner, in, size, from->owner,
                 from->ops->clone(to, from, in, size, fn, batch));
}

int table_copy(struct table *to, struct table *from, uint64_t in, uint64_t size,
               struct page_source *source)
{
    return trace(TRACE_COPY, to->owner, in, size, from->owner,
                 from->ops->copy(to, from, in, size, source));
}

int table_translate(struct table *table, uint64_t in, struct mapping *out)
{
    return table->ops->translate(table, in, out);
}

uint64_t table_read(struct table *table, uint64_t in, unsigned rights, void *to, uint64_t size)
{
    uint64_t done = 0;
    struct mapping page;

    while (done < size && table_translate(table, in + done, &page) == E_OK &&
           !(rights & ~page.attrs.rights)) {
        uint64_t offset = in + done - page.in, room = page.last - page.in + 1 - offset;
        uint64_t part = room < size - done ? room : size - done;

        memcpy((uint8_t *)to + done, direct(hpa_add(page.out, offset)), part);
        done += part;
    }
    return done;
}

void table_walk(struct table *table, uint64_t in, struct walk *out)
{
    table->ops->walk(table, in, out);
}

int table_visit(struct table *table, uint64_t first, uint64_t last, unsigned flags, visit_fn fn,
                void *ctx)
{
    return table->ops->visit(table, first, last, flags, fn, ctx);
}

int table_visit_nodes(struct table *table, table_node_fn fn, void *ctx)
{
    return table->ops->visit_nodes(table, fn, ctx);
}

int table_harvest(struct table *table, uint64_t in, uint64_t size, unsigned clear, visit_fn fn,
                  void *ctx, struct flush_batch *batch)
{
    return trace(TRACE_HARVEST, table->owner, in, size, clear,
                 table->ops->harvest(table, in, size, clear, fn, ctx, batch));
}

int table_destroy(struct table *table)
{
    struct flush_batch batch;

    if (table->open_batches)
        return E_STATE;
    trace(TRACE_DESTROY, table->owner, table->root.v, 0, 0, E_OK);
    flush_begin(&batch, table);
    flush_whole(&batch);
    flush_commit(&batch);
    struct returned returned;
    returned_start(&returned, table);
    table->ops->free_subtree(&returned, table->root, table->kind->levels);
    returned_end(&returned);
    invariant(table->table_frames == 0);
    table->root = hpa(0);
    return E_OK;
}

static enum node_verdict set_count(void *ctx, const struct table_node *node)
{
    const struct table_kind *kind = ctx;
    const uint64_t *slots = direct(node->frame);
    uint64_t entries = 0;

    for (unsigned i = slots_first(kind, node->level); i < slots_end(kind, node->level); i++)
        entries += (pte_read(&slots[i]) & kind->present_mask) != 0;
    frame_set_payload(node->frame, entries);
    return NODE_ENTER;
}

int table_adopt(struct table *table, const struct table_env *env)
{
    if (!env->frame_records || table->env->frame_records)
        return E_STATE;
    table_visit_nodes(table, set_count, (void *)table->kind);
    table->env = env;
    return E_OK;
}

int table_preallocate(struct table *kernel)
{
    unsigned levels = kernel->kind->levels, end = slots_end(kernel->kind, levels);
    uint64_t *slot = direct(kernel->root), needed = 0;
    struct supply supply;

    lock_take(&kernel->lock);
    for (unsigned i = slots_first(kernel->kind, levels); i < end; i++)
        needed += !entry_present(kernel->kind, pte_read(&slot[i]));
    int error = supply_take(kernel, needed, &supply);
    for (unsigned i = slots_first(kernel->kind, levels); !error && i < end; i++) {
        if (entry_present(kernel->kind, pte_read(&slot[i])))
            continue;
        uint64_t node = supply_pop(kernel, &supply);

        memset(direct(hpa(node)), 0, PAGE_SIZE);
        count_set(kernel, node, 0);
        pte_write(&slot[i], node | kernel->kind->table_bits);
    }
    count_add(kernel, kernel->root.v, error ? 0 : needed);
    kernel->root_pinned |= !error;
    lock_drop(&kernel->lock);
    return error;
}

int table_share_upper(struct table *user, const struct table *kernel)
{
    if (!kernel->root_pinned || user->kind->levels != kernel->kind->levels)
        return E_STATE;
    const uint64_t *from = direct(kernel->root);
    uint64_t *to = direct(user->root);
    for (unsigned i = 256; i < 512; i++)
        to[i] = from[i];
    return E_OK;
}
