/*
 * Stacks of the hypervisor (kernel_space.h): slots of the stacks window, each with an absent page
 * below, so that an overflow faults at its first step instead of writing over a neighbour.
 */
#include "arch/x86_64/mm/kernel.h"
#include "arch/x86_64/mm/kernel_space.h"
#include "arch/x86_64/mm/space_map.h"
#include "mm/frames/buddy.h"
#include "mm/paging/typed.h"

#define SLOT_WORDS (STACK_SLOTS / 64)

_Static_assert(STACK_SLOTS % 64 == 0, "slots fill whole words");

static uint64_t taken[SLOT_WORDS]; /* bit set: the slot is in use */

static bool slot_take(unsigned *slot)
{
    for (unsigned i = 0; i < SLOT_WORDS; i++) {
        uint64_t word = __atomic_load_n(&taken[i], __ATOMIC_RELAXED);

        while (~word != 0) {
            unsigned bit = lowest_bit(~word);

            if (__atomic_compare_exchange_n(&taken[i], &word, word | BIT(bit), false,
                                            __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
                *slot = i * 64 + bit;
                return true;
            }
        }
    }
    return false;
}

static void slot_drop(unsigned slot)
{
    __atomic_fetch_and(&taken[slot / 64], ~BIT(slot % 64), __ATOMIC_RELEASE);
}

int stack_alloc(hva_t *top)
{
    unsigned slot;
    hpa_t block;
    int error;

    if (!kernel_table.env || !kernel_table.env->frame_records)
        return E_STATE;
    if (!slot_take(&slot))
        return E_FULL;
    error = buddy_alloc(STACK_ORDER, PURPOSE_STACK, OWNER_HOST, &block);
    if (error == E_OK) {
        error =
            space_map(&kernel_table, stack_slot_base(slot), block, STACK_SIZE, RIGHT_RW, MEM_WB);
        if (error != E_OK)
            buddy_free(block, STACK_ORDER, OWNER_HOST);
    }
    if (error != E_OK) {
        slot_drop(slot);
        return error;
    }
    *top = stack_slot_top(slot);
    return E_OK;
}

int stack_free(hva_t top)
{
    uint64_t offset = top.v - STACKS_BASE;
    struct flush_batch batch;
    struct mapping mapping;
    unsigned slot;
    int error;

    if (top.v <= STACKS_BASE || offset > STACKS_SIZE || offset % STACK_STRIDE != 0)
        return E_INVAL;
    slot = (unsigned)(offset / STACK_STRIDE) - 1;
    if (hva_translate(&kernel_table, stack_slot_base(slot), &mapping) != E_OK)
        return E_INVAL;

    flush_begin(&batch, &kernel_table);
    error = hva_unmap(&kernel_table, stack_slot_base(slot), STACK_SIZE, &batch);
    if (error == E_OK)
        flush_free_after(&batch, mapping.out);
    flush_commit(&batch);
    if (error == E_OK)
        slot_drop(slot);
    return error;
}

unsigned stacks_in_use(void)
{
    unsigned count = 0;

    for (unsigned i = 0; i < SLOT_WORDS; i++)
        for (uint64_t word = __atomic_load_n(&taken[i], __ATOMIC_RELAXED); word; word &= word - 1)
            count++;
    return count;
}
