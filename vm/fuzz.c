/* See vm/fuzz.h. */
#include "vm/fuzz.h"

#include "lib/error.h"
#include "lib/string.h"

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* A few bytes of the original changed: a bit, any value, one at the edge of a range, or another
 * byte's. */
static void make_input(const struct fuzz *fuzz, uint64_t round, const uint8_t *original,
                       uint8_t *input)
{
    static const uint8_t edges[] = {0, 1, 0x7f, 0x80, 0xfe, 0xff};
    uint64_t random = fuzz->seed * UINT64_C(0x2545f4914f6cdd1d) + round;
    unsigned changes = 1 + (unsigned)(next_random(&random) % 4);

    memcpy(input, original, fuzz->size);
    while (changes-- > 0) {
        uint64_t choice = next_random(&random);
        uint8_t *byte = &input[(choice >> 8) % fuzz->size];

        switch (choice & 3) {
        case 0:
            *byte ^= (uint8_t)(1u << (choice >> 40 & 7));
            break;
        case 1:
            *byte = (uint8_t)(choice >> 40);
            break;
        case 2:
            *byte = edges[(choice >> 40) % sizeof(edges)];
            break;
        default:
            *byte = input[(choice >> 40) % fuzz->size];
        }
    }
}

/* Of each vCPU. One that stands there gets RF, as a debugger sets it, and so gets past it. */
static void watch_for(struct guest *guest, const struct vm_until *until)
{
    const struct vm_backend *backend = guests_backend();
    struct vcpu_state state;
    struct vm_modes modes;

    for (unsigned i = 0; i < guest->cpus; i++) {
        struct vcpu *vcpu = guest->cpu[i].vcpu;

        vcpu->until = *until;
        if (!until->on || backend->get_state(vcpu, &state) != E_OK ||
            backend->get_modes(vcpu, &modes) != E_OK)
            continue;
        uint64_t at = modes.code64 ? state.rip : (uint32_t)(state.segment[SEG_CS].base + state.rip);
        if (at == until->at)
            backend->retry(vcpu);
    }
}

/* From the snapshot, with this input, to whatever it comes to. */
static int run_round(struct guest *guest, const struct fuzz *fuzz, const uint8_t *input,
                     int (*poll)(void *ctx), void *ctx, struct fuzz_result *result)
{
    const struct vm_backend *backend = guests_backend();
    uint64_t start = backend->ticks();
    int error = guest_back(guest);

    if (error != E_OK)
        return error;
    result->reset_ticks += backend->ticks() - start;
    result->pages += guest->snapshot->put_back;
    if (guest_write(guest, fuzz->at, input, fuzz->size) != fuzz->size)
        return E_RANGE;
    guest->state = GUEST_RUNNING;
    watch_for(guest, &fuzz->until);
    result->stopped = !guest_run_round(guest, fuzz->ticks, poll, ctx);
    watch_for(guest, &(struct vm_until){.on = false});
    if (result->stopped)
        return E_OK;
    result->round_ticks += backend->ticks() - start;
    result->rounds++;
    if (guest_ended(guest))
        result->crashed = guest->state != GUEST_PASSED;
    else if (guest->state == GUEST_PAUSED)
        return E_QUOTA; /* its reason says which */
    result->done += guest->round_over || guest->state == GUEST_PASSED;
    result->halted += guest->state == GUEST_HALTED;
    result->hung += guest->state == GUEST_RUNNING && !guest->round_over;
    return E_OK;
}

static void keep_crash(struct guest *guest, const struct fuzz *fuzz, uint64_t round,
                       const uint8_t *input)
{
    struct fuzz_crash *crash = &guest->snapshot->crash;
    struct vcpu_state state;

    *crash = (struct fuzz_crash){
        .found = true, .until = fuzz->until, .at = fuzz->at, .size = fuzz->size, .round = round};
    memcpy(crash->input, input, fuzz->size);
    memcpy(crash->reason, guest->reason, sizeof(crash->reason));
    if (guests_backend()->get_state(guest->vcpu, &state) == E_OK)
        crash->rip = state.rip;
}

static int prepare(struct guest *guest, const struct fuzz *fuzz, uint8_t original[FUZZ_INPUT])
{
    int error = E_OK;

    if (guest->vcpu == NULL)
        return E_STATE;
    if (fuzz->size == 0 || fuzz->size > FUZZ_INPUT || fuzz->ticks == 0)
        return E_INVAL;
    error = guest->snapshot == NULL ? guest_snapshot(guest) : guest_back(guest);
    if (error != E_OK)
        return error;
    memset(original, 0, fuzz->size);
    (void)guest_read(guest, fuzz->at, original, fuzz->size); /* lazy memory reads as zeroes */
    return E_OK;
}

/* To the snapshot, where it waits. What a round could not go on for is still to be said. */
static int come_to_rest(struct guest *guest, int error)
{
    char reason[sizeof(guest->reason)];

    memcpy(reason, guest->reason, sizeof(reason));
    int back = guest_back(guest);
    if (error != E_OK)
        memcpy(guest->reason, reason, sizeof(reason));
    guest->state = GUEST_PAUSED;
    guest_clock_stop(guest);
    guest_flush_output(guest); /* what its rounds have said comes before what is said of them */
    return error != E_OK ? error : back;
}

int fuzz_run(struct guest *guest, const struct fuzz *fuzz, int (*poll)(void *ctx), void *ctx,
             struct fuzz_result *result)
{
    uint8_t original[FUZZ_INPUT], input[FUZZ_INPUT];
    int error = prepare(guest, fuzz, original);

    *result = (struct fuzz_result){.rounds = 0};
    if (error != E_OK)
        return error;
    for (uint64_t round = 1; error == E_OK && round <= fuzz->rounds && !result->crashed; round++) {
        result->stopped = poll != NULL && poll(ctx) != 0;
        if (!result->stopped) {
            make_input(fuzz, round, original, input);
            error = run_round(guest, fuzz, input, poll, ctx, result);
        }
        if (result->stopped)
            break;
        if (error == E_OK && result->crashed)
            keep_crash(guest, fuzz, round, input);
    }
    return come_to_rest(guest, error);
}

int fuzz_replay(struct guest *guest, const struct fuzz *fuzz, bool *same)
{
    struct fuzz_result result = {.rounds = 0};
    struct fuzz_crash *crash;
    struct vcpu_state state;

    *same = false;
    if (guest->snapshot == NULL || !guest->snapshot->crash.found)
        return E_NOENT;
    crash = &guest->snapshot->crash;
    struct fuzz again = *fuzz;
    again.at = crash->at;
    again.size = crash->size;
    again.until = crash->until;
    int error = run_round(guest, &again, crash->input, NULL, NULL, &result);
    if (error != E_OK)
        return error;
    *same = result.crashed && guests_backend()->get_state(guest->vcpu, &state) == E_OK &&
            state.rip == crash->rip && strcmp(guest->reason, crash->reason) == 0;
    if (guest_ended(guest))
        guest_hold_ended(guest);
    return E_OK;
}
