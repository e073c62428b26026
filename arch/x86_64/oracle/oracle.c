/* See oracle.h. */
#include "arch/x86_64/oracle/oracle.h"

#include "arch/x86_64/oracle/random_table.h"
#include "lib/error.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/frames/buddy.h"

const char *oracle_space_name(enum oracle_space space)
{
    static const char *const names[ORACLE_SPACES] = {"kernel", "user", "guest"};

    return (unsigned)space < ORACLE_SPACES ? names[space] : "?";
}

int oracle_run(const struct vm_backend *backend, uint64_t seed, uint64_t pairs,
               const struct oracle_listener *listener, struct oracle_counts counts[ORACLE_SPACES])
{
    static int (*const spaces[ORACLE_SPACES])(struct oracle *, uint64_t) = {
        oracle_kernel, oracle_user, oracle_guest};
    struct oracle oracle = {.random = seed, .backend = backend, .listener = listener};
    uint64_t disagreements = 0;

    memset(counts, 0, sizeof(*counts) * ORACLE_SPACES);
    int error = buddy_alloc(ORACLE_ORDER, PURPOSE_TEST, OWNER_HOST, &oracle.memory);
    if (error != E_OK)
        return error;
    memset(direct(oracle.memory), FILLER, ORACLE_MEMORY);
    for (unsigned i = 0; i < ORACLE_SPACES && error == E_OK; i++) {
        oracle.space = (enum oracle_space)i;
        oracle.counts = &counts[i];
        if (i != ORACLE_GUEST || backend != NULL)
            error = spaces[i](&oracle, pairs);
        disagreements += counts[i].disagreements;
    }
    invariant(buddy_free(oracle.memory, ORACLE_ORDER, OWNER_HOST) == E_OK);
    return error == E_OK && disagreements != 0 ? E_HARDWARE : error;
}
