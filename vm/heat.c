/* See vm/heat.h. Accessed bits: SDM Vol. 3, 29.3.5; APM Vol. 2, 15.25.5. */
#include "vm/heat.h"

#include "lib/error.h"
#include "mm/paging/typed.h"
#include "vm/slots.h"

static int note(void *ctx, const struct mapping *leaf)
{
    if (leaf->accessed)
        page_set_add(ctx, leaf->in, leaf->last - leaf->in + 1);
    return 0;
}

/* What was reached since the last time goes into the set; NULL: nobody wants to know. */
static int collect(struct guest *guest, struct page_set *set)
{
    const struct table_kind *kind = guest->table.kind;
    struct flush_batch batch;

    flush_begin(&batch, &guest->table);
    int error =
        table_harvest(&guest->table, kind->input_first, kind->input_last - kind->input_first + 1,
                      HARVEST_CLEAR_A, set != NULL ? note : NULL, set, &batch);
    flush_commit(&batch);
    return error;
}

int heat_take(struct guest *guest, unsigned samples, uint64_t ticks, int (*poll)(void *ctx),
              void *ctx, struct heat *out)
{
    int error;

    *out = (struct heat){.taken = 0};
    if (guest->state != GUEST_RUNNING)
        return E_STATE;
    if (samples == 0 || samples > HEAT_SAMPLES)
        return E_RANGE;
    error = collect(guest, NULL);
    for (unsigned i = 0; error == E_OK && i < samples; i++)
        error = slots_cover(guest, &out->set[i], OWNER_HOST);
    if (error != E_OK) {
        heat_end(out);
        return error;
    }
    while (out->taken < samples && guest->state == GUEST_RUNNING &&
           (poll == NULL || poll(ctx) == 0) && guest_run_round(guest, ticks, poll, ctx)) {
        (void)collect(guest, &out->set[out->taken]);
        out->taken++;
    }
    return E_OK;
}

void heat_end(struct heat *heat)
{
    for (unsigned i = 0; i < HEAT_SAMPLES; i++)
        page_set_end(&heat->set[i]);
    heat->taken = 0;
}

static unsigned times_of(const struct heat *heat, uint64_t page)
{
    unsigned times = 0;

    for (unsigned i = 0; i < heat->taken; i++)
        times += page_set_has(&heat->set[i], page);
    return times;
}

bool heat_run(const struct heat *heat, uint64_t from, uint64_t *first, uint64_t *last,
              unsigned *times)
{
    bool found = false;
    uint64_t page;

    for (unsigned i = 0; i < heat->taken; i++)
        if (page_set_next(&heat->set[i], from, &page) && (!found || page < *first)) {
            *first = page;
            found = true;
        }
    if (!found)
        return false;
    *times = times_of(heat, *first);
    *last = *first + PAGE_SIZE - 1;
    while (times_of(heat, *last + 1) == *times)
        *last += PAGE_SIZE;
    return true;
}
