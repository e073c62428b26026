/* See vm/cow.h. */
#include "vm/cow.h"

#include "lib/error.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "mm/paging/typed.h"
#include "vm/dirty.h"
#include "vm/slots.h"

/* The block that a frame of a guest's memory belongs to. */
struct block {
    hpa_t head;
    unsigned order;
    owner_t owner;
    bool several; /* it has more than one holder */
};

static struct block block_at(hpa_t at)
{
    struct block block;
    uint64_t record;

    invariant(buddy_block(at, &block.head, &record));
    block.order = frame_record_order(record);
    block.owner = frame_record_owner(record);
    block.several = frame_record_state(record) == FRAME_SHARED;
    return block;
}

static uint64_t leaf_size(const struct mapping *leaf)
{
    return leaf->last - leaf->in + 1;
}

static unsigned leaf_order(const struct mapping *leaf)
{
    return ORDER_2M * (leaf->level - 1u);
}

static bool is_shared_by_name(const struct guest *guest, uint64_t at)
{
    const struct slot *slot = guest_slot_at(guest, gpa(at));

    return slot != NULL && slot->kind == SLOT_SHARED;
}

bool leaf_is_own(const struct guest *guest, const struct mapping *leaf)
{
    for (uint64_t done = 0; done < leaf_size(leaf);) {
        struct block block = block_at(hpa_add(leaf->out, done));

        if (block.owner != guest_owner(guest))
            return is_shared_by_name(guest, leaf->in);
        done = block.head.v + (PAGE_SIZE << block.order) - leaf->out.v;
    }
    return true;
}

/* Divides the block, which covers `at`, until it is of `order`: by 2 MiB first, so that of a large
 * one no more records than needed are written. */
static struct block divide(struct block block, hpa_t at, unsigned order)
{
    while (block.order > order) {
        unsigned into = block.order > ORDER_2M && order < ORDER_2M ? ORDER_2M : order;

        invariant(buddy_divide(block.head, block.order, into, block.owner) == E_OK);
        block = block_at(at);
    }
    return block;
}

static struct block divide_to(hpa_t at, unsigned order)
{
    return divide(block_at(at), at, order);
}

/* One level down: 1 GiB by 2 MiB, 2 MiB by 4 KiB. */
int leaf_split(struct guest *guest, const struct mapping *leaf)
{
    struct flush_batch batch;

    flush_begin(&batch, &guest->table);
    int error = table_split(&guest->table, leaf->in, leaf_size(leaf), leaf->level - 1u, &batch);
    flush_commit(&batch);
    guest_note_frames(guest);
    return error;
}

int pages_cut(struct guest *guest, gpa_t at)
{
    struct mapping leaf;
    struct block block;

    for (;;) {
        if (gpa_translate(&guest->table, at, &leaf) != E_OK)
            return E_OK; /* the blocks of what is behind it begin there */
        if (leaf.in == at.v)
            break;
        int error = leaf_split(guest, &leaf);
        if (error != E_OK)
            return error;
    }
    for (block = block_at(leaf.out); block.head.v != leaf.out.v; block = block_at(leaf.out))
        invariant(buddy_divide(block.head, block.order, block.order - 1, block.owner) == E_OK);
    return E_OK;
}

int pages_cut_ends(struct guest *guest, uint64_t first, uint64_t last)
{
    int error = pages_cut(guest, gpa(first));

    if (error == E_OK && last != guest->table.kind->input_last)
        error = pages_cut(guest, gpa(last + 1));
    return error;
}

/* ---- A frame of one's own -------------------------------------------------------------------- */

/* The leaf, of 4 KiB, gets a copy of its frame, and its attributes. */
static int copy_page(struct guest *guest, struct mapping *leaf, const struct block *old)
{
    struct flush_batch batch;
    hpa_t frame;
    int error = buddy_alloc(0, PURPOSE_GUEST_RAM, guest_owner(guest), &frame);

    if (error != E_OK)
        return error;
    memcpy(direct(frame), direct(leaf->out), PAGE_SIZE);
    flush_begin(&batch, &guest->table);
    /* A page replaces a page: no node is new. */
    invariant(table_map(&guest->table, leaf->in, frame, PAGE_SIZE, leaf->attrs, MAP_REPLACE,
                        &batch) == E_OK);
    flush_commit(&batch);
    invariant(buddy_release(old->head, 0, OWNER_SHARED, NULL) == E_OK);
    guest->pages_copied++;
    leaf->out = frame;
    return E_OK;
}

/* As page_own(); *leaf is what covers `at`, before and then. A copy has the rights given, or, for
 * RIGHT_NONE, those of the page that it is of. */
