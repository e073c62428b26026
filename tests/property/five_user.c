/* The user kind with five levels: the shipped source once more, under another name. */
#include "tests/property/pte_hooks.h"

#include "arch/x86_64/mm/layout.h"

#define KIND_LEVELS 5
#define user_kind user5_kind
#undef USER_LAST
#define USER_LAST UINT64_C(0x00ffffffffffefff)

#include "arch/x86_64/mm/kind_user.c"
