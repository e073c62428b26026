/* The public functions as shipped, with the eyes of a test on every access to an entry. */
#include "tests/property/pte_hooks.h"

#include "mm/paging/table.c"
