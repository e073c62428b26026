/*
 * The hypervisor's own address space: how it is built, and what can be placed in it afterwards.
 *
 * Order at boot: kernel_space_build() with frames of the early allocator, then (once the buddy has
 * taken over) kernel_space_adopt(). mmio_map() and fixmap_map() serve after either; stack_alloc()
 * after the second only, for a stack is the buddy's.
 */
#ifndef QUIRE_ARCH_X86_64_MM_KERNEL_SPACE_H
#define QUIRE_ARCH_X86_64_MM_KERNEL_SPACE_H

#include <stddef.h>

#include "arch/x86_64/mm/layout.h"
#include "arch/x86_64/mm/space_check.h"
#include "mm/frames/early.h"
#include "mm/paging/table.h"

/* What a host table on this CPU can express; from cpu_features. */
struct table_caps host_table_caps(void);

/*
 * Builds kernel_table (layout.h): the direct map of all RAM and ACPI regions in `memblock`, the
 * image with the rights that each part needs, all 256 entries of the upper half of its root
 * present; and switches this CPU to it. Nothing of the lower half is mapped from then on.
 * cpu_detect() and cpu_enable() come first. Must run at linked addresses, on a stack in the image.
 * Errors as table_map(); E_STATE when it was built before.
 */
int kernel_space_build(const struct memblock *memblock, struct early *early);

/* From now on the table's frames come from and go to the buddy, which has a record of each. */
int kernel_space_adopt(void);

/* Judges kernel_table (space_check.h) and that this CPU runs on it. E_OK, or E_STATE with the first
 * violation in words in why[why_size]. */
int kernel_space_check(char *why, size_t why_size);

/* Describes the kernel's table to the auditor, CR3 included. It is to be current. Returns how many
 * entries of `guard` there are. */
unsigned kernel_space_describe(struct audit_table *out, struct audit_guard guard[SPACE_GUARDS]);

/* A stack of STACK_SIZE bytes with an absent page below it; `*top` is the initial stack pointer,
 * 16-byte aligned. E_FULL, E_NOMEM, E_STATE (before kernel_space_adopt()). */
int stack_alloc(hva_t *top);

/* Gives a stack back that nothing runs on. E_INVAL when `top` is no stack's. */
int stack_free(hva_t top);

/* How many stacks there are now. */
unsigned stacks_in_use(void);

/*
 * Device memory: maps physical [at, at + size), any alignment, read-write and never executable,
 * with memory type `type` (MEM_UC for registers). `*out` receives the address of `at`. The same
 * range again with the same type yields the same address once more, to be unmapped as often.
 * E_EXIST (RAM of the direct map, or mapped with another type), E_FULL, E_INVAL, E_NOMEM, E_RANGE.
 */
int mmio_map(hpa_t at, uint64_t size, enum mem_type type, void **out);

/* `at`: any address within what mmio_map() gave. E_NOENT. */
int mmio_unmap(const void *at);

/* Single pages at addresses known when compiling. */
enum fixmap_slot {
    FIXMAP_LAPIC, /* the local APIC's registers, for good */
    FIXMAP_PEEK,  /* a look at a frame that nothing else maps */
    FIXMAP_COUNT
};

static inline hva_t fixmap_address(enum fixmap_slot slot)
{
    return hva(FIXMAP_BASE + (uint64_t)slot * PAGE_SIZE);
}

/*
 * Maps the frame at `frame` (4 KiB aligned) into a slot, no-execute; `*out` receives its address.
 * E_EXIST (slot in use), E_ALIGN, E_RANGE; E_PERM for RAM with another type than write-back, or
 * writable where the direct map has it read-only.
 */
int fixmap_map(enum fixmap_slot slot, hpa_t frame, enum mem_type type, bool writable, void **out);
int fixmap_unmap(enum fixmap_slot slot);

#endif
