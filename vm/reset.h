/*
 * A guest that resets its machine: it ends, or, with the option `reset=restart`, begins anew.
 */
#ifndef QUIRE_VM_RESET_H
#define QUIRE_VM_RESET_H

struct guest;

/* How often a guest begins anew by itself before it stays stopped. */
#define RESET_RESTARTS 8

/* The guest has asked for a reset through a device; `way` is for the reason: "port 0x64". Does
 * nothing to one that has ended. */
void guest_reset(struct guest *guest, const char *way);

/* Likewise, to be switched off, by `way`: "ACPI". It has passed. */
void guest_power_off(struct guest *guest, const char *way);

/* Of a guest that has just been finished: makes it anew if it ended by a reset and is to restart.
 */
void guest_restart(struct guest *guest);

#endif
