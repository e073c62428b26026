/* The NPT kind as shipped, with the eyes of a test on every access to an entry. */
#include "tests/property/pte_hooks.h"

#include "arch/x86_64/mm/kind_npt.c"
