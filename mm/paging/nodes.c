/* See mm/paging/nodes.h. */
#include "mm/paging/nodes.h"

#include "lib/panic.h"

void supply_push(const struct table *t, struct supply *supply, hpa_t frame)
{
    if (t->env->frame_records)
        frame_set_payload(frame, supply->first);
    else
        *(uint64_t *)direct(frame) = supply->first;
    supply->first = pfn_of(frame) + 1;
}

uint64_t supply_pop(const struct table *t, struct supply *supply)
{
    invariant(supply->first != 0);
    hpa_t frame = hpa_of_pfn(supply->first - 1);
    supply->first = t->env->frame_records ? frame_payload(frame) : *(uint64_t *)direct(frame);
    return frame.v;
}

void supply_return(struct table *t, struct supply *supply)
{
    while (supply->first) {
        t->env->give(t->env, t, hpa(supply_pop(t, supply)));
        count_change(&t->table_frames, -UINT64_C(1));
    }
}

int supply_take(struct table *t, uint64_t needed, struct supply *supply)
{
    supply->first = 0;
    for (uint64_t i = 0; i < needed; i++) {
        hpa_t frame;
        int error = t->env->take(t->env, t, &frame);

        if (error) {
            count_change(&t->table_frames, i);
            supply_return(t, supply);
            return error;
        }
        supply_push(t, supply, frame);
    }
    if (needed)
        count_change(&t->table_frames, needed);
    return E_OK;
}

void returned_add(struct returned *returned, hpa_t node)
{
    if (returned->count == RETURNED_FRAMES)
        returned_end(returned);
    returned->frame[returned->count++] = node;
}

void returned_end(struct returned *returned)
{
    struct table *t = returned->table;

    /* A few, given one by one, stay with this CPU, and are soonest taken again. */
    if (t->env->give_many && returned->count > RETURNED_FEW)
        t->env->give_many(t->env, t, returned->frame, returned->count);
    else
        for (unsigned i = 0; i < returned->count; i++)
            t->env->give(t->env, t, returned->frame[i]);
    count_change(&t->table_frames, -(uint64_t)returned->count);
    returned->count = 0;
}
