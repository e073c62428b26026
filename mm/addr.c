/* See mm/addr.h. */
#include "mm/addr.h"

uint64_t direct_base;
