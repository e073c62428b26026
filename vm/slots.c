/* See vm/slots.h. */
#include "vm/slots.h"

#include "lib/bits.h"
#include "lib/error.h"
#include "vm/cpuid.h"
#include "vm/device.h"
#include "vm/shared.h"

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
        [SLOT_SHARED] = "shared RAM",
    };
    return (unsigned)kind < ARRAY_SIZE(names) ? names[kind] : "?";
}

uint8_t slot_kind_rights(enum slot_kind kind)
{
    static const uint8_t rights[] = {
        [SLOT_RAM] = RIGHT_RWX,   [SLOT_RAM_LAZY] = RIGHT_RWX, [SLOT_ROM] = RIGHT_RX,
        [SLOT_NOEXEC] = RIGHT_RW, [SLOT_EXEC_ONLY] = RIGHT_X,  [SLOT_ROM_LAZY] = RIGHT_RX,
        [SLOT_VIDEO] = RIGHT_RW,  [SLOT_DEVICE] = RIGHT_NONE,  [SLOT_SHARED] = RIGHT_RW,
    };
    return (unsigned)kind < ARRAY_SIZE(rights) ? rights[kind] : RIGHT_NONE;
}

bool slot_fills(const struct slot *slot, unsigned access)
{
    return slot_kind_fills(slot->kind) && (access & ~(unsigned)slot->rights) == 0;
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
    guest->slot[i] =
        (struct slot){.base = base, .size = size, .kind = kind, .rights = slot_kind_rights(kind)};
    return E_OK;
}

static int take_first(void *ctx, const struct mapping *leaf)
{
    *(struct mapping *)ctx = *leaf;
    return 1;
}

bool first_leaf(struct table *table, uint64_t first, uint64_t last, struct mapping *leaf)
{
    return table_visit(table, first, last, VISIT_PAGES, take_first, leaf) != 0;
}

int slots_cover(const struct guest *guest, struct page_set *set, owner_t owner)
{
    int error = E_OK;

    page_set_begin(set, owner);
    for (unsigned i = 0; error == E_OK && i < guest->slots; i++)
        if (guest->slot[i].kind != SLOT_DEVICE)
            error = page_set_cover(set, guest->slot[i].base.v, guest->slot[i].size);
    if (error != E_OK)
        page_set_end(set);
    return error;
}

void slot_forget(struct guest *guest, unsigned index)
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
        slot_forget(guest, i);
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
    case AREA_SHARE:
        return SLOT_SHARED;
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
    if (error == E_OK && area->kind == AREA_SHARE) {
        struct slot *slot = slot_at(guest, gpa(area->base));

        if (!area->writable)
            slot->rights = RIGHT_R;
        error = shared_use(slot, area->name);
    }
    return error;
}

uint64_t guest_addresses_end(void)
{
    return UINT64_C(1) << cpuid_guest_maxphyaddr(guests_backend()->cpuid);
}

static int refuse_beyond(struct guest *guest, const char *option, uint64_t base, uint64_t size)
{
    uint64_t end = guest_addresses_end();
    unsigned bits = lowest_bit(end);
    char text[SIZE_TEXT];

    if (base < end && size <= end - base)
        return E_OK;
    format_buffer(guest->reason, sizeof(guest->reason),
                  "%s 0x%lx+0x%lx: this CPU's physical addresses have %u bits, they end at %s",
                  option, base, size, bits, size_text(text, end));
    return E_RANGE;
}

static int share_refused(struct guest *guest, int error, const struct guest_area *area)
{
    char has[SIZE_TEXT], size[SIZE_TEXT];

    size_text(size, area->size);
    if (error == E_INVAL)
        format_buffer(guest->reason, sizeof(guest->reason),
                      "share=%s: it has %s, not %s: who named it first has said so", area->name,
                      size_text(has, shared_size(area->name)), size);
    else if (error == E_FULL)
        format_buffer(guest->reason, sizeof(guest->reason),
                      "share=%s: there are %d memories with names already", area->name,
                      SHARED_LIMIT);
    else
        format_buffer(guest->reason, sizeof(guest->reason), "share=%s: no memory of %s: %s",
                      area->name, size, error_text(error));
    return error;
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
int slots_windows(struct guest *guest)
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
        error = slots_windows(guest);
    if (error != E_OK)
        return layout_refused(guest, error, "memory", 0, memory);
    for (unsigned i = 0; i < guest->options.areas; i++) {
        const struct guest_area *area = &guest->options.area[i];
        if (area->kind == AREA_EXEC_ONLY && !guest->table.caps.execute_only)
            return layout_refused(guest, E_UNSUPPORTED, "xo", area->base, area->size);
        error = layout_area(guest, area);
        const struct slot *slot = guest_slot_at(guest, gpa(area->base));
        if (error != E_OK && slot != NULL && slot->kind == SLOT_SHARED)
            return share_refused(guest, error, area);
        if (error != E_OK)
            return layout_refused(guest, error, area_kind_name(area->kind), area->base, area->size);
    }
    return E_OK;
}
