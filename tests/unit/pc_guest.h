/*
 * A guest that is a PC, for tests of its devices through their ports.
 */
#ifndef QUIRE_TESTS_UNIT_PC_GUEST_H
#define QUIRE_TESTS_UNIT_PC_GUEST_H

#include <stdint.h>

#include "vm/guest.h"

extern struct guest *pc;

/* With the command line of the module; the guest has executed nothing. For cmocka: the plain one.
 */
int pc_set_up_with(const char *cmdline);
int pc_set_up(void **state);
int pc_tear_down(void **state);

void out8(uint16_t port, uint8_t value);
uint8_t in8(uint16_t port);
void out32(uint16_t port, uint32_t value);
uint32_t in32(uint16_t port);

/* Lets time pass as the guest's clock tells it, a little more rather than less, and the devices see
 * it. */
void pass_us(uint64_t microseconds);

/* Is an interrupt by this line asked for, and not taken? Takes it. */
void open_lines(void); /* initialises the controllers, every line open */
int take_irq(void);    /* the line of the interrupt that is taken, and ended; -1: there is none */

/* What the device shows of itself on the console. */
const char *shown(const char *device);

#endif
