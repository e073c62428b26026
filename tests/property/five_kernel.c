/* The kernel kind with five levels: the shipped source once more, under other names. */
#include "tests/property/pte_hooks.h"

#define KIND_LEVELS 5
#define kernel_kind kernel5_kind
#define kernel_table kernel5_table

#include "arch/x86_64/mm/kind_kernel.c"
