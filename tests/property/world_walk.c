/* The walk of the manual, made for speed, and the cells of the model. */
#include "tests/property/world_internal.h"

unsigned rights_of(uint64_t entry)
{
    if (w.land->format == SDM_EPT)
        return (unsigned)(entry & 7) | (sdm_cpu.user_execute && sdm_bit(entry, 10) ? RIGHT_U : 0u);
    bool user = w.land->format == SDM_HOST && sdm_bit(entry, 2);
    return RIGHT_R | (sdm_bit(entry, 1) ? RIGHT_W : 0u) | (sdm_bit(entry, 63) ? 0u : RIGHT_X) |
           (user ? RIGHT_U : 0u);
}

/* The type and the global flag of a page's entry. */
struct attrs attrs_in(uint64_t entry, unsigned level, unsigned rights)
{
    static const uint8_t pat[8] = {6, 4, 0, 0, 1, 5, 0, 0}; /* as loaded: sdm_rules.c */

    rights &= rights_of(entry);
    if (w.land->format == SDM_EPT)
        return attrs_of(rights, (enum mem_type)((entry >> 3) & 7));
    unsigned index = (unsigned)((entry >> 3) & 3) | (sdm_bit(entry, level == 1 ? 7 : 12) ? 4 : 0);
    bool global = w.land->format == SDM_HOST && sdm_bit(entry, 8);
    return attrs_of(rights | (global ? RIGHT_G : 0), (enum mem_type)pat[index]);
}

struct found world_look(uint64_t root, uint64_t in)
{
    struct found found = {0};
    uint64_t table = root;
    unsigned rights = ~0u;

    w.walks++;
    for (unsigned level = w.land->kind->levels;; level--) {
        uint64_t *slot = &table_at(table)[index_in(in, level)];
        uint64_t entry = *slot;

        if (!present(entry))
            return found;
        if (page(entry, level)) {
            found.present = true;
            found.level = level;
            found.slot = slot;
            found.out =
                page_start(entry, level) + (in & (sdm_page_bytes(level) - 1) & ~UINT64_C(0xfff));
            found.attrs = attrs_in(entry, level, rights);
            found.accessed = entry & sdm_accessed(w.land->format);
            found.dirty = entry & sdm_dirty(w.land->format);
            return found;
        }
        rights &= rights_of(entry);
        table = frame_in(entry);
    }
}

void cells_of(uint64_t in, uint64_t bytes, unsigned *first, unsigned *end)
{
    uint64_t last = in + bytes - 1;

    *first = *end = 0;
    if (last < w.base || in >= w.end)
        return;
    *first = in <= w.base ? 0 : (unsigned)((in - w.base) / w.unit);
    *end = last >= w.end ? CELLS : (unsigned)((last - w.base) / w.unit) + 1;
}

bool says(const struct found *found, const struct cell *cell, uint64_t offset)
{
    if (!found->present || !cell->present)
        return found->present == cell->present;
    return found->out == cell->out + offset && attrs_equal(found->attrs, cell->attrs);
}
