/* See trial.h: the changes, and the host's tables. */
#include "arch/x86_64/oracle/trial_internal.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/mm/host_root.h"
#include "arch/x86_64/mm/kernel.h"
#include "arch/x86_64/mm/layout.h"
#include "arch/x86_64/mm/space_map.h"
#include "arch/x86_64/mm/table_envs.h"
#include "lib/error.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"

#define USER_AT (512 * GiB)
#define BEGIN_PATIENCE (UINT64_C(1) << 33)

/* Of these reads one walks the table itself; after so many the table is left, and loaded anew. */
#define READS_A_WALK 64
#define READS_A_LOAD 1000

static const char *const space_names[] = {
    [TRIAL_KERNEL] = "kernel",
    [TRIAL_USER] = "user",
    [TRIAL_GUEST] = "guest",
    [TRIAL_WRITERS] = "writers",
};

const char *trial_space_name(enum trial_space space)
{
    return space_names[space];
}

/* ---- The CPU that changes ------------------------------------------------------------------- */

static uint64_t answered_by(unsigned first, unsigned end)
{
    uint64_t sum = 0;

    for (unsigned cpu = first; cpu < end; cpu++)
        sum += shootdown_counters_of(cpu).answered;
    return sum;
}

static int lead_to(const struct trial *trial, uint64_t change, unsigned flags)
{
    hpa_t frame = hpa_add(trial->frames, change % TRIAL_FRAMES * PAGE_SIZE);
    struct flush_batch batch;

    *trial_frame(trial, change) = (uint16_t)TRIAL_VALUE(change);
    flush_begin(&batch, trial->table);
    int error = table_map(trial->table, trial->at, frame, PAGE_SIZE, trial->attrs, flags, &batch);
    flush_commit(&batch);
    return error;
}

static int start_users(struct trial *trial, unsigned users, void (*work)(void *user))
{
    int error = E_OK;

    for (unsigned i = 0; i < users && error == E_OK; i++) {
        struct trial_user *user = &trial->user[i];

        *user = (struct trial_user){.trial = trial, .cpu = i + 1};
        error = cpus_run(user->cpu, "trial of flushes", work, user);
        trial->users += error == E_OK;
    }
    for (unsigned i = 0; i < trial->users; i++)
        for (uint64_t start = rdtsc(); !__atomic_load_n(&trial->user[i].begun, __ATOMIC_ACQUIRE) &&
                                       !cpus_done(trial->user[i].cpu);) {
            if (rdtsc() - start > BEGIN_PATIENCE)
                return E_HARDWARE;
            cpu_pause();
        }
    return error;
}

static int end_users(struct trial *trial, struct trial_counts *counts)
{
    int error = E_OK;

    __atomic_store_n(&trial->over, true, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < trial->users; i++) {
        const struct trial_user *user = &trial->user[i];

        while (!cpus_done(user->cpu))
            cpu_pause();
        counts->reads += user->reads;
        counts->loads += user->loads;
        counts->stale += user->stale;
        if (error == E_OK)
            error = user->error;
    }
    return error;
}

int trial_change(struct trial *trial, unsigned users, void (*work)(void *user),
                 struct trial_counts *counts)
{
    unsigned all = cpus_online();
    int error = lead_to(trial, 0, MAP_DEFAULT);

    if (error != E_OK)
        return error;
    error = start_users(trial, users, work);
    uint64_t others = answered_by(users + 1, all), asked = answered_by(1, all), start = rdtsc();
    for (uint64_t change = 1; change <= trial->changes && error == E_OK; change++) {
        error = lead_to(trial, change, MAP_REPLACE);
        *trial_frame(trial, change - 1) = TRIAL_GONE;
        counts->changes += error == E_OK;
    }
    counts->ticks = counts->changes ? (rdtsc() - start) / counts->changes : 0;
    counts->asked = answered_by(1, all) - asked;
    /* All hold the kernel's table. */
    if (trial->table != &kernel_table)
        counts->disturbed = answered_by(users + 1, all) - others;
    counts->users = trial->users;
    int ended = end_users(trial, counts);

