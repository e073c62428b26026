/* See trial.h: the page of a guest. It reads it in a loop of its own, and halts when it has read
 * what no longer is there; nothing but an NMI brings it out before its slice is over. */
#include "arch/x86_64/oracle/trial_internal.h"

#include "arch/x86_64/guest/reset_state.h"
#include "lib/error.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"
#include "mm/paging/typed.h"

#define GUEST_CODE 0x1000u
#define GUEST_PAGE 0x2000u
#define SLICE 100000u
#define EXITS_A_LOAD 16
#define PAUSE_A_LOAD 2000

/* In real mode. */
static const uint8_t code[] = {
    0xa1,
    GUEST_PAGE & 0xff,
    GUEST_PAGE >> 8, /* again: mov ax, [GUEST_PAGE] */
    0x3d,
    TRIAL_GONE & 0xff,
    TRIAL_GONE >> 8, /*        cmp ax, TRIAL_GONE   */
    0x75,
    0xf8, /*        jne again            */
    0xf4, /*        hlt                  */
};

static int send_off(const struct vm_backend *backend, struct vcpu *vcpu)
{
    struct vcpu_state state = guest_reset_state;

    state.segment[SEG_CS].selector = 0;
    state.segment[SEG_CS].base = 0;
    state.rip = GUEST_CODE;
    return backend->set_state(vcpu, &state);
}

static int run_for_a_while(struct trial_user *user, struct vcpu *vcpu)
{
    const struct vm_backend *backend = user->trial->backend;
    struct vm_exit exit = {.kind = VM_EXIT_SLICE};
    int error = E_OK;

    for (unsigned i = 0; i < EXITS_A_LOAD && error == E_OK && !trial_over(user->trial); i++) {
        error = backend->run(vcpu, SLICE, &exit);
        user->reads++;
        trial_begun(user);
        if (exit.kind == VM_EXIT_HALT) {
            user->stale++;
            return send_off(backend, vcpu);
        }
        if (error == E_OK && exit.kind != VM_EXIT_SLICE && exit.kind != VM_EXIT_INTERRUPT &&
            exit.kind != VM_EXIT_HANDLED)
            return E_HARDWARE;
    }
    return error;
}

/* The vCPU is made, runs and ends on this CPU. In between the table is left for a while: of a flush
 * in that time this CPU learns when it loads the table anew. */
static void run_guest(void *argument)
{
    struct trial_user *user = argument;
    const struct vm_backend *backend = user->trial->backend;
    struct vcpu *vcpu;
    int error = backend->vcpu_create(NULL, user->trial->table, OWNER_HOST, &vcpu);

    if (error == E_OK) {
        error = send_off(backend, vcpu);
        while (error == E_OK && !trial_over(user->trial)) {
            user->loads++;
            error = run_for_a_while(user, vcpu);
            shootdown_load(CONTEXT_GUEST, NULL, NULL);
            for (unsigned i = 0; i < PAUSE_A_LOAD; i++)
                __builtin_ia32_pause();
        }
        backend->vcpu_destroy(vcpu);
    }
    user->error = error;
}

static int map_code(struct table *table, hpa_t frame)
{
    struct flush_batch batch;

    memcpy(direct(frame), code, sizeof(code));
    flush_begin(&batch, table);
    int error = gpa_map(table, gpa(GUEST_CODE), frame, PAGE_SIZE, attrs_of(RIGHT_RWX, MEM_WB),
                        MAP_DEFAULT, &batch);
    flush_commit(&batch);
    return error;
}

static int try_table(struct trial *trial, struct trial_counts *counts)
{
    hpa_t frame;
    int error = buddy_alloc(0, PURPOSE_TEST, OWNER_HOST, &frame);

    if (error != E_OK)
        return error;
    error = map_code(trial->table, frame);
    if (error == E_OK)
        error = trial_change(trial, 1, run_guest, counts);
    if (error == E_OK || trial->table->table_frames > 1) {
        struct flush_batch batch;

        flush_begin(&batch, trial->table);
        invariant(gpa_unmap(trial->table, gpa(GUEST_CODE), PAGE_SIZE, &batch) == E_OK);
        flush_commit(&batch);
    }
    invariant(buddy_free(frame, 0, OWNER_HOST) == E_OK);
    return error;
}

int trial_guest(struct trial *trial, struct trial_counts *counts)
{
    const struct vm_backend *backend = trial->backend;
    struct table table;
    int error = table_init(&table, backend->kind, backend->table_caps(), backend->table_env(),
                           PURPOSE_EPT_TABLE, OWNER_HOST);

    if (error != E_OK)
        return error;
    trial->table = &table;
    trial->at = GUEST_PAGE;
    trial->attrs = attrs_of(RIGHT_RW, MEM_WB);
    error = try_table(trial, counts);
    invariant(table_destroy(&table) == E_OK);
    return error;
}