static int own_page(struct guest *guest, gpa_t at, unsigned rights, struct mapping *leaf)
{
    struct block block;
    int error;

    for (;;) {
        block = block_at(hpa_add(leaf->out, at.v - leaf->in));
        if (block.owner != OWNER_SHARED || is_shared_by_name(guest, at.v))
            return E_OK;
        if (leaf->level == 1)
            break;
        if (!block.several && block.order == leaf_order(leaf))
            return buddy_transfer(block.head, block.order, OWNER_SHARED, guest_owner(guest));
        error = leaf_split(guest, leaf);
        if (error != E_OK)
            return error;
        invariant(gpa_translate(&guest->table, at, leaf) == E_OK);
    }
    block = divide(block, leaf->out, 0);
    if (!block.several)
        return buddy_transfer(block.head, 0, OWNER_SHARED, guest_owner(guest));
    if (rights != RIGHT_NONE)
        leaf->attrs.rights = (uint8_t)rights;
    return copy_page(guest, leaf, &block);
}

int page_own(struct guest *guest, gpa_t at)
{
    struct mapping leaf;
    int error = gpa_translate(&guest->table, at, &leaf);

    return error != E_OK ? error : own_page(guest, at, RIGHT_NONE, &leaf);
}

/* ---- The right to write ---------------------------------------------------------------------- */

static void give_rights(struct guest *guest, uint64_t in, uint64_t size, unsigned rights)
{
    struct flush_batch batch;

    flush_begin(&batch, &guest->table);
    invariant(table_protect(&guest->table, in, size, attrs_of(rights, MEM_WB), &batch) == E_OK);
    flush_commit(&batch);
}

/* Of a large leaf that is watched, only what is written is to be noted: so it is split. Where the
 * CPU tells of writes by itself, all its pages become writable at once. Without frames for the
 * nodes it stays whole, and all of it counts as written: *whole. */
static int open_large(struct guest *guest, const struct mapping *leaf, unsigned rights, bool *whole)
{
    bool own = leaf_is_own(guest, leaf);
    int error = leaf_split(guest, leaf);

    if (error != E_OK)
        *whole = own;
    else if (own && leaf->level == 2 && guest->dirty.way != DIRTY_BY_PROTECTION)
        give_rights(guest, leaf->in, leaf_size(leaf), rights);
    return own ? E_OK : error;
}

int page_open(struct guest *guest, gpa_t at, const struct mapping *there)
{
    const struct slot *slot = guest_slot_at(guest, at);
    gpa_t page = gpa(align_down(at.v, PAGE_SIZE));
    unsigned rights = slot != NULL ? leaf_rights(guest, slot->rights, there) : RIGHT_NONE;
    struct mapping leaf = *there;
    bool ready = false;
    int error;

    if (!(rights & RIGHT_W))
        return E_NOENT;
    /* A copy that another vCPU could write before all have forgotten the page that it is of would
     * give them two: it gets the right below, when they have. */
    error = own_page(guest, page, guest->cpus > 1 ? (unsigned)RIGHT_NONE : rights, &leaf);
    while (error == E_OK) {
        ready = ready || leaf.level == 1 ||
                (dirty_rights(guest, rights, leaf.level) == rights && leaf_is_own(guest, &leaf));
        if (ready)
            break;
        error = open_large(guest, &leaf, rights, &ready);
        if (error == E_OK)
            error = gpa_translate(&guest->table, page, &leaf);
    }
    if (error != E_OK)
        return error;
    dirty_opens(guest, gpa(leaf.in), leaf_size(&leaf));
    if (leaf.attrs.rights != rights)
        give_rights(guest, leaf.in, leaf_size(&leaf), rights);
    return E_OK;
}

/* ---- The right to execute -------------------------------------------------------------------- */

int page_execute(struct guest *guest, gpa_t at, const struct mapping *there)
{
    struct mapping leaf = *there;

    for (unsigned level = leaf.level; level > 1; level--) {
        int error = leaf_split(guest, &leaf);

        if (error != E_OK)
            return error;
        if (level > 2)
            invariant(gpa_translate(&guest->table, at, &leaf) == E_OK);
    }
    give_rights(guest, leaf.in, leaf_size(&leaf), leaf.attrs.rights | RIGHT_X);
    return E_OK;
}

/* ---- Equal pages ----------------------------------------------------------------------------- */

/* What is behind the leaf, of 4 KiB, may have several holders from now on. D stays. */
static hpa_t make_shared(struct guest *guest, const struct mapping *leaf)
{
    struct block block = divide_to(leaf->out, 0);

    if (block.owner != OWNER_SHARED)
        invariant(buddy_transfer(block.head, 0, block.owner, OWNER_SHARED) == E_OK);
    if (leaf->attrs.rights & RIGHT_W)
        give_rights(guest, leaf->in, PAGE_SIZE, leaf->attrs.rights & ~(unsigned)RIGHT_W);
    return block.head;
}

