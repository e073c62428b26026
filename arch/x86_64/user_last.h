/*
 * The ring-3 program that ran last, as far as it can still be looked at: its name and what its
 * table mapped right before it was given back.
 */
#ifndef QUIRE_ARCH_USER_LAST_H
#define QUIRE_ARCH_USER_LAST_H

#include "arch/x86_64/user.h"
#include "mm/paging/snapshot.h"

struct user_last {
    char name[USER_NAME]; /* "" when none has run */
    struct snapshot map;
};

/* For user_run(), between a program's end and the end of its table. */
void user_last_keep(const char *name, struct table *table);

const struct user_last *user_last(void);

#endif
