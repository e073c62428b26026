/*
 * A page below 1 MiB for code that begins in real mode. The first MiB is reserved as a whole
 * (boot/memory_map.h); what lies in the page is to be put back.
 */
#ifndef QUIRE_BOOT_LOW_PAGE_H
#define QUIRE_BOOT_LOW_PAGE_H

#include "boot/multiboot2.h"

/* The highest page below 640 KiB that the loader's map calls usable and that neither the boot
 * information nor a module has a part of; never page 0. E_NOENT. */
int low_page_find(const struct boot_info *info, hpa_t *out);

#endif
