/* See arch/x86_64/user_last.h. One for the machine: whoever ends last is the last program. */
#include "arch/x86_64/user_last.h"

#include "lib/format.h"
#include "lib/lock.h"

static struct user_last last;
static struct lock lock;

void user_last_keep(const char *name, struct table *table)
{
    lock_take(&lock);
    format_buffer(last.name, sizeof(last.name), "%s", name);
    snapshot_take(&last.map, table);
    lock_drop(&lock);
}

const struct user_last *user_last(void)
{
    return &last;
}
