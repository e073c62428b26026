/* The NPT kind with five levels: the shipped source once more, under other names. */
#include "tests/property/pte_hooks.h"

#define KIND_LEVELS 5
#define npt_kind npt5_kind
#define ncr3_compose ncr35_compose
#define ncr3_decode ncr35_decode

#include "arch/x86_64/mm/kind_npt.c"
