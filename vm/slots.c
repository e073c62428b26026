/* See vm/slots.h. */
#include "vm/slots.h"

#include "lib/bits.h"
#include "lib/error.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "mm/frames/scrub.h"
#include "mm/paging/typed.h"
#include "vm/cpuid.h"
#include "vm/device.h"

const char *slot_kind_name(enum slot_kind kind)
{
    static const char *const names[] = {
        [SLOT_RAM] = "RAM",
        [SLOT_RAM_LAZY] = "lazy RAM",
        [SLOT_ROM] = "ROM",
        [SLOT_NOEXEC] = "no-execute RAM",
        [SLOT_EXEC_ONLY] = "execute-only",
        [SLOT_ROM_LAZY] = "ROM",
        [SLOT_VIDEO] = "video memory",
        [SLOT_DEVICE] = "device",
    };
    return (unsigned)kind < ARRAY_SIZE(names) ? names[kind] : "?";
}

unsigned slot_rights(enum slot_kind kind)
{
    static const uint8_t rights[] = {
        [SLOT_RAM] = RIGHT_RWX,   [SLOT_RAM_LAZY] = RIGHT_RWX, [SLOT_ROM] = RIGHT_RX,
        [SLOT_NOEXEC] = RIGHT_RW, [SLOT_EXEC_ONLY] = RIGHT_X,  [SLOT_ROM_LAZY] = RIGHT_RX,
        [SLOT_VIDEO] = RIGHT_RW,  [SLOT_DEVICE] = RIGHT_NONE,
    };
    return (unsigned)kind < ARRAY_SIZE(rights) ? rights[kind] : RIGHT_NONE;
}

bool slot_fills(enum slot_kind kind, unsigned access)
{
    return slot_kind_is_lazy(kind) && (access & ~slot_rights(kind)) == 0;
}

static uint64_t slot_last(const struct slot *slot)
{
    return slot->base.v + slot->size - 1;
}

const struct slot *guest_slot_at(const struct guest *guest, gpa_t at)
{
    for (unsigned i = 0; i < guest->slots; i++) {
        const struct slot *slot = &guest->slot[i];
        if (at.v >= slot->base.v && at.v <= slot_last(slot))
            return slot;
    }
    return NULL;
}

static struct slot *slot_at(struct guest *guest, gpa_t at)
{
    return (struct slot *)guest_slot_at(guest, at);
}

int slot_add(struct guest *guest, gpa_t base, uint64_t size, enum slot_kind kind)
{
    unsigned i;

    if (!is_aligned(base.v, PAGE_SIZE) || !is_aligned(size, PAGE_SIZE))
        return E_ALIGN;
    if (size == 0 || base.v > guest->table.kind->input_last ||
        size - 1 > guest->table.kind->input_last - base.v)
        return E_RANGE;
    for (i = 0; i < guest->slots; i++) {
        const struct slot *other = &guest->slot[i];
        if (base.v <= slot_last(other) && other->base.v <= base.v + size - 1)
            return E_EXIST;
    }
    if (guest->slots == GUEST_SLOTS)
        return E_FULL;
    for (i = guest->slots++; i > 0 && guest->slot[i - 1].base.v > base.v; i--)
        guest->slot[i] = guest->slot[i - 1];
    guest->slot[i] = (struct slot){.base = base, .size = size, .kind = kind};
    return E_OK;
}

static void slot_remove(struct guest *guest, unsigned index)
{
    guest->slots--;
    for (unsigned i = index; i < guest->slots; i++)
        guest->slot[i] = guest->slot[i + 1];
}

/* Takes [base, base + size) out of whatever slots cover it; nothing is backed yet. */
static int slots_carve(struct guest *guest, uint64_t base, uint64_t size)
{
    uint64_t last = base + size - 1;
    unsigned i = 0;

    while (i < guest->slots) {
        struct slot old = guest->slot[i];
        uint64_t old_last = slot_last(&old);
        int error = E_OK;

        if (old_last < base || old.base.v > last) {
            i++;
            continue;
        }
        slot_remove(guest, i);
        if (old.base.v < base)
            error = slot_add(guest, old.base, base - old.base.v, old.kind);
        if (error == E_OK && old_last > last)
            error = slot_add(guest, gpa(last + 1), old_last - last, old.kind);
        if (error != E_OK)
            return error;
        i = 0; /* the list was sorted anew; what was added no longer overlaps */
    }
    return E_OK;
}

