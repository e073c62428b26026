/*
 * Device windows of a guest: pieces of its physical address space whose every access goes to a
 * device (SLOT_DEVICE). What vm/ports.h is for ports.
 *
 * The instruction that reaches one is carried out by the backend (struct vm_backend.emulate), which
 * comes here for each access, in the order of the instruction. Guests with `pc` have them all; in
 * that of a device that is switched off writes are swallowed and reads are all ones.
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
    /* One access of 1, 2, 4 or 8 bytes, aligned, `offset` from the base. */
    uint64_t (*read)(struct guest *guest, uint64_t offset, unsigned bytes);
    void (*write)(struct guest *guest, uint64_t offset, unsigned bytes, uint64_t value);
};

/* Learns who answers where, as ports_init() does. */
void windows_init(void);

/* The window at a guest-physical address, and whose it is; NULL for none. */
struct device;
const struct window *window_at(gpa_t at, const struct device **device);

/* One access, as by an instruction. */
uint64_t window_read(struct guest *guest, gpa_t at, unsigned bytes);
void window_write(struct guest *guest, gpa_t at, unsigned bytes, uint64_t value);

/* Whether such a data access is one that a PC loses: where nothing is, a read is all ones; a write
 * there or to ROM changes nothing. And whether it is lost here, too (`stray=lost`). */
bool window_is_nobodys(const struct guest *guest, gpa_t at, unsigned access);
bool window_is_stray(const struct guest *guest, gpa_t at, unsigned access);

/* VM_EXIT_MEMORY in a slot of kind SLOT_DEVICE, or of what window_is_stray(): carries the
 * instruction out, or stops the guest with a sentence. */
void exit_window(struct guest *guest, const struct vm_exit *exit);

#endif
