/* See debug_loan.h. */
#include "arch/x86_64/guest/debug_loan.h"

#include "arch/x86_64/guest/resident.h"

bool debug_lend(struct debug_loan *loan, uint64_t at, uint64_t *dr7)
{
    uint64_t dr[4];

    loan->own_dr7 = *dr7;
    loan->slot = debug_spare(*dr7);
    if (loan->slot < 0)
        return false;
    resident_debug(dr);
    loan->own_dr = dr[loan->slot];
    resident_set_debug((unsigned)loan->slot, at);
    *dr7 = debug_armed(*dr7, (unsigned)loan->slot);
    return true;
}

void debug_give_back(const struct debug_loan *loan, uint64_t *dr7)
{
    unsigned slot = (unsigned)loan->slot;

    resident_set_debug(slot, loan->own_dr);
    *dr7 = debug_disarmed(*dr7, loan->own_dr7, slot);
}

enum debug_outcome debug_move_resident(struct debug_registers *registers, struct debug_move *move)
{
    resident_debug(registers->dr);
    enum debug_outcome outcome = debug_move(registers, move);
    for (unsigned n = 0; n < 4; n++)
        resident_set_debug(n, registers->dr[n]);
    return outcome;
}
