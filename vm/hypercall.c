/*
 * Hypercalls (guests/abi.h, docs/GUEST-INTERFACE.md). Allowed at privilege level 0 alone; elsewhere
 * the instruction is undefined, as it is on a CPU without virtualisation.
 */
#include "guests/abi.h"
#include "lib/bits.h"
#include "lib/error.h"
#include "mm/paging/typed.h"
#include "vm/balloon.h"
#include "vm/exits.h"
#include "vm/inject.h"
#include "vm/report.h"
#include "vm/slots.h"
#include "x86/control.h"

#define PUTS_MAX 4096

/* Arguments: 64 bits wide in 64-bit mode, 32 elsewhere whatever the upper halves hold. */
struct call {
    uint32_t number;
    uint64_t ebx, ecx, edx, esi;
};

static bool is_64bit(const struct vcpu_state *state)
{
    return state->efer & EFER_LMA && state->segment[SEG_CS].access & BIT(13); /* L */
}

static struct call read_call(const struct guest *guest, const struct vcpu_state *state)
{
    const uint64_t *gpr = guest->vcpu->gpr;
    uint64_t mask = is_64bit(state) ? UINT64_MAX : UINT32_MAX;

    return (struct call){
        .number = (uint32_t)gpr[RAX],
        .ebx = gpr[RBX] & mask,
        .ecx = gpr[RCX] & mask,
        .edx = gpr[RDX] & mask,
        .esi = gpr[RSI] & mask,
    };
}

static uint32_t call_puts(struct guest *guest, const struct call *call)
{
    char text[64];
    uint64_t done = 0;

    if (call->ecx > PUTS_MAX)
        return QUIRE_E_INVAL;
    while (done < call->ecx) {
        uint64_t piece = call->ecx - done < sizeof(text) ? call->ecx - done : sizeof(text);
        uint64_t n = guest_read(guest, gpa(call->ebx + done), text, piece);

        for (uint64_t i = 0; i < n; i++)
            guest_putc(guest, text[i]);
        if (n != piece)
            return QUIRE_E_INVAL;
        done += n;
    }
    return QUIRE_E_OK;
}

static uint32_t call_expect_fault(struct guest *guest, const struct call *call)
{
    if (call->esi != 0 || (call->ecx != 0 && call->ecx - 1 > UINT64_MAX - call->ebx))
        return QUIRE_E_INVAL;
    guest_at(guest)->is.expect_fault.base = call->ebx;
    guest_at(guest)->is.expect_fault.size = call->ecx;
    guest_at(guest)->is.expect_fault.resume = call->edx;
    return QUIRE_E_OK;
}

static uint32_t call_backing(struct guest *guest, const struct call *call)
{
    const struct slot *slot = guest_slot_at(guest, gpa(call->ebx));
    struct mapping mapping;

    if (slot == NULL)
        return QUIRE_BACKING_NONE;
    if (slot->kind == SLOT_DEVICE)
        return QUIRE_BACKING_DEVICE;
    if (slot_kind_is_ram(slot->kind) &&
        gpa_translate(&guest->table, gpa(call->ebx), &mapping) != E_OK)
        return QUIRE_BACKING_LAZY_ABSENT;
    if (!(slot->rights & RIGHT_R))
        return QUIRE_BACKING_EXEC_ONLY;
    if (!(slot->rights & RIGHT_W))
        return QUIRE_BACKING_ROM;
    return slot->rights & RIGHT_X ? QUIRE_BACKING_RAM : QUIRE_BACKING_NOEXEC;
}

static uint32_t balloon_answer(int error)
{
    switch (error) {
    case E_OK:
        return QUIRE_E_OK;
    case E_PERM:
        return QUIRE_E_NORAM;
    case E_NOMEM:
    case E_QUOTA:
        return QUIRE_E_NOMEM;
    default:
        return QUIRE_E_INVAL;
    }
}

/* False: the turn is over before all is done, and the call is made again from there. */
static bool call_balloon(struct guest *guest, const struct call *call, uint32_t *answer)
{
    uint64_t at = call->ebx, left = call->ecx;
    int error = call->number == QUIRE_HC_GIVE ? balloon_give(guest, &at, &left)
                                              : balloon_take(guest, &at, &left);

    guest->vcpu->gpr[RBX] = at;
    guest->vcpu->gpr[RCX] = left;
    *answer = balloon_answer(error);
    if (error == E_OK && left != 0)
        guests_backend()->retry(guest->vcpu);
    return error != E_OK || left == 0;
}

bool exit_hypercall(struct guest *guest, const struct vm_exit *exit)
{
    struct vcpu_state state;
    struct call call;
    uint32_t answer = QUIRE_E_OK;
    bool yields = false;

    if (guests_backend()->get_state(guest->vcpu, &state) != E_OK) {
        guest_stop(guest, exit, "a hypercall, and its state cannot be read");
        return false;
    }
    if (segment_dpl(&state.segment[SEG_SS]) != 0) {
        inject_ud(guest);
        return true;
    }
    call = read_call(guest, &state);
    switch (call.number) {
    case QUIRE_HC_PASS:
        guest_end(guest, GUEST_PASSED, "hypercall");
        return false;
    case QUIRE_HC_FAIL:
        guest->verdict = (uint32_t)call.ebx;
        guest_end(guest, GUEST_FAILED, "the guest reported failure %u at RIP 0x%lx", guest->verdict,
                  exit->rip);
        return false;
    case QUIRE_HC_PUTS:
        answer = call_puts(guest, &call);
        break;
    case QUIRE_HC_YIELD:
        yields = true;
        break;
    case QUIRE_HC_DONE:
        guest->round_over = true;
        yields = guest->in_round;
        break;
    case QUIRE_HC_EXPECT_FAULT:
        answer = call_expect_fault(guest, &call);
        break;
    case QUIRE_HC_BACKING:
        answer = call_backing(guest, &call);
        break;
    case QUIRE_HC_GIVE:
    case QUIRE_HC_TAKE:
        if (!call_balloon(guest, &call, &answer))
            return true;
        break;
    default:
        answer = QUIRE_E_UNKNOWN;
    }
    guest->vcpu->gpr[RAX] = answer;
    skip_instruction(guest, exit);
    return !yields;
}
