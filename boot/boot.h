/*
 * What the boot leaves behind for the rest of the hypervisor to read.
 */
#ifndef QUIRE_BOOT_BOOT_H
#define QUIRE_BOOT_BOOT_H

#include <stdbool.h>
#include <stdint.h>

#include "boot/multiboot2.h"
#include "mm/frames/memblock.h"

/* What the boot loader said. Valid from before the first allocation to the end. */
const struct boot_info *boot_info(void);

/* The memory map as the boot found it: kinds of memory, and what was occupied when the buddy took
 * over. */
const struct memblock *boot_memory(void);

/* The time-stamp counter at the hypervisor's entry point. */
uint64_t boot_tsc(void);

/* Whether the counter ticks once an instruction, as some emulators have it: then differences of it
 * are a measure that every run repeats. */
bool tsc_counts_instructions(void);

#endif
