/* The EPT kind with five levels: the shipped source once more, under other names. */
#include "tests/property/pte_hooks.h"

#define KIND_LEVELS 5
#define ept_kind ept5_kind
#define eptp_compose eptp5_compose
#define eptp_decode eptp5_decode
#define ept_eptp ept5_eptp

#include "arch/x86_64/mm/kind_ept.c"
