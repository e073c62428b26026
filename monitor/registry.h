/* The list of the console's commands, and what is said of a word that is none of them. */
#ifndef QUIRE_MONITOR_REGISTRY_H
#define QUIRE_MONITOR_REGISTRY_H

#include "monitor/commands.h"

/* NULL: there is none of that name. */
const struct command *find_command(const char *name);

/* Says so, and which one may be meant. Returns E_NOENT. */
int refuse_unknown(struct output *out, const char *word);

/* For the completion of what is typed (monitor/complete.h); NULL: no such command. */
const char *command_name(unsigned index);
const char *command_usage(const char *name);
const char *command_words(const char *name);

#endif
