/*
 * The hypervisor's own address space, upper half of the 48-bit canonical addresses. The lower half
 * belongs to the ring-3 program that is running, or is empty.
 *
 *   0xffffffffff000000  fixmap      one page a slot, at addresses known when compiling     16 MiB
 *   0xffffffff80000000  image       the linked image; address - IMAGE_BASE is physical      1 GiB
 *   0xffffe00000000000  stacks      [guard 4K | stack 16K] ..., one a slot
 *   0xffffd00000000000  MMIO        device memory, handed out piece by piece                1 TiB
 *   0xffff800000000000  direct map  RAM at DIRECT_BASE + physical address; holes absent    64 TiB
 *   0x0000800000000000..0xffff7fffffffffff  not canonical
 *   0x0000000000000000  user        one ring-3 program
 */
#ifndef QUIRE_ARCH_X86_64_MM_LAYOUT_H
#define QUIRE_ARCH_X86_64_MM_LAYOUT_H

#include <stdint.h>

#include "lib/bits.h"
#include "mm/addr.h"

#define USER_FIRST UINT64_C(0x0000000000001000) /* page 0 stays absent: a null pointer faults */
/* The last page of the lower half stays absent as well: a SYSCALL or a fetch that runs off its end
 * would otherwise carry a non-canonical return address. */
#define USER_LAST UINT64_C(0x00007fffffffefff)

#define UPPER_FIRST UINT64_C(0xffff800000000000)
#define UPPER_LAST UINT64_C(0xffffffffffffffff)

#define DIRECT_BASE UINT64_C(0xffff800000000000)
#define DIRECT_SIZE (64 * TiB)

#define MMIO_BASE UINT64_C(0xffffd00000000000)
#define MMIO_SIZE (1 * TiB)

#define STACKS_BASE UINT64_C(0xffffe00000000000)
#define STACK_ORDER 2
#define STACK_SIZE (PAGE_SIZE << STACK_ORDER)
#define STACK_GUARD PAGE_SIZE
#define STACK_STRIDE (STACK_GUARD + STACK_SIZE)
#define STACK_SLOTS 1024
#define STACKS_SIZE (STACK_SLOTS * STACK_STRIDE)

#define IMAGE_BASE UINT64_C(0xffffffff80000000)
#define IMAGE_SIZE (1 * GiB)

#define FIXMAP_BASE UINT64_C(0xffffffffff000000)
#define FIXMAP_SIZE (16 * MiB)

_Static_assert(UPPER_FIRST == ~UINT64_C(0) << 47, "the upper half starts at bit 47, sign-extended");
_Static_assert(DIRECT_BASE >= UPPER_FIRST, "every window lies in the half that tables share");
_Static_assert(DIRECT_BASE + DIRECT_SIZE <= MMIO_BASE,
               "the direct map ends before the MMIO window");
_Static_assert(MMIO_BASE + MMIO_SIZE <= STACKS_BASE, "the MMIO window ends before the stacks");
_Static_assert(STACKS_BASE + STACKS_SIZE <= IMAGE_BASE, "the stacks end before the image");
_Static_assert(IMAGE_BASE + IMAGE_SIZE <= FIXMAP_BASE, "the image ends before the fixmap");
_Static_assert(FIXMAP_BASE + (FIXMAP_SIZE - 1) == UPPER_LAST,
               "the fixmap ends with the address space");
/* A direct-mapped 1 GiB page needs its virtual and physical address aligned alike. */
_Static_assert(DIRECT_BASE % (512 * GiB) == 0, "the direct map starts at a PML4 slot");
_Static_assert(MMIO_BASE % (512 * GiB) == 0 && STACKS_BASE % (512 * GiB) == 0,
               "windows share no PML4 slot");

/* The physical address of something linked into the image (a symbol, a static object). */
static inline hpa_t image_hpa(const void *linked)
{
    return hpa((uint64_t)(uintptr_t)linked - IMAGE_BASE);
}

/* The lowest address of stack slot `slot` and its initial stack pointer. */
static inline hva_t stack_slot_base(unsigned slot)
{
    return hva(STACKS_BASE + slot * STACK_STRIDE + STACK_GUARD);
}

static inline hva_t stack_slot_top(unsigned slot)
{
    return hva(STACKS_BASE + (slot + 1) * STACK_STRIDE);
}

#endif
