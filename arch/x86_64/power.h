/*
 * The end: switching the machine, or the emulator that plays it, off.
 */
#ifndef QUIRE_ARCH_POWER_H
#define QUIRE_ARCH_POWER_H

/*
 * Says so on the serial port, drains it, and ends the emulator with a status that says whether all
 * was well (0) or not (anything else):
 *   Bochs                   0: port 0x8a00 (exit status 0), else "Shutdown" to 0x8900 (status 1)
 *   QEMU isa-debug-exit     exit status 2 * status + 1
 *   QEMU or KVM without it  ACPI S5 (exit status 0)
 * On other machines it stops the CPU.
 */
_Noreturn void power_off(int status);

#endif
