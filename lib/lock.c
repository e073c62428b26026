/* See lib/lock.h. */
#include "lib/lock.h"

bool locks_needed;