static enum slot_kind slot_kind_of(const struct guest *guest, enum area_kind kind)
{
    switch (kind) {
    case AREA_ROM:
        return SLOT_ROM;
    case AREA_NOEXEC:
        return SLOT_NOEXEC;
    case AREA_EXEC_ONLY:
        return SLOT_EXEC_ONLY;
    case AREA_HOLE:
    case AREA_RAM:
        break;
    }
    return guest->options.lazy ? SLOT_RAM_LAZY : SLOT_RAM;
}

static int layout_area(struct guest *guest, const struct guest_area *area)
{
    int error = slots_carve(guest, area->base, area->size);

    if (error == E_OK && area->kind != AREA_HOLE)
        error = slot_add(guest, gpa(area->base), area->size, slot_kind_of(guest, area->kind));
    return error;
}

/* Every address that the guest is told of has to be one that its CPU has: CPUID tells the width. */
static int refuse_beyond(struct guest *guest, const char *option, uint64_t base, uint64_t size)
{
    unsigned bits = cpuid_guest_maxphyaddr(guests_backend()->cpuid);
    uint64_t end = UINT64_C(1) << bits;
    char text[SIZE_TEXT];

    if (base < end && size <= end - base)
        return E_OK;
    format_buffer(guest->reason, sizeof(guest->reason),
                  "%s 0x%lx+0x%lx: this CPU's physical addresses have %u bits, they end at %s",
                  option, base, size, bits, size_text(text, end));
    return E_RANGE;
}

static int layout_refused(struct guest *guest, int error, const char *option, uint64_t base,
                          uint64_t size)
{
    const char *text = error_text(error);

    if (error == E_RANGE)
        text = "beyond the guest-physical addresses that this CPU's tables can map";
    else if (error == E_FULL)
        text = "more slots than a guest can have";
    format_buffer(guest->reason, sizeof(guest->reason), "%s 0x%lx+0x%lx: %s", option, base, size,
                  text);
    return error;
}

/* Memory that reaches so far has holes there. */
static int layout_windows(struct guest *guest)
{
    const struct device *device;
    int error = E_OK;

    for (unsigned i = 0; error == E_OK && (device = device_by_index(i)) != NULL; i++) {
        for (unsigned j = 0; error == E_OK && j < device->window_count; j++) {
            const struct window *window = &device->windows[j];

            error = slots_carve(guest, window->base, window->size);
            if (error == E_OK)
                error = slot_add(guest, gpa(window->base), window->size, SLOT_DEVICE);
        }
    }
    return error;
}

int slots_layout(struct guest *guest)
{
    enum slot_kind ram = slot_kind_of(guest, AREA_RAM);
    uint64_t memory = guest->options.memory;
    int error;

    guest->slots = 0;
    error = refuse_beyond(guest, "mem", 0, memory);
    for (unsigned i = 0; error == E_OK && i < guest->options.areas; i++) {
        const struct guest_area *area = &guest->options.area[i];
        error = refuse_beyond(guest, area_kind_name(area->kind), area->base, area->size);
    }
    if (error != E_OK)
        return error;
    error = slot_add(guest, gpa(0), GUEST_LOW_RAM_END, ram);
    if (error == E_OK && memory > GUEST_HIGH_RAM)
        error = slot_add(guest, gpa(GUEST_HIGH_RAM), memory - GUEST_HIGH_RAM, ram);
    if (error == E_OK && guest->options.pc) {
        error = slot_add(guest, gpa(GUEST_LOW_RAM_END), GUEST_VIDEO_SIZE, SLOT_VIDEO);
        if (error == E_OK)
            error = slot_add(guest, gpa(GUEST_LOW_RAM_END + GUEST_VIDEO_SIZE),
                             GUEST_HIGH_RAM - GUEST_LOW_RAM_END - GUEST_VIDEO_SIZE, SLOT_ROM_LAZY);
    }
    if (error == E_OK && guest->options.pc)
        error = layout_windows(guest);
    if (error != E_OK)
        return layout_refused(guest, error, "memory", 0, memory);
    for (unsigned i = 0; i < guest->options.areas; i++) {
        const struct guest_area *area = &guest->options.area[i];
        if (area->kind == AREA_EXEC_ONLY && !guest->table.caps.execute_only)
            return layout_refused(guest, E_UNSUPPORTED, "xo", area->base, area->size);
        error = layout_area(guest, area);
        if (error != E_OK)
            return layout_refused(guest, error, area_kind_name(area->kind), area->base, area->size);
    }
    return E_OK;
}

