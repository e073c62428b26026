/*
 * Maps that `map` has kept, one of each table, and what has changed since.
 */
#ifndef QUIRE_MONITOR_MAP_SAVED_H
#define QUIRE_MONITOR_MAP_SAVED_H

#include "monitor/commands.h"

struct table;

/* `number` is the guest's whose table it is; 0 is the host's. E_FULL: more runs than are kept;
 * E_NOMEM: no memory to keep them in. The memory stays for the next map of the same table. */
int map_save(const struct command *command, struct output *out, struct table *table,
             unsigned number);

/* Shows what differs now from what was kept. E_STATE: nothing was. */
int map_diff(const struct command *command, struct output *out, struct table *table,
             unsigned number);

/* Gives back the memory of what was kept. E_NOENT: nothing was. */
int map_forget(const struct command *command, struct output *out, unsigned number);

#endif