void page_merge(struct guest *guest, gpa_t at, struct guest *from, gpa_t other, bool *freed)
{
    struct flush_batch batch;
    struct mapping leaf, model;

    invariant(gpa_translate(&guest->table, at, &leaf) == E_OK && leaf.level == 1);
    invariant(gpa_translate(&from->table, other, &model) == E_OK && model.level == 1);
    guest_note_frames(guest);
    guest_note_frames(from);
    hpa_t frame = make_shared(from, &model);
    invariant(buddy_share(frame, OWNER_SHARED) == E_OK);
    struct block old = divide_to(leaf.out, 0);
    if (leaf.dirty) /* the new leaf does not say so */
        dirty_wrote(guest, gpa(leaf.in), PAGE_SIZE);
    leaf.attrs.rights &= (uint8_t)~RIGHT_W;
    flush_begin(&batch, &guest->table);
    invariant(table_map(&guest->table, leaf.in, frame, PAGE_SIZE, leaf.attrs, MAP_REPLACE,
                        &batch) == E_OK);
    if (!old.several)
        flush_free_after(&batch, old.head);
    flush_commit(&batch);
    if (old.several)
        invariant(buddy_release(old.head, 0, OWNER_SHARED, NULL) == E_OK);
    *freed = !old.several;
}

int page_show(struct guest *guest, gpa_t at, hpa_t frame)
{
    struct slot *slot = slot_at(guest, at);
    struct attrs attrs = attrs_of(slot->rights & ~(unsigned)RIGHT_W, MEM_WB);
    struct flush_batch batch;

    flush_begin(&batch, &guest->table);
    int error = gpa_map(&guest->table, at, frame, PAGE_SIZE, attrs, MAP_DEFAULT, &batch);
    flush_commit(&batch);
    if (error != E_OK)
        return error;
    (void)divide_to(frame, 0);
    invariant(buddy_share(frame, OWNER_SHARED) == E_OK);
    slot->backed += PAGE_SIZE;
    return E_OK;
}

/* ---- Sharing, and giving back ---------------------------------------------------------------- */

/* The blocks behind leaves that two tables show from now on. */
static void share_leaves(hpa_t out, unsigned leaves, unsigned level)
{
    unsigned order = ORDER_2M * (level - 1);

    invariant(buddy_share_run(out, (uint64_t)leaves << order, order, OWNER_SHARED) == E_OK);
}

int pages_clone(struct table *to, struct table *from)
{
    const struct table_kind *kind = from->kind;
    struct flush_batch batch;

    flush_begin(&batch, from);
    int error = table_clone(to, from, kind->input_first, kind->input_last - kind->input_first + 1,
                            share_leaves, &batch);
    flush_commit(&batch);
    return error;
}

/* Leaves that go at once: some ten thousand instructions. */
#define RELEASE_LEAVES 256

struct release {
    struct flush_batch batch;
    unsigned leaves;
    bool stopped;
    uint64_t next; /* where it stopped */
};

/* Blocks behind the leaf, `block` the first of them. What others hold as well is let go at once:
 * they keep it in use. What is left to this holder alone goes by way of the batch, whoever's it is.
 */
static void release_blocks(struct release *release, const struct mapping *leaf, struct block block)
{
    uint64_t done = 0;

    for (;;) {
        hpa_t at = hpa_add(leaf->out, done);

        if (block.several)
            block = divide(block, at, leaf_order(leaf));
        if (block.several)
            invariant(buddy_release(block.head, block.order, OWNER_SHARED, NULL) == E_OK);
        else if (block.head.v == at.v)
            flush_free_after(&release->batch, block.head);
        done = block.head.v + (PAGE_SIZE << block.order) - leaf->out.v;
        if (done >= leaf_size(leaf))
            return;
        block = block_at(hpa_add(leaf->out, done));
    }
}

/* A block of one's own may be mapped by several leaves, once a large page was split: it goes with
 * its first. So it is before a first one that this stops. */
static int release_leaf(void *ctx, const struct mapping *leaf)
{
    struct release *release = ctx;
    struct block block = block_at(leaf->out);

    if (!block.several && block.head.v != leaf->out.v)
        return 0;
    if (release->leaves++ == RELEASE_LEAVES) {
        release->stopped = true;
        release->next = leaf->in;
        return 1;
    }
    release_blocks(release, leaf, block);
    return 0;
}

bool pages_release(struct table *table, uint64_t *from, uint64_t last)
{
    struct release release = {.leaves = 0};
    uint64_t first = *from;

    flush_begin(&release.batch, table);
    table_visit(table, first, last, VISIT_PAGES, release_leaf, &release);
    if (release.stopped)
        last = release.next - 1;
    invariant(table_unmap(table, first, last - first + 1, &release.batch) == E_OK);
    flush_commit(&release.batch);
    *from = release.next;
    return !release.stopped;
}

void pages_release_all(struct table *table, uint64_t first, uint64_t last)
{
    while (!pages_release(table, &first, last))
        continue;
}