    struct flush_batch batch;
    flush_begin(&batch, trial->table);
    invariant(table_unmap(trial->table, trial->at, PAGE_SIZE, &batch) == E_OK);
    flush_commit(&batch);
    return error == E_OK ? ended : error;
}

/* ---- CPUs that read ------------------------------------------------------------------------- */

static void read_page(struct trial_user *user)
{
    struct trial *trial = user->trial;
    struct mapping mapping;

    user->stale += *(volatile uint16_t *)(uintptr_t)trial->at == TRIAL_GONE;
    if (user->reads++ % READS_A_WALK != 0)
        return;
    shootdown_read_begin();
    if (table_translate(trial->table, trial->at, &mapping) != E_OK)
        user->error = E_HARDWARE;
    shootdown_read_end();
}

static void read_kernel(void *argument)
{
    struct trial_user *user = argument;

    user->loads = 1;
    while (!trial_over(user->trial)) {
        read_page(user);
        trial_begun(user);
    }
}

static void read_user(void *argument)
{
    struct trial_user *user = argument;

    while (!trial_over(user->trial)) {
        invariant(host_root_set(user->trial->table) == E_OK);
        user->loads++;
        for (unsigned i = 0; i < READS_A_LOAD && !trial_over(user->trial); i++) {
            read_page(user);
            trial_begun(user);
        }
        invariant(host_root_set(&kernel_table) == E_OK);
    }
}

/* ---- All of them ---------------------------------------------------------------------------- */

static int try_kernel(struct trial *trial, struct trial_counts *counts)
{
    trial->table = &kernel_table;
    trial->at = TRIAL_KERNEL_AT;
    trial->attrs = space_attrs(&kernel_table, RIGHT_RW, MEM_WB);
    return trial_change(trial, cpus_online() - 1, read_kernel, counts);
}

static int try_user(struct trial *trial, struct trial_counts *counts)
{
    struct table table;
    int error = table_init(&table, &user_kind, &kernel_table.caps, &buddy_table_env,
                           PURPOSE_USER_TABLE, OWNER_HOST);

    if (error != E_OK)
        return error;
    table.tag = OWNER_FIRST_USER; /* no program runs: its PCID is free */
    trial->table = &table;
    trial->at = USER_AT;
    trial->attrs = attrs_of(RIGHT_RW, MEM_WB); /* of a program's table, but for ring 0 */
    error = table_share_upper(&table, &kernel_table);
    if (error == E_OK)
        error = trial_change(trial, cpus_online() / 2, read_user, counts);
    invariant(table_destroy(&table) == E_OK);
    return error;
}

static int try_space(enum trial_space space, const struct trial *all, struct trial_counts *counts)
{
    static struct trial trial;

    trial = *all;
    memset(direct(trial.frames), 0, PAGE_SIZE << TRIAL_ORDER);
    switch (space) {
    case TRIAL_KERNEL:
        return try_kernel(&trial, counts);
    case TRIAL_USER:
        return try_user(&trial, counts);
    case TRIAL_GUEST:
        return trial.backend ? trial_guest(&trial, counts) : E_OK;
    default:
        return trial_writers(trial.changes, counts);
    }
}

int trial_run(const struct vm_backend *backend, uint64_t changes,
              struct trial_counts counts[TRIAL_SPACES])
{
    static struct trial all;
    bool wrong = false;

    memset(counts, 0, sizeof(*counts) * TRIAL_SPACES);
    if (cpus_online() < 2)
        return E_STATE;
    all = (struct trial){.backend = backend, .changes = changes};
    int error = buddy_alloc(TRIAL_ORDER, PURPOSE_TEST, OWNER_HOST, &all.frames);
    if (error != E_OK)
        return error;
    for (unsigned i = 0; i < TRIAL_SPACES && error == E_OK; i++) {
        error = try_space((enum trial_space)i, &all, &counts[i]);
        wrong = wrong || counts[i].stale || counts[i].disturbed;
    }
    invariant(buddy_free(all.frames, TRIAL_ORDER, OWNER_HOST) == E_OK);
    return error == E_OK && wrong ? E_HARDWARE : error;
}
