/*
 * The kernel kind: the hypervisor's own half of the address space, and the one table of it.
 */
#ifndef QUIRE_ARCH_X86_64_MM_KERNEL_H
#define QUIRE_ARCH_X86_64_MM_KERNEL_H

#include "mm/paging/table.h"

/* The hypervisor's table; built by kernel_space_build(). root.v is 0 until then. */
extern struct table kernel_table;

#endif
