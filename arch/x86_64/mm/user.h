/*
 * The user kind: a ring-3 program's half of the address space. The kernel's half is shared, so that
 * a trap needs no change of tables (table_share_upper()).
 */
#ifndef QUIRE_ARCH_X86_64_MM_USER_H
#define QUIRE_ARCH_X86_64_MM_USER_H

#include "arch/x86_64/mm/layout.h"
#include "mm/paging/table.h"

#endif
