/*
 * Device windows of a guest: pieces of its physical address space whose every access goes to a
 * device (SLOT_DEVICE). What vm/ports.h is for ports.
 *
 * The instruction that reaches one is carried out by the backend (struct vm_backend.emulate), which
 * comes here for each access, in the order and at the widths of the instruction.
 */
#ifndef QUIRE_VM_WINDOWS_H
#define QUIRE_VM_WINDOWS_H

#include <stdbool.h>
#include <stdint.h>

#include "mm/addr.h"
#include "vm/backend.h"

struct guest;

struct window {
    uint64_t base, size; /* multiples of 4 KiB */
    /* One access of 1, 2, 4 or 8 bytes, `offset` from the base, all of it within one page. */
    uint64_t (*read)(struct guest *guest, uint64_t offset, unsigned bytes);
    void (*write)(struct guest *guest, uint64_t offset, unsigned bytes, uint64_t value);
};

#endif
