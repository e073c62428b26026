/*
 * An independent judgement of the hypervisor's address space: it reads the table as it is, knows
 * nothing of how it was built, and answers with the first rule that is broken.
 *
 *   - nothing in the upper half is open to ring 3;
 *   - exactly the image's text is executable;
 *   - no frame of the image's read-only data is writable anywhere;
 *   - the direct map maps each frame at DIRECT_BASE + its address, write-back, never executable;
 *   - no frame of the MMIO window is RAM of the direct map;
 *   - nothing is mapped outside the windows of layout.h, and the lower half is empty.
 *
 * The rules that hold for every address space it has the auditor judge (mm/audit/audit.h): no frame
 * that is executable at one address is writable at that or at another; the page below every stack
 * is absent, the boot stack's too.
 *
 * It takes four frames from the buddy for as long as it judges.
 */
#ifndef QUIRE_ARCH_X86_64_MM_SPACE_CHECK_H
#define QUIRE_ARCH_X86_64_MM_SPACE_CHECK_H

#include <stddef.h>

#include "arch/x86_64/mm/image.h"
#include "mm/audit/audit.h"
#include "mm/paging/table.h"

/* E_OK, or E_STATE with the first violation in words in why[why_size]; E_NOMEM, in words as well,
 * when there is no memory to judge with. Reads only; safe on a live table. `table` is of the kernel
 * kind. */
int space_check(struct table *table, const struct image_layout *image, char *why, size_t why_size);

/* Describes the table to the auditor, with its guard pages. Returns how many entries of `guard`
 * there are. */
#define SPACE_GUARDS 2
unsigned space_describe(struct table *table, const struct image_layout *image,
                        struct audit_table *out, struct audit_guard guard[SPACE_GUARDS]);

#endif