/* One zeroed block of 2^order frames, mapped at `at`. */
static int back_block(struct guest *guest, struct slot *slot, gpa_t at, unsigned order)
{
    uint64_t size = PAGE_SIZE << order;
    struct flush_batch batch;
    hpa_t block;
    int error = scrub_alloc(order, PURPOSE_GUEST_RAM, guest_owner(guest), &block);

    if (error != E_OK)
        return error;
    flush_begin(&batch, &guest->table);
    error = gpa_map(&guest->table, at, block, size, attrs_of(slot_rights(slot->kind), MEM_WB),
                    MAP_DEFAULT, &batch);
    flush_commit(&batch);
    if (error != E_OK) {
        invariant(buddy_free(block, order, guest_owner(guest)) == E_OK);
        return error;
    }
    slot->backed += size;
    guest_note_frames(guest);
    return E_OK;
}

static uint64_t min_bytes(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* How much of [at, at + left) to ask for at once: what leaves of the largest size possible at
 * `at` can map, up to where larger ones become possible. */
static uint64_t stretch_at(const struct guest *guest, gpa_t at, uint64_t left)
{
    const struct table_kind *kind = guest->table.kind;

    for (unsigned level = guest->table.caps.leaf_top; level > 1; level--) {
        uint64_t size = level_size(kind, level), into = at.v & (size - 1);

        if (into != 0)
            left = min_bytes(left, size - into);
        else if (size <= left)
            break;
    }
    return left;
}

/* Backs `at` with the largest block that this allows and the buddy has. A block may be larger
 * than a leaf: its frames are contiguous, and it costs one request. *size receives what it
 * covers. */
static int back_largest(struct guest *guest, struct slot *slot, gpa_t at, uint64_t *size)
{
    uint64_t stretch = stretch_at(guest, at, slot_last(slot) - at.v + 1);
    unsigned order = highest_bit(stretch / PAGE_SIZE);
    int error;

    if (order > BUDDY_MAX_ORDER)
        order = BUDDY_MAX_ORDER;
    for (;; order--) {
        *size = PAGE_SIZE << order;
        error = back_block(guest, slot, at, order);
        if (order == 0 || (error != E_NOMEM && error != E_QUOTA))
            return error;
    }
}

int slots_back(struct guest *guest)
{
    for (unsigned i = 0; i < guest->slots; i++) {
        struct slot *slot = &guest->slot[i];
        uint64_t size;

        if (slot_kind_is_lazy(slot->kind) || slot->kind == SLOT_DEVICE)
            continue;
        for (uint64_t done = 0; done < slot->size; done += size) {
            int error = back_largest(guest, slot, gpa_add(slot->base, done), &size);
            if (error != E_OK)
                return error;
        }
    }
    return E_OK;
}

int slots_fill(struct guest *guest, gpa_t at)
{
    gpa_t page = gpa(align_down(at.v, PAGE_SIZE));
    struct slot *slot = slot_at(guest, page);

    if (slot == NULL || !slot_kind_is_lazy(slot->kind))
        return E_NOENT;
    return back_block(guest, slot, page, 0);
}

/* Leaves that go at once: some ten thousand instructions. */
#define RELEASE_LEAVES 256

struct release {
    struct flush_batch batch;
    unsigned leaves;
    bool stopped;
    uint64_t next; /* where it stopped */
};

/* A block may be mapped by several leaves, once a large page was split: it goes with its first. So
 * it is before a first one that this stops. */
static int release_leaf(void *ctx, const struct mapping *mapping)
{
    struct release *release = ctx;
    struct frame_info info;
    hpa_t head;

    invariant(frame_query(mapping->out, &info, &head) == E_OK);
    if (head.v != mapping->out.v)
        return 0;
    if (release->leaves++ == RELEASE_LEAVES) {
        release->stopped = true;
        release->next = mapping->in;
        return 1;
    }
    flush_free_after(&release->batch, head);
    return 0;
}

/* From guest->release_from on. True: nothing is left. */
static bool release_some(struct guest *guest)
{
    struct table *table = &guest->table;
    uint64_t first = guest->release_from, last = table->kind->input_last;
    struct release release = {.leaves = 0};

    flush_begin(&release.batch, table);
    gpa_visit(table, gpa(first), gpa(last), VISIT_PAGES, release_leaf, &release);
    if (release.stopped)
        last = release.next - 1;
    invariant(gpa_unmap(table, gpa(first), last - first + 1, &release.batch) == E_OK);
    flush_commit(&release.batch);
    guest->release_from = release.next;
    return !release.stopped;
}

bool slots_release_by(struct guest *guest, uint64_t deadline)
{
    bool done = false;

    do
        done = release_some(guest);
    while (!done && guests_backend()->ticks() < deadline);
    for (unsigned i = 0; done && i < guest->slots; i++)
        guest->slot[i].backed = 0;
    return done;
}

/* The host's view of the page that backs `at`, whatever the guest may do with it, and how many
 * bytes follow in it; NULL for none. */
static uint8_t *backing_of(struct guest *guest, gpa_t at, uint64_t *room)
{
    struct mapping mapping;

    if (!guest->has_table || gpa_translate(&guest->table, at, &mapping) != E_OK)
        return NULL;
    *room = mapping.last - at.v + 1;
    return (uint8_t *)direct(hpa_add(mapping.out, at.v - mapping.in));
}

uint64_t guest_read(struct guest *guest, gpa_t from, void *to, uint64_t size)
{
    return guest->has_table ? gpa_read(&guest->table, from, RIGHT_R, to, size) : 0;
}

/* Up to the end of one page (of the table's leaf), backed on demand. */
static int place_piece(struct guest *guest, gpa_t at, const uint8_t *from, uint64_t size,
                       uint64_t *placed)
{
    uint64_t room = 0;
    uint8_t *bytes = backing_of(guest, at, &room);

    if (bytes == NULL) {
        const struct slot *slot = guest_slot_at(guest, at);
        int error = E_OK;

        if (slot == NULL || !slot_kind_is_lazy(slot->kind))
            return E_RANGE;
        error = slots_fill(guest, at);
        if (error != E_OK)
            return error;
        bytes = backing_of(guest, at, &room);
        invariant(bytes != NULL);
    }
    *placed = min_bytes(room, size);
    memcpy(bytes, from, *placed);
    return E_OK;
}

struct stretch {
    uint64_t first, last;
};

static int zero_run(void *ctx, const struct mapping *run)
{
    const struct stretch *stretch = ctx;
    uint64_t first = run->in > stretch->first ? run->in : stretch->first;
    uint64_t last = run->last < stretch->last ? run->last : stretch->last;

    memset(direct(hpa_add(run->out, first - run->in)), 0, last - first + 1);
    return 0;
}

/* Zeroes are what absent lazy memory reads as anyway: only what is there is written. */
static int place_zeroes(struct guest *guest, gpa_t at, uint64_t size)
{
    while (size != 0) {
        const struct slot *slot = guest_slot_at(guest, at);
        struct stretch stretch = {.first = at.v};
        uint64_t piece;

        if (slot == NULL || slot->kind == SLOT_DEVICE)
            return E_RANGE;
        piece = min_bytes(size, slot_last(slot) - at.v + 1);
        stretch.last = at.v + piece - 1;
        gpa_visit(&guest->table, at, gpa(stretch.last), VISIT_RUNS, zero_run, &stretch);
        at = gpa_add(at, piece);
        size -= piece;
    }
    return E_OK;
}

int slots_place(struct guest *guest, gpa_t at, const void *from, uint64_t size)
{
    uint64_t placed = 0;

    if (from == NULL)
        return place_zeroes(guest, at, size);
    for (uint64_t done = 0; done < size; done += placed) {
        int error = place_piece(guest, gpa_add(at, done), (const uint8_t *)from + done, size - done,
                                &placed);
        if (error != E_OK)
            return error;
    }
    return E_OK;
}

uint64_t guest_write(struct guest *guest, gpa_t to, const void *from, uint64_t size)
{
    uint64_t done = 0, placed;

    while (done < size && place_piece(guest, gpa_add(to, done), (const uint8_t *)from + done,
                                      size - done, &placed) == E_OK)
        done += placed;
    return done;
}
