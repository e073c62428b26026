/*
 * The CPUs beside the one that booted: found by ACPI's tables, started by arch/x86_64/cpus.h.
 */
#ifndef QUIRE_BOOT_OTHER_CPUS_H
#define QUIRE_BOOT_OTHER_CPUS_H

#include "arch/x86_64/cpus.h"
#include "boot/multiboot2.h"

/* Reads the firmware's tables, as long as entry.asm's tables show the first 4 GiB. What is wrong
 * with them is said in the log; there is one CPU then. */
void other_cpus_find(const struct boot_info *info);

/*
 * Starts those that were found, `most` CPUs in all at the most, and says in the log how many run.
 * `enable`: see cpus_start(). `pretended`: a CPU that is not there is tried as well (a test's).
 */
void other_cpus_start(const struct boot_info *info, uint64_t most, cpu_enable_fn enable,
                      bool pretended);

/* Has guests run on all CPUs that are online, this one among them. `work` is what the others do for
 * that (guests_run_here()). Before the first guest is made. */
void other_cpus_run_guests(bool (*work)(void));

#endif
