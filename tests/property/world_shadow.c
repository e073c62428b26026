/* Copies of all live nodes: what was stored there by the one way that there is. */
#include "tests/property/world_internal.h"

#include <stdlib.h>

struct shadow *shadows[FRAMES];

uint64_t slot_in(const struct shadow *shadow, unsigned index)
{
    uint64_t in = shadow->in + index * sdm_page_bytes(shadow->level);
    unsigned top = 12 + 9 * w.land->kind->levels - 1;

    if (w.land->kind->sign_extended && shadow->level == w.land->kind->levels && sdm_bit(in, top))
        in |= ~UINT64_C(0) << top;
    return in;
}

struct sdm_entry judge(uint64_t entry, unsigned level)
{
    struct sdm_entry said = sdm_judge(w.land->format, &sdm_cpu, level, entry);

    if (said.class == SDM_BAD)
        wrong("%#lx was stored at level %u: %s", entry, level, said.why);
    if (said.class == SDM_ABSENT && entry)
        wrong("%#lx was stored at level %u: absent, and not 0", entry, level);
    return said;
}

void adopt(uint64_t frame, unsigned level, uint64_t in, bool main)
{
    uint64_t pfn = frame / PAGE_SIZE;
    const uint64_t *table = table_at(frame);

    if (shadows[pfn] && !shadows[pfn]->gone)
        wrong("the table %#lx is reached twice", frame);
    struct shadow *shadow = shadows[pfn] ? shadows[pfn] : malloc(sizeof(*shadow));
    must(shadow);
    shadows[pfn] = shadow;
    memcpy(shadow->entry, table, PAGE_SIZE);
    shadow->in = in;
    shadow->level = level;
    shadow->main = main;
    shadow->dead = shadow->gone = false;
    for (unsigned i = 0; i < 512; i++) {
        struct sdm_entry said = judge(table[i], level);
        uint64_t at = slot_in(shadow, i);

        if (said.class == SDM_TABLE)
            adopt(said.address, level - 1, at, main);
        if (op.active && said.class == SDM_PAGE && (at < w.base || at >= w.end))
            wrong("a new table maps %#lx as well", at);
    }
}

void mark_dead(uint64_t frame)
{
    struct shadow *shadow = shadows[frame / PAGE_SIZE];

    must(shadow && !shadow->dead);
    shadow->dead = true;
    for (unsigned i = 0; i < 512; i++)
        if (present(shadow->entry[i]) && !page(shadow->entry[i], shadow->level))
            mark_dead(frame_in(shadow->entry[i]));
}

void world_note(const uint64_t *slot)
{
    uint64_t at = (uint64_t)((const uint8_t *)slot - arena);
    shadow_of(at)->entry[at % PAGE_SIZE / 8] = *slot;
}

void check_undisturbed(uint64_t frame)
{
    const struct shadow *shadow = shadows[frame / PAGE_SIZE];

    if (!shadow->gone && memcmp(shadow->entry, table_at(frame), PAGE_SIZE))
        wrong("table %#lx was written to after its death", frame);
}

void forget_dead(bool main, const struct flush_batch *batch)
{
    if (!batch->whole && !batch->tables_died)
        return;
    for (uint64_t pfn = 0; pfn < FRAMES; pfn++)
        if (shadows[pfn] && shadows[pfn]->dead && shadows[pfn]->main == main) {
            check_undisturbed(pfn * PAGE_SIZE);
            shadows[pfn]->gone = true;
        }
}

void drop_shadow(uint64_t frame)
{
    free(shadows[frame / PAGE_SIZE]);
    shadows[frame / PAGE_SIZE] = NULL;
}

void check_shadows(void)
{
    uint64_t live = 0;

    for (uint64_t pfn = 0; pfn < FRAMES; pfn++) {
        if (!shadows[pfn])
            continue;
        live++;
        if (shadows[pfn]->dead)
            wrong("table %#lx is dead and was not given back", (pfn * PAGE_SIZE));
        if (memcmp(shadows[pfn]->entry, table_at(pfn * PAGE_SIZE), PAGE_SIZE))
            wrong("table %#lx was changed by a store that nobody saw", (pfn * PAGE_SIZE));
    }
    must(live == w.taken);
}
