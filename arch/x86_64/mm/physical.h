/*
 * Physical memory by its address, for those who look at whatever they are asked for: a byte is
 * touched only where the direct map has it, so that no question can fault the hypervisor.
 */
#ifndef QUIRE_ARCH_X86_64_MM_PHYSICAL_H
#define QUIRE_ARCH_X86_64_MM_PHYSICAL_H

#include <stdbool.h>

#include "mm/addr.h"

/* Copies up to `size` bytes; stops at the first that the direct map does not have. Returns how
 * many. */
uint64_t physical_read(hpa_t from, void *to, uint64_t size);

/* Likewise; and at the first that the direct map has read-only (the image's text and read-only
 * data). */
uint64_t physical_write(hpa_t to, const void *from, uint64_t size);

/* Likewise, but whatever the direct map's rights are, within one page: for somebody who insists.
 * Returns `size`, or 0 where nothing is. */
uint64_t physical_force(hpa_t to, const void *from, uint64_t size);

/* As physical_read(), for struct explain_query: true when all bytes were there. */
bool physical_load(void *ctx, hpa_t from, void *to, unsigned size);

#endif
